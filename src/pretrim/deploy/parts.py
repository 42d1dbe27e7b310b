"""Parts of an output that hold values of different kinds, such as a detector's boxes and scores in one concatenation.

A network runs on one image, and beside each tensor goes one of labels: an operator that only moves values moves the
labels as well, a concatenation gives each operand labels of its own, elementwise operators keep them, and all others
drop them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
JOINING = (aten.cat.default, aten.stack.default)
MOVING = (
    aten.clone.default,
    aten._to_copy.default,
    aten.flip.default,
    aten.roll.default,
    aten.repeat.default,
    aten.index_select.default,
    aten.constant_pad_nd.default,
    aten.pixel_shuffle.default,
)
"""Operators that copy values to other places, beside the views"""
MOST = 64
"""Parts of one output: more are no longer a concatenation that someone wrote down"""


@dataclass(frozen=True)
class Region:
    """Where a part lies in an output.

    Attributes:
        output: number of the output.
        mask: which values of one image belong to it, of the output's shape without the batch.
        name: for messages: "channels 4 to 6".
    """

    output: int
    mask: NDArray[np.bool_]
    name: str


def parts_of(network: nn.Module, examples: Sequence[torch.Tensor]) -> tuple[Region, ...]:
    """The parts of each output that come from different operands of a concatenation; none for outputs of one kind.

    Args:
        network: in eval mode; it returns a tensor or a flat tuple of tensors.
        examples: one for each input, 1 x C x ...
    """
    with torch.no_grad(), _Labels() as labels:
        outputs = tree_leaves(network(*examples))
    return tuple(region for number, output in enumerate(outputs) for region in _regions(number, labels.of(output)))


def _regions(number: int, labels: torch.Tensor) -> list[Region]:
    plain = labels[0].numpy()
    found = np.unique(plain)
    if not 2 <= len(found) <= MOST:
        return []
    regions = [Region(number, plain == label, _name(plain == label)) for label in found]
    return sorted(regions, key=lambda region: int(region.mask.ravel().argmax()))


def _name(mask: NDArray[np.bool_]) -> str:
    """By the dimensions that a part does not fill.

    >>> _name(np.array([[False], [True], [True]]))
    'channels 1 to 2'
    """
    names = []
    for axis, size in enumerate(mask.shape):
        places = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        first, last = int(places[0]), int(places[-1])
        if len(places) < size:
            where = f"{first} to {last}" if last > first else f"{first}"
            plural = "s" if last > first else ""
            names.append(f"channel{plural} {where}" if axis == 0 else f"place{plural} {where} of dimension {axis + 1}")
    return ", ".join(names)


class _Labels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Labels of every tensor while a network runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._labels: dict[int, torch.Tensor] = {}
        self._alive: list[torch.Tensor] = []  # an identity is free again once its tensor is gone
        self._next = 1

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The labels of a tensor, of its shape; 0 everywhere for one of a single kind."""
        if id(tensor) not in self._labels:
            self._set(tensor, torch.zeros(tensor.shape, dtype=torch.int64))
        return self._labels[id(tensor)]

    def _set(self, tensor: torch.Tensor, labels: torch.Tensor) -> None:
        self._labels[id(tensor)] = labels
        self._alive.append(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        try:
            self._follow(func, args, kwargs, result)
        except (RuntimeError, TypeError, NotImplementedError):  # labels of other strides, or of another data type
            pass  # those of the result stay 0: it is taken for one kind
        return result

    def _follow(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        if func in JOINING:
            parts = [self._own(self.of(operand)) for operand in args[0]]
            self._set(result, func(parts, *args[1:], **kwargs))
        elif func._schema.name.endswith("_") and isinstance(result, torch.Tensor):
            self._written(args, result)
        elif func in MOVING or _is_view(func):
            self._move(func, args, kwargs, result)
        elif torch.Tag.pointwise in func.tags and isinstance(result, torch.Tensor):
            self._set(result, self._of_operands(args, result).clone())

    def _own(self, labels: torch.Tensor) -> torch.Tensor:
        """The same division into parts, with labels that nothing else has."""
        found, places = torch.unique(labels, return_inverse=True)
        self._next += len(found)
        own: torch.Tensor = places + (self._next - len(found))
        return own

    def _written(self, args: Any, result: torch.Tensor) -> None:
        """In place: what is written into a part of a tensor becomes a part of its own."""
        values = [self.of(value) for value in tree_leaves(args[1:]) if isinstance(value, torch.Tensor)]
        source = next((value for value in values if value.shape == result.shape), None)
        labels = self.of(result)
        labels.copy_(self._own(labels if source is None or not source.any() else source))

    def _move(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        moved = func(*tree_map(self._labels_of, args), **{k: v for k, v in kwargs.items() if k != "dtype"})
        for tensor, labels in zip(tree_leaves(result), tree_leaves(moved), strict=True):
            self._set(tensor, labels)

    def _labels_of(self, value: Any) -> Any:
        return self.of(value) if isinstance(value, torch.Tensor) else value

    def _of_operands(self, args: Any, result: torch.Tensor) -> torch.Tensor:
        """Those of the first operand that has parts: the others have none, or the same."""
        operands = [self.of(value) for value in tree_leaves(args) if isinstance(value, torch.Tensor)]
        whole = [labels for labels in operands if labels.shape == result.shape]
        found = next((labels for labels in whole if labels.any()), None)
        return torch.zeros(result.shape, dtype=torch.int64) if found is None else found


def _is_view(func: Any) -> bool:
    """Whether what an operator returns shares its memory with an argument."""
    return any(entry.alias_info is not None and not entry.alias_info.is_write for entry in func._schema.returns)

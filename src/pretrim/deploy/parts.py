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
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
JOINING = (aten.cat.default, aten.stack.default)
MOVING = (
    aten.clone.default,
    aten.flip.default,
    aten.roll.default,
    aten.repeat.default,
    aten.index_select.default,
    aten.constant_pad_nd.default,
    aten.pixel_shuffle.default,
)
"""Operators that copy values to other places, beside the views"""
LABEL = torch.int32
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
    """Labels of the values in memory while a network runs: what is not labelled is of one kind.

    They are kept for each piece of memory, so that every view of it has its labels without more ado.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memory: dict[int, torch.Tensor] = {}
        self._alive: list[torch.Tensor] = []  # an address is free again once its tensor is gone
        self._next = 1

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The labels of a tensor, of its shape; 0 everywhere for one of a single kind."""
        labels = self._find(tensor)
        return torch.zeros(tensor.shape, dtype=LABEL) if labels is None else labels

    def _find(self, tensor: torch.Tensor) -> torch.Tensor | None:
        memory = self._memory.get(tensor.untyped_storage().data_ptr())
        if memory is None:
            return None
        return memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def _set(self, tensor: torch.Tensor, labels: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._memory:
            self._memory[storage.data_ptr()] = torch.zeros(storage.nbytes() // tensor.element_size(), dtype=LABEL)
            self._alive.append(tensor)
        self.of(tensor).copy_(labels)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        operands = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        if func in JOINING:
            parts = [self._own(self.of(operand)) for operand in args[0]]
            self._set(result, func(parts, *args[1:], **kwargs))
        elif func in MOVING:
            if self._find(args[0]) is not None:
                self._set(result, func(self.of(args[0]), *args[1:]))
        elif func._schema.name.endswith("_") and isinstance(result, torch.Tensor):
            self._written(operands[1:], result)
        elif torch.Tag.pointwise in func.tags and isinstance(result, torch.Tensor):
            labels = self._of_operands(operands, result)
            if labels is not None:
                self._set(result, labels)
        return result

    def _own(self, labels: torch.Tensor) -> torch.Tensor:
        """The same division into parts, with labels that nothing else has."""
        found, places = torch.unique(labels, return_inverse=True)
        self._next += len(found)
        own: torch.Tensor = (places + (self._next - len(found))).to(LABEL)
        return own

    def _written(self, sources: Sequence[torch.Tensor], result: torch.Tensor) -> None:
        """In place: what is written into a part of the memory becomes a part of its own."""
        labels = self._of_operands(sources, result)
        is_part = result.numel() * result.element_size() < result.untyped_storage().nbytes()
        if labels is not None or is_part:
            self._set(result, self._own(self.of(result) if labels is None else labels))

    def _of_operands(self, operands: Sequence[torch.Tensor], result: torch.Tensor) -> torch.Tensor | None:
        """Those of the first operand of the result's shape that has any: the others have none, or the same."""
        found = (self._find(operand) for operand in operands if operand.shape == result.shape)
        return next((labels for labels in found if labels is not None), None)

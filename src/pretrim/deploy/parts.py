"""Find parts of an output with values of different kinds, such as a detector's boxes and scores in one concatenation.

The network runs on one image, with a tensor of labels for each tensor of values: an operator that only moves values
moves the labels too, a concatenation gives each operand new labels, elementwise operators keep labels, and all other
operators drop them.
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
"""Operators that only copy values to other positions, apart from views."""
LABEL_TYPE = torch.int32
MAX_PARTS = 64
"""Largest number of parts of one output; more than that are unlikely to come from a written concatenation."""


@dataclass(frozen=True)
class Region:
    """The region of an output that a part fills.

    Attributes:
        output: index of the output.
        mask: mask of the part's values in one image, in the output's shape without the batch dimension.
        name: name for messages, such as "channels 4 to 6".
    """

    output: int
    mask: NDArray[np.bool_]
    name: str


def parts_of(network: nn.Module, examples: Sequence[torch.Tensor]) -> tuple[Region, ...]:
    """The parts of each output that come from different operands of a concatenation; none for other outputs.

    Args:
        network: a module in eval mode that returns a tensor or a flat tuple of tensors.
        examples: one tensor for each input, 1 x C x ...
    """
    with torch.no_grad(), _Labels() as labels:
        outputs = tree_leaves(network(*examples))
    return tuple(region for number, output in enumerate(outputs) for region in _regions(number, labels.of(output)))


def _regions(number: int, labels: torch.Tensor) -> list[Region]:
    image_labels = labels[0].numpy()
    part_labels = np.unique(image_labels)
    if not 2 <= len(part_labels) <= MAX_PARTS:
        return []
    regions = [Region(number, image_labels == label, _name(image_labels == label)) for label in part_labels]
    return sorted(regions, key=lambda region: int(region.mask.ravel().argmax()))


def _name(mask: NDArray[np.bool_]) -> str:
    """Name a part by the dimensions that it fills only partly.

    >>> _name(np.array([[False], [True], [True]]))
    'channels 1 to 2'
    """
    names = []
    for axis, size in enumerate(mask.shape):
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        first, last = int(filled[0]), int(filled[-1])
        if len(filled) < size:
            indices = f"{first} to {last}" if last > first else f"{first}"
            plural = "s" if last > first else ""
            names.append(
                f"channel{plural} {indices}" if axis == 0 else f"place{plural} {indices} of dimension {axis + 1}"
            )
    return ", ".join(names)


class _Labels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks labels of tensor values while a network runs; a tensor without labels has values of a single kind.

    Labels are kept for each storage, so that all views of a storage share them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memory: dict[int, torch.Tensor] = {}
        self._alive: list[torch.Tensor] = []  # keeps storage addresses from being reused
        self._next = 1

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The labels of a tensor, in its shape; all 0 for a tensor without labels."""
        labels = self._find(tensor)
        return torch.zeros(tensor.shape, dtype=LABEL_TYPE) if labels is None else labels

    def _find(self, tensor: torch.Tensor) -> torch.Tensor | None:
        memory = self._memory.get(tensor.untyped_storage().data_ptr())
        if memory is None:
            return None
        return memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def _set(self, tensor: torch.Tensor, labels: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._memory:
            self._memory[storage.data_ptr()] = torch.zeros(storage.nbytes() // tensor.element_size(), dtype=LABEL_TYPE)
            self._alive.append(tensor)
        self.of(tensor).copy_(labels)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        operands = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        if func in JOINING:
            parts = [self._fresh_labels(self.of(operand)) for operand in args[0]]
            self._set(result, func(parts, *args[1:], **kwargs))
        elif func in MOVING:
            if self._find(args[0]) is not None:
                self._set(result, func(self.of(args[0]), *args[1:]))
        elif func._schema.name.endswith("_") and isinstance(result, torch.Tensor):
            self._label_in_place(operands[1:], result)
        elif torch.Tag.pointwise in func.tags and isinstance(result, torch.Tensor):
            labels = self._of_operands(operands, result)
            if labels is not None:
                self._set(result, labels)
        return result

    def _fresh_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Replace the labels of a tensor by new, unused ones with the same division into parts."""
        distinct, indices = torch.unique(labels, return_inverse=True)
        self._next += len(distinct)
        fresh: torch.Tensor = (indices + (self._next - len(distinct))).to(LABEL_TYPE)
        return fresh

    def _label_in_place(self, sources: Sequence[torch.Tensor], result: torch.Tensor) -> None:
        """Label the result of an in-place operator: values written into part of a storage become a separate part."""
        labels = self._of_operands(sources, result)
        is_part = result.numel() * result.element_size() < result.untyped_storage().nbytes()
        if labels is not None or is_part:
            self._set(result, self._fresh_labels(self.of(result) if labels is None else labels))

    def _of_operands(self, operands: Sequence[torch.Tensor], result: torch.Tensor) -> torch.Tensor | None:
        """Labels of the first labelled operand with the result's shape; any others are taken to have the same."""
        candidates = (self._find(operand) for operand in operands if operand.shape == result.shape)
        return next((labels for labels in candidates if labels is not None), None)

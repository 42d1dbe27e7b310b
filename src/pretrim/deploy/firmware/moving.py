"""Layers that only move values: padding, transposition, slicing, reshaping, concatenation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .ctext import Value
from .layer import RANK, Layer, activations, check_sizes, extended, layer, place, title, unsupported
from .model import Step


def padding(step: Step, name: str) -> Layer:
    """PAD, which fills with the zero point, and PADV2, which has its own fill value."""
    source, output = step.reads(0), step.output
    if len(source.shape) > RANK:
        raise unsupported(step, f"{len(source.shape)} dimensions")
    check_sizes(step, output.shape)
    before = step.constant(1).reshape(-1, 2)[:, 0].tolist()
    value = int(step.constant(2).ravel()[0]) if step.operator == "PADV2" else output.zero
    fields: dict[str, Value] = {
        "input": extended(source.shape, 1),
        "output": extended(output.shape, 1),
        "before": extended(before, 0),
        "value": value,
    }
    return layer("nn_padding", name, fields, step, "nn_pad", {})


def transposition(step: Step, name: str) -> Layer:
    """TRANSPOSE of up to four dimensions, where dimensions that stay adjacent in order count as one."""
    source = step.reads(0)
    order = [int(axis) for axis in step.constant(1).ravel()]
    sizes, strides = merged(step.output.shape, [math.prod(source.shape[axis + 1 :]) for axis in order])
    if len(sizes) > RANK:
        raise unsupported(step, f"{len(sizes)} dimensions")
    fields: dict[str, Value] = {"output": extended(sizes, 1), "stride": extended(strides, 0)}
    return layer("nn_permutation", name, fields, step, "nn_transpose", {})


def merged(sizes: Sequence[int], strides: Sequence[int]) -> tuple[list[int], list[int]]:
    """Merge the dimensions of a strided copy: drop those of size 1, and join adjacent ones where the strides allow.

    Args:
        sizes: sizes of the output.
        strides: stride of the input along each dimension of the output.

    >>> merged((1, 4, 2, 5, 5), (200, 25, 100, 5, 1))
    ([4, 2, 25], [25, 100, 1])
    """
    dimensions: list[tuple[int, int]] = []
    for size, stride in zip(sizes, strides, strict=True):
        if dimensions and dimensions[-1][1] == size * stride:
            dimensions[-1] = (dimensions[-1][0] * size, stride)
        elif size > 1:
            dimensions.append((size, stride))
    return [size for size, _ in dimensions], [stride for _, stride in dimensions]


def slicing(step: Step, name: str) -> Layer:
    """SLICE of up to four dimensions: a copy along the input's strides, from the slice's first element."""
    source, output = step.reads(0), step.output
    if len(source.shape) > RANK:
        raise unsupported(step, f"{len(source.shape)} dimensions")
    strides = [math.prod(source.shape[axis + 1 :]) for axis in range(len(source.shape))]
    begin = sum(int(start) * stride for start, stride in zip(step.constant(1).ravel(), strides, strict=True))
    fields: dict[str, Value] = {"output": extended(output.shape, 1), "stride": extended(strides, 0)}
    permutation = layer("nn_permutation", name, fields, step, "nn_transpose", {})
    return replace(permutation, call=f"nn_transpose(&{name}, {place(source)} + {begin}, {place(output)});")


def reshaping(step: Step, name: str) -> Layer:
    """RESHAPE: a copy."""
    size = step.output.size
    return Layer(title(step), (), f"nn_copy_rows({_source_and_target(step)}, 1, {size}, {size});", 0)


def concatenation(step: Step, name: str) -> Layer:
    """CONCATENATION along any axis, of parts with the output's scale and zero point."""
    output, parts = step.output, activations(step)
    if len(parts) != len(step.inputs) or step.options.fusedActivationFunction:
        raise unsupported(step, "constants or an activation")
    if any((part.scale, part.zero) != (output.scale, output.zero) for part in parts):
        raise unsupported(step, "inputs of different scales")
    axis = step.options.axis % len(output.shape)
    rows, inner = math.prod(output.shape[:axis]), math.prod(output.shape[axis + 1 :])
    starts = np.cumsum([0, *(part.shape[axis] * inner for part in parts)])
    calls = [
        f"nn_copy_rows({place(part)}, {place(output)} + {start}, {rows}, {part.shape[axis] * inner}, "
        f"{output.shape[axis] * inner});"
        for part, start in zip(parts, starts, strict=False)
    ]
    return Layer(title(step), (), "\n    ".join(calls), 0)


def _source_and_target(step: Step) -> str:
    return f"{place(step.reads(0))}, {place(step.output)}"

"""Layers that only move values: padding, other shapes and orders, concatenation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .ctext import Value
from .layer import Layer, activations, check_sizes, layer, place, title, unsupported
from .model import Step

RANK = 4


def padding(step: Step, name: str) -> Layer:
    """PAD with the zero point, PADV2 with a value of its own."""
    source, output = step.reads(0), step.output
    if len(source.shape) > RANK:
        raise unsupported(step, f"{len(source.shape)} dimensions")
    check_sizes(step, output.shape)
    before = step.constant(1).reshape(-1, 2)[:, 0].tolist()
    value = int(step.constant(2).ravel()[0]) if step.operator == "PADV2" else output.zero
    fields: dict[str, Value] = {
        "input": _extended(source.shape, 1),
        "output": _extended(output.shape, 1),
        "before": _extended(before, 0),
        "value": value,
    }
    return layer("nn_padding", name, fields, step, "nn_pad", {})


def transposition(step: Step, name: str) -> Layer:
    """TRANSPOSE of up to four dimensions."""
    source = step.reads(0)
    order = [int(axis) for axis in step.constant(1).ravel()]
    if len(order) > RANK:
        raise unsupported(step, f"{len(order)} dimensions")
    strides = [math.prod(source.shape[axis + 1 :]) for axis in order]
    fields: dict[str, Value] = {"output": _extended(step.output.shape, 1), "stride": _extended(strides, 0)}
    return layer("nn_permutation", name, fields, step, "nn_transpose", {})


def reshaping(step: Step, name: str) -> Layer:
    """RESHAPE: a copy."""
    size = step.output.size
    return Layer(title(step), (), f"nn_copy_rows({_ends(step)}, 1, {size}, {size});", 0)


def concatenation(step: Step, name: str) -> Layer:
    """CONCATENATION along any axis, of parts with the output's scale."""
    output, parts = step.output, activations(step)
    if len(parts) != len(step.inputs) or step.options.fusedActivationFunction:
        raise unsupported(step, "constants or an activation")
    if any((part.scale, part.zero) != (output.scale, output.zero) for part in parts):
        raise unsupported(step, "parts of several scales")
    axis = step.options.axis % len(output.shape)
    rows, inner = math.prod(output.shape[:axis]), math.prod(output.shape[axis + 1 :])
    starts = np.cumsum([0, *(part.shape[axis] * inner for part in parts)])
    calls = [
        f"nn_copy_rows({place(part)}, {place(output)} + {start}, {rows}, {part.shape[axis] * inner}, "
        f"{output.shape[axis] * inner});"
        for part, start in zip(parts, starts, strict=False)
    ]
    return Layer(title(step), (), "\n    ".join(calls), 0)


def _ends(step: Step) -> str:
    return f"{place(step.reads(0))}, {place(step.output)}"


def _extended(sizes: Sequence[int], fill: int) -> list[int]:
    """Four numbers, with the missing ones before.

    >>> _extended([5, 7], 1)
    [1, 1, 5, 7]
    """
    return [fill] * (RANK - len(sizes)) + [int(size) for size in sizes]

"""Elementwise layers: sums, products, rescaling, and activations that were not fused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .arithmetic import factor, output_range
from .ctext import Value
from .layer import RANK, Layer, extended, factor_fields, layer, range_fields, unsupported
from .model import Step

ADDITION_BITS = 20
"""Left shift of the operands of an addition, as in kernels.c."""
ACTIVATIONS = {"QUANTIZE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}
"""The fused activation with the same limits, by operator."""


def addition(step: Step, name: str) -> Layer:
    """ADD and SUB of two tensors, one of which may be broadcast or constant."""
    first, second, output = step.reads(0), step.reads(1), step.output
    twice_largest = 2 * max(first.scale, second.scale)
    limits = output_range(step.options.fusedActivationFunction, output.scale, output.zero)
    second_factor = factor(second.scale / twice_largest)
    if step.operator == "SUB":
        second_factor = replace(second_factor, multiplier=-second_factor.multiplier)
    fields: dict[str, Value] = {
        "pairing": _pairing(step),
        "first_zero": first.zero,
        "second_zero": second.zero,
        "range": range_fields(limits),
        "first": factor_fields(factor(first.scale / twice_largest)),
        "second": factor_fields(second_factor),
        "sum": factor_fields(factor(twice_largest / (2**ADDITION_BITS * output.scale))),
    }
    return layer("nn_addition", name, fields, step, "nn_add", {}, operands=(0, 1))


def multiplication(step: Step, name: str) -> Layer:
    """MUL of two tensors, one of which may be broadcast or constant."""
    first, second, output = step.reads(0), step.reads(1), step.output
    limits = output_range(step.options.fusedActivationFunction, output.scale, output.zero)
    product = np.float32(first.scale) * np.float32(second.scale) / np.float32(output.scale)
    fields: dict[str, Value] = {
        "pairing": _pairing(step),
        "first_zero": first.zero,
        "second_zero": second.zero,
        "range": range_fields(limits),
        "factor": factor_fields(factor(float(product))),
    }
    return layer("nn_multiplication", name, fields, step, "nn_multiply", {}, operands=(0, 1))


def _pairing(step: Step) -> dict[str, Value]:
    """The fields of `nn_pairing`. Tensors of equal shape are treated as one row."""
    first, second, output = step.reads(0), step.reads(1), step.output
    if first.shape == second.shape:
        return {"size": [1, 1, 1, output.size], "first": [0, 0, 0, 1], "second": [0, 0, 0, 1]}
    if (rank := max(len(tensor.shape) for tensor in (first, second, output))) > RANK:
        raise unsupported(step, f"{rank} dimensions")
    return {
        "size": extended(output.shape, 1),
        "first": _strides(extended(first.shape, 1)),
        "second": _strides(extended(second.shape, 1)),
    }


def _strides(shape: Sequence[int]) -> list[int]:
    """The stride of each dimension; 0 for dimensions of size 1, along which a tensor is broadcast.

    >>> _strides([1, 4, 1, 3])
    [0, 3, 0, 1]
    """
    return [0 if size == 1 else math.prod(shape[axis + 1 :]) for axis, size in enumerate(shape)]


def rescaling(step: Step, name: str) -> Layer:
    """QUANTIZE from int8 to int8, and RELU, RELU_N1_TO_1 and RELU6 as operators of their own."""
    source, output = step.reads(0), step.output
    limits = output_range(ACTIVATIONS[step.operator], output.scale, output.zero)
    fields: dict[str, Value] = {
        "count": output.size,
        "input_zero": source.zero,
        "range": range_fields(limits),
        "factor": factor_fields(factor(source.scale / output.scale)),
    }
    return layer("nn_rescaling", name, fields, step, "nn_rescale", {})

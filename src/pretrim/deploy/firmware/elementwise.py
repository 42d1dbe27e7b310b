"""Layers that take element by element: sums, other scales, activations that were not fused."""

from __future__ import annotations

from .arithmetic import factor, output_range
from .ctext import Value
from .layer import Layer, activations, factor_fields, layer, range_fields, unsupported
from .model import Step

ADDITION_BITS = 20
"""As in kernels.c"""
ACTIVATIONS = {"QUANTIZE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}
"""By operator, the fused activation that has its limits"""


def addition(step: Step, name: str) -> Layer:
    """ADD of two activations of one shape."""
    first, second, output = step.reads(0), step.reads(1), step.output
    if first.shape != second.shape:
        raise unsupported(step, "operands of two shapes")
    if len(activations(step)) != 2:
        raise unsupported(step, "a constant operand")
    twice_largest = 2 * max(first.scale, second.scale)
    limits = output_range(step.options.fusedActivationFunction, output.scale, output.zero)
    fields: dict[str, Value] = {
        "count": output.size,
        "first_zero": first.zero,
        "second_zero": second.zero,
        "range": range_fields(limits),
        "first": factor_fields(factor(first.scale / twice_largest)),
        "second": factor_fields(factor(second.scale / twice_largest)),
        "sum": factor_fields(factor(twice_largest / (2**ADDITION_BITS * output.scale))),
    }
    return layer("nn_addition", name, fields, step, "nn_add", {})


def rescaling(step: Step, name: str) -> Layer:
    """QUANTIZE from int8 to int8, and RELU, RELU_N1_TO_1 and RELU6 that stand alone."""
    source, output = step.reads(0), step.output
    limits = output_range(ACTIVATIONS[step.operator], output.scale, output.zero)
    fields: dict[str, Value] = {
        "count": output.size,
        "input_zero": source.zero,
        "range": range_fields(limits),
        "factor": factor_fields(factor(source.scale / output.scale)),
    }
    return layer("nn_rescaling", name, fields, step, "nn_rescale", {})

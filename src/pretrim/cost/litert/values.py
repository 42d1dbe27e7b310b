"""Rules for elementwise functions, sums and products: fused into the operator before, one operator, or several."""

from __future__ import annotations

from dataclasses import replace

from pretrim.analysis.network import Operator

from .follow import ACTIVATIONS, CONVOLUTIONS, FUSES, Follow, one_operator, read_tables
from .layers import ACTIVATED_SIGNAL
from .lowering import Lowering, Value

FLOAT_IN_INT8 = frozenset({"leaky_relu"})
"""Operators that LiteRT's quantiser leaves in float32, between a DEQUANTIZE and a QUANTIZE."""
RELU6 = (0.0, 6.0)
"""Bounds of ReLU6; where it is not fused into an operator before it, the quantiser leaves it in float32 too."""


def elementwise(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for a sum or product: all operands get the same layout. The bias of a matrix product is fused into it."""
    low = follow.low
    if _is_bias(low, operator, values):
        return [replace(values[0], dims=follow.dims(operator))]
    if any(value.is_image for value in values):
        values = [low.as_image(value, operator) for value in values]
    read_tables(low, operator)
    if isinstance(number := operator.attributes.get("other"), int | float):
        low.number(("number", number))
    largest = max(values, key=lambda value: len(value.dims) or 9)
    output = one_operator(follow, operator, *values)
    return [replace(largest, activation=output.activation, dims=output.dims)]


def _is_bias(low: Lowering, operator: Operator, values: list[Value]) -> bool:
    """Whether an operator adds a parameter, the bias, to a matrix product."""
    made_by = low.made_by[values[0].activation]
    return operator.op == "add" and len(values) == 1 and made_by in {"mm", "linear"} and len(operator.parameters) == 1


def function(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for functions of one input: ReLU, ReLU6 and the like are fused into the operator before where possible."""
    low, value = follow.low, values[0]
    is_done = low.made_by[value.activation] == ACTIVATED_SIGNAL and operator.op in ACTIVATIONS
    if is_done or _is_fused_activation(low, operator, value):
        low.made_by[value.activation] = "activated"
        return [value]
    if low.dtype == "int8" and (operator.op in FLOAT_IN_INT8 or _bounds(operator) == RELU6):
        return [_in_float(low, operator, value)]
    return [one_operator(follow, operator, value)]


def _is_fused_activation(low: Lowering, operator: Operator, value: Value) -> bool:
    """Whether LiteRT fuses an activation function into the operator that writes its input."""
    is_fusable = operator.fused_into is not None or not operator.writes
    is_supported = operator.op in ACTIVATIONS or _bounds(operator) in (RELU6, (-1.0, 1.0))
    follows_fusing = low.made_by[value.activation] in FUSES
    return is_supported and is_fusable and follows_fusing and not _is_separate(low, operator, value)


def _is_separate(low: Lowering, operator: Operator, value: Value) -> bool:
    """Whether an activation function other than ReLU follows a transposed convolution, which can only fuse a ReLU."""
    producer = low.nodes[low.births[value.activation]].operator
    return bool(producer.attributes.get("transposed")) and operator.op not in ACTIVATIONS


def _bounds(operator: Operator) -> tuple[float, float] | None:
    """Bounds of a hardtanh, which clips its input to them; None for other operators."""
    attributes = operator.attributes
    return (attributes["min_val"], attributes["max_val"]) if operator.op == "hardtanh" else None


def _in_float(low: Lowering, operator: Operator, value: Value) -> Value:
    """Append an operator in float32, between a DEQUANTIZE and a QUANTIZE."""
    activation, (factor, dims) = value.activation, low.elements[value.activation]
    for kind, width in (("dequantize", 4.0), (operator.op, 4.0), ("quantize", 1.0)):
        activation = low.step(kind, operator, activation, elements=(width * factor, dims))
    return replace(value, activation=activation)


def silu(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for SiLU: a sigmoid and a product."""
    low, source = follow.low, values[0].activation
    gate = low.step("sigmoid", operator, source, elements=low.elements[source])
    return [replace(values[0], activation=low.step("mul", operator, source, gate, elements=low.elements[source]))]


def gate(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for a gated linear unit: one half of the channels times the sigmoid of the other half."""
    low, source, half = follow.low, values[0].activation, (1.0, follow.dims(operator))
    low.constant(("slice size", operator.module), 4)
    halves = []
    for number in range(2):
        low.constant(("slice", operator.module, number), 4)
        halves.append(low.step("slice", operator, source, elements=half))
    gate = low.step("sigmoid", operator, halves[1], elements=half)
    output = low.step("mul", operator, halves[0], gate, elements=half)
    return [replace(values[0], activation=output, dims=half[1])]


def hard_sigmoid(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for the hard sigmoid, ReLU6(x + 3) / 6.

    A convolution before it absorbs the sum and the ReLU6, and a convolution after it absorbs the factor 1/6.
    """
    low, value = follow.low, values[0]
    if low.made_by[value.activation] not in CONVOLUTIONS:
        low.number(("number", 3.0))
        value = one_operator(follow, operator, value, kind="add")
    readers = follow.readers.get((operator.writes or operator.reads)[0], [])
    if len(readers) == 1 and readers[0].op == "convolution":
        return [value]
    low.number(("number", 1 / 6))
    return [one_operator(follow, operator, value, kind="mul")]


def prelu(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for PReLU, written as ReLU(x) - slope * (-x): the converter does not use LiteRT's PRELU operator."""
    low, value = follow.low, values[0]
    positive = one_operator(follow, operator, value, kind="relu")
    low.number(("number", -1.0))
    read_tables(low, operator)
    negative = one_operator(follow, operator, one_operator(follow, operator, value, kind="mul"), kind="mul")
    return [one_operator(follow, operator, positive, negative, kind="sub")]

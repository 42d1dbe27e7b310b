"""Functions value by value, sums and products: a part of the operator before, one of their own, or several."""

from __future__ import annotations

from dataclasses import replace

from pretrim.analysis.network import Operator

from .follow import ACTIVATIONS, CONVOLUTIONS, FUSES, Follow, one_operator, read_tables
from .layers import ACTIVATED_SIGNAL
from .lowering import Lowering, Value

FLOAT_IN_INT8 = frozenset({"leaky_relu"})
"""Operators that LiteRT's quantiser leaves in float32, between a copy to it and one back"""
RELU6 = (0.0, 6.0)
"""Its bounds; where no operator before computes it, the quantiser leaves it in float32, too"""


def elementwise(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """A sum or product; all its operands lie in one order. A bias that follows a matrix product is a part of it."""
    low = follow.low
    if _is_bias(low, operator, values):
        return [replace(values[0], dims=follow.dims(operator))]
    if any(value.is_image for value in values):
        values = [low.as_image(value, operator) for value in values]
    read_tables(low, operator)
    if isinstance(number := operator.attributes.get("other"), int | float):
        low.number(("number", number))
    largest = max(values, key=lambda value: len(value.dims) or 9)
    made = one_operator(follow, operator, *values)
    return [replace(largest, activation=made.activation, dims=made.dims)]


def _is_bias(low: Lowering, operator: Operator, values: list[Value]) -> bool:
    made_by = low.made_by[values[0].activation]
    return operator.op == "add" and len(values) == 1 and made_by in {"mm", "linear"} and len(operator.parameters) == 1


def function(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """ReLU, ReLU6 and the like become a part of the operator before; other functions are operators."""
    low, value = follow.low, values[0]
    is_done = low.made_by[value.activation] == ACTIVATED_SIGNAL and operator.op in ACTIVATIONS
    if is_done or _is_fused_activation(low, operator, value):
        low.made_by[value.activation] = "activated"
        return [value]
    if low.dtype == "int8" and (operator.op in FLOAT_IN_INT8 or _bounds(operator) == RELU6):
        return [_in_float(low, operator, value)]
    return [one_operator(follow, operator, value)]


def _is_fused_activation(low: Lowering, operator: Operator, value: Value) -> bool:
    alone = operator.fused_into is not None or not operator.writes
    is_one = operator.op in ACTIVATIONS or _bounds(operator) in (RELU6, (-1.0, 1.0))
    return is_one and alone and low.made_by[value.activation] in FUSES and not _is_apart(low, operator, value)


def _is_apart(low: Lowering, operator: Operator, value: Value) -> bool:
    """Whether it is a ReLU6 behind a transposed convolution, which only computes a ReLU."""
    before = low.nodes[low.births[value.activation]].operator
    return bool(before.attributes.get("transposed")) and operator.op not in ACTIVATIONS


def _bounds(operator: Operator) -> tuple[float, float] | None:
    """Of a function that is the identity between two values."""
    given = operator.attributes
    return (given["min_val"], given["max_val"]) if operator.op == "hardtanh" else None


def _in_float(low: Lowering, operator: Operator, value: Value) -> Value:
    """One operator in float32 between a copy to it and one back."""
    activation, (factor, dims) = value.activation, low.elements[value.activation]
    for kind, width in (("dequantize", 4.0), (operator.op, 4.0), ("quantize", 1.0)):
        activation = low.step(kind, operator, activation, elements=(width * factor, dims))
    return replace(value, activation=activation)


def silu(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """A sigmoid and a product."""
    low, source = follow.low, values[0].activation
    gate = low.step("sigmoid", operator, source, elements=low.elements[source])
    return [replace(values[0], activation=low.step("mul", operator, source, gate, elements=low.elements[source]))]


def gate(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """One half of the channels, times the sigmoid of the other."""
    low, source, half = follow.low, values[0].activation, (1.0, follow.dims(operator))
    low.constant(("slice size", operator.module), 4)
    halves = []
    for number in range(2):
        low.constant(("slice", operator.module, number), 4)
        halves.append(low.step("slice", operator, source, elements=half))
    gate = low.step("sigmoid", operator, halves[1], elements=half)
    made = low.step("mul", operator, halves[0], gate, elements=half)
    return [replace(values[0], activation=made, dims=half[1])]


def hard_sigmoid(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """ReLU6(x + 3) / 6: the sum and ReLU6 go into a convolution before, the sixth into one that follows."""
    low, value = follow.low, values[0]
    if low.made_by[value.activation] not in CONVOLUTIONS:
        low.number(("number", 3.0))
        value = one_operator(follow, operator, value, kind="add")
    after = follow.readers.get((operator.writes or operator.reads)[0], [])
    if len(after) == 1 and after[0].op == "convolution":
        return [value]
    low.number(("number", 1 / 6))
    return [one_operator(follow, operator, value, kind="mul")]


def prelu(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """ReLU(x) - slope * (-x): LiteRT has an operator for it, which the converter does not use."""
    low, value = follow.low, values[0]
    positive = one_operator(follow, operator, value, kind="relu")
    low.number(("number", -1.0))
    read_tables(low, operator)
    negative = one_operator(follow, operator, one_operator(follow, operator, value, kind="mul"), kind="mul")
    return [one_operator(follow, operator, positive, negative, kind="sub")]

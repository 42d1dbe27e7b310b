"""Rules for slices of tensors and for concatenations."""

from __future__ import annotations

from dataclasses import replace

from pretrim.analysis.network import Operator

from .follow import PADS, PARTS, POOLS, RESHAPES, Follow, cut, one_operator, read_tables
from .layers import explicit_padding
from .lowering import Lowering, Value

SAME_SCALE = frozenset({"pad", "transpose", "reshape", "slice", "max_pool2d_with_indices"})
"""LiteRT operators whose int8 output has the scale of their input: before a concatenation it is requantised."""
STARTS_WITH_SAME_SCALE = POOLS | RESHAPES | PARTS | PADS | {"permute", "transpose"}
"""Operators of the network whose first LiteRT operator is one of `SAME_SCALE`."""


def cat(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for a concatenation; in int8, inputs whose scale differs from the output's are requantised first."""
    low = follow.low
    if operator.writes and operator.writes[0] in follow.rejoined.joined:
        return [_rejoined(follow, operator, values[0])]
    if any(value.is_image for value in values):
        values = [low.as_image(value, operator) for value in values]
    read_tables(low, operator)
    if low.dtype == "int8" and not _are_one_tensor(low, values):
        values = [
            _requantised(low, operator, value) if _has_own_scale(follow, buffer, value) else value
            for buffer, value in zip(operator.reads, values, strict=False)
        ]
    return [one_operator(follow, operator, *values)]


def _rejoined(follow: Follow, operator: Operator, source: Value) -> Value:
    """The result of joining adjacent parts of a tensor again: the tensor itself, or one slice of it."""
    low, dims, part = follow.low, follow.dims(operator), follow.rejoined.parts[operator.writes[0]]
    if not source.dims or low.size(source.dims[part.dim]) == part.size:
        return replace(source, dims=dims)
    return cut(follow, source, dims, operator, (part.dim, part.start))


def _are_one_tensor(low: Lowering, values: list[Value]) -> bool:
    """Whether the values together are all of one tensor, so that their concatenation has its range and its scale."""
    parts = {value.activation for value in values}
    sources = {_scale_source(low, part) for part in parts}
    elements = [sum(low.items(low.elements[number]) for number in numbers) for numbers in (parts, sources)]
    return len(sources) == 1 and elements[0] == elements[1]


def _scale_source(low: Lowering, activation: int) -> int:
    """The activation whose int8 scale an activation has: itself, or the one it was sliced, moved or padded from."""
    while low.made_by[activation] in SAME_SCALE and low.nodes[low.births[activation]].reads:
        activation = low.nodes[low.births[activation]].reads[0]
    return activation


def _has_own_scale(follow: Follow, buffer: int, value: Value) -> bool:
    """Whether an input of a concatenation keeps its own int8 scale, since its writer or another reader fixes it."""
    low = follow.low
    if low.made_by[value.activation] in SAME_SCALE:
        return True
    return any(_starts_with_same_scale(low, reader, value) for reader in follow.readers.get(buffer, ()))


def _starts_with_same_scale(low: Lowering, operator: Operator, value: Value) -> bool:
    """Whether the first LiteRT operator that an operator becomes keeps the scale of its input."""
    if operator.op == "convolution" and operator.weight and value.is_image:
        return explicit_padding(low, operator, value) is not None
    return operator.op in STARTS_WITH_SAME_SCALE


def _requantised(low: Lowering, operator: Operator, value: Value) -> Value:
    """The value after a QUANTIZE operator."""
    requantised = low.step("quantize", operator, value.activation, elements=low.elements[value.activation])
    return replace(value, activation=requantised)


def parts(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for splits and slices: one SLICE for each part that is read."""
    outputs = []
    for buffer, dims in zip(operator.writes, operator.outputs, strict=False):
        is_needed = buffer in follow.read and buffer not in follow.rejoined.dropped
        part = follow.rejoined.parts.get(buffer)
        start = ("of", buffer) if part is None else (part.dim, part.start)
        outputs.append(cut(follow, values[0], dims, operator, start) if is_needed else values[0])
    return outputs

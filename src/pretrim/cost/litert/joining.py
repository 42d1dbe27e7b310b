"""Parts of tensors, and tensors made of parts."""

from __future__ import annotations

from dataclasses import replace

from pretrim.analysis.network import Operator

from .follow import PADS, PARTS, POOLS, RESHAPES, Follow, cut, one_operator, read_tables
from .layers import explicit_padding
from .lowering import Lowering, Value

SAME_SCALE = frozenset({"pad", "transpose", "reshape", "slice", "max_pool2d_with_indices"})
"""Operators of int8 whose output has the scale of their input: what is joined with others is scaled anew"""
BEFORE = POOLS | RESHAPES | PARTS | PADS | {"permute", "transpose"}
"""Operators of the network that begin with one of those"""


def cat(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """In int8, parts of another scale than the whole are scaled anew."""
    low = follow.low
    if operator.writes and operator.writes[0] in follow.rejoined.joined:
        return [_rejoined(follow, operator, values[0])]
    if any(value.is_image for value in values):
        values = [low.as_image(value, operator) for value in values]
    read_tables(low, operator)
    if low.dtype == "int8" and not _are_one_tensor(low, values):
        values = [
            _scaled_anew(low, operator, value) if _has_own_scale(follow, buffer, value) else value
            for buffer, value in zip(operator.reads, values, strict=False)
        ]
    return [one_operator(follow, operator, *values)]


def _rejoined(follow: Follow, operator: Operator, whole: Value) -> Value:
    """What is put together of parts that lie side by side: the tensor that they are of, or one part of it."""
    low, dims, part = follow.low, follow.dims(operator), follow.rejoined.parts[operator.writes[0]]
    if not whole.dims or low.size(whole.dims[part.dim]) == part.size:
        return replace(whole, dims=dims)
    return cut(follow, whole, dims, operator, (part.dim, part.start))


def _are_one_tensor(low: Lowering, values: list[Value]) -> bool:
    """Whether they are all parts of one tensor, so that what they make together has its range, and so its scale."""
    parts = {value.activation for value in values}
    wholes = {_whole(low, part) for part in parts}
    elements = [sum(low.items(low.elements[number]) for number in numbers) for numbers in (parts, wholes)]
    return len(wholes) == 1 and elements[0] == elements[1]


def _whole(low: Lowering, activation: int) -> int:
    """The activation whose scale one has in int8: itself, or what it was cut from, moved or padded."""
    while low.made_by[activation] in SAME_SCALE and low.nodes[low.births[activation]].reads:
        activation = low.nodes[low.births[activation]].reads[0]
    return activation


def _has_own_scale(follow: Follow, buffer: int, value: Value) -> bool:
    low = follow.low
    if low.made_by[value.activation] in SAME_SCALE:
        return True
    return any(_begins_with_same_scale(low, each, value) for each in follow.readers.get(buffer, ()))


def _begins_with_same_scale(low: Lowering, operator: Operator, value: Value) -> bool:
    if operator.op == "convolution" and operator.weight and value.is_image:
        return explicit_padding(low, operator, value) is not None
    return operator.op in BEFORE


def _scaled_anew(low: Lowering, operator: Operator, value: Value) -> Value:
    made = low.step("quantize", operator, value.activation, elements=low.elements[value.activation])
    return replace(value, activation=made)


def parts(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """A slice of its own for each part that is read."""
    found = []
    for buffer, dims in zip(operator.writes, operator.outputs, strict=False):
        is_made = buffer in follow.read and buffer not in follow.rejoined.dropped
        part = follow.rejoined.parts.get(buffer)
        start = ("of", buffer) if part is None else (part.dim, part.start)
        found.append(cut(follow, values[0], dims, operator, start) if is_made else values[0])
    return found

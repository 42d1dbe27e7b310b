"""Rules for reshapes, permutations and shuffles: the same values in another shape or order."""

from __future__ import annotations

from dataclasses import replace

from pretrim.analysis.network import Operator

from .follow import DENSE, Follow, one_operator
from .lowering import Lowering, Value


def view(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for a reshape: none is needed for a linear layer; elsewhere the tensor is reshaped in PyTorch's layout."""
    low, value, dims = follow.low, values[0], follow.dims(operator)
    if _is_signal_as_image(low, value, dims) or _same_sizes(low, value, dims):
        return [replace(value, dims=dims) if value.dims else value]
    value = low.as_torch(value, operator)
    if _is_mean_without_places(low, value, dims):
        return [replace(value, dims=dims, is_flat=True)]
    if _is_for_linear(follow, operator, value):
        return [replace(value, dims=dims)]
    return [low.reshaped(value, operator, dims) if not value.is_flat or value.is_image else replace(value, dims=dims)]


def _is_signal_as_image(low: Lowering, value: Value, dims: tuple[int, ...]) -> bool:
    """Whether a signal is only viewed as an image of height 1, or back, as 1-D pools do."""
    sizes = [[low.size(dim) for dim in shape if low.size(dim) != 1] for shape in (value.dims, dims)]
    return value.is_image and {len(value.dims), len(dims)} == {3, 4} and sizes[0] == sizes[1]


def _same_sizes(low: Lowering, value: Value, dims: tuple[int, ...]) -> bool:
    return [low.size(dim) for dim in value.dims] == [low.size(dim) for dim in dims]


def _is_mean_without_places(low: Lowering, value: Value, dims: tuple[int, ...]) -> bool:
    """Whether a reshape only drops the size-1 dimensions that a mean kept: the MEAN operator then drops them itself."""
    sizes = [[low.size(dim) for dim in shape if low.size(dim) != 1] for shape in (value.dims, dims)]
    return low.made_by[value.activation] == "mean" and len(dims) < 4 and sizes[0] == sizes[1]


def _is_for_linear(follow: Follow, operator: Operator, value: Value) -> bool:
    """Whether a reshape belongs to a linear layer: it flattens the layer's input to a matrix or restores its output."""
    low = follow.low
    if low.made_by[value.activation] in DENSE and value.is_flat:
        return True
    readers = [reader for reader in follow.readers.get(operator.reads[0], ()) if reader.module == operator.module]
    last = operator.outputs[0][-1]
    is_linear = any(reader.op in DENSE and reader.weight for reader in readers)
    return is_linear and bool(value.dims) and low.size(value.dims[-1]) == low.size(last)


def permute(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for a permutation: free between the two image layouts, and absorbed by a product that reads a matrix."""
    low, value, dims = follow.low, values[0], follow.dims(operator)
    order = _order(operator, low.rank(value))
    if value.is_image and order == (0, 2, 3, 1):
        return [Value(value.activation, dims, is_image=False)]
    if not value.is_image and order == (0, 3, 1, 2):
        return [Value(value.activation, dims, is_image=True)]
    value = low.as_torch(value, operator)
    if value.is_flat and _is_for_product(follow, operator):
        return [replace(value, dims=dims)]
    low.constant(("permutation", *order), len(order))
    return [Value(one_operator(follow, operator, value, kind="transpose").activation, dims, is_image=False)]


def _order(operator: Operator, rank: int) -> tuple[int, ...]:
    """The dimensions of a permutation, from its argument `dims` or from the two that it swaps."""
    if "dims" in operator.attributes:
        return tuple(int(dim) % rank for dim in operator.attributes["dims"])
    order = list(range(rank))
    first, second = (int(operator.attributes.get(name, default)) for name, default in (("dim0", -2), ("dim1", -1)))
    order[first], order[second] = order[second], order[first]
    return tuple(order)


def _is_for_product(follow: Follow, operator: Operator) -> bool:
    """Whether a batched matrix product reads the operator's output."""
    readers = follow.readers.get(operator.writes[0], []) if operator.writes else []
    return any(reader.op in {"bmm", "matmul"} for reader in readers)


def pixel_shuffle(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for a pixel shuffle: three reshapes with two transpositions between them."""
    value = follow.low.as_torch(values[0], operator)
    for number, kind in enumerate(("reshape", "transpose", "reshape", "transpose", "reshape")):
        follow.low.constant((operator.op, operator.module, number), 4)
        value = one_operator(follow, operator, value, kind=kind)
    return [value]


def channel_shuffle(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for a channel shuffle: two reshapes with a transposition between them."""
    value = follow.low.as_torch(values[0], operator)
    for number, kind in enumerate(("reshape", "transpose", "reshape")):
        follow.low.constant((operator.op, operator.module, number), 5 if number < 2 else 4)
        value = one_operator(follow, operator, value, kind=kind)
    return [value]

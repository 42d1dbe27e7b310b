"""Rules for pools, means, resizing, padding and softmax."""

from __future__ import annotations

import math
from dataclasses import replace

from pretrim.analysis.network import Operator

from .follow import Follow, one_operator, pair
from .layers import is_same
from .lowering import Value


def mean(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for a mean: in the layout of its input if it keeps the dimensions, else in PyTorch's layout."""
    low, value, dims = follow.low, values[0], follow.dims(operator)
    axes = operator.attributes.get("dim") or ()
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    keeps_dims = bool(operator.attributes.get("keepdim"))
    value = value if keeps_dims else low.as_torch(value, operator)
    low.constant(("axes", *(sorted(axis % low.rank(value) for axis in axes)), value.is_image), len(axes))
    output = one_operator(follow, operator, value)
    low.works_in((1.0, dims), is_mean=True)
    return [replace(output, dims=dims, is_image=value.is_image and keeps_dims, is_flat=False)]


def pool(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for a pool. Padding other than SAME is applied by a PAD operator: zeros, or minus infinity for max pools."""
    low, value = follow.low, follow.low.as_image(values[0], operator)
    padding, sizes = pair(operator.attributes.get("padding", 0)), [low.size(dim) for dim in value.dims[2:]]
    if not any(padding) or is_same(operator, sizes, pair(operator.attributes["kernel_size"])):
        return [one_operator(follow, operator, value)]
    low.constant(("pad", *padding), 8)
    kind = "pad"
    if operator.op == "max_pool2d_with_indices":
        kind = "pad_v2"
        low.number(("number", -math.inf))
    positions = math.prod(size + 2 * p for size, p in zip(sizes, padding, strict=False))
    padded = low.step(kind, operator, value.activation, elements=(float(positions), value.dims[:2]))
    return [one_operator(follow, operator, replace(value, activation=padded))]


def adaptive_pool(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for an adaptive average pool, taken as an AVERAGE_POOL_2D: the output size must divide the image size."""
    return [one_operator(follow, operator, follow.low.as_image(values[0], operator), kind="avg_pool2d")]


def resize(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for resizing: in the image layout, to a size that is a constant."""
    low, dims = follow.low, follow.dims(operator)
    low.constant(("size", *(low.size(dim) for dim in dims[2:])), 2)
    return [one_operator(follow, operator, low.as_image(values[0], operator))]


def pad(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for padding, in the layout of its input."""
    low, padding = follow.low, tuple(operator.attributes.get("pad", operator.attributes.get("padding", ())))
    low.constant(("pad", *padding[1:4:2]) if len(padding) == 4 else ("pad", *padding), 8)
    return [one_operator(follow, operator, values[0])]


def softmax(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for softmax over the innermost dimension; for another dimension it stands between two transpositions."""
    low, value = follow.low, values[0]
    rank = low.rank(value)
    axis = int(operator.attributes.get("dim", -1)) % rank
    if axis == (1 if value.is_image else rank - 1):
        ready = low.reshaped(value, operator, value.dims) if value.is_flat and rank > 2 else value
        return [replace(one_operator(follow, operator, ready), is_flat=False)]
    value = low.as_torch(value, operator)
    for kind in ("transpose", operator.op, "transpose"):
        low.constant(("permutation", "softmax", axis), rank)
        value = one_operator(follow, operator, value, kind=kind)
    return [value]

"""Pools, means, resizing, padding and softmax."""

from __future__ import annotations

import math
from dataclasses import replace

from pretrim.analysis.network import Operator

from .follow import Follow, one_operator, pair
from .layers import is_same
from .lowering import Value


def mean(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """In the order it finds where the dimensions stay, else in PyTorch's."""
    low, value, dims = follow.low, values[0], follow.dims(operator)
    axes = operator.attributes.get("dim") or ()
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    keeps = bool(operator.attributes.get("keepdim"))
    value = value if keeps else low.as_torch(value, operator)
    low.constant(("axes", *(sorted(axis % low.rank(value) for axis in axes)), value.is_image), len(axes))
    made = one_operator(follow, operator, value)
    low.works_in((1.0, dims), is_mean=True)
    return [replace(made, dims=dims, is_image=value.is_image and keeps, is_flat=False)]


def pool(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """A padding that TensorFlow has no name for is a copy: of zeros, or of the smallest value where a pool looks for
    the largest."""
    low, value = follow.low, follow.low.as_image(values[0], operator)
    given, sizes = pair(operator.attributes.get("padding", 0)), [low.size(dim) for dim in value.dims[2:]]
    if not any(given) or is_same(operator, sizes, pair(operator.attributes["kernel_size"])):
        return [one_operator(follow, operator, value)]
    low.constant(("pad", *given), 8)
    kind = "pad"
    if operator.op == "max_pool2d_with_indices":
        kind = "pad_v2"
        low.number(("number", -math.inf))
    places = math.prod(size + 2 * p for size, p in zip(sizes, given, strict=False))
    padded = low.step(kind, operator, value.activation, elements=(float(places), value.dims[:2]))
    return [one_operator(follow, operator, replace(value, activation=padded))]


def adaptive_pool(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """To a fixed number of places that the image is a multiple of: an average pool."""
    return [one_operator(follow, operator, follow.low.as_image(values[0], operator), kind="avg_pool2d")]


def resize(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    low, dims = follow.low, follow.dims(operator)
    low.constant(("size", *(low.size(dim) for dim in dims[2:])), 2)
    return [one_operator(follow, operator, low.as_image(values[0], operator))]


def pad(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    low, given = follow.low, tuple(operator.attributes.get("pad", operator.attributes.get("padding", ())))
    low.constant(("pad", *given[1:4:2]) if len(given) == 4 else ("pad", *given), 8)
    return [one_operator(follow, operator, values[0])]


def softmax(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Over the dimension that lies last; before and after another one, a transposition."""
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

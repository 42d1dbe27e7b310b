"""Convolutions, linear layers and products of activations, and the padding of windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pretrim.analysis.network import Operator
from pretrim.cost.formula import Term

from .follow import ACTIVATIONS, NORMS, Follow, cut, pair, unknown
from .lowering import Lowering, Value, input_shapes

SIGNAL, ACTIVATED_SIGNAL = "transposed signal", "activated signal"
"""What makes the output of a transposed convolution of signals: its norm is folded, its ReLU an operator of its own"""


def convolution(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    if not operator.weight or len(operator.weight) > 4:
        return unknown(follow, operator, values)
    low, source = follow.low, follow.low.as_image(values[0], operator)
    read = source.activation
    if (pad := explicit_padding(low, operator, source)) is not None:
        low.constant(("pad", *_paddings(operator)), 8)
        read = low.step("pad", operator, read, elements=pad)
    dims = follow.dims(operator)
    low.node("convolution", operator, read, *(value.activation for value in values[1:]))
    low.layer(operator.weight, dims[1:2])
    if operator.attributes.get("transposed"):
        return [_transposed_signal(follow, operator) if len(dims) == 3 else _cropped(follow, operator)]
    return [Value(low.activation((1.0, dims), "convolution"), dims, is_image=True)]


def _cropped(follow: Follow, operator: Operator) -> Value:
    """The output of a transposed convolution; with output padding the whole one is made first, and its sides cut."""
    low, dims = follow.low, follow.dims(operator)
    sizes = [low.size(dim) for dim in dims[2:]]
    extra, padding = (pair(operator.attributes.get(name, 0))[: len(sizes)] for name in ("output_padding", "padding"))
    cut = [(size, size + 2 * p - more) for size, p, more in zip(sizes, padding, extra, strict=True)]
    wholes = [whole if any(extra) else size for size, whole in cut]
    low.constant(("shape", *wholes, dims[1]), 4)
    term = (float(math.prod(wholes)), dims[:2]) if any(extra) else (1.0, dims)
    low.works_in(term)
    made = low.activation(term, "convolution", len(dims))
    for place, (size, whole) in enumerate(zip(sizes, wholes, strict=True)):
        if size != whole:
            wholes[place] = size
            low.constant(("slice size", *wholes, dims[1]), 4)
            low.constant(("slice", *wholes, dims[1], place), 4)
            made = low.step("slice", operator, made, elements=(float(math.prod(wholes)), dims[:2]), rank=len(dims))
    low.made_by[made] = "convolution"  # which computes norms and activations that come behind the slices
    return Value(made, dims, is_image=True)


def _transposed_signal(follow: Follow, operator: Operator) -> Value:
    """The output of a transposed convolution of signals, an image of height 1; with output padding the whole one is
    made first, and its ReLU, and then the signal is cut in PyTorch's order."""
    low, dims = follow.low, follow.dims(operator)
    padding, extra = (pair(operator.attributes.get(name, 0))[0] for name in ("padding", "output_padding"))
    whole = low.size(dims[2]) + (2 * padding - extra if extra else 0)
    term = (float(whole), dims[:2]) if extra else (1.0, dims)
    low.constant(("shape", 1, whole, dims[1]), 4)
    low.works_in(term)
    made = low.activation(term, SIGNAL, 4)
    if not extra:
        return Value(made, dims, is_image=True)
    is_activated = _is_activated(follow, operator)
    if is_activated:
        made = low.step("relu", operator, made, elements=term, rank=4)
    signal = low.as_torch(Value(made, dims, is_image=True), operator)
    value = cut(follow, signal, dims, operator, (2, padding))
    low.made_by[value.activation] = ACTIVATED_SIGNAL if is_activated else SIGNAL
    return value


def _is_activated(follow: Follow, operator: Operator) -> bool:
    """Whether a ReLU alone reads what an operator computes, or its norm."""
    after = follow.readers.get(operator.writes[0], [])
    if after and after[0].op in NORMS:
        after = follow.readers.get(after[0].writes[0], [])
    return bool(after) and after[0].op in ACTIVATIONS and (len(after) == 1 or not after[0].writes)


def dense(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    if not operator.weight:
        return product(follow, operator, values)
    low, dims = follow.low, follow.dims(operator)
    ready = [low.as_torch(value, operator).activation for value in values]
    low.node(operator.op, operator, *ready)
    low.layer(operator.weight, dims[-1:])
    return [Value(low.activation((1.0, dims), operator.op), dims, is_image=False, is_flat=True)]


def product(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """A product of two activations; of two matrices it is a fully connected layer."""
    low, dims = follow.low, follow.dims(operator)
    is_matrix = math.prod(low.size(dim) for dim in dims[:-2]) == 1
    ready = [low.as_torch(value, operator) for value in values]
    if is_matrix:
        ready = [value if value.is_flat else low.reshaped(value, operator, value.dims[-2:]) for value in ready]
    kind = "mm" if is_matrix and _is_transposed(low, ready[-1]) else "bmm"
    made = low.step(kind, operator, *(value.activation for value in ready), elements=(1.0, dims))
    return [Value(made, dims, is_image=False, is_flat=is_matrix)]


def _is_transposed(low: Lowering, value: Value) -> bool:
    """Whether a matrix is read along its other dimension than it was written."""
    constant, dims = low.elements[value.activation]
    return constant == 1.0 and dims[-2:] == value.dims[-1:-3:-1] and len(set(value.dims[-2:])) == 2


def explicit_padding(low: Lowering, operator: Operator, source: Value) -> Term | None:
    """The padded copy of the input, where TensorFlow's SAME is another padding than PyTorch's."""
    given = pair(operator.attributes.get("padding", 0))
    if not any(given) or operator.attributes.get("transposed"):
        return None
    sizes = [low.size(dim) for dim in source.dims[2:]] or list(input_shapes(low.network)[0])[2:]
    if is_same(operator, sizes, [low.size(dim) for dim in operator.weight[2:]]):
        return None
    padded = math.prod(size + 2 * p for size, p in zip(sizes, given, strict=False))
    constant, dims = low.elements[source.activation]
    return (constant * padded, source.dims[:2]) if source.dims else (constant / math.prod(sizes) * padded, dims)


def is_same(operator: Operator, sizes: Sequence[int], kernel: Sequence[int]) -> bool:
    """Whether an operator's padding is the one that TensorFlow calls SAME."""
    given = pair(operator.attributes.get("padding", 0))
    stride = pair(operator.attributes.get("stride") or tuple(kernel))
    dilation = pair(operator.attributes.get("dilation", 1))
    places = zip(sizes, kernel, stride, dilation, given, strict=False)
    return all(_same(size, k, s, d) == (p, p) for size, k, s, d, p in places)


def _paddings(operator: Operator) -> tuple[int, int]:
    """Rows and columns that a convolution or pool pads on each side."""
    given = pair(operator.attributes.get("padding", 0))
    return (0, given[0]) if len(operator.weight) == 3 else given


def _same(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's padding, before and after: as many as make ``ceil(size / stride)`` places.

    >>> _same(32, 3, 1, 1), _same(32, 3, 2, 1), _same(33, 3, 2, 1)
    ((1, 1), (0, 1), (1, 1))
    """
    total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2

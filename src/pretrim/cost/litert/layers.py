"""Rules for convolutions, linear layers and products of activations; padding of convolutions and pools."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pretrim.analysis.network import Operator
from pretrim.cost.formula import Term

from .follow import ACTIVATIONS, NORMS, Follow, cut, pair, unknown
from .lowering import Lowering, Value, input_shapes

SIGNAL, ACTIVATED_SIGNAL = "transposed signal", "activated signal"
"""Kinds in `Lowering.made_by` for the output of a transposed 1-D convolution, before and after its ReLU: a norm that
follows is folded into the convolution, and the ReLU is a separate operator."""


def convolution(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for a convolution of images, or of signals as images of height 1.

    Padding that LiteRT's convolution does not support is applied by a PAD operator before it.
    """
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
    """The output of a transposed convolution.

    With output padding, LiteRT computes the uncropped result first and slices off its sides, one dimension at a time.
    """
    low, dims = follow.low, follow.dims(operator)
    sizes = [low.size(dim) for dim in dims[2:]]
    extra, padding = (pair(operator.attributes.get(name, 0))[: len(sizes)] for name in ("output_padding", "padding"))
    full_sizes = [size + 2 * p - more for size, p, more in zip(sizes, padding, extra, strict=True)]
    lengths = [full if any(extra) else size for size, full in zip(sizes, full_sizes, strict=True)]
    low.constant(("shape", *lengths, dims[1]), 4)
    term = (float(math.prod(lengths)), dims[:2]) if any(extra) else (1.0, dims)
    low.works_in(term)
    output = low.activation(term, "convolution", len(dims))
    for axis, (size, full) in enumerate(zip(sizes, lengths, strict=True)):
        if size != full:
            lengths[axis] = size
            low.constant(("slice size", *lengths, dims[1]), 4)
            low.constant(("slice", *lengths, dims[1], axis), 4)
            output = low.step("slice", operator, output, elements=(float(math.prod(lengths)), dims[:2]), rank=len(dims))
    low.made_by[output] = "convolution"  # norms and activations after the slices are fused into the convolution
    return Value(output, dims, is_image=True)


def _transposed_signal(follow: Follow, operator: Operator) -> Value:
    """The output of a transposed 1-D convolution, an image of height 1.

    With output padding, LiteRT computes the uncropped result first, then its ReLU, and slices the signal in PyTorch's
    layout.
    """
    low, dims = follow.low, follow.dims(operator)
    padding, extra = (pair(operator.attributes.get(name, 0))[0] for name in ("padding", "output_padding"))
    length = low.size(dims[2]) + (2 * padding - extra if extra else 0)
    term = (float(length), dims[:2]) if extra else (1.0, dims)
    low.constant(("shape", 1, length, dims[1]), 4)
    low.works_in(term)
    output = low.activation(term, SIGNAL, 4)
    if not extra:
        return Value(output, dims, is_image=True)
    is_activated = _is_activated(follow, operator)
    if is_activated:
        output = low.step("relu", operator, output, elements=term, rank=4)
    signal = low.as_torch(Value(output, dims, is_image=True), operator)
    value = cut(follow, signal, dims, operator, (2, padding))
    low.made_by[value.activation] = ACTIVATED_SIGNAL if is_activated else SIGNAL
    return value


def _is_activated(follow: Follow, operator: Operator) -> bool:
    """Whether a ReLU is the only reader of an operator's output, or of the norm of that output."""
    readers = follow.readers.get(operator.writes[0], [])
    if readers and readers[0].op in NORMS:
        readers = follow.readers.get(readers[0].writes[0], [])
    return bool(readers) and readers[0].op in ACTIVATIONS and (len(readers) == 1 or not readers[0].writes)


def dense(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for a linear layer, which reads rows in PyTorch's layout; without weights it is a product of activations."""
    if not operator.weight:
        return product(follow, operator, values)
    low, dims = follow.low, follow.dims(operator)
    ready = [low.as_torch(value, operator).activation for value in values]
    low.node(operator.op, operator, *ready)
    low.layer(operator.weight, dims[-1:])
    return [Value(low.activation((1.0, dims), operator.op), dims, is_image=False, is_flat=True)]


def product(follow: Follow, operator: Operator, values: list[Value]) -> list[Value]:
    """Rule for a product of two activations: BATCH_MATMUL, or FULLY_CONNECTED for a matrix and a transposed matrix."""
    low, dims = follow.low, follow.dims(operator)
    is_matrix = math.prod(low.size(dim) for dim in dims[:-2]) == 1
    ready = [low.as_torch(value, operator) for value in values]
    if is_matrix:
        ready = [value if value.is_flat else low.reshaped(value, operator, value.dims[-2:]) for value in ready]
    kind = "mm" if is_matrix and _is_transposed(low, ready[-1]) else "bmm"
    output = low.step(kind, operator, *(value.activation for value in ready), elements=(1.0, dims))
    return [Value(output, dims, is_image=False, is_flat=is_matrix)]


def _is_transposed(low: Lowering, value: Value) -> bool:
    """Whether a matrix is read with its two dimensions swapped relative to how it was written."""
    constant, dims = low.elements[value.activation]
    return constant == 1.0 and dims[-2:] == value.dims[-1:-3:-1] and len(set(value.dims[-2:])) == 2


def explicit_padding(low: Lowering, operator: Operator, source: Value) -> Term | None:
    """Elements of the padded copy of a convolution's input; None where it needs none.

    It needs one where PyTorch's padding is neither zero nor the one that TensorFlow calls SAME.
    """
    padding = pair(operator.attributes.get("padding", 0))
    if not any(padding) or operator.attributes.get("transposed"):
        return None
    sizes = [low.size(dim) for dim in source.dims[2:]] or list(input_shapes(low.network)[0])[2:]
    if is_same(operator, sizes, [low.size(dim) for dim in operator.weight[2:]]):
        return None
    padded = math.prod(size + 2 * p for size, p in zip(sizes, padding, strict=False))
    constant, dims = low.elements[source.activation]
    return (constant * padded, source.dims[:2]) if source.dims else (constant / math.prod(sizes) * padded, dims)


def is_same(operator: Operator, sizes: Sequence[int], kernel: Sequence[int]) -> bool:
    """Whether an operator's padding is the one that TensorFlow calls SAME.

    Args:
        operator: a convolution or pool.
        sizes: size of its input along each spatial axis.
        kernel: size of its kernel along each spatial axis.
    """
    padding = pair(operator.attributes.get("padding", 0))
    stride = pair(operator.attributes.get("stride") or tuple(kernel))
    dilation = pair(operator.attributes.get("dilation", 1))
    axes = zip(sizes, kernel, stride, dilation, padding, strict=False)
    return all(_same(size, k, s, d) == (p, p) for size, k, s, d, p in axes)


def _paddings(operator: Operator) -> tuple[int, int]:
    """Rows and columns that a convolution pads on each side; a 1-D convolution pads columns only."""
    padding = pair(operator.attributes.get("padding", 0))
    return (0, padding[0]) if len(operator.weight) == 3 else padding


def _same(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's SAME padding (before, after), which gives ``ceil(size / stride)`` output positions.

    >>> _same(32, 3, 1, 1), _same(32, 3, 2, 1), _same(33, 3, 2, 1)
    ((1, 1), (0, 1), (1, 1))
    """
    total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2

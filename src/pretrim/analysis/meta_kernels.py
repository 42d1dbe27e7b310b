"""Meta kernels of the operators that most networks consist of: output shape, memory layout and dtype.

torch's own kernels for meta tensors are Python decompositions: up to a thousand times slower than these, and the first
one imports its compiler. A kernel here handles the plain case and returns NotImplemented for all others (type
promotion, mismatched sizes), so that torch handles them, with its own errors. Each kernel is compared with torch on the
CPU by `tests/test_meta.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

META = torch.device("meta")
FORMATS = (torch.contiguous_format, torch.channels_last, torch.channels_last_3d)

aten = torch.ops.aten
ELEMENTWISE = """
    relu hardtanh hardswish hardsigmoid silu sigmoid tanh gelu leaky_relu elu neg abs exp log sqrt rsqrt softplus mish
    clamp clamp_min clamp_max erf _softmax _log_softmax pow.Tensor_Scalar
    add.Scalar sub.Scalar mul.Scalar div.Scalar
""".split()
"""Elementwise operators of one floating-point tensor, with an output of the same dtype; other arguments are numbers."""
BINARY = ["add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "maximum", "minimum"]
IN_PLACE = """
    relu_ hardtanh_ hardswish_ hardsigmoid_ silu_ sigmoid_ tanh_ gelu_ leaky_relu_ elu_ mish_ clamp_ clamp_min_
    add_.Tensor sub_.Tensor mul_.Tensor div_.Tensor add_.Scalar sub_.Scalar mul_.Scalar div_.Scalar
""".split()


def new(tensor: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """Create a contiguous meta tensor.

    Args:
        tensor: the tensor whose dtype it gets.
        shape: its sizes.
        dtype: a dtype to use instead.
    """
    return torch.empty(shape, dtype=dtype or tensor.dtype, device=META)


def like(tensor: Tensor) -> Any:
    """A meta tensor of the same shape and memory layout; NotImplemented if the layout is not one of `FORMATS`."""
    if not any(is_stored_as(tensor, format) for format in FORMATS):
        return NotImplemented
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)


def resized(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """A meta tensor of another shape, in the same memory layout."""
    if is_channels_last(tensor):
        return new(tensor, [shape[dim] for dim in (0, 2, 3, 1)]).permute(0, 3, 1, 2)
    return new(tensor, shape)


def is_stored_as(tensor: Tensor, format: torch.memory_format) -> bool:
    """Whether a tensor is stored in a memory format, which fixes its number of dimensions where channels are last."""
    dims = {torch.channels_last: 4, torch.channels_last_3d: 5}.get(format, tensor.dim())
    return tensor.dim() == dims and tensor.is_contiguous(memory_format=format)


def elementwise(x: Tensor, *others: Any, **options: Any) -> Any:
    """See `ELEMENTWISE`."""
    if not x.is_floating_point() or any(isinstance(other, Tensor) for other in (*others, *options.values())):
        return NotImplemented
    return NotImplemented if others and others[-1] is True else like(x)  # True: a softmax with float32 output


def in_place(x: Tensor, *others: Any, **options: Any) -> Any:
    """An elementwise operator that writes into its first argument; others are numbers, or tensors broadcast to it."""
    tensors = [other for other in (*others, *options.values()) if isinstance(other, Tensor)]
    fits = all(t.dtype == x.dtype and repeated(x.shape, t.shape) == [*x.shape] for t in tensors)
    return x if x.is_floating_point() and fits else NotImplemented


def binary(x: Tensor, y: Any, **_: Any) -> Any:
    """An elementwise operator of two floating-point tensors of one dtype, with broadcasting, or of one and a number.

    Args:
        x: the first operand.
        y: the second operand.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return NotImplemented
    if not isinstance(y, Tensor):
        return like(x) if isinstance(y, (int, float)) else NotImplemented
    if x.dtype != y.dtype or not x.is_contiguous() or not y.is_contiguous():
        same = x.dtype == y.dtype and x.shape == y.shape and x.stride() == y.stride()
        return like(x) if same else NotImplemented
    shape = repeated(x.shape, y.shape)
    return NotImplemented if -1 in shape else new(x, shape)


def repeated(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """The broadcast shape of two shapes; -1 where two sizes do not match."""
    size = max(len(a), len(b))
    pairs = zip((1,) * (size - len(a)) + tuple(a), (1,) * (size - len(b)) + tuple(b), strict=True)
    return [m if n == 1 else n if m in (1, n) else -1 for m, n in pairs]


def batch_norm(x: Tensor, *options: Any) -> Any:
    """``native_batch_norm``.

    Args:
        x: N x C x ...
        options: weight, bias, mean and variance (C values, or None); whether it is in training mode; others.
    """
    *tensors, is_training = options[:5]
    if any(tensor is not None and tensor.shape != x.shape[1:2] for tensor in tensors):
        return NotImplemented
    out, saved = like(x), x.shape[1] if is_training else 0
    return NotImplemented if out is NotImplemented else (out, new(x, (saved,)), new(x, (saved,)))


def layer_norm(x: Tensor, shape: Sequence[int], *options: Any) -> Any:
    """``native_layer_norm``.

    Args:
        x: ... x shape.
        shape: its last sizes, which are normalised together.
        options: weight and bias of that shape, or None; epsilon.
    """
    outer = x.dim() - len(shape)
    sizes = [tuple(t.shape) for t in options if isinstance(t, Tensor)] + [tuple(x.shape[outer:])]
    if not x.is_contiguous() or any(size != tuple(shape) for size in sizes):
        return NotImplemented
    saved = (*x.shape[:outer], *(1 for _ in shape))
    return new(x, x.shape), new(x, saved), new(x, saved)


def group_norm(x: Tensor, *options: Any) -> Any:
    """``native_group_norm``.

    Args:
        x: N x C x ..., contiguous.
        options: weight and bias (C values, or None); N, C, the product of the other sizes, groups; epsilon.
    """
    *tensors, images, channels, positions, groups, _ = options
    sizes = [tensor.shape for tensor in tensors if tensor is not None]
    fits = x.numel() == images * channels * positions and channels % groups == 0
    if not fits or not x.is_contiguous() or any(size != (channels,) for size in sizes):
        return NotImplemented
    return new(x, x.shape), new(x, (images, groups)), new(x, (images, groups))


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Any:
    """``convolution``.

    Args:
        x: N x C x spatial sizes.
        weight: filters x C / groups x kernel sizes; transposed, C x filters / groups x kernel sizes.
        bias: one value per filter, or None.
        options: stride, padding and dilation per spatial dimension; whether it is transposed; output padding; groups.
    """
    stride, padding, dilation, transposed, output_padding, groups = options
    spatial = x.dim() - 2
    lengths = {len(dims) for dims in (stride, padding, dilation, output_padding)}
    if spatial < 1 or weight.dim() != x.dim() or lengths != {spatial}:
        return NotImplemented
    inputs, filters = weight.shape[:2] if transposed else (weight.shape[1] * groups, weight.shape[0])
    filters = filters * groups if transposed else filters
    sizes = window_sizes(x, weight.shape[2:], stride, padding, dilation)
    if transposed:
        reaches = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        dims = zip(x.shape[2:], stride, padding, reaches, output_padding, strict=True)
        sizes = [(size - 1) * step - 2 * pad + reach + extra + 1 for size, step, pad, reach, extra in dims]
    fits = x.shape[1] == inputs and inputs * filters > 0 and filters % groups == inputs % groups == 0
    if bias is not None and bias.shape != (filters,):  # torch's own meta kernel does not check this
        raise RuntimeError(f"a convolution with {filters} filters got a bias of shape {tuple(bias.shape)}")
    if not fits or min(sizes) < 1 or x.dtype != weight.dtype:
        return NotImplemented
    if spatial == 2 and any(is_channels_last(tensor) for tensor in (x, weight)):
        return new(x, (x.shape[0], *sizes, filters)).permute(0, 3, 1, 2)
    return new(x, (x.shape[0], filters, *sizes))


def is_channels_last(tensor: Tensor) -> bool:
    """Whether torch considers a tensor to be channels-last (``is_channels_last_strides_2d`` in its source)."""
    if tensor.dim() != 4 or tensor.numel() == 0:
        return False
    min_stride = 0
    for dim in (1, 3, 2, 0):
        if tensor.stride(dim) < min_stride or (dim == 0 and min_stride == tensor.stride(1)):
            return False
        min_stride = tensor.stride(dim) * tensor.shape[dim]
    return True


def window_sizes(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """The number of window positions along each of the last dimensions.

    Args:
        x: ... x spatial sizes.
        kernel: kernel size per spatial dimension.
        stride: stride per spatial dimension.
        padding: padding per spatial dimension.
        dilation: dilation per spatial dimension.
    """
    dims = zip(x.shape[-len(kernel) :], kernel, stride, padding, dilation, strict=True)
    return [(size + 2 * pad - reach * (width - 1) - 1) // step + 1 for size, width, step, pad, reach in dims]


def pooled(x: Tensor, kernel: Sequence[int], *options: Any) -> list[int]:
    """Spatial sizes after pooling without ceil mode; empty for cases not handled here.

    Args:
        x: N x C x H x W.
        kernel: one or two kernel sizes.
        options: stride, padding and dilation, one or two sizes each; whether sizes are rounded up.
    """
    stride, padding, dilation, ceil_mode = options
    shapes = [tuple(values) * (2 // len(values)) for values in (kernel, stride or kernel, padding, dilation)]
    if ceil_mode or x.dim() != 4 or not x.is_contiguous():
        return []
    sizes = window_sizes(x, *shapes)
    return sizes if min(sizes) > 0 and all(2 * p <= k for p, k in zip(shapes[2], shapes[0], strict=True)) else []


def max_pool(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0,), *options: Any
) -> Any:
    """``max_pool2d_with_indices``.

    Args:
        x: N x C x H x W.
        kernel: one or two kernel sizes.
        stride: one or two strides; the kernel sizes by default.
        padding: one or two paddings.
        options: dilation, and whether sizes are rounded up.
    """
    plain: tuple[Any, ...] = ((1,), False)
    sizes = pooled(x, kernel, stride, padding, *options, *plain[len(options) :])
    return (new(x, (*x.shape[:2], *sizes)), new(x, (*x.shape[:2], *sizes), torch.int64)) if sizes else NotImplemented


def average_pool(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0,), *options: Any
) -> Any:
    """``avg_pool2d``.

    Args:
        x: N x C x H x W.
        kernel: one or two kernel sizes.
        stride: one or two strides; the kernel sizes by default.
        padding: one or two paddings.
        options: whether sizes are rounded up; how averages are counted.
    """
    sizes = pooled(x, kernel, stride, padding, (1,), bool(options and options[0]))
    return new(x, (*x.shape[:2], *sizes)) if sizes else NotImplemented


def adaptive_pool(x: Tensor, sizes: Sequence[int]) -> Any:
    """``_adaptive_avg_pool2d``: N x C x H x W to N x C x sizes."""
    return new(x, (*x.shape[:-2], *sizes)) if x.dim() == 4 and x.is_contiguous() else NotImplemented


def mean(x: Tensor, dims: Sequence[int] | None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Any:
    """``mean.dim`` and ``sum.dim_IntList``.

    Args:
        x: a floating-point tensor.
        dims: the dimensions to reduce.
        keepdim: whether they stay, with size 1.
        dtype: dtype of the result.
    """
    if not dims or dtype is not None or not x.is_floating_point() or not x.is_contiguous():
        return NotImplemented
    if any(not -x.dim() <= dim < x.dim() for dim in dims) or len({dim % x.dim() for dim in dims}) < len(dims):
        return NotImplemented
    reduced = {dim % x.dim() for dim in dims}
    return new(x, [1 if dim in reduced else size for dim, size in enumerate(x.shape) if keepdim or dim not in reduced])


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Any:
    """``cat`` of contiguous tensors of one dtype whose other sizes are equal."""
    first = tensors[0]
    if not -first.dim() <= dim < first.dim():
        return NotImplemented
    dim %= first.dim()
    others = {(t.dtype, t.is_contiguous(), t.shape[:dim], t.shape[dim + 1 :]) for t in tensors}
    if others != {(first.dtype, True, first.shape[:dim], first.shape[dim + 1 :])}:
        return NotImplemented
    return new(first, (*first.shape[:dim], sum(t.shape[dim] for t in tensors), *first.shape[dim + 1 :]))


def product(a: Tensor, b: Tensor) -> Any:
    """``mm`` and ``bmm``."""
    fits = a.dtype == b.dtype and a.dim() == b.dim() and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    return new(a, (*a.shape[:-1], b.shape[-1])) if fits else NotImplemented


def addmm(bias: Tensor, a: Tensor, b: Tensor, **_: float) -> Any:
    """``addmm``: a product, plus one value per column.

    Args:
        bias: m values.
        a: n x k.
        b: k x m.
    """
    return product(a, b) if bias.dtype == a.dtype and bias.shape == b.shape[1:] else NotImplemented


def empty_like(x: Tensor, **options: Any) -> Any:
    """``empty_like`` with the same dtype."""
    set_options = {name for name, value in options.items() if value is not None}
    return like(x) if set_options <= {"device", "pin_memory"} else NotImplemented


def overloads(names: Sequence[str], kernel: Callable[..., Any]) -> Iterator[tuple[Any, Callable[..., Any]]]:
    """Pair operators with their kernel; those that this version of torch lacks are left out."""
    for name in names:
        packet, _, overload = name.partition(".")
        func = getattr(getattr(aten, packet, None), overload or "default", None)
        if func is not None:
            yield func, kernel


KERNELS: dict[Any, Callable[..., Any]] = {
    **dict(overloads(ELEMENTWISE, elementwise)),
    **dict(overloads(BINARY, binary)),
    **dict(overloads(IN_PLACE, in_place)),
    aten.native_batch_norm.default: batch_norm,
    aten.native_layer_norm.default: layer_norm,
    aten.native_group_norm.default: group_norm,
    aten.convolution.default: convolution,
    aten.max_pool2d_with_indices.default: max_pool,
    aten.avg_pool2d.default: average_pool,
    aten._adaptive_avg_pool2d.default: adaptive_pool,
    aten.mean.dim: mean,
    aten.sum.dim_IntList: mean,
    aten.cat.default: cat,
    aten.mm.default: product,
    aten.bmm.default: product,
    aten.addmm.default: addmm,
    aten.empty_like.default: empty_like,
}
"""Kernels by operator; each is called with torch's arguments."""

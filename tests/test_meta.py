"""Shapes without arithmetic: what the kernels for meta tensors say is what torch computes on the CPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from pretrim import analyze
from pretrim.analysis.meta import MetaMode, without_values
from pretrim.analysis.meta_kernels import BINARY, ELEMENTWISE, IN_PLACE, KERNELS

F = nn.functional
ORDERS = [torch.contiguous_format, torch.channels_last]


class Compare(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs every operator on the CPU, and asks the kernel for meta tensors, where there is one, to agree."""

    def __init__(self) -> None:
        super().__init__()
        self.answered: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in KERNELS:
            said = KERNELS[func](*tree_map(without_values, args), **tree_map(without_values, kwargs or {}))
            if said is not NotImplemented:
                self.answered.append(str(func))
                for found, meta in zip(tree_leaves(result), tree_leaves(said), strict=True):
                    assert (meta.shape, meta.dtype) == (found.shape, found.dtype), func
                    assert order_of(meta) == order_of(found), func
        return result


def order_of(tensor: Tensor) -> list[int]:
    """The strides that matter: those of sizes above 1."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


def agrees(call: Callable[..., Any], *args: Any) -> list[str]:
    """Which operators a kernel answered for, after each was compared with the CPU."""
    with torch.no_grad(), Compare() as compare:
        try:
            call(*args)
        except (RuntimeError, IndexError):  # torch refuses these sizes: then no kernel may have answered before it
            pass
    return compare.answered


def refuses(call: Callable[..., Any], *args: Any) -> bool:
    """Whether torch itself does not take these sizes, or makes nothing of them."""
    try:
        return bool(call(*args).numel() == 0)
    except RuntimeError:
        return True


sizes = st.integers(1, 7)
orders = st.sampled_from(ORDERS)


@pytest.mark.parametrize("call", [F.relu, F.hardtanh, F.hardswish, F.silu, F.gelu, F.elu, torch.tanh, torch.exp])
def test_elementwise_keeps_shape_and_order(call: Callable[[Tensor], Tensor]) -> None:
    x = torch.rand(2, 3, 4, 5)
    for each in (x, x.contiguous(memory_format=torch.channels_last), x.double(), x[:, :, 0]):
        assert agrees(call, each) or not each.is_contiguous()
    assert agrees(call, x.permute(1, 0, 2, 3)) == []  # an order that torch decides


@settings(deadline=None)
@given(st.lists(sizes, min_size=1, max_size=4), st.data())
def test_binary_operators_repeat_the_smaller(shape: list[int], data: st.DataObject) -> None:
    dropped = data.draw(st.integers(0, len(shape)))
    other = [data.draw(st.sampled_from([1, size])) for size in shape[dropped:]]
    order = data.draw(st.sampled_from([False, True]))
    x, y = torch.rand(shape), torch.rand(other)
    pair = (y, x) if order else (x, y)
    for call in (torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum):
        assert agrees(call, *pair)
    assert agrees(torch.add, x, 2) and agrees(torch.mul, x, 0.5)


@settings(deadline=None)
@given(st.lists(sizes, min_size=1, max_size=4), st.data())
def test_operators_in_place(shape: list[int], data: st.DataObject) -> None:
    dropped = data.draw(st.integers(0, len(shape)))
    other = [data.draw(st.sampled_from([1, size, size + 1])) for size in shape[dropped:]]
    agrees(lambda: torch.rand(shape).mul_(torch.rand(other)))
    agrees(lambda: torch.rand(other).add_(torch.rand(shape)))
    assert agrees(lambda: F.relu6(torch.rand(shape), inplace=True))
    assert agrees(lambda: torch.rand(shape).add_(torch.rand(1).double())) == []


def test_types_that_are_promoted_are_left_to_torch() -> None:
    x = torch.rand(2, 3)
    for other in (torch.rand(2, 3).double(), torch.ones(2, 3, dtype=torch.int64), torch.tensor(1.0).double(), 1j):
        assert agrees(torch.mul, x, other) == []
    assert agrees(torch.add, torch.ones(2, dtype=torch.int64), 0.5) == []
    assert agrees(torch.relu, torch.ones(2, dtype=torch.int64)) == []


@settings(deadline=None)
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    draw = data.draw
    spatial, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    inside, outside = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    layers = [nn.Conv1d, nn.Conv2d, nn.Conv3d] if draw(st.booleans()) else TRANSPOSED
    each = {name: draw(st.integers(low, 3)) for name, low in (("stride", 1), ("padding", 0), ("dilation", 1))}
    kernel = [draw(st.integers(1, 3)) for _ in range(spatial)]
    layer = layers[spatial - 1](inside, outside, kernel, groups=groups, bias=draw(st.booleans()), **each)
    x = torch.rand(2, inside + draw(st.sampled_from([0, 0, 0, 1])), *[draw(sizes) for _ in range(spatial)])
    if spatial == 2:
        x = x.contiguous(memory_format=draw(orders))
        layer = layer.to(memory_format=draw(orders))
    assert agrees(layer, x) == ["aten.convolution.default"] or refuses(layer, x)


TRANSPOSED = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]


@settings(deadline=None)
@given(st.data())
def test_pooling(data: st.DataObject) -> None:
    draw = data.draw
    kernel, stride, ceil_mode = draw(st.integers(1, 4)), draw(st.sampled_from([None, 1, 2, 3])), draw(st.booleans())
    padding = draw(st.integers(0, 2))
    x = torch.rand(2, 3, draw(sizes), draw(sizes)).contiguous(memory_format=draw(orders))
    layers = [
        nn.MaxPool2d(kernel, stride, padding, dilation=draw(st.integers(1, 2)), ceil_mode=ceil_mode),
        nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil_mode),
    ]
    for layer in layers:
        assert agrees(layer, x) or ceil_mode or not x.is_contiguous() or refuses(layer, x)
    assert agrees(nn.AdaptiveAvgPool2d((draw(sizes), draw(sizes))), x) or not x.is_contiguous()


@settings(deadline=None)
@given(st.lists(sizes, min_size=1, max_size=4), st.data())
def test_reductions_and_concatenations(shape: list[int], data: st.DataObject) -> None:
    x = torch.rand(shape)
    dims = data.draw(st.lists(st.integers(-len(shape) - 1, len(shape)), min_size=1, max_size=3))
    agrees(lambda: x.mean(dims, keepdim=data.draw(st.booleans())))
    agrees(lambda: x.sum(dims))
    others = [torch.rand([data.draw(st.integers(size, size + 1)) for size in shape]) for _ in range(2)]
    agrees(torch.cat, [x, *others], data.draw(st.integers(-len(shape) - 1, len(shape))))
    assert agrees(torch.cat, [x, x], 0)


@settings(deadline=None)
@given(sizes, sizes, sizes, sizes)
def test_products(images: int, rows: int, inner: int, columns: int) -> None:
    a, b = torch.rand(rows, inner), torch.rand(inner, columns)
    assert agrees(torch.mm, a, b)
    assert agrees(torch.bmm, a.expand(images, -1, -1), b.expand(images, -1, -1))
    assert agrees(torch.addmm, torch.rand(columns), a, b)
    agrees(torch.mm, a, torch.rand(inner + 1, columns))
    agrees(torch.addmm, torch.rand(1), a, b)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_norms(order: torch.memory_format, training: bool) -> None:
    x = torch.rand(2, 6, 4, 4).contiguous(memory_format=order)
    for layer in (nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False), nn.GroupNorm(3, 6), nn.LayerNorm([6, 4, 4])):
        answered = agrees(layer.train(training), x)
        assert answered or order is torch.channels_last
    assert agrees(nn.LayerNorm([4], elementwise_affine=False), x.contiguous())


def test_each_kernel_is_compared_here() -> None:
    """Every operator of the table answers for a plain case, and agrees."""
    x, w = torch.rand(2, 4, 6, 6), torch.rand(4, 4)
    calls = [lambda: F.max_pool2d(x, 2), lambda: F.avg_pool2d(x, 2), lambda: F.adaptive_avg_pool2d(x, 2)]
    calls += [lambda: nn.Conv2d(4, 2, 3)(x), lambda: F.group_norm(x, 2), lambda: F.layer_norm(x, [6])]
    calls += [lambda: nn.BatchNorm2d(4)(x), lambda: torch.cat([x, x]), lambda: x.mean((2, 3)), lambda: x.sum((2, 3))]
    calls += [
        lambda: w @ w,
        lambda: torch.bmm(x[0], x[0]),
        lambda: torch.addmm(w[0], w, w),
        lambda: torch.empty_like(x),
    ]
    calls += [one_argument(name) for name in (*ELEMENTWISE, *IN_PLACE) if ".Tensor" not in name or "Scalar" in name]
    calls += [two_arguments(name) for name in (*BINARY, *IN_PLACE) if name.endswith((".Tensor", "imum"))]
    answered = {name for call in calls for name in agrees(call)}
    assert answered == {str(func) for func in KERNELS}


def one_argument(name: str) -> Callable[[], Any]:
    packet, _, overload = name.partition(".")
    func = getattr(getattr(torch.ops.aten, packet), overload or "default")
    more = {
        "_softmax": (1, False),
        "_log_softmax": (1, False),
        "clamp": (0.2, 0.4),
        "clamp_min": (0,),
        "clamp_max": (1,),
    }
    extra = more.get(packet.removesuffix("_") if packet.startswith("clamp") else packet, (2,) if overload else ())
    return lambda: func(torch.rand(2, 3), *extra)


def two_arguments(name: str) -> Callable[[], Any]:
    packet, _, overload = name.partition(".")
    func = getattr(getattr(torch.ops.aten, packet), overload or "default")
    return lambda: func(torch.rand(2, 3), torch.rand(2, 3))


class Constants(nn.Module):
    """Meets constants in every way that keeps a run free of values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.scales = torch.tensor([0.5, 1.0, 2.0]).view(1, 3, 1, 1)  # no buffer: nothing moves it
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scales + torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
        x = self.conv(x.to("cpu")) + torch.arange(4.0, device=x.device).view(1, 1, 4, 1)
        step = int(torch.tensor([1, 2])[1])  # a constant has a value
        grid = torch.zeros(x.shape[0], x.shape[1], 1, 1)
        grid[:] = x.mean((2, 3), keepdim=True)
        return self.head((x[:, :, ::step] * grid).mean((2, 3)))


def test_constants_meet_tensors_without_values() -> None:
    network = analyze(Constants(), torch.rand(1, 3, 4, 4))
    assert network.notes == ()
    assert [group.channels for group in network.groups] == [8]


class Positions(nn.Module):
    """Takes places of a table by numbers: their values do not change a shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 2)
        self.biases = nn.Parameter(torch.zeros(4))
        self.register_buffer("places", torch.arange(16).view(4, 4) % 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.conv(x) + self.biases[self.places]).mean((2, 3)))


def test_an_index_by_numbers_reads_no_values() -> None:
    assert analyze(Positions(), torch.rand(1, 3, 4, 4)).notes == ()


class Reads(nn.Module):
    """Asks for something that only values tell."""

    def __init__(self, ask: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)
        self.ask = ask

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        self.ask(x)
        return self.head(x.mean((2, 3)))


def write_into_constant(x: Tensor) -> None:
    torch.tensor([0.0, 0.0])[0] = x.mean()


ASKS: list[Callable[[Tensor], Any]] = [
    lambda x: x.mean().item(),
    lambda x: bool(x.sum() > 0),
    lambda x: x[x > 0],
    lambda x: torch.masked_select(x, x > 0),
    lambda x: x.numpy(),
    lambda x: x.tolist(),
    torch.nonzero,
    torch.unique,
    write_into_constant,
]


@pytest.mark.parametrize("ask", ASKS)
def test_what_asks_for_values_is_traced_on_real_tensors(ask: Callable[[Tensor], Any]) -> None:
    network = analyze(Reads(ask), torch.rand(1, 3, 6, 6))
    assert "traced on real tensors" in network.notes[0]
    assert network.operators


def test_a_run_makes_nothing_but_meta_tensors() -> None:
    x = without_values(torch.rand(2, 3))
    with MetaMode():
        made = [torch.zeros(2), torch.rand(3), torch.arange(4), x.cpu(), x.new_zeros(2), torch.ones_like(x)]
        assert all(tensor.is_meta for tensor in made)
        assert (torch.tensor([1, 2]) * 2).tolist() == [2, 4]


def test_an_analysis_does_not_import_torchs_compiler() -> None:
    """Two seconds of a command that takes as many (torch imports itself in the rest)."""
    code = (
        "import sys, torch; from pretrim import analyze; from pretrim.models import BUILTIN\n"
        "for name in ('resnet20', 'mobilenetv2', 'vgg16', 'alexnet'):\n"
        "    analyze(BUILTIN[name](), torch.rand(1, 3, 32, 32))\n"
        "print(sorted({'torch._dynamo', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr

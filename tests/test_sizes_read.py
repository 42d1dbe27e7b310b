"""A size read from one tensor and used for another ties the two: nothing is frozen, and the slim network is exact."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from networks import Net, conv
from reference import masked, randomise, relative_error, run
from torch import Tensor, nn
from torch.nn import functional

import pretrim
from pretrim.analysis.sizes_read import SizesRead, Width
from pretrim.errors import InfeasibleBudget
from pretrim.surgery.apply import cut, kept_channels


def attention(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    b, c, h, w = x.shape
    tokens = x.flatten(2).transpose(1, 2)
    q, k, v = m.qkv(tokens).reshape(b, h * w, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
    mixed = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(b, h * w, c)
    return m.c(x + m.proj(mixed).transpose(1, 2).reshape(b, c, h, w))  # type: ignore[no-any-return]


def token_mixer(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    b, c, h, w = x.size()
    return m.c(m.linear(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(b, c, h, w))  # type: ignore[no-any-return]


def shuffle(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    b, c, h, w = x.shape
    x = x.view(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w)
    return m.d(x)  # type: ignore[no-any-return]


def padded(m: Any, x: Tensor) -> Tensor:
    x, y = m.a(x), m.b(x)
    zeros = torch.zeros(x.size(0), x.size(1), *y.shape[2:], dtype=x.dtype)
    return m.c(y + zeros)  # type: ignore[no-any-return]


def expanded(m: Any, x: Tensor) -> Tensor:
    x, y = m.a(x), m.b(x)
    return m.c(y * m.gate(x).expand(-1, x.size(1), -1, -1))  # type: ignore[no-any-return]


def shift(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    c = x.size(1)
    fold, out = c // 4, torch.zeros_like(x)
    out[:, :fold, :-1] = x[:, :fold, 1:]
    out[:, fold : 2 * fold, 1:] = x[:, fold : 2 * fold, :-1]
    out[:, c - 2 * fold :] = x[:, c - 2 * fold :]
    return m.c(x + out)  # type: ignore[no-any-return]


def gate_shaped_like_b(m: Any, x: Tensor) -> Tensor:
    x, y = m.a(x), m.b(x)
    return m.c(m.linear(x.mean((2, 3))).view(x.shape[0], y.shape[1], 1, 1) * y)  # type: ignore[no-any-return]


def reshaped_as_a(m: Any, x: Tensor) -> Tensor:
    x, y = m.a(x), m.b(x)
    return m.c(m.linear(y.flatten(2).transpose(1, 2)).transpose(1, 2).reshape_as(x))  # type: ignore[no-any-return]


KERNEL = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]], dtype=torch.float64) / 16


def blurred(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    channels = x.shape[1]
    kernel = KERNEL[None, None].repeat(channels, 1, 1, 1)
    return m.c(functional.conv2d(x, kernel, padding=1, groups=channels))  # type: ignore[no-any-return]


def repeated(m: Any, x: Tensor) -> Tensor:
    x, y = m.a(x), m.b(x)
    return m.c(y * m.gate(x).repeat(1, y.size(1), 1, 1))  # type: ignore[no-any-return]


def linear(into: int, out: int) -> nn.Linear:
    return nn.Linear(into, out, bias=False)


def layers(**more: nn.Module) -> dict[str, nn.Module]:
    return {"a": conv(3, 16), "c": conv(16, 2), **more}


MODELS: dict[str, Callable[[], Net]] = {
    "attention": lambda: Net(attention, **layers(qkv=linear(16, 48), proj=linear(16, 16))),
    "token mixer": lambda: Net(token_mixer, **layers(linear=linear(16, 16))),
    "pixel shuffle by hand": lambda: Net(shuffle, a=conv(3, 16), d=conv(4, 2)),
    "zeros of another's size": lambda: Net(padded, **layers(b=conv(3, 16))),
    "expanded to another's size": lambda: Net(expanded, **layers(b=conv(3, 16), gate=conv(16, 1))),
    "a kernel for every channel": lambda: Net(blurred, **layers()),
    "repeated to another's size": lambda: Net(repeated, **layers(b=conv(3, 16), gate=conv(16, 1))),
    "temporal shift": lambda: Net(shift, **layers()),
    "gate of another's size": lambda: Net(gate_shaped_like_b, **layers(b=conv(3, 16), linear=linear(16, 16))),
    "reshaped as another": lambda: Net(reshaped_as_a, **layers(b=conv(3, 16), linear=linear(16, 16))),
}
LAST = {"pixel shuffle by hand": "d"}


@pytest.mark.parametrize("name", MODELS)
def test_a_network_that_reads_the_size_of_another_tensor_is_slimmed_exactly(name: str) -> None:
    model = randomise(MODELS[name](), 0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    assert [frozen.layer for frozen in network.frozen] == [LAST.get(name, "c")]
    assert min(group.channels for group in network.groups) >= (1 if name.endswith("to another's size") else 4)
    widths = np.maximum(network.dense // 2, 1)
    keep = kept_channels(network, widths, np.random.default_rng(0).random(len(network.group_of)))
    slim = cut(model, network, widths, keep, rescale=False)
    assert slim.get_submodule("a").weight.shape[0] < 16
    assert relative_error(run(slim, images), run(masked(model, network, keep), images)) < 1e-10


def test_a_width_remembers_its_share_of_the_channels() -> None:
    ids = np.arange(12)
    width = Width(12, ids)
    third = width // 3
    assert (third, third.share) == (4, Fraction(1, 3)) and (2 * third).share == Fraction(2, 3)
    assert (width - third).share == Fraction(2, 3) and (third + third).share == Fraction(2, 3)
    for plain in (width // 5, third + 1, width - 1, third + Width(12, ids + 1), width * 0.5):
        assert type(plain) in (int, float)


def test_only_the_size_that_was_read_is_recognised() -> None:
    """A height of 8 next to 8 channels stays a height; a value that could be either is left alone."""
    sizes = SizesRead(lambda tensor: (None,) * tensor.dim())
    width = Width(8, np.arange(8))
    sizes.asked = [1, width, 8, 4]
    assert sizes.of([1, 8, 8, 4]) == [None, width, None, None]
    assert sizes.of([8, 4]) == [None, None]
    sizes.asked = [1, width, 4]
    assert sizes.of([8]) == [width]


RATIOS = [0.25, 0.34, 0.5, 0.75]


def by_ratio(ratio: float) -> Callable[[Any, Tensor], Tensor]:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = torch.relu(m.a(x))
        k = int(x.shape[1] * ratio)
        return m.c(torch.relu(m.b(torch.cat([2 * x[:, :k], -x[:, k:]], 1))))  # type: ignore[no-any-return]

    return forward


def at_least(m: Any, x: Tensor) -> Tensor:
    x = torch.relu(m.a(x))
    return m.c(torch.relu(m.b(torch.cat([x, x[:, : max(2, x.shape[1] // 4)]], 1))))  # type: ignore[no-any-return]


NARROW = {f"ratio {r} of {c}": (by_ratio(r), c, c) for c, r in zip((8, 12, 16, 16), RATIOS, strict=True)}
NARROW |= {f"at least two of {c}": (at_least, c, c + c // 4) for c in (8, 12)}


@pytest.mark.parametrize("name", NARROW)
def test_no_plan_of_a_narrow_network_fails_when_it_is_applied(name: str) -> None:
    """Numbers that `forward` computes from few channels may suit a trial network by chance."""
    forward, channels, inputs = NARROW[name]
    model = Net(forward, a=conv(3, channels), b=conv(inputs, 12), c=conv(12, 2))
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    applied = 0
    for seed, limit in enumerate(("0.8x", "0.6x", "0.45x", "0.3x")):
        try:
            plan = network.plan(macs=limit, mode="random", round_to=1, seed=seed)
        except InfeasibleBudget:
            continue
        slim = plan.apply(model, network=network)
        assert slim(torch.zeros(2, 3, 8, 8)).shape == model(torch.zeros(2, 3, 8, 8)).shape
        applied += 1
    assert applied

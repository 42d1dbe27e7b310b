"""Constants keep their channels: what no training changes is a part of the design, not a filter to be removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import Net, conv, conv1
from torch import Tensor, nn

import pretrim
from pretrim.planning.search import plan_of_widths

IMAGE = torch.zeros(1, 3, 16, 16)


class WithConstant(nn.Module):
    """A constant between trained layers: `use(model, x)` puts it to work."""

    def __init__(self, constant: Tensor, use: Callable[[Any, Tensor], Tensor], into: int, out: int) -> None:
        super().__init__()
        self.before, self.after, self.head = conv(3, into), conv(out, 8), conv(8, 2)
        self.use = use
        self.register_buffer("constant", constant)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.after(self.use(self, torch.relu(self.before(x))))))


def fixed(layer: nn.Module) -> nn.Module:
    return layer.requires_grad_(False)


def expectation(m: Any, x: Tensor) -> Tensor:
    """Distances as expectations over bins (generalised focal loss)."""
    n, _, h, w = x.shape
    return (x.view(n, 4, -1, h, w).softmax(2) * m.constant.view(1, 1, -1, 1, 1)).sum(2)


def by_ramp(m: Any, x: Tensor) -> Tensor:
    return x * torch.linspace(0, 1, x.shape[1]).view(1, -1, 1, 1)


class Bank(nn.Module):
    """Edges in front of a network (Sobel, SRM)."""

    def __init__(self, kernel: Tensor, pick: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.register_buffer("kernel", kernel)
        self.pick = pick
        self.layers = nn.Sequential(conv(len(kernel), 8), conv(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(F.conv2d(self.pick(x), self.kernel))


class Spectrum(Bank):
    """A short-time Fourier transform in front: sines and cosines that slide along a signal."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(F.conv1d(self.pick(x), self.kernel).square().unsqueeze(-1))


CONSTANTS: dict[str, nn.Module] = {
    "filters in front": nn.Sequential(fixed(conv(3, 12)), nn.ReLU(), conv(12, 8), conv(8, 2)),
    "filters between": nn.Sequential(conv(3, 8), fixed(conv(8, 12)), conv(12, 8), conv(8, 2)),
    "filters at the end": nn.Sequential(conv(3, 8), conv(8, 8), fixed(conv(8, 3))),
    "a weight alone": nn.Sequential(conv(3, 8), conv(8, 12), conv(12, 8), conv(8, 2)),
    "grouped filters": nn.Sequential(conv(3, 8), fixed(conv(8, 16, groups=4)), conv(16, 8), conv(8, 2)),
    "transposed": nn.Sequential(conv(3, 8), fixed(nn.ConvTranspose2d(8, 6, 2, 2)), conv(6, 8), conv(8, 2)),
    "a bank in a buffer, in front": Bank(torch.randn(6, 3, 3, 3)),
    "a bank in a buffer, on grey": Bank(torch.randn(6, 1, 3, 3), lambda x: x[:, :1]),
    "a bank in a buffer, on signals": Spectrum(torch.randn(6, 3, 9), lambda x: x.flatten(2)),
    "a bank in a buffer, on one signal": Spectrum(torch.randn(6, 1, 9), lambda x: x[:, :1].flatten(2)),
    "bins": WithConstant(torch.linspace(0, 7, 8), expectation, 32, 4),
    "bins in logarithmic steps": WithConstant(torch.logspace(-2, 2, 8), expectation, 32, 4),
}
CONSTANTS["a weight alone"][1].weight.requires_grad_(False)


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_neither_change_nor_lose_channels(name: str) -> None:
    model = CONSTANTS[name]
    network = pretrim.analyze(model, IMAGE)
    assert network.groups
    slim = plan_of_widths(network, network.dense // 2).apply(model)
    constants = {n: p for n, p in model.named_parameters() if not p.requires_grad} | dict(model.named_buffers())
    assert constants
    for key, tensor in slim.state_dict().items():
        assert key not in constants or torch.equal(tensor, constants[key])


@pytest.mark.parametrize(("name", "layer"), [("filters in front", "0"), ("a weight alone", "1")])
def test_a_constant_layer_is_frozen_with_its_reason(name: str, layer: str) -> None:
    frozen = {f.layer: f.reason for f in pretrim.analyze(CONSTANTS[name], IMAGE).frozen}
    assert frozen[layer] == f"{layer}.weight is constant (requires_grad=False)"


def test_a_ramp_that_forward_makes_keeps_its_channels() -> None:
    frozen = {f.layer: f.reason for f in pretrim.analyze(WithConstant(torch.zeros(1), by_ramp, 8, 8), IMAGE).frozen}
    assert frozen["before"].startswith("linspace makes values whose meaning depends on their position")


class FrozenNorm(nn.Module):
    """A batch norm whose statistics and weights are buffers, as detectors have them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.rand(channels))
        self.register_buffer("shift", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale[:, None, None] + self.shift[:, None, None]


def blurred(m: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, m.constant, groups=x.shape[1], padding=1)


FREE: dict[str, nn.Module] = {
    "a frozen norm": nn.Sequential(conv(3, 8), FrozenNorm(8), conv(8, 2)),
    "a norm without gradients": nn.Sequential(conv(3, 8), fixed(nn.BatchNorm2d(8)), conv(8, 2)),
    "one blur for all": WithConstant(torch.ones(8, 1, 3, 3) / 9, blurred, 8, 8),
    "a model without gradients": fixed(nn.Sequential(conv(3, 8), conv(8, 2))),
}


@pytest.mark.parametrize("name", FREE)
def test_constants_that_are_alike_for_all_channels_hinder_nothing(name: str) -> None:
    network = pretrim.analyze(FREE[name], IMAGE)
    assert {f.layer for f in network.frozen} <= {"1", "2", "head"}
    assert network.groups


def test_trained_layers_beside_a_constant_start_with_their_own_variance() -> None:
    """The constant is not rescaled; the layer that reads the cut channels is."""
    model = nn.Sequential(fixed(conv1(3, 3)), conv(3, 8), conv(8, 8), conv(8, 2))
    slim = plan_of_widths(pretrim.analyze(model, IMAGE), [2, 8]).apply(model)
    assert torch.equal(slim[0].weight, model[0].weight)
    assert not torch.equal(slim[2].weight, model[2].weight[:, :2])


def test_a_net_with_a_constant_parameter_counts_it() -> None:
    model = Net(lambda m, x: m.c(m.a(x)), a=fixed(conv(3, 8)), c=conv(8, 2))
    network = pretrim.analyze(model, IMAGE)
    assert plan_of_widths(network, []).dense["params"] == sum(p.numel() for p in model.parameters())

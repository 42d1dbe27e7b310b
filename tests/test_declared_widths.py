"""Integers that only other methods read follow their widths: a slim network can be merged, reset, and built on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import conv
from reference import randomise, relative_error, run
from torch import Tensor, nn

import pretrim
from pretrim.planning.search import plan_of_widths

IMAGE = torch.zeros(1, 3, 16, 16)


class Branches(nn.Module):
    """Two branches that become one convolution, by the integers that the block keeps (RepVGG, MobileOne)."""

    def __init__(self, into: int, out: int, groups: int = 1) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = into, out, groups
        self.large = nn.Conv2d(into, out, 3, padding=1, groups=groups)
        self.small = nn.Conv2d(into, out, 1, groups=groups)
        self.merged: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.merged is not None:
            return self.merged(x)  # type: ignore[no-any-return]
        return self.large(x) + self.small(x)  # type: ignore[no-any-return]

    def merge(self) -> None:
        merged = nn.Conv2d(self.in_channels, self.out_channels, 3, padding=1, groups=self.groups).double()
        assert merged.weight.shape == self.large.weight.shape
        merged.weight.data = self.large.weight.data + F.pad(self.small.weight.data, [1] * 4)
        merged.bias.data = self.large.bias.data + self.small.bias.data
        self.merged = merged


class Classifier(nn.Module):
    """Its head is made anew from the stored number of features, as timm does."""

    def __init__(self) -> None:
        super().__init__()
        self.num_features = 24
        self.trunk, self.head = nn.Sequential(conv(3, 8), conv(8, self.num_features)), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x).mean((2, 3)))  # type: ignore[no-any-return]

    def reset(self, classes: int) -> None:
        self.head = nn.Linear(self.num_features, classes)


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_branches_of_a_slim_network_can_be_merged(groups: int) -> None:
    block = Branches(8, 8, groups)
    model = randomise(nn.Sequential(conv(3, 8), block, Branches(8, 12), conv(12, 2)), 0)
    network = pretrim.analyze(model, IMAGE.double())
    slim = plan_of_widths(network, network.dense // 2).apply(model)
    before = run(slim, torch.randn(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    for module in slim.modules():
        if isinstance(module, Branches):
            module.merge()
    after = run(slim, torch.randn(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    assert relative_error(after, before) < 1e-10


def test_a_head_can_be_made_anew() -> None:
    model = Classifier()
    network = pretrim.analyze(model, IMAGE)
    slim = plan_of_widths(network, network.dense // 2).apply(model)
    slim.reset(7)  # type: ignore[operator]
    assert slim(IMAGE).shape == (1, 7)


class Unclear(Classifier):
    """The attribute may mean either of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.num_channels = 8
        self.trunk = nn.Sequential(conv(3, 8), conv(8, 8, groups=1), conv(8, 24))


def test_an_integer_that_may_stand_for_several_widths_is_named() -> None:
    (note,) = pretrim.analyze(Unclear(), IMAGE).notes
    assert note.endswith("stay where they may stand for several widths: num_channels of the model")


class Heads(nn.Module):
    """An integer that is not a width: the group of layers has as many channels by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.dim_heads = 8
        self.first, self.second = conv(3, 8), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) * self.dim_heads)  # type: ignore[no-any-return]


def test_an_integer_that_forward_computes_with_stays() -> None:
    model = Heads()
    slim = plan_of_widths(pretrim.analyze(model, IMAGE), [4]).apply(model)
    assert slim.dim_heads == 8

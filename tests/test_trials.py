"""Numbers that forward computes from widths may fit one narrower network by chance: no plan may fail at apply."""

from __future__ import annotations

import pytest
import torch
from networks import conv
from torch import Tensor, nn

import pretrim
from pretrim.errors import InfeasibleBudget


class Partial(nn.Module):
    """A share of the channels is treated apart, counted from the width at hand."""

    def __init__(self, channels: int, share: float) -> None:
        super().__init__()
        self.share = share
        self.first, self.second, self.head = conv(3, channels), conv(channels, 8), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        k = int(x.shape[1] * self.share)
        return self.head(torch.relu(self.second(torch.cat([2 * x[:, :k], -x[:, k:]], 1))))  # type: ignore[no-any-return]


@pytest.mark.parametrize("share", [0.25, 0.34, 0.5, 0.75, 0.875])
@pytest.mark.parametrize("channels", [8, 12, 16])
def test_every_plan_of_a_narrow_network_can_be_applied(channels: int, share: float) -> None:
    model = Partial(channels, share)
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    applied = 0
    for seed in range(6):
        for limit in ("0.8x", "0.5x"):
            try:
                plan = network.plan(mode="random", macs=limit, round_to=1, seed=seed)
            except InfeasibleBudget:
                continue
            slim = plan.apply(model, network=network)
            assert slim(torch.zeros(2, 3, 8, 8)).shape == model(torch.zeros(2, 3, 8, 8)).shape
            applied += 1
    assert applied


class Standardised(nn.Module):
    """Its weights are normalised over what each filter reads, as in NFNets: torch refuses that for one number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = conv(3, 8), nn.Conv2d(8, 8, 1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        flat = self.second.weight.reshape(1, self.second.out_channels, -1)
        weight = nn.functional.batch_norm(flat, None, None, training=True).reshape(self.second.weight.shape)
        x = nn.functional.conv2d(x, weight)
        return self.head(torch.cat([x[:, :4], -x[:, 4:]], 1).mean((2, 3)))  # type: ignore[no-any-return]


def test_a_layer_that_cannot_read_one_channel_is_not_frozen_for_it() -> None:
    network = pretrim.analyze(Standardised(), torch.zeros(1, 3, 8, 8))
    assert {group.name for group in network.groups} == {"first", "second.weight"}

"""Numbers that `forward` computes from widths may suit a narrower network by chance; no plan may fail at `apply`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import conv
from reference import masked, randomise, relative_error, run
from torch import Tensor, nn
from torch.nn import functional

import pretrim
from pretrim.errors import InfeasibleBudget, PlanError
from pretrim.jobs.options import Search, TargetOptions
from pretrim.jobs.plan import plan_for
from pretrim.jobs.reporter import Silent
from pretrim.jobs.target import find_target
from pretrim.models.dense import open_model
from pretrim.surgery.apply import cut, kept_channels

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))  # separate scripts, not a package

import narrow_plans


class Partial(nn.Module):
    """Treats a share of the channels separately; their number is computed from the current width."""

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
    """Normalises its weights over the inputs of each filter, as NFNets do; torch refuses that for a single value."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = conv(3, 8), nn.Conv2d(8, 8, 1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        flat = self.second.weight.reshape(1, self.second.out_channels, -1)
        weight = nn.functional.batch_norm(flat, None, None, training=True).reshape(self.second.weight.shape)
        x = nn.functional.conv2d(x, weight)
        return self.head(torch.cat([x[:, :4], -x[:, 4:]], 1).mean((2, 3)))  # type: ignore[no-any-return]


def test_a_layer_that_fails_with_one_input_channel_is_not_frozen() -> None:
    network = pretrim.analyze(Standardised(), torch.zeros(1, 3, 8, 8))
    assert {group.name for group in network.groups} == {"first", "second.weight"}


class HalfExcept(nn.Module):
    """Computes a number that is half of the width, except for the widths in `exceptions`."""

    def __init__(self) -> None:
        super().__init__()
        self.exceptions = {0}
        self.first, self.second, self.head = conv(3, 16), conv(16, 8), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        half = x.shape[1] // 2 - (x.shape[1] in self.exceptions)
        return self.head(self.second(torch.cat([2 * x[:, :half], -x[:, half:]], 1)))  # type: ignore[no-any-return]


class Rejoined(nn.Module):
    """Combines channels with others at an offset computed from both widths; the shape is right at any offset."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.join = join
        self.first, self.second, self.head = conv(3, 8), conv(8, 16), conv(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.second(x)
        return self.head(self.join(x, y))  # type: ignore[no-any-return]


def centred(x: Tensor, y: Tensor) -> Tensor:
    """The shortcut of a ResNet without parameters."""
    more = y.shape[1] - x.shape[1]
    return y + functional.pad(x, (0, 0, 0, 0, more // 2, more - more // 2))


def middle(x: Tensor, y: Tensor) -> Tensor:
    start = (y.shape[1] - x.shape[1]) // 2
    return x * y[:, start : start + x.shape[1]]


def before_last(x: Tensor, y: Tensor) -> Tensor:
    return x * y[:, -x.shape[1] - 4 : -4]


@pytest.mark.parametrize("join", [centred, middle, before_last])
def test_channels_keep_their_offset_among_others(join: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = Rejoined(join)
    if join is not centred:
        model.head = conv(8, 2)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    randomise(model, 0)
    network = pretrim.analyze(model, images)
    assert network.groups
    for seed in range(5):
        random = np.random.default_rng(seed)
        widths = random.integers(1, network.dense, endpoint=True)
        keep = kept_channels(network, widths, random.random(len(network.group_of)))
        slim = cut(model, network, widths, keep, rescale=False)
        assert relative_error(run(slim, images), run(masked(model, network, keep), images)) < 1e-10


class Apart(nn.Module):
    """Treats some channels separately; the number of the others is computed from a stored width."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.part = 12, 4
        self.first, self.second, self.head = conv(3, 12), conv(4, 4), conv(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        part, rest = torch.split(self.first(x), [self.part, self.dim - self.part], dim=1)
        return self.head(torch.cat([self.second(part), rest], 1))  # type: ignore[no-any-return]


class Shared(Apart):
    """Here the stored number of separate channels is also the width of a tensor computed from them."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.second = 2, conv(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        part, rest = torch.split(self.first(x), [self.part, self.dim - self.part], dim=1)
        q, k, v = self.second(part).split([self.keys, self.keys, self.part], dim=1)
        return self.head(torch.cat([v * (q * k).mean(1, keepdim=True), rest], 1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Apart, Shared])
def test_a_number_computed_from_a_stored_width_follows_the_widths(kind: type[Apart]) -> None:
    model = kind()
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    assert [frozen.layer for frozen in network.frozen] == ["head"]
    for seed in range(4):
        slim = network.plan(mode="random", macs="0.5x", round_to=1, seed=seed).apply(model, network=network)
        assert slim(torch.zeros(2, 3, 8, 8)).shape == (2, 2, 8, 8)


IMAGES = torch.zeros(2, 3, 8, 8)


def plan_width(plan: pretrim.Plan, model: HalfExcept) -> int:
    return int(plan.apply(model).first.out_channels)  # type: ignore[union-attr,arg-type]


def test_a_plan_that_fails_is_avoided_by_the_next_one() -> None:
    """The error says what to do; the next plan can be applied, both with the new analysis and without one."""
    model = HalfExcept()
    network = pretrim.analyze(model, IMAGES[:1])
    plan = network.plan(macs="0.5x", round_to=1)
    model.exceptions = {plan_width(plan, model)}
    with pytest.raises(
        PlanError, match=r"knows better now: make the plan again, of pretrim.analyze\(.*tried="
    ) as caught:
        plan.apply(model, network=network)
    assert "please report" not in str(caught.value)
    tried = {group.name: group.kept for group in plan.groups}
    updated = pretrim.analyze(model, IMAGES[:1], tried=[tried])
    second_plan = pretrim.Plan.from_json(updated.plan(macs="0.5x", round_to=1).to_json())
    assert second_plan.tried == (tried,)
    for network in (updated, None):
        assert second_plan.apply(model, network=network)(IMAGES).shape == model(IMAGES).shape


def test_commands_replace_a_plan_that_fails() -> None:
    dense, search = open_model(model := HalfExcept(), (3, 8, 8), None), Search(round_to=1)
    target = find_target(TargetOptions(), {"macs": "0.5x"}, search)
    first = plan_for(dense, target, search, Silent())
    model.exceptions = {plan_width(first, model)}
    plan = plan_for(dense, target, search, Silent())
    assert plan.tried and plan.groups != first.groups
    assert plan.apply(model, network=dense.network)(IMAGES).shape == model(IMAGES).shape


@pytest.mark.parametrize("name", ["int(c * 0.66), 16", "partial convolution, 16", "shuffle unit, 12"])
def test_plans_of_the_benchmark_can_be_applied(name: str) -> None:
    result = narrow_plans.tried(narrow_plans.networks()[name])
    assert result["applied"] == narrow_plans.PLANS and not result["failed"]

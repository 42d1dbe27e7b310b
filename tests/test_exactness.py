"""The test behind everything: the slim network computes what the dense one does with the removed entries set to zero.

Costs are compared to the unit with independent counters: `numel`, torch's FlopCounterMode, forward hooks, and numbers
made by hand. Norms across channels see only the kept channels (reference.KeptNorm); other operators that mix channels
are compared with references written out here.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, get_args

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import AWKWARD, Awkward, Net, Recipe, build, conv, conv1, example, recipes
from reference import (
    counted_activation_bytes,
    counted_macs,
    kept_at,
    masked,
    outputs_vary,
    randomise,
    relative_error,
    run,
)
from torch import Tensor, nn

import pretrim
from pretrim.analysis.network import Network
from pretrim.errors import InfeasibleBudget
from pretrim.models import BUILTIN
from pretrim.planning.options import Method
from pretrim.planning.plan import Plan
from pretrim.planning.search import plan_of_widths
from pretrim.surgery.apply import kept_channels, score

EXACT = 1e-10
PARTS, EXAMPLES = 8, 45  # 360 random networks, each with two plans


# ---------------------------------------------------------------------------------------- what is checked


def assert_exact(model: nn.Module, network: Network, plan: Plan, inputs: Any) -> nn.Module:
    """Apply with the values of the model, and compare with the masked dense network in eval and in train mode."""
    slim = pretrim.apply(model, plan, init="inherit")
    keep = kept_channels(network, plan.widths, score(model, network))
    reference = masked(model, network, keep)
    for training in (False, True):
        found, expected = run(slim.train(training), inputs), run(reference.train(training), inputs)
        assert relative_error(found, expected) < EXACT
    return slim.eval()


def assert_counted(slim: nn.Module, plan: Plan, one_image: Any) -> None:
    """Planned costs are counted costs, to the unit."""
    assert sum(p.numel() for p in slim.parameters()) == plan.slim["params"]
    assert counted_macs(slim, one_image) == plan.slim["macs"]
    assert counted_activation_bytes(slim, one_image) == plan.slim["activation_bytes"]


def assert_structure_of_fresh(model: nn.Module, network: Network, plan: Plan, inherited: nn.Module) -> None:
    """Fresh weights: the same modules and shapes; each tensor is its first kept channels, times one factor if cut."""
    fresh = pretrim.apply(model, plan)
    assert [type(m) for m in fresh.modules()] == [type(m) for m in model.modules()]
    shapes = {name: tuple(t.shape) for name, t in inherited.state_dict().items()}
    assert {name: tuple(t.shape) for name, t in fresh.state_dict().items()} == shapes
    keep = kept_channels(network, plan.widths)
    dense, slim = model.state_dict(), fresh.state_dict()
    for parameter in network.parameters:
        expected = dense[parameter.name]
        for dim, mask in enumerate(kept_at(network, parameter, keep)):
            expected = expected.index_select(dim, torch.from_numpy(np.flatnonzero(mask)))
        found = slim[parameter.name]
        if found.shape == dense[parameter.name].shape or found.dim() < 2:
            assert torch.equal(found, expected)
        else:
            factor = float(found.abs().sum() / expected.abs().sum())
            torch.testing.assert_close(found, expected * factor, rtol=1e-9, atol=0)


def random_widths(network: Network, seed: int) -> Plan:
    generator = np.random.default_rng(seed)
    return plan_of_widths(network, generator.integers(1, network.dense + 1))


def random_budget(network: Network, seed: int) -> Plan | None:
    """A plan from a budget in any mode; None where the draw is infeasible."""
    r = Random(seed)
    names = r.sample(["params", "macs", "flash", "ram", "activation"], r.choice([1, 1, 2]))
    limits = {name: f"{r.uniform(0.3, 0.95):.2f}x" for name in names}
    mode = r.choice([method for method in get_args(Method) if method != "latency"])  # it needs a measurement
    drawn = {
        "step": r.choice(["fraction", "filter"]),
        "share_update": r.choice(["static", "adaptive"]),
        "coupling": r.choice(["sum", "mean", "max"]),
    }
    sampling = {} if mode == "balanced" else drawn
    try:
        return network.plan(**limits, mode=mode, round_to=r.choice([1, 2, 8]), seed=seed, **sampling)
    except InfeasibleBudget:
        return None


# ---------------------------------------------------------------------------------------- random networks


@pytest.mark.parametrize("part", range(PARTS))
def test_random_networks_with_random_plans_are_exact(part: int) -> None:
    @hypothesis.seed(part)
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],  # recipes are small as they are drawn
    )
    @hypothesis.given(recipe=recipes(3), seed=st.integers(0, 10_000))
    def exact(recipe: Recipe, seed: int) -> None:
        model = randomise(build(recipe), seed)
        one_image = example(recipe, dtype=torch.float64)
        images = example(recipe, seed=1, batch=2, dtype=torch.float64)
        outputs_vary(model, images)
        network = pretrim.analyze(model, one_image)
        plan = random_widths(network, seed)
        slim = assert_exact(model, network, plan, images)
        assert_counted(slim, plan, one_image)
        assert_structure_of_fresh(model, network, plan, slim)
        budgeted = random_budget(network, seed) if network.groups else None
        if budgeted is not None:
            assert_counted(assert_exact(model, network, budgeted, images), budgeted, one_image)

    exact()


# ---------------------------------------------------------------------------------------- awkward networks, by hand


@pytest.mark.parametrize("net", AWKWARD, ids=lambda net: net.name)
def test_awkward_networks_have_the_groups_found_by_hand(net: Awkward) -> None:
    network = pretrim.analyze(net.build(), net.example)
    assert tuple((group.channels, group.multiplicity) for group in network.groups) == net.groups


@pytest.mark.parametrize("net", AWKWARD, ids=lambda net: net.name)
def test_awkward_networks_cost_what_a_hand_finds(net: Awkward) -> None:
    network = pretrim.analyze(net.build(), net.example)
    plan = plan_of_widths(network, network.dense)
    assert (plan.dense["params"], plan.dense["macs"]) == (net.params, net.macs)


@pytest.mark.parametrize("net", AWKWARD, ids=lambda net: net.name)
def test_awkward_networks_are_exact_at_every_narrow_plan(net: Awkward) -> None:
    model = randomise(net.build(), 1)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    outputs_vary(model, images)
    network = pretrim.analyze(model, images)
    for share in (0.01, 0.4, 0.7, 1.0):
        plan = plan_of_widths(network, np.maximum(1, (network.dense * share).astype(int)))
        assert_counted(assert_exact(model, network, plan, images), plan, images[:1])


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2", "alexnet"])
def test_built_in_networks_are_exact_at_half_the_macs(name: str) -> None:
    model = randomise(BUILTIN[name](), 3).eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    outputs_vary(model, images)
    network = pretrim.analyze(model, images)
    plan = network.plan(mode="macs", macs="0.5x")
    slim = pretrim.apply(model, plan, init="inherit")
    reference = masked(model, network, kept_channels(network, plan.widths, score(model, network)))
    assert relative_error(run(slim, images), run(reference, images)) < EXACT
    assert_counted(slim, plan, images[:1])


# ---------------------------------------------------------------------------------------- widths and integers that bite


class TokenMixer(nn.Module):
    """Linear layers on pixels as tokens: with one channel left, torch runs another sequence of operators."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.linear, self.head = conv(3, 12), nn.Linear(12, 8), conv(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        tokens = F.relu(self.stem(x)).flatten(2).transpose(1, 2)
        return self.head(self.linear(tokens).transpose(1, 2).reshape(n, -1, h, w))


@pytest.mark.parametrize("widths", [(1, 8), (12, 1), (1, 1)])
def test_a_layer_may_be_cut_to_one_channel(widths: tuple[int, int]) -> None:
    model = randomise(TokenMixer(), 0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    assert_exact(model, network, plan_of_widths(network, widths), images)


def test_an_einsum_over_one_channel_is_a_product_all_the_same() -> None:
    """Torch multiplies elementwise where one channel is left, instead of the matrix product of the dense network."""
    model = Net(lambda m, x: torch.einsum("nchw,oc->nohw", m.a(x), m.b.weight), a=conv1(3, 8), b=nn.Linear(8, 2))
    model, images = randomise(model, 0), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    assert_exact(model, network, plan_of_widths(network, [1]), images)


def test_a_narrow_stem_before_linear_layers_on_pixels_is_not_frozen() -> None:
    """A trial at one channel runs other operators than the dense network; that is no reason to freeze."""
    model = Net(lambda m, x: m.b(m.l(m.a(x).flatten(2).mT).mT.unflatten(2, (8, 8))), a=conv(3, 4), l=nn.Linear(4, 8))
    model.b = conv(8, 2, 1)
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    assert [group.channels for group in network.groups] == [4, 8]


class StoredHalf(nn.Module):
    """One stored integer is the width of both halves."""

    def __init__(self, half: int, style: str) -> None:
        super().__init__()
        self.half, self.style = half, style
        self.conv, self.branch, self.head = conv(3, 2 * half), conv(half, half), conv(2 * half, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.style == "split":
            a, b = torch.split(x, [self.half, self.half], 1)
        elif self.style == "narrow":
            a, b = x.narrow(1, 0, self.half), x.narrow(1, self.half, self.half)
        else:
            a, b = x[:, : self.half], x[:, self.half :]
        return self.head(torch.cat([a, F.relu(self.branch(b))], 1))


@pytest.mark.parametrize("half", [4, 6, 8, 32])
@pytest.mark.parametrize("style", ["split", "narrow", "slice"])
def test_one_stored_half_width_never_breaks_a_network(style: str, half: int) -> None:
    model = randomise(StoredHalf(half, style), 0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    for seed in range(4):
        assert_exact(model, network, random_widths(network, seed), images)


@pytest.mark.parametrize("half", [6, 32])
@pytest.mark.parametrize("style", ["split", "slice"])
def test_one_stored_half_width_ties_the_halves(style: str, half: int) -> None:
    """The halves can be cut together (docs: the plan ties their widths), so the layer is not frozen."""
    network = pretrim.analyze(StoredHalf(half, style), torch.zeros(1, 3, 8, 8))
    assert "conv" in {layer for group in network.groups for layer in group.layers}


class HalfOfAStoredWidth(nn.Module):
    """The stored integer is the width; `forward` halves it (CSPDarknet in timm)."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.width, self.style = 16, style
        self.conv, self.branch, self.head = conv(3, 16), conv(8, 8), conv(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.style == "split":
            a, b = x.split(self.width // 2, dim=1)
        elif self.style == "sizes":
            a, b = torch.split(x, [self.width // 2, self.width // 2], 1)
        else:
            a, b = x[:, : self.width // 2], x[:, self.width // 2 :]
        return self.head(torch.cat([a, F.relu(self.branch(b))], 1))


@pytest.mark.parametrize("style", ["split", "sizes", "slice"])
def test_half_of_a_stored_width_follows_the_whole(style: str) -> None:
    model = randomise(HalfOfAStoredWidth(style), 0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    assert [(group.name, group.channels, group.multiplicity) for group in network.groups] == [
        ("conv", 8, 2),
        ("branch", 8, 1),
    ]
    for seed in range(3):
        assert_exact(model, network, random_widths(network, seed), images)


class NonLocal(nn.Module):
    """Attention over pixels (Wang et al. 2018): keys and values differ, and share one stored width."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = 8
        self.stem, self.head = conv(3, 16), conv(16, 2, 1)
        self.query, self.key, self.value = (conv1(16, 8) for _ in range(3))
        self.out = conv1(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        n, _, h, w = x.shape
        value = self.value(x).view(n, self.inner, -1).permute(0, 2, 1)
        query = self.query(x).view(n, self.inner, -1).permute(0, 2, 1)
        key = self.key(x).view(n, self.inner, -1)
        y = (torch.matmul(query, key).softmax(-1) @ value).permute(0, 2, 1).contiguous()
        return self.head(x + self.out(y.view(n, self.inner, h, w)))


def test_channels_that_one_stored_integer_stands_for_are_tied() -> None:
    model = randomise(NonLocal(), 0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    assert [set(group.layers) for group in network.groups] == [{"stem", "out"}, {"query", "key", "value"}]
    for seed in range(3):
        assert_exact(model, network, random_widths(network, seed), images)


class StoredWidth(nn.Module):
    """One stored integer for layers far apart: groups 0 and 6 are tried at the same ratio."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 32
        self.convs = nn.ModuleList([conv(3 if i == 0 else 32, 32, 1) for i in range(7)])
        self.head = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self.convs):
            x = F.relu(layer(x))
            if number % 6 == 0:
                x = x.view(x.shape[0], self.width, 8, 8)
        return self.head(x.mean((2, 3)))


def test_one_stored_integer_for_two_layers_never_breaks_a_network() -> None:
    model = randomise(StoredWidth(), 0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    for seed in range(3):
        assert_exact(model, network, random_widths(network, seed), images)


class ShiftedInTime(nn.Module):
    """Temporal shift (TSM): an eighth of the channels looks back, an eighth ahead; `forward` divides by eight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.conv, self.head = conv(3, width), conv(width, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        fold, moved = x.shape[1] // 8, torch.zeros_like(x)
        moved[:, :fold] = x[:, :fold].roll(1, 3)
        moved[:, fold : 2 * fold] = x[:, fold : 2 * fold].roll(-1, 3)
        moved[:, 2 * fold :] = x[:, 2 * fold :]
        return self.head(self.conv(moved).mean((2, 3)))


@pytest.mark.parametrize("width", [8, 16, 24, 32, 64])
def test_parts_of_two_or_three_channels_computed_in_forward_never_break_a_network(width: int) -> None:
    model = randomise(ShiftedInTime(width), 0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    for seed in range(4):
        assert_exact(model, network, random_widths(network, seed), images)


class Recurrent(nn.Module):
    """A convolutional GRU whose state is as wide as the image is high."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.stem, self.gates, self.new = conv(3, 8), conv(8 + width, 2 * width), conv(8 + width, width)
        self.head = conv(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[0], self.width, 8, 8, dtype=x.dtype)
        for _ in range(2):
            y = self.stem(x)
            reset, update = torch.split(torch.sigmoid(self.gates(torch.cat([y, state], 1))), self.width, dim=1)
            new = torch.tanh(self.new(torch.cat([y, reset * state], 1)))
            state = (1 - update) * state + update * new
        return self.head(state)


def test_a_stored_width_that_is_the_images_height_by_chance_is_mended() -> None:
    model = randomise(Recurrent(), 0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    assert [(group.name, group.channels) for group in network.groups] == [("stem", 8), ("gates", 8)]
    for seed in range(3):
        assert_exact(model, network, random_widths(network, seed), images)


class PadBoth(nn.Module):
    """A shortcut padded on both sides by one stored integer."""

    def __init__(self) -> None:
        super().__init__()
        self.half = 2
        self.stem, self.conv, self.head = conv(3, 8), conv(8, 12), conv(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.conv(x) + F.pad(x, (0, 0, 0, 0, self.half, self.half)))


def test_one_stored_pad_for_both_sides_never_breaks_a_network() -> None:
    model = randomise(PadBoth(), 0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    for seed in range(4):
        assert_exact(model, network, random_widths(network, seed), images)


def test_mixers_do_not_name_operators_over_channels_that_stay() -> None:
    """A mean over pixels that a frozen linear layer mixed removes nothing from what it averages."""
    model = Net(
        lambda m, x: m.head(m.mix(m.a(x).flatten(2)).reshape(x.shape[0], -1, 8, 8).mean((2, 3))),
        a=conv(3, 8),
        mix=nn.Linear(64, 64),
        head=nn.Linear(8, 2),
    )
    assert pretrim.analyze(model, torch.zeros(1, 3, 8, 8)).mixers == ()


def test_analysis_of_stored_integers_writes_nothing_to_the_console() -> None:
    """Trials that fail are the analysis at work, not errors to show."""
    code = (
        "import torch, pretrim, test_exactness as t; pretrim.analyze(t.StoredHalf(8, 'split'), torch.zeros(1, 3, 8, 8))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=Path(__file__).parent, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---------------------------------------------------------------------------------------- operators that mix channels

MIXERS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda y: y - y.mean(1, keepdim=True),
    "max": lambda y: y * torch.sigmoid(y.amax(1, keepdim=True)),
    "softmax": lambda y: y * y.softmax(1),
    "cbam": lambda y: y * torch.sigmoid(y.mean(1, keepdim=True) + y.max(1, keepdim=True).values),
    "norm": lambda y: F.normalize(y + 1.0, dim=1),
    "layer_norm": lambda y: F.layer_norm(y.permute(0, 2, 3, 1), (y.shape[1],)).permute(0, 3, 1, 2),
    "group_norm": lambda y: F.group_norm(y, 2),
    "local_response": lambda y: F.local_response_norm(y, 3, alpha=0.5),
    "local_response_of_an_even_size": lambda y: F.local_response_norm(y, 2, alpha=0.5),
    "var": lambda y: y / (1.0 + y.var(1, keepdim=True)),
}


@pytest.mark.parametrize("name", MIXERS)
def test_mixers_work_on_the_kept_channels_alone(name: str) -> None:
    model = randomise(Net(lambda m, x: m.b(MIXERS[name](m.a(x))), a=conv1(3, 8), b=conv1(8, 2)), 5)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    plan = plan_of_widths(network, [3])
    kept = kept_channels(network, plan.widths, score(model, network))
    filters = np.flatnonzero(kept[network.members[next(p for p in network.parameters if p.name == "a.weight").dims[0]]])
    filters = torch.from_numpy(filters)
    by_hand = F.conv2d(MIXERS[name](F.conv2d(images, model.a.weight[filters])), model.b.weight[:, filters])
    slim = pretrim.apply(model, plan, init="inherit")
    assert relative_error(run(slim, images), [by_hand.detach()]) < EXACT


@pytest.mark.parametrize("name", MIXERS)
def test_mixers_are_named(name: str) -> None:
    model = Net(lambda m, x: m.b(MIXERS[name](m.a(x))), a=conv1(3, 8), b=conv1(8, 2))
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    assert len(network.mixers) >= 1


def test_a_batch_norm_that_standardises_weights_is_named() -> None:
    """As in norm-free networks (timm's ScaledStdConv2d): its mean runs over the input channels, some of which go."""

    def forward(m: Net, x: Tensor) -> Tensor:
        weight = F.batch_norm(m.b.weight.reshape(1, m.b.out_channels, -1), None, None, training=True)
        return F.conv2d(m.a(x), weight.reshape_as(m.b.weight))

    model = Net(forward, a=conv1(3, 8), b=conv1(8, 2))
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    assert [group.name for group in network.groups] == ["a"]
    assert len(network.mixers) == 1 and "batch_norm" in network.mixers[0]


# ---------------------------------------------------------------------------------------- the peak, by hand


def test_peak_of_a_residual_chain_is_three_feature_maps() -> None:
    """16 channels of 32x32 in int8: the shortcut, the input and the output of the second convolution."""
    network = pretrim.analyze(BUILTIN["resnet20"](), torch.zeros(1, 3, 32, 32))
    plan = plan_of_widths(network, network.dense, "int8")
    assert plan.dense["peak_activation_bytes"] == 3 * 16 * 32 * 32 == 49_152


def test_peak_of_a_chain_is_the_largest_pair_of_neighbours() -> None:
    model = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4), nn.ReLU(), conv(4, 2))
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    dense, slim = plan_of_widths(network, [8, 4], "int8"), plan_of_widths(network, [2, 3], "int8")
    assert dense.slim["peak_activation_bytes"] == 64 * (8 + 4)  # 3+8, 8+4, 4+2 channels alive: 12
    assert slim.slim["peak_activation_bytes"] == 64 * (3 + 2)  # 3+2, 2+3, 3+2


def test_peak_of_a_u_net_is_at_the_concatenation() -> None:
    model = Net(
        lambda m, x: m.c(torch.cat([(y := m.a(x)), F.interpolate(m.b(y), scale_factor=2.0)], 1)),
        a=conv(3, 4),
        b=nn.Conv2d(4, 8, 3, stride=2, padding=1),
        c=conv(12, 2),
    )
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    dense, slim = plan_of_widths(network, [4, 8], "int8"), plan_of_widths(network, [3, 2], "int8")
    assert dense.slim["peak_activation_bytes"] == 64 * (4 + 8 + 12)  # skip, upsampled, joined
    assert slim.slim["peak_activation_bytes"] == 64 * (3 + 2 + 5)


def test_peak_counts_float32_as_four_bytes() -> None:
    network = pretrim.analyze(nn.Sequential(conv(3, 8), conv(8, 2)), torch.zeros(1, 3, 8, 8))
    assert plan_of_widths(network, [5], "float32").slim["peak_activation_bytes"] == 4 * 64 * (3 + 5)


# ---------------------------------------------------------------------------------------- the caller's model


def _snapshot(model: nn.Module) -> dict[str, Any]:
    hooks = [
        {name: dict(held) for name, held in vars(m).items() if name.endswith("hooks") and held is not None}
        for m in model.modules()
    ]
    plain = [
        {k: copy.copy(v) for k, v in vars(m).items() if isinstance(v, (int, float, str, tuple, list))}
        for m in model.modules()
    ]
    return {
        "ids": [id(t) for t in model.state_dict(keep_vars=True).values()],
        "strides": [t.stride() for t in model.state_dict().values()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grads": [p.grad for p in model.parameters()],
        "modules": [id(m) for m in model.modules()],
        "training": [m.training for m in model.modules()],
        "keys": [sorted(vars(m)) for m in model.modules()],
        "hooks": hooks,
        "plain": plain,
    }


def _lived_in_model() -> nn.Module:
    model = BUILTIN["resnet20"]().to(memory_format=torch.channels_last).train()
    list(model.modules())[5].eval()
    next(model.parameters()).requires_grad_(False)
    list(model.modules())[4].register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize("weights", ["fresh", "inherit"])
def test_the_callers_model_is_unchanged(weights: str) -> None:
    model = _lived_in_model()
    before, values = _snapshot(model), {name: t.clone() for name, t in model.state_dict().items()}
    images = torch.zeros(2, 3, 32, 32)
    pretrim.analyze(model, images).plan(macs="0.5x").apply(model, weights)
    assert _snapshot(model) == before
    assert all(torch.equal(t, values[name]) for name, t in model.state_dict().items())


def test_the_random_state_is_unchanged() -> None:
    model, state = BUILTIN["resnet20"](), torch.get_rng_state()
    pretrim.analyze(model, torch.zeros(1, 3, 32, 32)).plan(macs="0.5x").apply(model)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_slim_network_is_of_the_same_classes_and_modes() -> None:
    model = _lived_in_model()
    slim = pretrim.analyze(model, torch.zeros(1, 3, 32, 32)).plan(macs="0.5x").apply(model)
    assert [type(m) for m in slim.modules()] == [type(m) for m in model.modules()]
    assert [m.training for m in slim.modules()] == [m.training for m in model.modules()]
    assert [p.requires_grad for p in slim.parameters()] == [p.requires_grad for p in model.parameters()]


def test_the_slim_network_shares_no_memory_with_the_model() -> None:
    model = BUILTIN["resnet20"]()
    network = pretrim.analyze(model, torch.zeros(1, 3, 32, 32))
    slim = plan_of_widths(network, network.dense).apply(model)
    with torch.no_grad():
        for tensor in slim.state_dict().values():
            tensor.zero_()
    assert all(
        bool(p.detach().abs().sum() > 0) for name, p in model.named_parameters() if name.endswith("conv1.weight")
    )


def test_channels_last_stays() -> None:
    model = BUILTIN["resnet20"]().to(memory_format=torch.channels_last)
    slim = pretrim.analyze(model, torch.zeros(1, 3, 32, 32)).plan(macs="0.5x").apply(model)
    weights = [m.weight for m in slim.modules() if isinstance(m, nn.Conv2d)]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)

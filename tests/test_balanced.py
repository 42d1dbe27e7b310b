"""Balanced widths: the utility computed by hand, the optimum compared with SciPy's, the rounding with brute force."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from random import Random
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from networks import Recipe, build, conv, example, recipes
from torch import Tensor, nn

import pretrim
from pretrim.analysis.network import Network
from pretrim.cost.costs import COSTS, costs
from pretrim.cost.derivatives import curvature, slopes
from pretrim.errors import InfeasibleBudget
from pretrim.models import BUILTIN
from pretrim.planning.balanced import balanced, program
from pretrim.planning.budget import Budget
from pretrim.planning.controls import uniform, waterfill
from pretrim.planning.legal import Problem
from pretrim.planning.options import Options
from pretrim.planning.program import solve
from pretrim.planning.reach import check_reachable
from pretrim.planning.utility import Utility, classifier, group_weights, utility

IMAGE = torch.zeros(1, 3, 8, 8)
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True, database=None)
LIMITED = ["params", "macs", "flash", "ram", "activation"]


def problem_of(network: Network, round_to: int = 8, **limits: Any) -> Problem:
    """The problem of these limits; raises InfeasibleBudget, as `allocate` does."""
    problem = Problem(network, Budget.parse(limits).resolve(network), Options(round_to=round_to))
    check_reachable(problem)
    return problem


def random_problem(network: Network, r: Random) -> Problem | None:
    names = r.sample(LIMITED, r.choice([1, 2, 3]))
    try:
        limits = {name: f"{r.uniform(0.3, 0.98):.3f}x" for name in names}
        return problem_of(network, r.choice([1, 2, 4, 8]), **limits)
    except InfeasibleBudget:
        return None


@pytest.fixture(scope="module")
def resnet20() -> Network:
    return pretrim.analyze(BUILTIN["resnet20"](), torch.zeros(1, 3, 32, 32))


# ---------------------------------------------------------------------------------------- the utility, by hand


class Classifying(nn.Module):
    """A residual stream written by three layers at 8x8, a branch, a depthwise pair at 4x4, and a classifier."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem, self.inner, self.back, self.again = conv(3, 8), conv(8, 12), conv(12, 8), conv(8, 8)
        self.point = nn.Conv2d(8, 16, 1, stride=2)
        self.deep = conv(16, 16, groups=16)
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.back(torch.relu(self.inner(x)))
        x = x + self.again(x)
        x = self.deep(torch.relu(self.point(x)))
        return self.head(x.mean((2, 3)))


def test_the_weight_of_a_group_counts_its_layers_and_their_positions() -> None:
    network = pretrim.analyze(Classifying(), IMAGE)
    assert [group.layers for group in network.groups] == [("stem", "back", "again"), ("inner",), ("point", "deep")]
    at_8x8, at_4x4 = 64 / (64 + 16), 16 / (16 + 16)
    assert group_weights(network).tolist() == pytest.approx([3**0.75 * at_8x8, at_8x8, 2**0.75 * at_4x4])


def test_the_utility_matches_a_hand_computation() -> None:
    network = pretrim.analyze(Classifying(), IMAGE)
    objective = utility(network)
    stream, inner, pair = (float(a) for a in group_weights(network))
    mean = (stream + inner + pair) / 3
    logs = np.log([4.0, 12.0, 8.0])
    ratios = np.log([4 / 8, 12 / 12, 8 / 16])
    uneven = ((ratios - ratios.mean()) ** 2).sum()
    expected = logs @ [stream, inner, pair] - 0.3 * mean * 5 / 8 - 0.1 * mean * uneven
    assert objective([[4, 12, 8]])[0] == pytest.approx(expected)


class Ending(nn.Module):
    """Two convolutions, of 8 and 6 filters, whose channels reach the output in one of several ways (`ending`)."""

    def __init__(self, ending: str) -> None:
        super().__init__()
        self.ending, self.a, self.b = ending, conv(3, 8), conv(3, 6)
        features = {"cat": 14, "frozen": 8 + 3, "flat": 8 * 64, "conv": 8, "map": 8, "two": 8, "sum": 8}[ending]
        self.head = nn.Conv2d(features, 4, 1) if ending in ("conv", "map") else nn.Linear(features, 4)
        self.align = conv(6, 8)

    def forward(self, x: Tensor) -> Any:
        a, b = torch.relu(self.a(x)), torch.relu(self.b(x))
        if self.ending == "cat":
            return self.head(torch.cat([a, b], 1).mean((2, 3)))
        if self.ending == "frozen":
            return self.head(torch.cat([a, x], 1).mean((2, 3)) + 0 * b.mean())
        a = a + self.align(b)
        if self.ending == "flat":
            return self.head(a.flatten(1))
        if self.ending == "conv":
            return self.head(a).mean((2, 3))
        if self.ending == "map":
            return self.head(a)
        out = self.head(a.mean((2, 3)))
        return (out, a.mean()) if self.ending == "two" else out.sum(1)


@pytest.mark.parametrize(
    ("ending", "channels", "constant"),
    [
        ("cat", [1, 1], 0),  # each group counts one feature per channel
        ("frozen", [1, 0], 3),  # the 3 channels of the image are concatenated to them
        ("flat", [1, 0], 0),  # the 64 features of a channel count as one channel
        ("conv", [1, 0], 0),  # a convolution followed by a mean
        ("two", [1, 0], 0),
    ],
)
def test_channels_that_the_classifier_reads(ending: str, channels: list[float], constant: float) -> None:
    reader = classifier(pretrim.analyze(Ending(ending), IMAGE))
    assert reader is not None
    assert (reader.classes, reader.channels.tolist(), reader.constant) == (4, channels, constant)


@pytest.mark.parametrize("ending", ["map", "sum"])
def test_without_a_classifier_there_is_no_class_term(ending: str) -> None:
    """The outputs are a map of classes, and the sum of the last layer's four scores."""
    network = pretrim.analyze(Ending(ending), IMAGE)
    objective = utility(network)
    assert objective.classifier is None and objective.class_weight == 0
    even = network.dense / 2
    assert objective(even[None])[0] == pytest.approx(float(group_weights(network) @ np.log(even)))


# ---------------------------------------------------------------------------------------- derivatives


def differences(function: Any, logs: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences of a function of the log widths, with the groups on the last axis."""
    moves = step * np.eye(len(logs))
    return np.stack([(function(logs + move) - function(logs - move)) / (2 * step) for move in moves], axis=-1)


@PROPERTY
@given(recipe=recipes(), seed=st.integers(0, 10_000))
def test_the_derivatives_of_the_utility(recipe: Recipe, seed: int) -> None:
    network = pretrim.analyze(build(recipe), example(recipe))
    objective = utility(network)
    logs = np.log(np.random.default_rng(seed).uniform(1.0, network.dense))
    gradient = objective.gradient(np.exp(logs))
    if not len(logs):
        return
    assert gradient == pytest.approx(
        differences(lambda y: float(objective(np.exp(y)[None])[0]), logs), rel=1e-5, abs=1e-7
    )
    exact = differences(lambda y: objective.gradient(np.exp(y)), logs)
    curve = objective.curvature(np.exp(logs)).dense()
    assert np.linalg.eigvalsh(curve).max() <= 1e-9  # concave
    if objective.classifier is None or (
        np.count_nonzero(objective.classifier.channels) < 2 and not objective.classifier.constant
    ):
        assert curve == pytest.approx(exact, rel=1e-4, abs=1e-7)
    else:
        assert np.linalg.eigvalsh(exact - curve).min() >= -1e-6  # never above the curvature of the utility itself


@PROPERTY
@given(recipe=recipes(), seed=st.integers(0, 10_000))
def test_the_derivatives_of_every_cost(recipe: Recipe, seed: int) -> None:
    network = pretrim.analyze(build(recipe), example(recipe))
    if not network.groups:
        return
    widths = np.random.default_rng(seed).uniform(1.0, network.dense)
    logs = np.log(widths)
    for name in COSTS:
        f = costs(network)[name].formula
        slope = slopes(f, widths) * widths
        assert slope == pytest.approx(differences(lambda y, f=f: f(np.exp(y)[None])[0], logs), rel=1e-5, abs=1e-3)
        weights = np.linspace(0.5, 1.5, len(f.offset))
        curve = curvature(f, widths, weights).dense() * np.outer(widths, widths) + np.diag(weights @ slope)
        exact = differences(lambda y, f=f, v=weights: v @ (slopes(f, np.exp(y)) * np.exp(y)), logs)
        assert curve == pytest.approx(exact, rel=1e-4, abs=1e-2)


# ---------------------------------------------------------------------------------------- the optimum


def by_scipy(problem: Problem, objective: Utility) -> float:
    """The best utility that SLSQP finds."""
    low, high = np.log(problem.smallest.astype(float)), np.log(problem.network.dense.astype(float))
    formulas = [cost.formula for cost in problem.budget.costs]  # type: ignore[attr-defined]

    def slack(y: np.ndarray) -> np.ndarray:
        values = [f(np.exp(y)[None])[0] / limit for f, limit in zip(formulas, problem.budget.values, strict=True)]
        return -np.log(np.maximum(np.concatenate(values), 1e-300))

    result = scipy.optimize.minimize(
        lambda y: -float(objective(np.exp(y)[None])[0]),
        low + 0.5 * (high - low),
        jac=lambda y: -objective.gradient(np.exp(y)),
        bounds=list(zip(low, high, strict=True)),
        constraints=[{"type": "ineq", "fun": slack}],
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-10},
    )
    feasible = slack(result.x).min() > -1e-6  # SLSQP may stop early when a width is at its bound
    return -float(result.fun) if feasible else float(objective(np.exp(low)[None])[0])


@PROPERTY
@given(recipe=recipes(), seed=st.integers(0, 10_000))
def test_the_optimum_is_within_the_limits_and_as_good_as_scipys(recipe: Recipe, seed: int) -> None:
    network = pretrim.analyze(build(recipe), example(recipe))
    problem = random_problem(network, Random(seed)) if network.groups else None
    if problem is None or (problem.smallest == network.dense).all():
        return
    objective = utility(network)
    widths = solve(program(problem, objective)).widths
    for cost, limit in zip(problem.budget.costs, problem.budget.values, strict=True):
        assert cost.formula(widths[None]).max() <= limit * (1 + 1e-8)  # type: ignore[attr-defined]
    assert (problem.smallest * (1 - 1e-12) <= widths).all() and (widths <= network.dense * (1 + 1e-12)).all()
    assert float(objective(widths[None])[0]) >= by_scipy(problem, objective) - 1e-4 * objective.scale


@pytest.mark.parametrize(
    "limits",
    [
        {"macs": "0.5x"},
        {"params": "0.1x"},
        {"activation": "0.4x", "ram": "0.5x"},
        {"params": "0.3x", "macs": "0.5x", "ram": "0.6x"},
    ],
)
def test_the_optimum_of_a_real_network(resnet20: Network, limits: dict[str, str]) -> None:
    problem, objective = problem_of(resnet20, **limits), utility(resnet20)
    assert float(objective(solve(program(problem, objective)).widths[None])[0]) == pytest.approx(
        by_scipy(problem, objective), abs=1e-6
    )


def test_at_the_optimum_marginal_utility_matches_marginal_cost(resnet20: Network) -> None:
    """For every group between its bounds, the gain of one per cent equals its cost times the price of the limit."""
    problem, objective = problem_of(resnet20, macs="0.5x"), utility(resnet20)
    optimum = solve(program(problem, objective))
    macs = costs(resnet20)["macs"].formula
    shares = (slopes(macs, optimum.widths) * optimum.widths / macs(optimum.widths[None])[0][:, None])[0]
    inside = (optimum.widths > problem.smallest * 1.001) & (optimum.widths < resnet20.dense * 0.999)
    assert inside.sum() >= 6
    gains = objective.gradient(optimum.widths)[inside]
    assert gains == pytest.approx(optimum.prices[0] * shares[inside], rel=1e-4)


@pytest.mark.parametrize("limits", [{"macs": "0.4x"}, {"params": "0.4x", "activation": "0.6x"}])
def test_marginal_utility_matches_marginal_cost_for_hundreds_of_groups(limits: dict[str, str]) -> None:
    """A network whose matrices are too large to be solved as a whole."""
    layers = [conv(16 + n % 3, 16 + (n + 1) % 3) for n in range(300)]
    network = pretrim.analyze(nn.Sequential(conv(3, 16), *layers, conv(16, 2)), IMAGE)
    problem, objective = problem_of(network, 1, **limits), utility(network)
    optimum = solve(program(problem, objective))
    shares = np.zeros(len(network.groups))
    for cost, price in zip(problem.budget.costs, optimum.prices, strict=True):
        f = cost.formula  # type: ignore[attr-defined]
        shares += price * (slopes(f, optimum.widths) * optimum.widths / f(optimum.widths[None])[0][:, None])[0]
    inside = (optimum.widths > problem.smallest * 1.001) & (optimum.widths < network.dense * 0.999)
    assert inside.sum() >= 250
    assert objective.gradient(optimum.widths)[inside] == pytest.approx(shares[inside], rel=1e-4)


# ---------------------------------------------------------------------------------------- legal widths by brute force


def steps(problem: Problem, widths: np.ndarray, group: int, by: int) -> np.ndarray | None:
    """The widths with one group moved up or down by a number of legal widths; None beyond the ends."""
    legal = problem.legal[group].tolist()
    index = legal.index(widths[group]) + by
    if not 0 <= index < len(legal):
        return None
    moved = widths.copy()
    moved[group] = legal[index]
    return moved


def assert_best_around(problem: Problem, widths: np.ndarray) -> None:
    """No limit is broken, no step up fits, and no exchange (one step down, one up) that fits has a higher utility."""
    objective = utility(problem.network)
    value = float(objective(widths[None])[0])
    groups = range(len(widths))
    assert problem.budget.met(widths[None])[0]
    for g in groups:
        wider = steps(problem, widths, g, 1)
        assert wider is None or not problem.budget.met(wider[None])[0]
    for down, up in product(groups, groups):
        narrower = steps(problem, widths, down, -1)
        moved = None if narrower is None or up == down else steps(problem, narrower, up, 1)
        if moved is None or not problem.budget.met(moved[None])[0]:
            continue
        if float(objective(moved[None])[0]) > value + 1e-6:
            # Allowed only if the exchange frees room that must then go to a group with negative marginal utility.
            next_steps = [steps(problem, moved, g, 1) for g in groups]
            fitting = [row for row in next_steps if row is not None and problem.budget.met(row[None])[0]]
            assert fitting and all(objective(row[None])[0] < objective(moved[None])[0] for row in fitting)


@PROPERTY
@given(recipe=recipes(), seed=st.integers(0, 10_000))
def test_no_step_and_no_exchange_is_better(recipe: Recipe, seed: int) -> None:
    network = pretrim.analyze(build(recipe), example(recipe))
    problem = random_problem(network, Random(seed)) if network.groups else None
    if problem is None:
        return
    rows = balanced(problem, 2)
    assert rows.shape == (2, len(network.groups)) and (rows[0] == rows[1]).all()
    assert_best_around(problem, rows[0])


@pytest.mark.parametrize("round_to", [1, 4, 8])
@pytest.mark.parametrize("limits", [{"macs": "0.5x"}, {"params": "0.3x", "ram": "0.5x"}, {"activation": "0.3x"}])
def test_no_step_and_no_exchange_is_better_in_a_real_network(
    resnet20: Network, limits: dict[str, str], round_to: int
) -> None:
    problem = problem_of(resnet20, round_to, **limits)
    assert_best_around(problem, balanced(problem, 1)[0])


def test_the_result_is_close_to_the_best_of_all_legal_widths() -> None:
    """All 8 * 3 * 4 combinations of widths are compared, at 15 limits."""
    network = pretrim.analyze(Classifying(), IMAGE)
    objective = utility(network)
    candidates = np.array(list(product(*problem_of(network, macs="0.5x").legal)))
    values = objective(candidates)
    for share in np.linspace(0.2, 0.9, 15):
        problem = problem_of(network, macs=f"{share:.3f}x")
        best = values[problem.budget.met(candidates)].max()
        achieved = float(objective(balanced(problem, 1))[0])
        assert achieved >= best - 0.02 * objective.scale


class Squeezed(nn.Module):
    """Convolutions at 8x8 and a squeeze-and-excitation at 1x1, whose marginal utility can be negative."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 32), conv(32, 48), conv(48, 48)
        self.squeeze, self.excite = nn.Conv2d(48, 24, 1), nn.Conv2d(24, 48, 1)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(torch.relu(self.a(x))))
        x = x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(torch.relu(self.c(x)).mean((2, 3)))


@pytest.mark.parametrize("name", ["macs", "params"])
def test_a_group_with_negative_marginal_utility_breaks_no_limit(name: str) -> None:
    """The utility falls when the squeeze grows wider than the other layers; room that is left still goes to it."""
    network = pretrim.analyze(Squeezed(), IMAGE)
    objective, negative = utility(network), 0
    for share in np.linspace(0.1, 0.9, 33):
        problem = problem_of(network, **{name: f"{share:.3f}x"})
        widths = balanced(problem, 1)[0]
        negative += int((objective.gradient(widths) < 0).any())
        assert_best_around(problem, widths)
    assert negative


# ---------------------------------------------------------------------------------------- awkward problems


def test_no_groups_at_all() -> None:
    network = pretrim.analyze(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Softmax(1)), IMAGE)
    assert not network.groups
    bounds = Budget.parse({"macs": "1x"}).resolve_any(network)
    assert balanced(Problem(network, bounds, Options()), 3).shape == (3, 0)


def test_a_single_group_is_as_wide_as_fits() -> None:
    network = pretrim.analyze(nn.Sequential(conv(3, 40), nn.ReLU(), conv(40, 4)), IMAGE)
    for share in (0.3, 0.61, 0.99):
        problem = problem_of(network, 1, params=f"{share}x")
        fitting = [w for w in range(1, 41) if problem.budget.met(np.array([[w]]))[0]]
        assert balanced(problem, 1).tolist() == [[fitting[-1]]]


class FrozenPeak(nn.Module):
    """A small network next to a large convolution whose output is one of the network's outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Sequential(conv(3, 16), conv(16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
        self.large = conv(3, 99)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.small(x), self.large(x)


def test_a_limit_that_only_frozen_layers_determine_changes_nothing() -> None:
    """The peak is where a frozen output is computed: no group changes it, and the limit is met exactly."""
    network = pretrim.analyze(FrozenPeak(), IMAGE)
    peak = costs(network)["peak_activation_bytes"]
    assert int(peak(network.dense)) == int(peak(np.ones_like(network.dense)))
    widths = balanced(problem_of(network, 1, macs="0.7x"), 1)
    assert (widths < network.dense).any()
    assert (balanced(problem_of(network, 1, macs="0.7x", ram="1x"), 1) == widths).all()
    with pytest.raises(InfeasibleBudget):
        problem_of(network, 1, macs="0.7x", ram="0.99x")


def test_limits_that_only_the_narrowest_network_meets(resnet20: Network) -> None:
    smallest = Problem(resnet20, Budget.parse({"macs": "0.5x"}).resolve(resnet20), Options()).smallest
    macs = int(costs(resnet20)["macs"](smallest))
    problem = problem_of(resnet20, macs=macs)
    assert balanced(problem, 1).tolist() == [smallest.tolist()]
    with pytest.raises(InfeasibleBudget):
        problem_of(resnet20, macs=macs - 1)


def test_groups_with_a_single_legal_width_keep_it() -> None:
    network = pretrim.analyze(nn.Sequential(conv(3, 1), conv(1, 32), conv(32, 32), conv(32, 4)), IMAGE)
    widths = balanced(problem_of(network, macs="0.5x"), 1)[0]
    assert widths[0] == 1 and (widths < network.dense).any()


class Twins(nn.Module):
    """A network with two identical branches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv(3, 16), conv(16, 32), conv(16, 32)
        self.a2, self.b2 = conv(32, 8), conv(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.a2(self.a(x)) + self.b2(self.b(x))


def test_ties_between_equal_optima_are_broken_deterministically() -> None:
    """The twin branches may differ by one step, but always in the same way."""
    network = pretrim.analyze(Twins(), IMAGE)
    a, b = (next(n for n, g in enumerate(network.groups) if name in g.layers) for name in ("a", "b"))
    different = 0
    for share in np.linspace(0.3, 0.9, 25):
        problem = problem_of(network, macs=f"{share:.3f}x")
        widths = balanced(problem, 1)[0]
        assert (widths == balanced(problem_of(network, macs=f"{share:.3f}x"), 1)[0]).all()
        assert abs(widths[a] - widths[b]) <= 8
        different += int(widths[a] != widths[b])
        optimum = solve(program(problem, utility(network))).widths
        assert optimum[a] == pytest.approx(optimum[b])
    assert different


def test_hundreds_of_groups() -> None:
    """A chain of 300 convolutions, under three limits."""
    layers = [conv(16, 16) for _ in range(299)]
    network = pretrim.analyze(nn.Sequential(conv(3, 16), *layers, conv(16, 2)), IMAGE)
    problem = problem_of(network, macs="0.4x", params="0.4x", ram="0.7x")
    widths = balanced(problem, 1)[0]
    assert len(widths) == 300 and problem.budget.met(widths[None])[0]
    for g in range(300):
        wider = steps(problem, widths, g, 1)
        assert wider is None or not problem.budget.met(wider[None])[0]
    uniform_widths = uniform(problem, 1)[0]
    objective = utility(network)
    assert objective(widths[None])[0] >= objective(uniform_widths[None])[0]


@dataclass(frozen=True)
class Stairs:
    """A latency without a formula: kernels pad widths to a multiple of four, and each layer has a fixed overhead."""

    network: Network
    name: str = "latency_ns"

    def by_layer(self, widths: Any) -> np.ndarray:
        rows = np.atleast_2d(np.asarray(widths))
        padded = -(-self.network.sizes(rows) // 4) * 4
        return np.stack([np.prod(padded[:, list(layer.factors)], axis=1) + 5e4 for layer in self.network.layers], 1)

    def __call__(self, widths: Any) -> np.ndarray:
        values = np.rint(self.by_layer(widths).sum(axis=1)).astype(np.int64)
        return values[0] if np.ndim(widths) == 1 else values


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_a_limit_on_a_cost_without_a_formula_is_met_and_used_up(resnet20: Network, share: float) -> None:
    budget = Budget.parse({"latency": f"{share}x"}).resolve(resnet20, {"latency_ns": Stairs(resnet20)})
    problem = Problem(resnet20, budget, Options(round_to=4))
    assert_best_around(problem, balanced(problem, 1)[0])


# ---------------------------------------------------------------------------------------- controls


def by_one_ratio(problem: Problem) -> np.ndarray:
    """The widths of the largest ratio that fits, found by trying all; the narrowest widths if none fits."""
    dense, widths = problem.network.dense, problem.smallest
    for ratio in sorted(
        {Fraction(int(w), int(n)) for legal, n in zip(problem.legal, dense, strict=True) for w in legal}
    ):
        trial = [
            max([w for w in legal if w <= ratio * int(n)], default=legal[0])
            for legal, n in zip(problem.legal, dense, strict=True)
        ]
        widths = np.array(trial) if problem.budget.met(trial) else widths
    return widths


@PROPERTY
@given(recipe=recipes(), seed=st.integers(0, 10_000))
def test_uniform_is_the_largest_ratio_then_each_step_in_the_order_of_its_ratio(recipe: Recipe, seed: int) -> None:
    network = pretrim.analyze(build(recipe), example(recipe))
    problem = random_problem(network, Random(seed)) if network.groups else None
    if problem is None:
        return
    widths = by_one_ratio(problem)
    ladder = sorted(
        (width / problem.network.dense[g], g, width) for g, legal in enumerate(problem.legal) for width in legal
    )
    for _, g, width in ladder:
        trial = widths.copy()
        trial[g] = max(width, widths[g])
        next_legal = [w for w in problem.legal[g] if w > widths[g]][:1]
        if width in next_legal and problem.budget.met(trial[None])[0]:
            widths = trial
    assert uniform(problem, 2).tolist() == [widths.tolist()] * 2
    for g in range(len(widths)):
        wider = steps(problem, widths, g, 1)
        assert wider is None or not problem.budget.met(wider[None])[0]


def test_waterfill_leaves_the_same_complexity_in_every_group_that_is_not_dense() -> None:
    """A limit on activations gives all maps equal numbers of values; with MACs, widths go with the root of a share."""
    network = pretrim.analyze(nn.Sequential(conv(3, 960), conv(960, 320), conv(320, 640), conv(640, 2)), IMAGE)
    kept = waterfill(problem_of(network, 1, activation="0.6x"), 1)[0]
    assert kept[1] == 320 and abs(kept[0] - kept[2]) <= 1
    macs = np.array([960 * 3, 960 * 320, 320 * 640], dtype=float)
    ratios = waterfill(problem_of(network, 1, macs="0.3x"), 1)[0] / network.dense
    inside = ratios < 1
    complexity = (macs * ratios**2)[inside]
    assert inside.sum() == 2 and complexity.max() / complexity.min() < 1.15

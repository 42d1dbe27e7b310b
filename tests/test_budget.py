"""Limits as users write them: every unit, every mistake by its text, and what they mean for one network."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from networks import Net, conv, conv1
from torch import nn

import pretrim
from pretrim.analysis.network import Network
from pretrim.errors import BudgetError, InfeasibleBudget, UsageError
from pretrim.planning.allocate import METHODS, allocate
from pretrim.planning.budget import Budget, Limit
from pretrim.planning.options import Options


@pytest.fixture(scope="module")
def network() -> Network:
    """conv 3 -> 8 -> 4 -> 2 on 8x8: 224 + 292 + 74 = 590 parameters, 64 * (216 + 288 + 72) = 36,864 MACs."""
    return pretrim.analyze(nn.Sequential(conv(3, 8), conv(8, 4), conv(4, 2)), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("250k", 250_000),
        ("250K", 250_000),
        ("1.5M", 1_500_000),
        ("2G", 2_000_000_000),
        ("1e6", 1_000_000),
        ("250_000", 250_000),
        (" 12 ", 12),
        (250_000, 250_000),
        (2.5e5, 250_000),
        (".5M", 500_000),
    ],
)
def test_counts(text: str | int | float, amount: int) -> None:
    assert Limit.parse("params", text).resolve(10**12) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [("512KiB", 524_288), ("512kB", 512_000), ("1MiB", 1_048_576), ("1MB", 1_000_000), ("64k", 64_000), ("7B", 7)],
)
def test_bytes(text: str, amount: int) -> None:
    assert Limit.parse("ram", text).resolve(10**12) == amount


@pytest.mark.parametrize(("text", "limit"), [("0.5x", 295), ("1x", 590), ("0.001x", 0), ("0.3 x", 177)])
def test_shares_are_of_the_dense_network_rounded_down(text: str, limit: int) -> None:
    assert Limit.parse("params", text).resolve(590) == limit


@pytest.mark.parametrize(
    ("name", "cost_name"),
    [("ram", "peak_activation_bytes"), ("flash", "weight_bytes"), ("activation", "activation_bytes"), ("macs", "macs")],
)
def test_a_share_in_percent(name: str, cost_name: str) -> None:
    assert (Limit.parse(name, "12.5%").amount, Limit.parse(name, " 50 % ").amount) == (0.125, 0.5)
    assert Limit.parse(name, "12.5%").is_share and Limit.parse(name, "12.5%").cost == cost_name


@pytest.mark.parametrize(
    ("name", "cost_name"),
    [("ram", "peak_activation_bytes"), ("flash", "weight_bytes"), ("activation", "activation_bytes"), ("macs", "macs")],
)
def test_short_names(name: str, cost_name: str) -> None:
    assert Limit.parse(name, "1k").cost == cost_name


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "Expected macs to be more than 0, but got '0'."),
        ("0x", "Expected macs to be more than 0, but got '0x'."),
        (-5, "Expected macs to be more than 0, but got '-5'."),
        ("-1M", "Expected macs to be more than 0, but got '-1M'."),
        ("-1e999", "Expected macs to be more than 0, but got '-1e999'."),
        ("1e999x", "Expected macs to be at most the dense network's ('1x'), but got '1e999x'."),
        ("120%", "Expected macs to be at most the dense network's ('1x'), but got '120%'."),
        ("0%", "Expected macs to be more than 0, but got '0%'."),
        ("50%k", "but got '50%k'."),
        ("1.2x", "Expected macs to be at most the dense network's ('1x'), but got '1.2x'."),
        (0.5, "Expected macs to be at least 1, but got '0.5': write a share as '0.5x'."),
        ("0.3", "Expected macs to be at least 1, but got '0.3': write a share as '0.3x'."),
        ("many", "such as '250k' or a share such as '0.3x' or '30%', but got 'many'."),
        ("", "but got ''."),
        ("nan", "but got 'nan'."),
        (float("inf"), "but got 'inf'."),
        ("12KiB", "Expected macs to be an amount such as '250k' or a share such as '0.3x' or '30%', but got '12KiB'."),
        ("1,000", "but got '1,000'."),
        (True, "but got 'True'."),
        ([3000], "but got [3000]."),
        (torch.zeros(2, 3), "but got tensor([[0., 0., 0.], [0., 0., 0.]])."),
        (nn.Sequential(conv(3, 4), conv(4, 4)), "but got a Sequential."),
    ],
)
def test_mistakes_on_a_count(value: str | int | float, said: str) -> None:
    with pytest.raises(BudgetError, match=re.escape(said)):
        Limit.parse("macs", value)


@pytest.mark.parametrize(
    ("value", "said"), [("12XiB", "such as '512KiB' or a share"), ("0.5", "'0.5x'"), ("0.5B", "at least 1")]
)
def test_mistakes_on_bytes(value: str, said: str) -> None:
    with pytest.raises(BudgetError, match=re.escape(said)):
        Limit.parse("flash", value)


def test_a_share_of_half_a_byte_is_not_recommended_with_its_unit() -> None:
    with pytest.raises(BudgetError, match=re.escape("write a share as '0.5x'")):
        Limit.parse("flash", "0.5B")


def test_a_cost_that_is_none() -> None:
    with pytest.raises(UsageError, match=r"Expected a limit on one of params, macs, flash, ram, .* but got 'colour'\."):
        Limit.parse("colour", "1k")


def test_no_limit_at_all(network: Network) -> None:
    with pytest.raises(BudgetError, match=r"No limit given \(params, .*\): add one, e\.g\. `macs='0\.5x'`\."):
        network.plan()


def test_one_cost_under_two_names() -> None:
    with pytest.raises(BudgetError, match=r"Expected one limit per cost, but got ram, peak_activation_bytes"):
        Budget.parse({"ram": "1k", "peak_activation_bytes": "2k"})


def test_none_means_no_limit() -> None:
    assert [limit.cost for limit in Budget.parse({"macs": None, "params": "10"}).limits] == ["params"]


def test_more_than_the_dense_network_needs(network: Network) -> None:
    said = "Nothing to trim: the dense network needs 590 and meets params 591 as it is."
    with pytest.raises(BudgetError, match=re.escape(said)):
        network.plan(params=591)
    with pytest.raises(BudgetError, match="Nothing to trim"):
        network.plan(params="1e30")  # more than an array of integers holds


@pytest.mark.parametrize(
    "value", [10**12, "1e30", "1e400", 1e300, 10**400, "9" * 400], ids=lambda v: f"{len(str(v))} digits"
)
def test_a_limit_of_any_size_that_is_met_already_has_nothing_to_trim(network: Network, value: object) -> None:
    with pytest.raises(BudgetError, match=r"^Nothing to trim: the dense network needs 590 and meets") as caught:
        network.plan(params=value)
    assert len(str(caught.value)) < 200
    assert network.plan(params=value, macs="0.5x").slim["macs"] <= 0.5 * 36_864, "slack beside another limit"


def test_integers_that_python_does_not_write(network: Network) -> None:
    with pytest.raises(BudgetError, match=r"^Nothing to trim: the dense network needs 590"):
        network.plan(params=10**5000)
    with pytest.raises(BudgetError, match=r"^Expected params to be more than 0, but got '-1e"):
        network.plan(params=-(10**5000))


@pytest.mark.parametrize("text", ["100kib", "100KIB", "100 KiB", "102400B", "102400 b", "102.4kb"])
def test_units_are_read_in_any_case(text: str) -> None:
    assert Limit.parse("ram", text).resolve(10**12) == 102_400


@pytest.mark.parametrize("number", [np.float64(300), np.int32(300), torch.tensor(300), np.array(300)], ids=str)
def test_a_number_of_numpy_or_torch_is_a_number(number: object) -> None:
    assert Limit.parse("params", number).resolve(10**12) == 300  # type: ignore[arg-type]


def test_exactly_what_the_dense_network_needs_leaves_it_dense(network: Network) -> None:
    assert network.plan(params=590).widths.tolist() == [8, 4]


def test_one_limit_that_is_met_already_is_no_mistake_beside_one_that_is_not(network: Network) -> None:
    assert network.plan(params="300", macs="1G").slim["params"] <= 300


# Narrowest: 1 filter each of the two free layers: (27 + 1) + (9 + 1) + (18 + 2) = 58 parameters.
@pytest.mark.parametrize("mode", ["macs", "uniform", "random", "waterfill", "joint"])
def test_impossible_names_the_limit_and_the_smallest_reachable(network: Network, mode: str) -> None:
    said = "params 57 cannot be met; the narrowest network needs 58"
    with pytest.raises(InfeasibleBudget, match=re.escape(said)):
        network.plan(params=57, mode=mode, round_to=1)


def test_the_smallest_reachable_is_reached(network: Network) -> None:
    assert network.plan(params=58, round_to=1).widths.tolist() == [1, 1]


def test_impossible_names_the_limit_that_is_impossible_of_several(network: Network) -> None:
    said = r"^macs 10 cannot be met; the narrowest network needs 3,456"  # 64 * (27 + 9 + 18)
    with pytest.raises(InfeasibleBudget, match=said):
        network.plan(params=300, macs=10, round_to=1)


def test_impossible_by_rounding_says_how(network: Network) -> None:
    with pytest.raises(InfeasibleBudget, match=r"needs [\d,]+: raise the limit, or lower min_width\.$"):
        network.plan(params=100, min_width=4, round_to=1)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"round_to": 2}, "raise the limit."),
        ({"round_to": 4, "min_width": 4}, "raise the limit, or lower min_width."),
        ({"min_features": 4, "mode": "macs"}, "raise the limit, or lower min_features."),
        ({"freeze": ["0", "1"]}, "raise the limit, or freeze fewer layers."),
        ({"freeze": ["0"], "min_width": 4}, "raise the limit, freeze fewer layers, or lower min_width."),
    ],
    ids=str,
)
def test_impossible_names_only_options_that_help(network: Network, options: dict[str, Any], remedy: str) -> None:
    limit = 30 if remedy == "raise the limit." else 60
    with pytest.raises(InfeasibleBudget) as caught:
        network.plan(params=limit, **options)
    assert str(caught.value).rpartition(": ")[2] == remedy


def test_the_default_rounding_is_named_where_it_is_in_the_way() -> None:
    wide = pretrim.analyze(nn.Sequential(conv(3, 64), conv(64, 64), conv(64, 2)), torch.zeros(1, 3, 8, 8))
    with pytest.raises(InfeasibleBudget, match=r"needs 954: raise the limit, or lower round_to\.$"):
        wide.plan(params=500)
    assert wide.plan(params=500, round_to=1).slim["params"] <= 500


def test_a_network_of_frozen_layers_says_why_instead_of_options_that_do_not_help() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = conv(3, 8), conv(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kept = self.a(x)
            return torch.cat([self.b(kept), kept.sort(1).values], 1)

    network = pretrim.analyze(Cut(), torch.zeros(1, 3, 8, 8))
    assert network.groups == ()
    said = r"nothing can be trimmed, since all layers are frozen \(.*a: .*\); `pretrim profile` or network\.frozen"
    with pytest.raises(InfeasibleBudget, match=said) as caught:
        network.plan(macs="0.5x")
    assert "round" not in str(caught.value) and "raise the limit" not in str(caught.value)


def test_impossible_for_a_network_with_nothing_to_trim() -> None:
    network = pretrim.analyze(Net(lambda m, x: m.a(x), a=conv(3, 4)), torch.zeros(1, 3, 8, 8))
    with pytest.raises(InfeasibleBudget, match=r"^params 0.5x \(56\) cannot be met; the narrowest network needs 112"):
        network.plan(params="0.5x")


@pytest.mark.parametrize("mode", ["joint", "macs", "uniform", "random", "waterfill"])
@pytest.mark.parametrize("layers", [[], [conv(3, 4)]], ids=["no layers", "one layer"])
def test_a_network_with_nothing_to_trim_stays_dense_within_its_own_costs(layers: list[nn.Module], mode: str) -> None:
    network = pretrim.analyze(nn.Sequential(*layers, nn.ReLU()), torch.zeros(1, 3, 8, 8))
    plan = network.plan(mode=mode, macs="1x", ram="1x")
    assert plan.widths.tolist() == []
    assert plan.slim == plan.dense


def test_budget_measure_rows_as_one_by_one(network: Network) -> None:
    budget = Budget.parse({"params": 300, "ram": "0.8x"}, "int8").resolve(network)
    widths = np.random.default_rng(0).integers(1, network.dense + 1, size=(50, 2))
    assert budget.measure(widths).tolist() == [budget.measure(row).tolist() for row in widths]
    assert budget.met(widths).tolist() == [bool(budget.met(row)) for row in widths]


def test_what_exact_costs_exceed_is_told_limit_by_limit(network: Network) -> None:
    budget = Budget.parse({"params": 100, "macs": "1e9"}).resolve_any(network)
    assert budget.broken(network.dense) == ["590 exceeds --params 100"]


def test_a_final_plan_is_verified_whatever_chose_its_widths(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "uniform", lambda problem, count: problem.network.dense[None])
    with pytest.raises(InfeasibleBudget, match=r"No plan found within every limit \(590 exceeds params 0.5x \(295\)\)"):
        network.plan(mode="uniform", params="0.5x")


def test_a_limit_of_one_byte_counts_the_data_type() -> None:
    """224 weights (int8) and 10 biases (int32): 264 bytes."""
    network = pretrim.analyze(nn.Sequential(conv(3, 8), conv1(8, 1), nn.Conv2d(1, 2, 1)), torch.zeros(1, 3, 8, 8))
    budget = Budget.parse({"flash": "0.9x"}, "int8").resolve(network)
    assert budget.dense.tolist() == [3 * 8 * 9 + 8 + 2 + 4 * (8 + 2)]


def test_allocate_takes_budget_and_options(network: Network) -> None:
    budget = Budget.parse({"params": 300}).resolve(network)
    assert budget.met(allocate(network, budget, Options(mode="uniform", round_to=1), 3)).all()

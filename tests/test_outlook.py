"""What a plan says of its accuracy: only what public tables say, by the utility, and with their counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

import pretrim
from pretrim.analysis.network import Network
from pretrim.errors import PlanError, UsageError
from pretrim.models import BUILTIN
from pretrim.planning.options import Options
from pretrim.planning.outlook import SEEN, Outlook, Verdict, kind_of, log_width, verdict_of
from pretrim.planning.plan import Plan
from pretrim.planning.utility import utility

RECORDS = Path(__file__).parent.parent / "benchmarks" / "results" / "widths.jsonl"


@pytest.fixture(scope="module")
def resnet20() -> Network:
    return pretrim.analyze(BUILTIN["resnet20"](), torch.zeros(1, 3, 32, 32))


def test_the_counts_are_those_of_the_benchmark() -> None:
    records = [json.loads(line) for line in RECORDS.read_text().splitlines()]
    counted: dict[tuple[str, Verdict], tuple[int, int]] = {}
    for record in records:
        kind = "several" if len(record["limits"]) > 1 else next(iter(record["limits"]))
        for verdict in get_args(Verdict):
            seen, agreed = counted.get((kind, verdict), (0, 0))
            more = record["verdicts"][verdict]
            counted[kind, verdict] = (seen + more[0], agreed + more[1])
    assert counted == SEEN


def test_log_width_is_the_width_in_every_group_that_is_worth_the_same(resnet20: Network) -> None:
    """Without the term in classes: every group ten per cent of log width wider."""
    worth = utility(resnet20)
    some = resnet20.dense * 0.5
    no_classes = type(worth)(worth.weights, worth.dense, None)
    assert log_width(no_classes, some * np.exp(0.1), some) == pytest.approx(0.1)
    assert log_width(worth, some, some * np.exp(0.1)) < -0.1  # and with it a little more


def test_a_plan_is_compared_with_uniform_width_at_the_same_limit(resnet20: Network) -> None:
    plan, uniform = resnet20.plan(params="0.3x"), resnet20.plan(params="0.3x", mode="uniform")
    assert plan.outlook is not None and uniform.outlook is None
    worth = utility(resnet20)
    expected = log_width(worth, plan.widths, uniform.widths)
    assert plan.outlook["over_uniform"] == pytest.approx(expected, abs=1e-4) and expected > 0.05
    assert plan.outlook["below_dense"] == pytest.approx(log_width(worth, resnet20.dense, plan.widths), abs=1e-4)
    assert plan.outlook["verdict"] == "better"
    assert (plan.outlook["seen"], plan.outlook["agreed"]) == SEEN["params", "better"]


def test_a_mode_for_another_limit_is_expected_to_be_worse(resnet20: Network) -> None:
    plan = resnet20.plan(macs="0.5x", mode="params")
    assert plan.outlook is not None and plan.outlook["verdict"] == "worse"
    assert Outlook.from_json(plan.outlook).sentence().startswith("worse than uniform width (285 of 323 such plans")


class OneNumber(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 2, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


@pytest.mark.parametrize(
    ("model", "limits", "why"),
    [
        (lambda: BUILTIN["resnet20"](), {"ram": "0.6x"}, "no public table has a limit on the peak memory"),
        (lambda: BUILTIN["resnet20"](num_classes=1000), {"macs": "0.5x"}, "1000 classes"),
        (lambda: BUILTIN["resnet20"](), {"macs": "0.05x"}, "below a quarter"),
        (OneNumber, {"macs": "0.5x"}, "not a classifier"),
    ],
)
def test_nothing_is_said_where_the_tables_say_nothing(model: Any, limits: dict[str, str], why: str) -> None:
    plan = pretrim.analyze(model(), torch.zeros(1, 3, 32, 32)).plan(**limits)
    assert plan.outlook is not None and plan.outlook["verdict"] is None
    assert why in Outlook.from_json(plan.outlook).sentence()
    assert plan.outlook["below_dense"] > 0  # the utility is known all the same


def test_what_rounding_costs(resnet20: Network) -> None:
    """Coarser steps cost more, single channels next to nothing; sampled plans are not rounded from an optimum."""
    lost = [resnet20.plan(macs="0.5x", round_to=step).outlook["rounding"] for step in (1, 8, 32)]  # type: ignore[index]
    assert 0 <= lost[0] < 0.002 and lost[0] < lost[1] <= lost[2]
    coarse = resnet20.plan(macs="0.5x", round_to=8).outlook
    assert coarse is not None and coarse["finer"] is not None
    step, would = coarse["finer"]
    assert step == 4 and would < coarse["rounding"]
    sampled = resnet20.plan(macs="0.5x", mode="macs").outlook
    assert sampled is not None and sampled["rounding"] is None


@pytest.mark.parametrize(
    ("limited", "kind"),
    [
        (["macs"], "macs"),
        (["weight_bytes"], "params"),
        (["params", "weight_bytes"], "params"),
        (["params", "macs"], "several"),
        (["macs", "latency_ns"], None),
        ([], None),
    ],
)
def test_kinds_of_limits(limited: list[str], kind: str | None) -> None:
    assert kind_of(limited) == kind


def test_verdicts() -> None:
    assert [verdict_of(x) for x in (-0.051, -0.049, 0.0, 0.049, 0.051)] == ["worse", "same", "same", "same", "better"]


def test_it_is_written_and_read_with_the_plan(resnet20: Network) -> None:
    plan = resnet20.plan(macs="0.5x")
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert plan.outlook is not None and again.outlook is not None
    assert Outlook.from_json(again.outlook) == Outlook.from_json(plan.outlook)
    older = {name: value for name, value in plan.to_json().items() if name != "outlook"}
    assert Plan.from_json(older).outlook is None


@pytest.mark.parametrize(
    "damage",
    [{"verdict": "splendid"}, {"over_uniform": "much"}, {"finer": 4}, {"finer": ["a", "b"]}, {"more": 1}, {"seen": []}],
)
def test_a_damaged_one_is_refused(resnet20: Network, damage: dict[str, Any]) -> None:
    plain = resnet20.plan(macs="0.5x").to_json()
    with pytest.raises(PlanError, match="damaged"):
        Plan.from_json({**plain, "outlook": {**plain["outlook"], **damage}})


@pytest.mark.parametrize(
    "changed",
    [{"step": "filter"}, {"fraction": 0.1}, {"share_update": "adaptive"}, {"coupling": "max"}, {"draws": 5}],
)
def test_options_of_the_sampling_are_refused_where_nothing_is_drawn(changed: dict[str, Any]) -> None:
    (name,) = changed
    with pytest.raises(UsageError, match=f"Nothing is drawn in the mode balanced, so {name} cannot be set"):
        Options(**changed)
    assert Options(mode="macs", **changed)

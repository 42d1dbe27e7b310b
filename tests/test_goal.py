"""Search for the smallest network that meets an accuracy goal."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import pretrim
from pretrim.errors import InfeasibleBudget, PretrimError, UsageError
from pretrim.report.contents import smallest
from pretrim.study.goal import Goal, dense_score, good_enough, parse_score
from pretrim.study.recommend import Candidate
from pretrim.train import ACCURACY, Metric

MAE = Metric("mae", higher_is_better=False, is_share=False)
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 16, "lr": 0.05, "train_on": "cpu", "threads": 1}


def candidate(name: str, macs: float, validation: float, metric: Metric = ACCURACY) -> Candidate:
    return Candidate(f"{name}-{macs}", name, 0, validation, validation, {"macs": macs, "params": -macs}, metric=metric)


CANDIDATES = [
    candidate("dense", 100, 0.90),
    candidate("a", 50, 0.895),
    candidate("b", 30, 0.892),
    candidate("c", 10, 0.6),
]


@pytest.mark.parametrize(("drop", "name"), [(0, "dense"), (0.5, "a"), (1, "b"), (50, "c")])
def test_the_smallest_within_a_drop(drop: float, name: str) -> None:
    threshold = Goal(drop=drop).threshold(ACCURACY, dense_score(CANDIDATES))
    assert good_enough(CANDIDATES, threshold)[0].name == name


def test_the_smallest_network_is_that_of_the_named_cost() -> None:
    assert good_enough(CANDIDATES, 0.8, "params")[0].name == "dense"


def test_a_drop_for_an_error_metric_is_a_percentage_of_its_value() -> None:
    candidates = [candidate("dense", 100, 2.0, MAE), candidate("a", 50, 2.1, MAE), candidate("b", 30, 2.3, MAE)]
    threshold = Goal(drop=10).threshold(MAE, dense_score(candidates))
    assert threshold == pytest.approx(2.2)
    assert good_enough(candidates, threshold)[0].name == "a"


def test_the_report_names_the_smallest_within_some_points() -> None:
    rows = smallest(CANDIDATES)
    assert [row["key"] for row in rows] == ["a-50", "b-30", "b-30"]
    assert smallest(CANDIDATES[1:]) == []


@pytest.mark.parametrize(("text", "value"), [("90%", 0.9), ("0.9", 0.9), (0.9, 0.9), ("12", 12.0)])
def test_scores_are_parsed(text: Any, value: float) -> None:
    assert parse_score(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": 1, "accuracy": "90%"}, "^drop is from the dense network, accuracy .* give one of them"),
        ({"drop": -1}, "^Expected drop to be 0 or more points, but got -1"),
        ({"accuracy": "much"}, "^Expected accuracy as a share such as 90% or 0.9, but got 'much'"),
        ({"accuracy": "101%"}, "^Expected accuracy to be from 0 to 100 %, but got 101.0 %: write it as 90% or 0.9"),
        ({"accuracy": 95}, "^Expected accuracy to be from 0 to 100 %, but got 9500.0 %"),
        ({"drop": 1, "macs": "0.5x"}, "find the limit: leave out macs, or name its cost, limit_of macs"),
        ({"drop": 1, "teacher": Path("t")}, "^teacher applies to a single training: do not combine it"),
        ({"drop": 1, "limit_of": "colour"}, "Expected a limit on one of"),
    ],
)
def test_wrong_options_give_one_line_and_nothing_is_written(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        pretrim.compress(network(), data(), output=tmp_path / "run", **options, **QUICK)
    assert list(tmp_path.iterdir()) == []


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip


def data(noise: float = 0.3) -> tuple[TensorDataset, ...]:
    splits = []
    for seed, count in enumerate((96, 48, 48)):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % 3
        images = torch.randn(count, 1, 8, 8, generator=generator) * noise + (labels.float() - 1).view(-1, 1, 1, 1)
        splits.append(TensorDataset(images, labels))
    return tuple(splits)


def test_compress_finds_the_smallest_and_keeps_every_step(tmp_path: Path) -> None:
    """With a drop of 100 points every network is good enough, so the search ends at the narrowest one."""
    lines: list[str] = []
    run = pretrim.compress(network(), data(), output=tmp_path / "run", drop=100, reporter=Recording(lines), **QUICK)
    study = pretrim.open_study(tmp_path / "run-study")
    fractions = {trial.spec.budget_fraction for trial in study.trials}
    assert fractions == {1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125}
    done = [trial for trial in study.trials if trial.state == "done"]
    assert run.plan.slim["macs"] == min(trial.record["costs"]["macs"] for trial in done if trial.record)
    assert run.accuracy == run.evaluate(data()).accuracy
    assert run.dense_accuracy is not None
    assert sum(line.startswith("step ") for line in lines) == 5
    with pytest.raises(UsageError, match=r"from 0 to 100 %, but got 101\.0 %"):
        study.recommend(accuracy="101%", macs=1)
    best = study.recommend(drop=100).found.best
    assert best is not None and best.key == run.results["trial"]
    assert not any(path.name == "trial.json" for path in run.path.iterdir())
    assert json.loads((run.path / "run.json").read_text())["results"]["study"]


def test_a_goal_that_no_network_reaches_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InfeasibleBudget, match=r"No network reaches 100.0 % .* the best is dense, seed 0, with"):
        pretrim.compress(network(), data(noise=50.0), output=tmp_path / "run", accuracy=1.0, **QUICK)
    assert not (tmp_path / "run").exists()
    with pytest.raises(PretrimError, match=r"No network reaches 100.0 %"):
        pretrim.open_study(tmp_path / "run-study").recommend(accuracy="100%")


class Recording:
    """A reporter that keeps its lines."""

    def __init__(self, lines: list[str]) -> None:
        from pretrim.jobs.reporter import Silent

        self.lines, self.silent = lines, Silent()

    def say(self, line: str) -> None:
        self.lines.append(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.silent, name)

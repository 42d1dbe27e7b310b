"""The utility and the default method on a sample of public tables of trained networks (benchmarks/widths.py)."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import pretrim

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from widths import MacroResNet, SizeSpace, Tabled, features, fit  # noqa: E402

from pretrim.planning.utility import utility  # noqa: E402

SAMPLE = Path(__file__).parent / "widths_sample.csv"
SPACES = {
    ("SizeSpace", 10): (64,) * 5,
    ("SizeSpace", 100): (64,) * 5,
    ("MacroResNet", 10): (256,) * 3 + (512,) * 4,
}
BUILD = {"SizeSpace": SizeSpace, "MacroResNet": MacroResNet}


def sample(space: tuple[str, int]) -> Tabled:
    lines = [line for line in SAMPLE.read_text().splitlines() if not line.startswith("#")]
    rows = [row for row in csv.DictReader(lines) if (row["network"], int(row["classes"])) == space]
    widths = np.array([[float(width) for width in row["widths"].split()] for row in rows])
    return Tabled(widths, np.array([float(row["accuracy"]) for row in rows]))


@pytest.fixture(params=SPACES, ids=lambda space: f"{space[0]}-{space[1]}")
def space(request: pytest.FixtureRequest) -> tuple[str, int]:
    found: tuple[str, int] = request.param
    return found


def test_the_utility_ranks_trained_networks(space: tuple[str, int]) -> None:
    """Spearman's rank correlation, beside those of MACs and parameters; groups are in the order of the columns."""
    network = pretrim.analyze(BUILD[space[0]](SPACES[space], space[1]), torch.zeros(1, 3, 32, 32))
    table = sample(space)
    assert len(table.widths) == 120
    ours = spearmanr(utility(network)(table.widths), table.accuracy).statistic
    theirs = [
        spearmanr(pretrim.costs(network)[name](table.widths.astype(int)), table.accuracy).statistic
        for name in ("macs", "params")
    ]
    assert ours > 0.9 and ours > max(theirs) + 0.05


@pytest.mark.parametrize("limits", [{"macs": "0.45x"}, {"params": "0.45x", "activation": "0.45x"}])
def test_the_default_is_no_less_accurate_than_uniform_width(space: tuple[str, int], limits: dict[str, str]) -> None:
    """By a log-linear fit of the sample with a term in 1 / width; the tables' own figures are in the benchmark."""
    network = pretrim.analyze(BUILD[space[0]](SPACES[space], space[1]), torch.zeros(1, 3, 32, 32))
    table = sample(space)
    plan, uniform = network.plan(**limits), network.plan(mode="uniform", **limits)
    factors = fit(table.widths, table.accuracy, pairs=False)
    rows = np.stack([plan.widths, uniform.widths]).astype(float)
    default, control = features(rows, pairs=False) @ factors
    assert default >= control - 0.05
    if space[0] == "SizeSpace":  # on a well-made ResNet there is next to nothing to gain
        assert default > control + 0.2

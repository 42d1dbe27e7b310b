"""What the tool says of the modes is what the records of the benchmark say."""

import json
import math
import statistics
from pathlib import Path

import pytest

from pretrim.planning.evidence import UNIFORM, loses

RECORDS = Path(__file__).parent.parent / "benchmarks" / "results" / "accuracy.jsonl"
WAYS = {
    ("macs", "macs"): "FA",
    ("params", "macs"): "PA, features kept",
    ("memory", "macs"): "MA",
    ("params", "params"): "PA, features kept",
    ("memory", "activation_bytes"): "MA, features kept",
}
LIMITS = {"activation_bytes": "activation"}


def recorded(stages: tuple[str, ...], way: str, limit: tuple[str, float]) -> list[float]:
    """Validation accuracies of all seeds, in per cent."""
    rows = [json.loads(line) for line in RECORDS.read_text().splitlines()]
    return [
        100 * row["validation_accuracy"]
        for row in rows
        if row["stage"] in stages and row["way"] == way and row["limits"] == [list(limit)]
    ]


@pytest.mark.parametrize(("mode", "cost"), UNIFORM)
def test_the_figures_are_those_of_the_records(mode: str, cost: str) -> None:
    found = UNIFORM[mode, cost]
    limit = (LIMITS.get(cost, cost), found.keep)
    own, uniform = (recorded(("factors", "own"), way, limit) for way in (WAYS[mode, cost], "uniform"))
    assert len(own) >= 4 and len(uniform) >= 4
    assert found.gained == pytest.approx(statistics.fmean(own) - statistics.fmean(uniform), abs=0.05)
    error = math.sqrt(statistics.variance(own) / len(own) + statistics.variance(uniform) / len(uniform))
    assert found.error == pytest.approx(error, abs=0.05)


def test_a_mode_that_loses_is_told_and_no_other() -> None:
    said = loses("params", ["macs"])
    assert said is not None and "more accurate than the mode params" in said
    assert loses("params", ["ram"]) is None and loses("uniform", ["macs"]) is None
    told = {key for key in UNIFORM if loses(key[0], [key[1]]) is not None}
    assert told == {key for key, found in UNIFORM.items() if found.gained < -3 * found.error}


def test_joint_draws_by_the_limit_and_loses_as_that_mode_does() -> None:
    for mode, cost in UNIFORM:
        own = {"params": "params", "macs": "macs", "activation_bytes": "memory"}[cost]
        if mode == own:
            assert loses("joint", [cost]) == loses(mode, [cost])

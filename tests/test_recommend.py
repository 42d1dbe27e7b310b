"""What a study recommends, by hand, and ten thousand trials."""

import time

import numpy as np
import pytest

from pretrim.errors import UsageError
from pretrim.study.recommend import Candidate, recommend, to_json


def candidate(key: str, validation: float, **takes: float) -> Candidate:
    return Candidate(key, f"name {key}", 0, validation, validation - 0.01, {"macs": 1.0, **takes})


FOUND = [
    candidate("tiny", 0.60, ram=10, flash=10),
    candidate("small", 0.70, ram=20, flash=20),
    candidate("wide", 0.75, ram=40, flash=15),
    candidate("deep", 0.78, ram=15, flash=60),
    candidate("dense", 0.80, ram=50, flash=90),
]


def test_the_best_within_every_limit_and_what_more_would_buy() -> None:
    found = recommend(FOUND, {"ram": 20, "flash": 20})
    assert found.best is not None and found.next_best is not None
    assert (found.best.key, found.next_best.key, found.fitting, found.of) == ("small", "tiny", 2, 5)
    assert [(buy.resource.name, buy.more, round(buy.gain, 3), buy.candidate.key) for buy in found.buys] == [
        ("ram", 20, 0.05, "wide"),
        ("flash", 40, 0.08, "deep"),
    ]
    assert found.relax == ()
    plain = to_json(found)
    assert plain["best"]["test_accuracy"] == pytest.approx(0.69)
    assert "test_accuracy" not in plain["next_best"]


def test_without_limits_and_among_equals() -> None:
    assert recommend(FOUND, {}).best == FOUND[-1]
    equal = [candidate("a", 0.5, params=2), Candidate("b", "b", 0, 0.5, 0.5, {"macs": 0.5})]
    chosen = recommend(equal, {}).best
    assert chosen is not None and chosen.key == "b", "fewer MACs"


def test_where_nothing_fits_it_says_which_limit_alone_is_in_the_way() -> None:
    found = recommend(FOUND, {"ram": 5, "flash": 20})
    assert found.best is None
    assert [(one.resource.name, one.limit, one.needed, one.candidate.key) for one in found.relax] == [
        ("ram", 5, 10, "tiny")
    ]
    assert recommend(FOUND, {"ram": 5, "flash": 5}).relax == ()
    assert recommend([], {"ram": 5}).of == 0


def test_what_is_not_known_does_not_fit() -> None:
    with pytest.raises(UsageError, match="Expected trials with a known latency, but there are none: sweep"):
        recommend(FOUND, {"latency": 1.0})
    with pytest.raises(UsageError, match=r"Expected limits on params, macs, .* but got 'colour'"):
        recommend(FOUND, {"colour": 1.0})
    timed = [*FOUND, candidate("timed", 0.1, latency=0.5)]
    chosen = recommend(timed, {"latency": 1.0}).best
    assert chosen is not None and chosen.key == "timed"


def test_a_front_of_many_points_takes_no_time() -> None:
    """The goal is 1 s for 100,000; benchmarks/study.py measures it. Here: it is not quadratic."""
    from pretrim.study.pareto import front

    random = np.random.default_rng(0)
    start = time.process_time()
    assert 0 < front(random.random((100_000, 2)), random.random(100_000)).sum() < 1000
    assert time.process_time() - start < 30

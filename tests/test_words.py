"""Two amounts of which one exceeds the other never read the same, and an amount that is advised is enough."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from pretrim.cli.recommend import enough
from pretrim.planning.budget import Budget, amount_text
from pretrim.train import Metric

UNITS = st.sampled_from(["ns", "bytes", "count"])


@given(UNITS, st.integers(1, 10**12), st.integers(0, 10**9))
def test_what_exceeds_a_limit_reads_as_more(unit: str, limit: int, over: int) -> None:
    needed = amount_text(unit, limit + 1 + over)  # type: ignore[arg-type]
    most = amount_text(unit, limit, up=False)  # type: ignore[arg-type]
    numbers = [float(text.split()[0].replace(",", "")) for text in (needed, most)]
    assert numbers[0] > numbers[1], (needed, most)


@given(st.integers(1, 10**12))
def test_what_is_said_to_be_needed_is_enough_as_a_limit(nanoseconds: int) -> None:
    typed = amount_text("ns", nanoseconds).replace(" ", "")
    assert Budget.parse({"latency": typed}).limits[0].amount * (1 + 1e-12) >= nanoseconds


@given(st.sampled_from(["s", "J", "B", ""]), st.floats(1e-9, 1e9))
def test_what_a_study_asks_to_relax_to_is_enough(unit: str, value: float) -> None:
    number = float(re.sub(r"[^\d.]", "", enough(unit, value)))
    assert number >= (1000 * value if unit in ("s", "J") else value)


@given(st.booleans(), st.floats(0, 1), st.floats(0, 1))
def test_scores_that_differ_read_differently(is_share: bool, one: float, other: float) -> None:
    shown = Metric("m", True, is_share).show_apart(one, other)
    assert (shown[0] == shown[1]) == (abs(one - other) < 1e-15) or abs(one - other) < 1e-12

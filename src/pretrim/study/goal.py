"""The inverse question: not the best network within a limit, but the smallest that is good enough."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from pretrim.errors import InfeasibleBudget, UsageError, shown
from pretrim.train import Metric

from .recommend import BY_NAME, Candidate
from .settings import DENSE


@dataclass(frozen=True)
class Goal:
    """What is good enough, by the validation images.

    Attributes:
        drop: how much worse than the dense network: points of a share, percent of the value of another metric.
        least: the score itself; at most, where less is better.
    """

    drop: float | None = None
    least: float | None = None

    def __post_init__(self) -> None:
        if (self.drop is None) == (self.least is None):
            raise UsageError("--drop is from the dense network, --accuracy is the accuracy itself: give one of them.")
        if self.drop is not None and not 0 <= self.drop < math.inf:
            raise UsageError(f"Expected --drop to be 0 or more points, but got {self.drop:g}.")

    def threshold(self, metric: Metric, dense: float | None) -> float:
        """The score that is just good enough. Raises UsageError where it is from a dense network that is not known."""
        if self.least is not None:
            self.check(metric)
            return self.least
        if dense is None or self.drop is None:
            raise UsageError("--drop needs the dense network in the study: sweep without --no-dense, or --accuracy.")
        allowed = self.drop / 100 * (1.0 if metric.is_share else abs(dense))
        return dense - allowed if metric.higher_is_better else dense + allowed

    def check(self, metric: Metric) -> None:
        """Raises UsageError for a score that no network can have."""
        if self.least is not None and metric.is_share and not 0 <= self.least <= 1:
            raise UsageError(
                f"Expected --accuracy to be from 0 to 100 %, but got {metric.show(self.least)}: write it as 90% or 0.9."
            )

    def words(self, metric: Metric) -> str:
        """For people."""
        if self.least is not None:
            return f"validation {metric.title} of {metric.show(self.least)}"
        return f"within {self.drop:g} {'points' if metric.is_share else '%'} of dense"


def parse_score(text: str | float) -> float:
    """A score as a user writes it.

    >>> parse_score("90%"), parse_score("0.9"), parse_score(12)
    (0.9, 0.9, 12.0)
    """
    said = str(text).strip()
    try:
        value = float(said.removesuffix("%")) / (100.0 if said.endswith("%") else 1.0)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"Expected --accuracy as a share such as 90% or 0.9, but got {shown(text)}.")
    return value


def dense_score(found: Iterable[Candidate]) -> float | None:
    """Validation score of the dense network, the mean over its seeds; None where it was not trained."""
    scores = [one.validation for one in found if one.name == DENSE]
    return fmean(scores) if scores else None


def good_enough(found: Sequence[Candidate], threshold: float, cost: str = "macs") -> list[Candidate]:
    """The networks that reach a score, those with the least of a cost first.

    Args:
        found: what is there.
        threshold: the score that is just good enough.
        cost: by its name in `recommend.RESOURCES`.

    Raises UsageError for an unknown cost.
    """
    if cost not in BY_NAME:
        raise UsageError(f"Expected a cost of {', '.join(BY_NAME)}, but got {shown(cost)}.")
    reached = [one for one in found if one.worth >= one.metric.worth(threshold) and cost in one.takes]
    return sorted(reached, key=lambda one: (one.takes[cost], -one.worth))


def unreached(found: Sequence[Candidate], goal: Goal, threshold: float) -> InfeasibleBudget:
    """The error for a goal that no network reaches.

    Args:
        found: the networks.
        goal: what was asked for.
        threshold: the score that comes to.
    """
    best = max(found, key=lambda one: one.worth)
    metric = best.metric
    least, reached = metric.show_apart(threshold, best.validation)
    return InfeasibleBudget(
        f"No network reaches {least} ({goal.words(metric)}) on the validation images: the best is "
        f"{best.name}, seed {best.seed}, with {reached}. Train longer, or ask for less."
    )

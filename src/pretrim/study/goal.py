"""The inverse problem: not the best network within a limit, but the smallest one that is accurate enough."""

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
    """The required validation score: either relative to the dense network, or absolute.

    Attributes:
        drop: allowed drop from the dense network, in points for a share, else in percent of the dense score.
        score: the score itself: a minimum, or a maximum for metrics where lower is better.
    """

    drop: float | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        if (self.drop is None) == (self.score is None):
            raise UsageError("--drop is from the dense network, --accuracy is the accuracy itself: give one of them.")
        if self.drop is not None and not 0 <= self.drop < math.inf:
            raise UsageError(f"Expected --drop to be 0 or more points, but got {self.drop:g}.")

    def threshold(self, metric: Metric, dense: float | None) -> float:
        """The score that just meets the goal. Raises UsageError if it depends on a dense score that is not known."""
        if self.score is not None:
            self.check(metric)
            return self.score
        if dense is None or self.drop is None:
            raise UsageError("--drop needs the dense network in the study: sweep without --no-dense, or --accuracy.")
        allowed = self.drop / 100 * (1.0 if metric.is_share else abs(dense))
        return dense - allowed if metric.higher_is_better else dense + allowed

    def check(self, metric: Metric) -> None:
        """Raises UsageError for an impossible score."""
        if self.score is not None and metric.is_share and not 0 <= self.score <= 1:
            raise UsageError(
                f"Expected --accuracy to be from 0 to 100 %, but got {metric.show(self.score)}: write it as 90% or 0.9."
            )

    def words(self, metric: Metric) -> str:
        """A description of the goal, for messages."""
        if self.score is not None:
            return f"validation {metric.title} of {metric.show(self.score)}"
        unit = "%" if not metric.is_share else "point" if self.drop == 1 else "points"
        return f"within {self.drop:g} {unit} of dense"


def parse_score(text: str | float) -> float:
    """Parse a score as users write it.

    >>> parse_score("90%"), parse_score("0.9"), parse_score(12)
    (0.9, 0.9, 12.0)
    """
    stripped = str(text).strip()
    try:
        value = float(stripped.removesuffix("%")) / (100.0 if stripped.endswith("%") else 1.0)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"Expected --accuracy as a share such as 90% or 0.9, but got {shown(text)}.")
    return value


def dense_score(found: Iterable[Candidate]) -> float | None:
    """Mean validation score of the dense network over its seeds; None if it was not trained."""
    scores = [candidate.validation for candidate in found if candidate.name == DENSE]
    return fmean(scores) if scores else None


def good_enough(found: Sequence[Candidate], threshold: float, cost: str = "macs") -> list[Candidate]:
    """The networks that reach a score, cheapest first.

    Args:
        found: the candidates.
        threshold: the score that just meets the goal.
        cost: name of the cost in `recommend.RESOURCES`.

    Raises UsageError for an unknown cost.
    """
    if cost not in BY_NAME:
        raise UsageError(f"Expected a cost of {', '.join(BY_NAME)}, but got {shown(cost)}.")
    reached = [
        candidate
        for candidate in found
        if candidate.worth >= candidate.metric.worth(threshold) and cost in candidate.costs
    ]
    return sorted(reached, key=lambda candidate: (candidate.costs[cost], -candidate.worth))


def unreached(found: Sequence[Candidate], goal: Goal, threshold: float) -> InfeasibleBudget:
    """The error for a goal that no network reaches.

    Args:
        found: the candidates.
        goal: the goal.
        threshold: the score that the goal amounts to.
    """
    best = max(found, key=lambda candidate: candidate.worth)
    metric = best.metric
    required, reached = metric.show_apart(threshold, best.validation)
    return InfeasibleBudget(
        f"No network reaches {required} ({goal.words(metric)}) on the validation images: the best is "
        f"{best.name}, seed {best.seed}, with {reached}. Train longer, or ask for less."
    )

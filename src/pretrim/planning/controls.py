"""Control methods for comparison: uniform, random and water-filled widths that use up the same budget."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pretrim.analysis.network import IntArray
from pretrim.cost.quantities import Criterion

from .fill import give_back
from .legal import FloatArray, Problem
from .shares import Shares, normalised
from .stream import Stream

DEGREE: dict[Criterion, int] = {"params": 2, "macs": 2, "memory": 1, "latency": 2}
"""The power of a common width factor that each complexity grows with: weights and MACs are products of two widths."""


def uniform(problem: Problem, count: int) -> IntArray:
    """The largest common width ratio that fits; then the rest of the budget is filled up.

    Each group keeps the largest legal width not above the ratio. Rounding down leaves a part of the budget unused, a
    large one for narrow networks. So the steps above the ratio are taken as well, in the order of the ratio that they
    reach, as far as they fit: a comparison with less than the whole budget would flatter every other method.
    """
    widths = _largest_ratio(problem)
    is_open = np.ones(len(widths), dtype=bool)
    for group, wider in _steps_by_ratio(problem, widths):
        if is_open[group]:
            trial = widths.copy()
            trial[group] = wider
            is_open[group] = bool(problem.budget.met(trial[None])[0])  # a step that does not fit never will
            widths = trial if is_open[group] else widths
    return np.repeat(widths[None], count, axis=0)


def _steps_by_ratio(problem: Problem, widths: IntArray) -> list[tuple[int, int]]:
    """All (group, legal width) pairs above the given widths (G), ordered by the ratio they reach, then by group."""
    above = [legal[legal > width] for legal, width in zip(problem.legal, widths, strict=True)]
    groups = np.repeat(np.arange(len(widths)), [len(legal) for legal in above])
    wider = np.concatenate(above)
    order = np.lexsort((groups, wider / problem.network.dense[groups]))
    return list(zip(groups[order].tolist(), wider[order].tolist(), strict=True))


def _largest_ratio(problem: Problem) -> IntArray:
    """Widths (G) at the largest common ratio that fits: each group keeps the largest legal width not above it."""
    dense = problem.network.dense
    ratios = np.unique(np.concatenate([legal / n for legal, n in zip(problem.legal, dense, strict=True)]))
    low, high = 0, len(ratios)  # ratios[low] fits (the smallest always does), ratios[high] does not
    while high - low > 1:
        middle = (low + high) // 2
        fits = problem.budget.met(problem.floor(dense[None] * ratios[middle] + 1e-9))[0]
        low, high = (middle, high) if fits else (low, middle)
    widths: IntArray = problem.floor(dense[None] * ratios[low] + 1e-9)[0]
    return widths


def random(problem: Problem, count: int) -> IntArray:
    """Random widths at the budget, the null hypothesis: uniform ratios, scaled by the largest factor that fits."""
    stream, dense = Stream(problem.options.seed), problem.network.dense
    drawn = stream.uniform(count, len(dense))
    widths = _largest_scale(problem, lambda scale: np.minimum(drawn * scale, 1.0) * dense, count)
    return give_back(problem, widths, stream.orders(count, len(dense)))


def waterfill(problem: Problem, count: int) -> IntArray:
    """Every group keeps the same complexity, capped at its dense width: ``w = n * min(1, (level / c) ** (1 / d))``.

    With x = w/n this maximises ``sum log(x)`` subject to ``sum c * x**d <= budget, x <= 1``. The complexity c is that
    of the dense network, in the mode of each limit. It grows with the power d of the widths: 2 for weights and MACs,
    which are products of two widths, and 1 for feature maps. With several limits, the geometric mean of their widths is
    taken.
    """
    shares = Shares(problem)
    is_open = np.ones((1, len(problem.network.groups)), dtype=bool)
    criteria = [limit.quantity.criterion for limit in problem.budget.limits]
    dense = problem.network.dense[None]
    complexities = [np.maximum(normalised(shares.of_criterion(c, dense), is_open), 1e-12) for c in criteria]
    logs = [-np.log(complexity) / DEGREE[c] for complexity, c in zip(complexities, criteria, strict=True)]
    weight = np.exp(np.mean(logs, axis=0))
    widths = _largest_scale(problem, lambda level: np.minimum(weight * level, 1.0) * dense, 1)
    order = np.argsort(-weight, axis=1, kind="stable")
    return np.repeat(give_back(problem, widths, order), count, axis=0)


def _largest_scale(problem: Problem, widths_at: Callable[[FloatArray], FloatArray], count: int) -> IntArray:
    """Widths (count x G) at the largest scale that fits, found by bisection for each row.

    Args:
        problem: the limits and the legal widths.
        widths_at: real widths (count x G) for a scale per row (count x 1), non-decreasing in it.
        count: number of rows.
    """
    low, high = np.full((count, 1), 1e-12), np.full((count, 1), 1e12)
    for _ in range(80):
        middle = np.sqrt(low * high)
        met = problem.budget.met(problem.floor(widths_at(middle)))[:, None]
        low, high = np.where(met, middle, low), np.where(met, high, middle)
    return problem.floor(widths_at(low))

"""Controls: uniform, random and water-filled widths at the same budget."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pretrim.analysis.network import IntArray

from .fill import give_back
from .legal import FloatArray, Problem
from .shares import Shares, normalised
from .stream import Stream


def uniform(problem: Problem, count: int) -> IntArray:
    """One ratio for every group, the largest that fits: each keeps the largest legal width not above it."""
    dense = problem.network.dense
    ratios = np.unique(np.concatenate([legal / n for legal, n in zip(problem.legal, dense, strict=True)]))
    low, high = 0, len(ratios)  # ratios[low] fits (the smallest always does), ratios[high] does not
    while high - low > 1:
        middle = (low + high) // 2
        fits = problem.budget.met(problem.floor(dense[None] * ratios[middle] + 1e-9))[0]
        low, high = (middle, high) if fits else (low, middle)
    return np.repeat(problem.floor(dense[None] * ratios[low] + 1e-9), count, axis=0)


def random(problem: Problem, count: int) -> IntArray:
    """Random widths at the budget, the null: ratios drawn uniformly, then scaled together as far as fits."""
    stream, dense = Stream(problem.options.seed), problem.network.dense
    drawn = stream.uniform(count, len(dense))
    widths = _largest_scale(problem, lambda scale: np.minimum(drawn * scale, 1.0) * dense, count)
    return give_back(problem, widths, stream.orders(count, len(dense)))


def waterfill(problem: Problem, count: int) -> IntArray:
    """Every group keeps the same amount of complexity, until it is dense: ``w = n * min(1, level / complexity)``.

    With x = w/n this maximises ``sum log(x)`` under ``sum complexity * x <= budget, x <= 1``, the form of the
    layer-density problem that PreCrop (arXiv 2203.02549) poses; its own text was not read, so it does not bear that
    name. Complexity is the dense network's, in the mode of each limit; with several limits the shares are averaged.
    """
    shares = Shares(problem)
    everywhere = np.ones((1, len(problem.network.groups)), dtype=bool)
    criteria = [limit.quantity.criterion for limit in problem.budget.limits]
    dense = problem.network.dense[None]
    complexity = np.mean([normalised(shares.of_criterion(each, dense), everywhere) for each in criteria], axis=0)
    weight = 1.0 / np.maximum(complexity, 1e-12)
    widths = _largest_scale(problem, lambda level: np.minimum(weight * level, 1.0) * problem.network.dense, 1)
    order = np.argsort(complexity, axis=1, kind="stable")
    return np.repeat(give_back(problem, widths, order), count, axis=0)


def _largest_scale(problem: Problem, widths_at: Callable[[FloatArray], FloatArray], count: int) -> IntArray:
    """Bisect the one number that widths grow with, for each row, to the largest that fits."""
    low, high = np.full((count, 1), 1e-12), np.full((count, 1), 1e12)
    for _ in range(80):
        middle = np.sqrt(low * high)
        met = problem.budget.met(problem.floor(widths_at(middle)))[:, None]
        low, high = np.where(met, middle, low), np.where(met, high, middle)
    return problem.floor(widths_at(low))

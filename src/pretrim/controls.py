"""What a method must be compared with: uniform width, and equal complexity for every group. Both use the budget up."""

from __future__ import annotations

import numpy as np

from .allocate import MODE_OF_COST, Problem, Shares, _largest_scale, _normal, give_back
from .allocate import uniform as largest_ratio
from .network import IntArray

DEGREE = {"params": 2, "macs": 2, "memory": 1, "latency": 2}
"""With which power of all widths a complexity grows: weights and MACs are products of two widths"""


def uniform(problem: Problem, count: int) -> IntArray:
    """One ratio for every group, the largest that fits; then the budget is filled up.

    Each group keeps the largest legal width not above the ratio. Rounding down leaves a part of the budget, on narrow
    networks a large one, so the steps above the ratio follow in the order of the ratio that they reach, as far as they
    fit: a comparison with less than the whole budget would flatter every other method.
    """
    widths, dense = largest_ratio(problem, 1)[0], problem.network.dense
    everyone = np.arange(len(dense))
    is_open = np.ones(len(dense), dtype=bool)
    while True:
        wider = problem.next_up(everyone, widths)
        is_open &= wider > widths
        if not is_open.any():
            return np.repeat(widths[None], count, axis=0)
        group = int(np.where(is_open, wider / dense, np.inf).argmin())
        trial = widths.copy()
        trial[group] = wider[group]
        is_open[group] = bool(problem.bounds.met(trial[None])[0])  # a step that does not fit never will
        widths = trial if is_open[group] else widths


def waterfill(problem: Problem, count: int) -> IntArray:
    """Every group keeps the same amount of complexity, until it is dense: ``w = n * min(1, (level / c) ** (1 / d))``.

    With x = w/n this maximises ``sum log(x)`` under ``sum c * x**d <= budget, x <= 1``: complexity c grows with the
    power d of the widths, 2 for weights and MACs, which are products of two, and 1 for feature maps. Complexity is the
    dense network's, in the mode of each limit; with several limits their widths are averaged geometrically.
    """
    shares = Shares(problem)
    everywhere = np.ones((1, len(problem.network.groups)), dtype=bool)
    modes = [MODE_OF_COST[cost.name] for cost in problem.bounds.costs]
    logs = [-np.log(np.maximum(_normal(shares.static[mode], everywhere), 1e-12)) / DEGREE[mode] for mode in modes]
    weight = np.exp(np.mean(logs, axis=0))
    widths = _largest_scale(problem, lambda level: np.minimum(weight * level, 1.0) * problem.network.dense, 1)
    order = np.argsort(-weight, axis=1, kind="stable")
    return np.repeat(give_back(problem, widths, order), count, axis=0)

"""Choose widths within a resolved budget, by any method."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pretrim.analysis.network import IntArray, Network

from .balanced import balanced
from .budget import ResolvedBudget
from .controls import random, uniform, waterfill
from .legal import Problem
from .options import Method, Options
from .reach import check_reachable
from .sampling import sample


def allocate(network: Network, budget: ResolvedBudget, options: Options, count: int = 1) -> IntArray:
    """Choose widths (count x G) that meet every limit of `budget`.

    ``balanced``, ``uniform`` and ``waterfill`` are deterministic: their rows are equal.

    Args:
        network: the analysed network.
        budget: the limits.
        options: mode, rounding, seed and the other options.
        count: number of rows of widths to draw.

    Raises:
        InfeasibleBudget: the narrowest legal network does not fit.
    """
    problem = Problem(network, budget, options)
    check_reachable(problem)
    if not network.groups:
        return np.zeros((count, 0), dtype=np.int64)
    return METHODS[options.mode](problem, count)


METHODS: dict[Method, Callable[[Problem, int], IntArray]] = {
    "balanced": balanced,
    "params": sample,
    "macs": sample,
    "memory": sample,
    "latency": sample,
    "joint": sample,
    "uniform": uniform,
    "random": random,
    "waterfill": waterfill,
}
"""The function for each mode, from a problem and a count to widths (count x G)."""

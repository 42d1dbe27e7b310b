"""Giving back what a search left unused, one rounding step at a time."""

from __future__ import annotations

import numpy as np

from pretrim.analysis.network import IntArray

from .legal import Problem
from .stream import Stream


def give_back(problem: Problem, widths: IntArray, orders: IntArray) -> IntArray:
    """Give each group, in the given order, every rounding step that breaks no limit.

    One pass is enough: costs never fall when a width grows, so a step that did not fit never will.

    Args:
        problem: network, limits and legal widths.
        widths: within the limits (N x G).
        orders: groups in the order of their turn (N x G).
    """
    widths = widths.copy()
    for place in range(widths.shape[1]):
        rows, groups = np.arange(len(widths)), orders[:, place]
        while rows.size:
            now = widths[rows, groups]
            wider = problem.next_up(groups, now)
            trial = widths[rows]
            trial[np.arange(len(rows)), groups] = wider
            fits = (wider > now) & problem.budget.met(trial)
            widths[rows[fits], groups[fits]] = wider[fits]
            rows, groups = rows[fits], groups[fits]
    return widths


def fill_budget(problem: Problem, widths: IntArray) -> IntArray:
    """Give back what fits by the costs as they are, where a search by formulas left room (one row of widths).

    The arena may fall when a width grows, so that a step fits later that did not before: until nothing fits any more.
    """
    orders = Stream(problem.options.seed).orders(1, len(widths))
    while True:
        wider = give_back(problem, widths[None], orders)[0]
        if (wider == widths).all():
            return widths
        widths = wider

"""Use up the budget that a search left unused, one rounding step at a time."""

from __future__ import annotations

import numpy as np

from pretrim.analysis.network import IntArray

from .legal import Problem
from .stream import Stream


def give_back(problem: Problem, widths: IntArray, orders: IntArray) -> IntArray:
    """Widen each group, in the given order, by every rounding step that breaks no limit.

    One pass is enough: costs never fall when a width grows, so a step that did not fit never will.

    Args:
        problem: the network, its limits and legal widths.
        widths: widths within the limits (N x G).
        orders: for each row, the order in which groups take their turn (N x G).
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
    """Widen one row of widths (G) by every step that fits by the exact costs, where a search by bounds left room.

    The arena may shrink when a width grows, so a step that did not fit may fit later: passes repeat until nothing fits.
    """
    orders = Stream(problem.options.seed).orders(1, len(widths))
    while True:
        wider = give_back(problem, widths[None], orders)[0]
        if (wider == widths).all():
            return widths
        widths = wider

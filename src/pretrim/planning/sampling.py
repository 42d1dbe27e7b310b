"""Complexity-driven sampling of widths.

Every method has the same form, ``(problem, count) -> widths`` (count x G), and the same contract: every limit is met,
and no group can take another rounding step without breaking one.

The sampling is the paper's (Zawish, Davy, Abraham 2022, arXiv 2208.12816): a layer is drawn with a probability equal to
its share of the network's complexity and loses some of its filters, and this repeats until the budget is met. The mode
sets what counts as complexity: weights (PA, ``params``), multiply-accumulates (FA, ``macs``) or the feature map (MA,
``memory``).

A seed gives the same plan on every machine: random numbers are the raw stream of PCG64, which NumPy keeps unchanged
between versions, and shares are sums of integers, which double precision holds exactly.
"""

from __future__ import annotations

import numpy as np

from pretrim.analysis.network import IntArray

from .fill import give_back
from .legal import FloatArray, Problem
from .shares import Shares
from .stream import Stream

STATIC_BLOCK = 32
"""Number of draws between checks of the budget when the shares do not change; the stopping point is exact all the
same."""


def sample(problem: Problem, count: int) -> IntArray:
    """Draw groups by their shares until every limit holds, then widen groups by what still fits (count x G)."""
    options = problem.options
    ladder = _ladder(problem)
    last = (ladder > problem.smallest[:, None]).sum(axis=1)
    shares, stream = Shares(problem), Stream(options.seed)
    block = options.block if shares.changes else STATIC_BLOCK
    drawn = np.zeros((count, len(last)), dtype=np.int64)
    active = np.flatnonzero(~problem.budget.met(_widths_at(ladder, drawn)))
    while active.size:
        before = drawn[active]
        weights = shares(_widths_at(ladder, before), before < last)
        picks = _pick(weights, stream.uniform(active.size, block))
        after = _count(before, picks, np.full(active.size, block), last)
        done = problem.budget.met(_widths_at(ladder, after))
        if block > 1 and done.any():
            after[done] = _shortest(problem, ladder, before[done], picks[done], last)
        drawn[active] = after
        active = active[~done]
    return give_back(problem, _widths_at(ladder, drawn), stream.orders(count, len(last)))


def _ladder(problem: Problem) -> IntArray:
    """The width of each group after 0, 1, 2, ... draws: G x the largest number of widths, padded with the smallest."""
    ladders = []
    for legal in problem.legal:
        if problem.options.step == "filter":
            ladders.append(legal[::-1])
            continue
        exact, widths = float(legal[-1]), [legal[-1]]
        while widths[-1] > legal[0]:
            exact *= 1.0 - problem.options.fraction
            widths.append(legal[np.abs(legal - exact)[::-1].argmin() * -1 - 1])
        ladders.append(np.array(widths))
    length = max(map(len, ladders), default=1)
    rows = [np.pad(ladder, (0, length - len(ladder)), mode="edge") for ladder in ladders]
    return np.array(rows, dtype=np.int64).reshape(len(rows), length)


def _widths_at(ladder: IntArray, drawn: IntArray) -> IntArray:
    """The widths (n x G) after a number of draws of each group (n x G)."""
    widths: IntArray = ladder[np.arange(len(ladder)), drawn]
    return widths


def _pick(weights: FloatArray, uniform: FloatArray) -> IntArray:
    """Draw groups in proportion to each row of weights, one per random number: (n x G), (n x block) -> (n x block)."""
    edges = weights.cumsum(axis=1)
    target = uniform * edges[:, -1:]
    picked: IntArray = (edges[:, None, :] <= target[:, :, None]).sum(axis=2)
    return picked.clip(max=weights.shape[1] - 1)


def _count(before: IntArray, picks: IntArray, length: IntArray, last: IntArray) -> IntArray:
    """Number of draws of each group (n x G) after the first `length` picks of each row, up to `last` per group.

    Args:
        before: number of draws of each group so far (n x G).
        picks: groups drawn, in order (n x block).
        length: number of picks that count in each row (n).
        last: number of draws that take a group to its smallest width (G).
    """
    after = before.copy()
    counted = np.arange(picks.shape[1]) < length[:, None]
    np.add.at(after, (np.nonzero(counted)[0], picks[counted]), 1)
    np.minimum(after, last, out=after)
    return after


def _shortest(problem: Problem, ladder: IntArray, before: IntArray, picks: IntArray, last: IntArray) -> IntArray:
    """Undo the draws of a block that came after every limit held.

    The first draw at which they hold is found by bisection, because draws never raise a cost.
    """
    low, high = np.zeros(len(picks), dtype=np.int64), np.full(len(picks), picks.shape[1])
    while (high - low > 1).any():
        middle = (low + high) // 2
        met = problem.budget.met(_widths_at(ladder, _count(before, picks, middle, last)))
        low, high = np.where(met, low, middle), np.where(met, middle, high)
    return _count(before, picks, high, last)

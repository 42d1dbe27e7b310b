"""From a budget to widths: complexity-driven sampling, and what it must be compared with.

Every method has one form, ``(network, budget, options, count) -> widths`` (count x G), and one contract: every limit is
met, and giving any one rounding step back to any group that is not dense breaks one (for ``uniform``: the largest ratio
that fits).

The sampling is the paper's (Zawish, Davy, Abraham 2022, arXiv 2208.12816): a layer is drawn with a probability equal to
its share of the network's complexity, some of its filters go, until the budget holds. What counts as complexity is the
mode: its weights (PA, ``params``), its multiply-accumulates (FA, ``macs``), its feature map (MA, ``memory``).

A seed gives the same plan on every machine: random numbers are the raw stream of PCG64, which NumPy keeps unchanged
between versions, and shares are sums of whole numbers, which double precision holds exactly.
"""

from __future__ import annotations

import numpy as np

from pretrim.analysis.network import IntArray

from .fill import give_back
from .legal import FloatArray, Problem
from .shares import Shares
from .stream import Stream

# Draws between two looks at the budget when the shares do not change in between; the stop is exact all the same.
STATIC_BLOCK = 32


def sample(problem: Problem, count: int) -> IntArray:
    """Draw groups by their share until every limit holds, then give back what still fits."""
    options = problem.options
    ladder = _ladder(problem)
    last = (ladder > problem.smallest[:, None]).sum(axis=1)
    shares, stream = Shares(problem), Stream(options.seed)
    block = options.block if shares.changes else STATIC_BLOCK
    drawn = np.zeros((count, len(last)), dtype=np.int64)
    going = np.flatnonzero(~problem.budget.met(_on(ladder, drawn)))
    while going.size:
        before = drawn[going]
        weights = shares(_on(ladder, before), before < last)
        picks = _pick(weights, stream.uniform(going.size, block))
        after = _count(before, picks, np.full(going.size, block), last)
        done = problem.budget.met(_on(ladder, after))
        if block > 1 and done.any():
            after[done] = _shortest(problem, ladder, before[done], picks[done], last)
        drawn[going] = after
        going = going[~done]
    return give_back(problem, _on(ladder, drawn), stream.orders(count, len(last)))


def _ladder(problem: Problem) -> IntArray:
    """The width of each group after 0, 1, 2, ... draws: G x most, filled up with the smallest."""
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
    most = max(map(len, ladders), default=1)
    rows = [np.pad(ladder, (0, most - len(ladder)), mode="edge") for ladder in ladders]
    return np.array(rows, dtype=np.int64).reshape(len(rows), most)


def _on(ladder: IntArray, drawn: IntArray) -> IntArray:
    widths: IntArray = ladder[np.arange(len(ladder)), drawn]
    return widths


def _pick(weights: FloatArray, uniform: FloatArray) -> IntArray:
    """Draw from each row of weights as often as there are numbers: (n x G), (n x block) -> groups (n x block)."""
    edges = weights.cumsum(axis=1)
    target = uniform * edges[:, -1:]
    picked: IntArray = (edges[:, None, :] <= target[:, :, None]).sum(axis=2)
    return picked.clip(max=weights.shape[1] - 1)


def _count(before: IntArray, picks: IntArray, length: IntArray, last: IntArray) -> IntArray:
    """Draws of each group after the first `length` picks; a group at its minimum takes no more."""
    after = before.copy()
    used = np.arange(picks.shape[1]) < length[:, None]
    np.add.at(after, (np.nonzero(used)[0], picks[used]), 1)
    np.minimum(after, last, out=after)
    return after


def _shortest(problem: Problem, ladder: IntArray, before: IntArray, picks: IntArray, last: IntArray) -> IntArray:
    """Undo the draws of a block that were made after every limit held, by bisection (costs never rise)."""
    low, high = np.zeros(len(picks), dtype=np.int64), np.full(len(picks), picks.shape[1])
    while (high - low > 1).any():
        middle = (low + high) // 2
        met = problem.budget.met(_on(ladder, _count(before, picks, middle, last)))
        low, high = np.where(met, low, middle), np.where(met, middle, high)
    return _count(before, picks, high, last)

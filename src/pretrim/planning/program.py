"""The most useful widths within limits, not rounded: a geometric program, and the method that solves it.

In the logarithms of the widths a sum of products is convex, its logarithm too, and so is a peak, the largest of several
sums. The utility (`utility.py`) is concave. So there is one optimum, whatever the number of limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pretrim.analysis.network import IntArray
from pretrim.cost.derivatives import binding, curvature, slopes
from pretrim.cost.formula import Formula
from pretrim.cost.symmetric import Symmetric

from .legal import FloatArray
from .utility import Utility

PRECISION = 1e-7
"""of the optimum: of its conditions, in units of the mean weight of a group"""
STEPS = 100
"""of the interior-point method: it takes 10 to 25"""
START = 0.9
"""of the way from the narrowest to the widest widths, in logarithms"""
LEAST_SLACK = 0.1
"""at the start"""


ROOM = 1e-9
"""by which a limit is widened that only the narrowest widths meet: an interior point needs an interior"""


@dataclass(frozen=True)
class Limited:
    """Columns of a formula under one limit: the one column of a sum, or a column for each moment of a peak."""

    formula: Formula
    most: float

    def logs(self, widths: FloatArray) -> FloatArray:
        """The logarithm of each column over its limit: at most 0 within it."""
        logs: FloatArray = np.log(np.maximum(self.formula(widths[None])[0], 1e-300) / self.most)
        return logs

    def elasticities(self, widths: FloatArray) -> FloatArray:
        """By how many per cent each column rises with a per cent of each width: columns x G."""
        values = np.maximum(self.formula(widths[None])[0], 1e-300)
        elasticity: FloatArray = slopes(self.formula, widths) * widths / values[:, None]
        return elasticity

    def curvature(self, widths: FloatArray, weights: FloatArray) -> Symmetric:
        """Second derivatives of a weighted sum of the columns' logarithms, in log widths: G x G."""
        values = np.maximum(self.formula(widths[None])[0], 1e-300)
        elasticity = self.elasticities(widths)
        curve = curvature(self.formula, widths, weights / values).scaled(widths)
        return curve + Symmetric.of_diagonal(weights @ elasticity) + Symmetric.of_products(elasticity, -weights)


def limited(formula: Formula, most: float, lowest: FloatArray, highest: FloatArray) -> Limited:
    """A formula's columns under a limit, with a hair of room where only the narrowest widths meet it.

    Args:
        formula: the cost.
        most: the limit, in its unit.
        lowest: the least width of each group (G).
        highest: the largest (G).
    """
    kept = binding(formula, most, highest)
    least = float(kept(lowest[None])[0].max(initial=0.0))
    return Limited(kept, max(most, least * (1 + ROOM)))


@dataclass(frozen=True)
class Program:
    """Maximise the utility within limits and between the narrowest and the widest widths."""

    utility: Utility
    limits: tuple[Limited, ...]
    lowest: FloatArray
    highest: FloatArray

    @cached_property
    def free(self) -> IntArray:
        """Groups that have a choice."""
        return np.flatnonzero(self.lowest < self.highest)

    def widths(self, logs: FloatArray) -> FloatArray:
        """All widths, from the logarithms of the free ones."""
        widths = self.highest.copy()
        widths[self.free] = np.exp(logs)
        return widths

    def logs(self, widths: FloatArray) -> FloatArray:
        """Each limit's columns: at most 0 within it."""
        parts = [limit.logs(widths) for limit in self.limits]
        return np.concatenate(parts) if parts else np.zeros(0)

    def elasticities(self, widths: FloatArray) -> FloatArray:
        """Of all columns, with respect to the free widths."""
        parts = [limit.elasticities(widths)[:, self.free] for limit in self.limits]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.free)))

    def curvature(self, widths: FloatArray, prices: FloatArray) -> Symmetric:
        """Second derivatives of the Lagrangian, to be minimised, in the logarithms of the free widths."""
        curve = -self.utility.curvature(widths)
        at = 0
        for limit in self.limits:
            columns = len(limit.formula.offset)
            curve += limit.curvature(widths, prices[at : at + columns])
            at += columns
        return curve.among(self.free)


@dataclass(frozen=True)
class Optimum:
    """The best widths of a program, and what a limit is worth there.

    Attributes:
        widths: not rounded (G).
        prices: of each limit, the utility that a per cent more of it would buy, times a hundred.
    """

    widths: FloatArray
    prices: FloatArray


def solve(program: Program) -> Optimum:
    """The optimum of a program, by a primal-dual interior-point method with slacks.

    (Nocedal, Wright, Numerical Optimization, section 19.3.) It takes 10 to 25 Newton steps, whatever the number of
    groups and limits, and the widths are within every limit whenever it stops. SciPy's SLSQP finds the same optimum,
    but needs 40 s for 1,000 groups.
    """
    if not len(program.free):
        return Optimum(program.highest, np.zeros(len(program.limits)))
    state = _start(program)
    for _ in range(STEPS):
        if state.error <= PRECISION:
            break
        nearer = _nearer(program, state)
        if nearer is None:  # as near as double precision goes
            break
        state = nearer
    edges = np.cumsum([len(limit.formula.offset) for limit in program.limits])[:-1]
    prices = [part.sum() for part in np.split(state.prices[: -2 * len(program.free)], edges)]
    return Optimum(_inside(program, state.logs), np.array(prices[: len(program.limits)]))


@dataclass(frozen=True)
class State:
    """An iterate: logarithms of the free widths, and of each constraint its slack and its price, both above 0.

    Constraints are the columns of the limits, the widest, and the narrowest widths, in this order.
    """

    logs: FloatArray
    slacks: FloatArray
    prices: FloatArray
    excess: FloatArray
    """of each constraint: at most 0 where it holds"""
    elasticities: FloatArray
    slope: FloatArray
    """of the utility, downward"""
    scale: float

    @property
    def gap(self) -> float:
        return float(self.slacks @ self.prices)

    @property
    def residual(self) -> FloatArray:
        """The gradient of the Lagrangian: 0 at the optimum."""
        return self.slope + self.against(self.prices)

    @property
    def error(self) -> float:
        """The largest violation of an optimum's conditions."""
        inside = float(np.abs(self.excess + self.slacks).max())
        return max(inside, self.gap / self.scale, float(np.abs(self.residual).max()) / self.scale)

    def against(self, prices: FloatArray) -> FloatArray:
        """The constraints' gradients, added up by their prices."""
        columns, size = len(self.elasticities), len(self.logs)
        total: FloatArray = prices[:columns] @ self.elasticities + prices[columns : columns + size]
        return total - prices[columns + size :]

    def along(self, move: FloatArray) -> FloatArray:
        """How each constraint changes along a move."""
        return np.concatenate([self.elasticities @ move, move, -move])


def _state(program: Program, logs: FloatArray, slacks: FloatArray | None, prices: FloatArray | None) -> State:
    """By default with the slack that there is, but some, and all constraints priced alike."""
    widths, scale = program.widths(logs), program.utility.scale
    low, high = np.log(program.lowest[program.free]), np.log(program.highest[program.free])
    excess = np.concatenate([program.logs(widths), logs - high, low - logs])
    slacks = np.maximum(-excess, LEAST_SLACK) if slacks is None else slacks
    prices = scale / slacks if prices is None else prices
    slope = -program.utility.gradient(widths)[program.free]
    return State(logs, slacks, prices, excess, program.elasticities(widths), slope, scale)


def _start(program: Program) -> State:
    low, high = np.log(program.lowest[program.free]), np.log(program.highest[program.free])
    return _state(program, low + START * (high - low), None, None)


def _nearer(program: Program, state: State) -> State | None:
    """A Newton step toward a point of the central path with a tenth of the gap; None where there is none."""
    target = 0.1 * max(state.gap, float(np.abs(state.residual).max())) / len(state.slacks)
    columns, size = len(state.elasticities), len(state.logs)
    stiffness = state.prices / state.slacks
    curve = program.curvature(program.widths(state.logs), state.prices[:columns])
    curve += Symmetric.of_products(state.elasticities, stiffness[:columns])
    curve += Symmetric.of_diagonal(stiffness[columns : columns + size] + stiffness[columns + size :])
    open_ = state.excess + state.slacks
    pull = target / state.slacks + stiffness * open_
    try:
        move = curve.solve(-(state.slope + state.against(pull)))
    except np.linalg.LinAlgError:
        return None
    slacks: FloatArray = -open_ - state.along(move)
    prices = target / state.slacks - state.prices - stiffness * slacks
    length = min(_longest(state.slacks, slacks), _longest(state.prices, prices))
    if not np.isfinite(length):
        return None
    return _state(program, state.logs + length * move, state.slacks + length * slacks, state.prices + length * prices)


def _longest(values: FloatArray, changes: FloatArray) -> float:
    """The longest step, at most 1, that keeps every value above 0."""
    falling = changes < 0
    return min(1.0, 0.99 * float((-values[falling] / changes[falling]).min(initial=np.inf)))


def _inside(program: Program, logs: FloatArray) -> FloatArray:
    """Widths within every limit: where the last iterate is over one, the nearest on the way to the narrowest."""
    low, high = np.log(program.lowest[program.free]), np.log(program.highest[program.free])
    logs = np.clip(logs, low, high)
    over, inside = 1.0, 0.0
    if (program.logs(program.widths(logs)) <= 0).all():
        return program.widths(logs)
    for _ in range(50):
        middle = (over + inside) / 2
        fits = (program.logs(program.widths(low + middle * (logs - low))) <= 0).all()
        over, inside = (over, middle) if fits else (middle, inside)
    return program.widths(low + inside * (logs - low))

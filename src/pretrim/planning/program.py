"""The real-valued widths of highest utility within limits: a geometric program and its interior-point solver.

In the logarithms of the widths, a sum of products is convex, and so are its logarithm and a peak, which is the largest
of several sums. The utility (`utility.py`) is concave. So there is one optimum, whatever the number of limits.
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
"""Tolerance of the optimality conditions, in units of the mean weight of a group."""
MAX_STEPS = 100
"""Maximum steps of the interior-point method, which usually takes 10 to 25."""
START = 0.9
"""Starting point, as the share of the way from the narrowest to the widest widths in logarithms."""
MIN_SLACK = 0.1
"""Minimum slack of a constraint at the start."""
ROOM = 1e-9
"""Relative increase of a limit that only the narrowest widths meet, because an interior point needs an interior."""


@dataclass(frozen=True)
class Limited:
    """The columns of a formula under one limit: one column for a sum, or one for each moment of a peak."""

    formula: Formula
    most: float

    def logs(self, widths: FloatArray) -> FloatArray:
        """The logarithm of each column divided by the limit: at most 0 where the limit holds."""
        logs: FloatArray = np.log(np.maximum(self.formula(widths[None])[0], 1e-300) / self.most)
        return logs

    def elasticities(self, widths: FloatArray) -> FloatArray:
        """Elasticities of the columns: by how many per cent each rises with one per cent of a width (columns x G)."""
        values = np.maximum(self.formula(widths[None])[0], 1e-300)
        elasticity: FloatArray = slopes(self.formula, widths) * widths / values[:, None]
        return elasticity

    def curvature(self, widths: FloatArray, weights: FloatArray) -> Symmetric:
        """Second derivatives of a weighted sum of the columns' logarithms with respect to log widths: G x G."""
        values = np.maximum(self.formula(widths[None])[0], 1e-300)
        elasticity = self.elasticities(widths)
        curve = curvature(self.formula, widths, weights / values).scaled(widths)
        return curve + Symmetric.of_diagonal(weights @ elasticity) + Symmetric.of_products(elasticity, -weights)


def limited(formula: Formula, most: float, lowest: FloatArray, highest: FloatArray) -> Limited:
    """The columns of a formula that can exceed a limit, which is raised slightly if only the narrowest widths meet it.

    Args:
        formula: the cost.
        most: the limit, in the cost's unit.
        lowest: the smallest width of each group (G).
        highest: the largest width of each group (G).
    """
    columns = binding(formula, most, highest)
    minimum = float(columns(lowest[None])[0].max(initial=0.0))
    return Limited(columns, max(most, minimum * (1 + ROOM)))


@dataclass(frozen=True)
class Program:
    """Maximise the utility subject to limits and to bounds on each width.

    Attributes:
        utility: the network's utility function.
        limits: the limited costs.
        lowest: smallest width of each group (G).
        highest: largest width of each group (G).
    """

    utility: Utility
    limits: tuple[Limited, ...]
    lowest: FloatArray
    highest: FloatArray

    @cached_property
    def free(self) -> IntArray:
        """Indices of the groups whose width is not fixed by its bounds."""
        return np.flatnonzero(self.lowest < self.highest)

    def widths(self, logs: FloatArray) -> FloatArray:
        """All widths (G), from the logarithms of the free ones."""
        widths = self.highest.copy()
        widths[self.free] = np.exp(logs)
        return widths

    def logs(self, widths: FloatArray) -> FloatArray:
        """The logarithms of all limits' columns divided by their limits: at most 0 where the limit holds."""
        parts = [limit.logs(widths) for limit in self.limits]
        return np.concatenate(parts) if parts else np.zeros(0)

    def elasticities(self, widths: FloatArray) -> FloatArray:
        """Elasticities of all columns with respect to the free widths: columns x free groups."""
        parts = [limit.elasticities(widths)[:, self.free] for limit in self.limits]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.free)))

    def curvature(self, widths: FloatArray, prices: FloatArray) -> Symmetric:
        """Second derivatives of the Lagrangian (of the minimisation) with respect to the logs of the free widths."""
        curve = -self.utility.curvature(widths)
        start = 0
        for limit in self.limits:
            columns = len(limit.formula.offset)
            curve += limit.curvature(widths, prices[start : start + columns])
            start += columns
        return curve.among(self.free)


@dataclass(frozen=True)
class Optimum:
    """The optimal widths of a program, and the shadow prices of its limits.

    Attributes:
        widths: real-valued widths, not rounded (G).
        prices: price of each limit: the utility gained per relative increase of the limit (a hundred times what one
            per cent more would gain).
    """

    widths: FloatArray
    prices: FloatArray


def solve(program: Program) -> Optimum:
    """Solve a program by a primal-dual interior-point method with slacks.

    The method is that of Nocedal and Wright, Numerical Optimization, section 19.3. It takes 10 to 25 Newton steps,
    whatever the number of groups and limits, and the widths are within every limit whenever it stops. SciPy's SLSQP
    finds the same optimum, but needs 40 s for 1,000 groups.
    """
    if not len(program.free):
        return Optimum(program.highest, np.zeros(len(program.limits)))
    state = _start(program)
    for _ in range(MAX_STEPS):
        if state.error <= PRECISION:
            break
        following = _newton_step(program, state)
        if following is None:  # the limit of double precision
            break
        state = following
    edges = np.cumsum([len(limit.formula.offset) for limit in program.limits])[:-1]
    prices = [part.sum() for part in np.split(state.prices[: -2 * len(program.free)], edges)]
    return Optimum(_inside(program, state.logs), np.array(prices[: len(program.limits)]))


@dataclass(frozen=True)
class State:
    """An iterate of the solver, with the values and derivatives at it.

    Constraints are the columns of the limits, then the upper and then the lower bounds of the free widths.

    Attributes:
        logs: logarithms of the free widths.
        slacks: slack of each constraint, above 0.
        prices: price (dual variable) of each constraint, above 0.
        excess: value of each constraint, at most 0 where it holds.
        elasticities: elasticities of the limits' columns (columns x free groups).
        slope: gradient of the negative utility with respect to `logs`.
        scale: the utility's scale, in units of which errors are measured.
    """

    logs: FloatArray
    slacks: FloatArray
    prices: FloatArray
    excess: FloatArray
    elasticities: FloatArray
    slope: FloatArray
    scale: float

    @property
    def gap(self) -> float:
        """Complementarity gap: 0 at the optimum."""
        return float(self.slacks @ self.prices)

    @property
    def residual(self) -> FloatArray:
        """The gradient of the Lagrangian: 0 at the optimum."""
        return self.slope + self.against(self.prices)

    @property
    def error(self) -> float:
        """The largest violation of the optimality conditions."""
        infeasibility = float(np.abs(self.excess + self.slacks).max())
        return max(infeasibility, self.gap / self.scale, float(np.abs(self.residual).max()) / self.scale)

    def against(self, prices: FloatArray) -> FloatArray:
        """The sum of the constraints' gradients, weighted by prices (the transposed Jacobian times the prices)."""
        columns, size = len(self.elasticities), len(self.logs)
        total: FloatArray = prices[:columns] @ self.elasticities + prices[columns : columns + size]
        return total - prices[columns + size :]

    def along(self, move: FloatArray) -> FloatArray:
        """The change of each constraint along a move of the logs (the Jacobian times the move)."""
        return np.concatenate([self.elasticities @ move, move, -move])


def _state(program: Program, logs: FloatArray, slacks: FloatArray | None, prices: FloatArray | None) -> State:
    """The state at log widths.

    By default, slacks are the constraints' own but at least `MIN_SLACK`, and prices are inverse to the slacks, so that
    every constraint contributes equally to the gap.
    """
    widths, scale = program.widths(logs), program.utility.scale
    low, high = np.log(program.lowest[program.free]), np.log(program.highest[program.free])
    excess = np.concatenate([program.logs(widths), logs - high, low - logs])
    slacks = np.maximum(-excess, MIN_SLACK) if slacks is None else slacks
    prices = scale / slacks if prices is None else prices
    slope = -program.utility.gradient(widths)[program.free]
    return State(logs, slacks, prices, excess, program.elasticities(widths), slope, scale)


def _start(program: Program) -> State:
    """The state at the starting point."""
    low, high = np.log(program.lowest[program.free]), np.log(program.highest[program.free])
    return _state(program, low + START * (high - low), None, None)


def _newton_step(program: Program, state: State) -> State | None:
    """One Newton step toward the point of the central path with a tenth of the gap; None if there is no such step."""
    target = 0.1 * max(state.gap, float(np.abs(state.residual).max())) / len(state.slacks)
    columns, size = len(state.elasticities), len(state.logs)
    stiffness = state.prices / state.slacks
    curve = program.curvature(program.widths(state.logs), state.prices[:columns])
    curve += Symmetric.of_products(state.elasticities, stiffness[:columns])
    curve += Symmetric.of_diagonal(stiffness[columns : columns + size] + stiffness[columns + size :])
    infeasibility = state.excess + state.slacks
    pull = target / state.slacks + stiffness * infeasibility
    try:
        move = curve.solve(-(state.slope + state.against(pull)))
    except np.linalg.LinAlgError:
        return None
    slacks: FloatArray = -infeasibility - state.along(move)
    prices = target / state.slacks - state.prices - stiffness * slacks
    length = min(_max_length(state.slacks, slacks), _max_length(state.prices, prices))
    if not np.isfinite(length):
        return None
    return _state(program, state.logs + length * move, state.slacks + length * slacks, state.prices + length * prices)


def _max_length(values: FloatArray, changes: FloatArray) -> float:
    """The longest step, at most 1, that keeps every value above 0: no value goes more than 99 % of its way to 0."""
    falling = changes < 0
    return min(1.0, 0.99 * float((-values[falling] / changes[falling]).min(initial=np.inf)))


def _inside(program: Program, logs: FloatArray) -> FloatArray:
    """Widths within every limit: the last iterate, moved by bisection toward the narrowest widths as far as needed."""
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

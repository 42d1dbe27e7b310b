"""Rounding of optimal widths to legal ones: round down, fill up the budget, then exchange steps between groups.

A step changes one group's width to the next legal width. The budget is filled up greedily by the steps' rates: the
utility that a step gains over its relative cost, which is the sum over limits of the cost's change as a share of the
limit, times the limit's shadow price at the optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pretrim.analysis.network import IntArray
from pretrim.cost.derivatives import alone, binding
from pretrim.cost.formula import Cost, Formula, FormulaCost

from .legal import FloatArray, Problem
from .program import Optimum
from .utility import Utility

MIN_GAIN = 1e-9
"""Utility differences below this count as no improvement."""
MIN_PRICE = 1e-9
"""Price of a limit that does not bind, so that steps that cost nothing at all still come first."""
CANDIDATES = 64
"""Maximum number of groups at which a round tries an exchange."""
ROUNDS = 100
"""Maximum rounds of exchanges in networks of at most `CANDIDATES` groups, far more than were ever needed; larger
networks have one round."""


def rounded(problem: Problem, worth: Utility, optimum: Optimum, exchanges: bool = True) -> IntArray:
    """Legal widths (G) near the optimum and within every limit, which no small change improves.

    No group can take another step, and no exchange of steps between groups, after filling up the budget again, has a
    higher utility. (In a network of more than `CANDIDATES` groups: none that one round over the most promising groups
    finds.)

    Args:
        problem: legal widths and limits.
        worth: the network's utility function.
        optimum: optimal real widths and the prices of the limits.
        exchanges: whether steps are exchanged; filling up alone takes a tenth of the time.
    """
    lattice = Lattice(problem, worth, optimum.prices + MIN_PRICE)
    fitting = lattice.narrowed(problem.floor(optimum.widths[None] + 1e-9)[0])
    widths = lattice.filled(problem.smallest if fitting is None else fitting)
    rounds = ROUNDS if len(widths) <= CANDIDATES else 1
    for _ in range(rounds if exchanges else 0):
        before, widths = widths, lattice.exchanged(widths)
        if (widths == before).all():
            break
    return widths


@dataclass(frozen=True)
class Steps:
    """The effect of a step of each group (G), taken alone.

    Attributes:
        gains: change of the utility.
        rates: utility gained by a step up, or lost by a step down, per relative cost; 0 where there is no step.
        moves: whether the group can take the step.
        fits: whether it can, and every limit holds afterwards.
        takes: lower bound on how much of each limit the step uses, even after steps of other groups (G x limits): a
            cost that is a sum of products rises no less after other steps than before them. 0 where no bound is known.
    """

    gains: FloatArray
    rates: FloatArray
    moves: NDArray[np.bool_]
    fits: NDArray[np.bool_]
    takes: FloatArray


@dataclass(frozen=True)
class Lattice:
    """Search over legal widths: the utility and the cost of single steps, and improvements made of them.

    Attributes:
        problem: legal widths and limits.
        utility: the network's utility function.
        prices: price of each limit, by which relative costs are added up.
    """

    problem: Problem
    utility: Utility
    prices: FloatArray

    @cached_property
    def costs(self) -> tuple[Formula | Cost, ...]:
        """For each limit, the columns of its formula that can exceed it; the cost itself if it is not a formula."""
        budget, dense = self.problem.budget, self.problem.network.dense.astype(np.float64)
        return tuple(
            binding(cost.formula, float(limit), dense) if isinstance(cost, FormulaCost) else cost
            for cost, limit in zip(budget.costs, budget.values, strict=True)
        )

    @cached_property
    def are_sums(self) -> NDArray[np.bool_]:
        """For each limit, whether its cost is one sum of products rather than a peak or a measurement."""
        return np.array([isinstance(cost, Formula) and len(cost.offset) == 1 for cost in self.costs], dtype=bool)

    def used(self, widths: IntArray) -> FloatArray:
        """Each limited cost at widths (G): limits. 0 for a formula that cannot exceed its limit."""
        return np.array([_cost_values(cost(widths[None]))[0] for cost in self.costs])

    def used_alone(self, widths: IntArray, stepped: IntArray) -> FloatArray:
        """Each limited cost when each group in turn takes its step and the others do not: G x limits."""
        values = [
            _cost_values(
                alone(cost, widths, stepped) if isinstance(cost, Formula) else cost(_single_steps(widths, stepped))
            )
            for cost in self.costs
        ]
        return np.stack(values, axis=1)

    def met(self, widths: IntArray) -> bool:
        """Whether widths (G) meet every limit."""
        return bool((self.used(widths) <= self.problem.budget.values).all())

    def paid(self, used: FloatArray) -> FloatArray:
        """Relative cost: costs (... x limits) as shares of their limits, added up by the limits' prices."""
        paid: FloatArray = used / self.problem.budget.values @ self.prices
        return paid

    def value(self, widths: IntArray) -> float:
        """Utility at widths (G)."""
        return float(self.utility(widths[None])[0])

    def up(self, widths: IntArray) -> IntArray:
        """The next larger legal width of each group (G); the same width where it is dense."""
        return self.problem.next_up(np.arange(len(widths)), widths)

    def down(self, widths: IntArray) -> IntArray:
        """The next smaller legal width of each group (G); the same width where it is the narrowest."""
        levels = self.problem.levels
        below: IntArray = levels[np.arange(len(widths)), np.maximum((levels < widths[:, None]).sum(axis=1) - 1, 0)]
        return below

    def steps(self, widths: IntArray, stepped: IntArray, without: int | None = None) -> Steps:
        """Utility and cost of each group's step.

        Args:
            widths: current width of each group (G).
            stepped: width of each group after its step (G).
            without: index of a group that takes no step.
        """
        if without is not None:
            stepped = np.where(np.arange(len(widths)) == without, widths, stepped)
        used = self.used_alone(widths, stepped)
        gains = self.utility.alone(widths, stepped) - self.value(widths)
        change = used - self.used(widths)
        paid = np.abs(self.paid(change))
        moves = stepped != widths
        rates = np.sign(stepped - widths) * gains / np.maximum(paid, 1e-300)
        fits = moves & (used <= self.problem.budget.values).all(axis=1)
        return Steps(gains, rates, moves, fits, np.where(self.are_sums, change, 0.0))

    def narrowed(self, widths: IntArray, without: int | None = None) -> IntArray | None:
        """Step down until every limit holds, always at the group whose step loses the least utility per cost.

        Args:
            widths: starting width of each group (G).
            without: index of a group that keeps its width.

        Returns:
            Widths within the limits; None if no step is left and a limit is still exceeded.
        """
        while not self.met(widths):
            stepped = self.down(widths)
            steps = self.steps(widths, stepped, without)
            if not steps.moves.any():
                return None
            place = np.where(steps.moves, steps.rates, np.inf).argmin()
            widths = _with_step(widths, place, stepped)
        return widths

    def filled(self, widths: IntArray, without: int | None = None) -> IntArray:
        """Step up wherever no limit breaks, first at the groups whose step gains the most utility per cost.

        Args:
            widths: starting width of each group (G), within the limits.
            without: index of a group that keeps its width.
        """
        while True:
            stepped = self.up(widths)
            steps = self.steps(widths, stepped, without)
            if not steps.fits.any():
                return widths
            left = self.problem.budget.values - self.used(widths)
            for place in np.argsort(np.where(steps.fits, -steps.rates, np.inf), kind="stable")[: steps.fits.sum()]:
                if (steps.takes[place] > left).any():
                    continue
                trial = _with_step(widths, place, stepped)
                left_after = self.problem.budget.values - self.used(trial)
                if (left_after >= 0).all():
                    widths, left = trial, left_after

    # ------------------------------------------------------------------------------------ exchanges

    def exchanged(self, widths: IntArray) -> IntArray:
        """One round of exchanges: a group steps down and others up, or the reverse, where that raises the utility."""
        steps = self.steps(widths, self.down(widths))
        for place in np.argsort(np.where(steps.moves, steps.rates, np.inf), kind="stable")[:CANDIDATES]:
            widths = self._best_of(widths, self._step_down(widths, place))
        steps = self.steps(widths, self.up(widths))
        for place in np.argsort(np.where(steps.moves, -steps.rates, np.inf), kind="stable")[:CANDIDATES]:
            widths = self._best_of(widths, self._step_up(widths, place))
        return widths

    def _best_of(self, widths: IntArray, trials: list[IntArray]) -> IntArray:
        """The trial of highest utility after filling up, if it improves on `widths`; otherwise `widths`."""
        filled = [self.filled(trial) for trial in trials]
        values = [self.value(trial) for trial in filled]
        if max(values, default=-np.inf) <= self.value(widths) + MIN_GAIN:
            return widths
        return filled[int(np.argmax(values))]

    def _step_down(self, widths: IntArray, place: int) -> list[IntArray]:
        """Trials in which one group steps down: others fill the room by their rates, or the best single step does.

        There are none if the best rate, applied to all the room, cannot make up for the lost utility. No steps could do
        better, because a group's second step gains less than its first, and steps together cost no less than alone.
        """
        narrower = _with_step(widths, place, self.down(widths))
        stepped = self.up(narrower)
        steps = self.steps(narrower, stepped, without=place)
        lost = self.value(widths) + MIN_GAIN - self.value(narrower)
        room = float(self.prices.sum() - self.paid(self.used(narrower)))
        if steps.rates[steps.fits].max(initial=0.0) * room <= lost:
            return []
        filled = self.filled(narrower, without=place)
        gains = np.where(steps.fits, steps.gains, -np.inf)
        return [filled, _with_step(narrower, gains.argmax(), stepped)] if gains.max() > lost else [filled]

    def _step_up(self, widths: IntArray, place: int) -> list[IntArray]:
        """The trial in which one group steps up and others step down by their rates, until every limit holds.

        There is none if the lowest rate, applied to the whole excess, already loses more utility than the step gains.
        """
        wider = _with_step(widths, place, self.up(widths))
        over = self.paid(np.maximum(self.used(wider) - self.problem.budget.values, 0.0))
        steps = self.steps(wider, self.down(wider), without=place)
        gained = self.value(wider) - self.value(widths) - MIN_GAIN
        if not steps.moves.any() or steps.rates[steps.moves].min() * over >= gained:
            return []
        narrower = self.narrowed(wider, without=place)
        return [] if narrower is None else [narrower]


def _cost_values(columns: FloatArray | IntArray) -> FloatArray:
    """Values (n) of a cost: the largest of a formula's columns (n x columns), or the values themselves (n)."""
    if columns.ndim == 1:
        return columns.astype(np.float64)
    largest: FloatArray = np.rint(columns.max(axis=1, initial=0.0))
    return largest


def _with_step(widths: IntArray, place: int | np.intp, stepped: IntArray) -> IntArray:
    """Widths (G) after the step of one group."""
    changed = widths.copy()
    changed[place] = stepped[place]
    return changed


def _single_steps(widths: IntArray, stepped: IntArray) -> IntArray:
    """One row for each group, after the step of this group alone: G x G."""
    rows = np.repeat(widths[None], len(widths), axis=0)
    np.fill_diagonal(rows, stepped)
    return rows

"""From the best widths to legal ones: down to the next legal width, filled up, then steps exchanged between groups.

What is filled up first is what is worth most for what it costs: a step's utility over its relative cost, in which each
limit counts by its price, what it is worth at the optimum.
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

RISE = 1e-9
"""of the utility, below which it is the same"""
FREE = 1e-9
"""price of a limit that does not bind, so that the steps that cost nothing at all are still the first"""
CANDIDATES = 64
"""groups at which a round tries an exchange: all of them in a network of at most so many"""
ROUNDS = 100
"""of exchanges in such a network, far more than were ever needed; a larger one has one round"""


def rounded(problem: Problem, worth: Utility, optimum: Optimum, exchanges: bool = True) -> IntArray:
    """Legal widths (G) near the optimum, within every limit, that no small change makes better.

    No group can be given a step more, and no exchange of one step for another, with what then fits given back, is worth
    more (in a network of more than `CANDIDATES` groups: none that one round over the most promising of them finds).

    Args:
        problem: legal widths and limits.
        worth: of the network.
        optimum: that the widths are near to.
        exchanges: whether steps are exchanged; filling up alone takes a tenth of the time.
    """
    lattice = Lattice(problem, worth, optimum.prices + FREE)
    below = lattice.narrowed(problem.floor(optimum.widths[None] + 1e-9)[0])
    widths = lattice.filled(problem.smallest if below is None else below)
    rounds = ROUNDS if len(widths) <= CANDIDATES else 1
    for _ in range(rounds if exchanges else 0):
        before, widths = widths, lattice.exchanged(widths)
        if (widths == before).all():
            break
    return widths


@dataclass(frozen=True)
class Steps:
    """A step of each group alone (G).

    Attributes:
        gains: of utility.
        rates: of utility, gained by a step up or lost by one down, over its cost; 0 where there is no step.
        moves: whether there is a step.
        fits: whether there is one and every limit holds after it.
        takes: of each limit, at least so much of what is left, also after steps of others (G x limits): costs that are
            sums of products take no less together than alone. 0 where that is not known.
    """

    gains: FloatArray
    rates: FloatArray
    moves: NDArray[np.bool_]
    fits: NDArray[np.bool_]
    takes: FloatArray


@dataclass(frozen=True)
class Lattice:
    """Legal widths, and what a step of one group is worth and costs."""

    problem: Problem
    utility: Utility
    prices: FloatArray

    @cached_property
    def costs(self) -> tuple[Formula | Cost, ...]:
        """Of each limit the columns that can be over it, or the cost itself if it is not a formula."""
        budget, dense = self.problem.budget, self.problem.network.dense.astype(np.float64)
        return tuple(
            binding(cost.formula, float(most), dense) if isinstance(cost, FormulaCost) else cost
            for cost, most in zip(budget.costs, budget.values, strict=True)
        )

    @cached_property
    def are_sums(self) -> NDArray[np.bool_]:
        """Of each limit whether its cost is one sum of products, and no peak or measurement."""
        return np.array([isinstance(cost, Formula) and len(cost.offset) == 1 for cost in self.costs], dtype=bool)

    def used(self, widths: IntArray) -> FloatArray:
        """Each limited cost at widths (G): limits. Of a peak that cannot be over its limit, 0."""
        return np.array([_value(cost(widths[None]))[0] for cost in self.costs])

    def used_alone(self, widths: IntArray, stepped: IntArray) -> FloatArray:
        """The same where each group in turn has its stepped width: G x limits."""
        values = [
            _value(alone(cost, widths, stepped) if isinstance(cost, Formula) else cost(_each(widths, stepped)))
            for cost in self.costs
        ]
        return np.stack(values, axis=1)

    def met(self, widths: IntArray) -> bool:
        return bool((self.used(widths) <= self.problem.budget.values).all())

    def paid(self, used: FloatArray) -> FloatArray:
        """Costs (... x limits) relative to their limits, by the limits' prices."""
        paid: FloatArray = used / self.problem.budget.values @ self.prices
        return paid

    def value(self, widths: IntArray) -> float:
        return float(self.utility(widths[None])[0])

    def up(self, widths: IntArray) -> IntArray:
        """The next legal width of each group (G); the same where it is dense."""
        return self.problem.next_up(np.arange(len(widths)), widths)

    def down(self, widths: IntArray) -> IntArray:
        """The legal width before each group's (G); the same where it is the narrowest."""
        levels = self.problem.levels
        below: IntArray = levels[np.arange(len(widths)), np.maximum((levels < widths[:, None]).sum(axis=1) - 1, 0)]
        return below

    def steps(self, widths: IntArray, stepped: IntArray, without: int | None = None) -> Steps:
        """What each group's step is worth and costs; one group may be left out.

        Args:
            widths: of each group (G).
            stepped: the widths after a step (G).
            without: a group to leave out.
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
        """Within the limits: the steps go first that are worth least for what they cost, but of one group none.

        None where its width alone breaks a limit.
        """
        while not self.met(widths):
            stepped = self.down(widths)
            steps = self.steps(widths, stepped, without)
            if not steps.moves.any():
                return None
            place = np.where(steps.moves, steps.rates, np.inf).argmin()
            widths = _with(widths, place, stepped)
        return widths

    def filled(self, widths: IntArray, without: int | None = None) -> IntArray:
        """Every step that breaks no limit is given, those first that are worth most for what they cost."""
        while True:
            stepped = self.up(widths)
            steps = self.steps(widths, stepped, without)
            if not steps.fits.any():
                return widths
            left = self.problem.budget.values - self.used(widths)
            for place in np.argsort(np.where(steps.fits, -steps.rates, np.inf), kind="stable")[: steps.fits.sum()]:
                if (steps.takes[place] > left).any():
                    continue
                trial = _with(widths, place, stepped)
                left_after = self.problem.budget.values - self.used(trial)
                if (left_after >= 0).all():
                    widths, left = trial, left_after

    # ------------------------------------------------------------------------------------ exchanges

    def exchanged(self, widths: IntArray) -> IntArray:
        """After an exchange at each group: it goes a step one way, others the other way, if that is worth more."""
        steps = self.steps(widths, self.down(widths))
        for place in np.argsort(np.where(steps.moves, steps.rates, np.inf), kind="stable")[:CANDIDATES]:
            widths = self._better(widths, self._with_others_up(widths, place))
        steps = self.steps(widths, self.up(widths))
        for place in np.argsort(np.where(steps.moves, -steps.rates, np.inf), kind="stable")[:CANDIDATES]:
            widths = self._better(widths, self._with_others_down(widths, place))
        return widths

    def _better(self, widths: IntArray, trials: list[IntArray]) -> IntArray:
        """The best of some networks, filled up, if it is better than the one that there is."""
        filled = [self.filled(trial) for trial in trials]
        values = [self.value(trial) for trial in filled]
        if max(values, default=-np.inf) <= self.value(widths) + RISE:
            return widths
        return filled[int(np.argmax(values))]

    def _with_others_up(self, widths: IntArray, place: int) -> list[IntArray]:
        """The room of one group's step, given to others in the order of their worth, and to the best other one.

        Nothing where the best rate of utility for cost, for all the room, would not make up for the step: a group's
        second step is worth less than its first, and costs are not less together than alone.
        """
        narrower = _with(widths, place, self.down(widths))
        stepped = self.up(narrower)
        steps = self.steps(narrower, stepped, without=place)
        lost = self.value(widths) + RISE - self.value(narrower)
        room = float(self.prices.sum() - self.paid(self.used(narrower)))
        if steps.rates[steps.fits].max(initial=0.0) * room <= lost:
            return []
        filled = self.filled(narrower, without=place)
        gains = np.where(steps.fits, steps.gains, -np.inf)
        return [filled, _with(narrower, gains.argmax(), stepped)] if gains.max() > lost else [filled]

    def _with_others_down(self, widths: IntArray, place: int) -> list[IntArray]:
        """The steps of others that are worth least for what they cost, given to one group; nothing as above."""
        wider = _with(widths, place, self.up(widths))
        over = self.paid(np.maximum(self.used(wider) - self.problem.budget.values, 0.0))
        steps = self.steps(wider, self.down(wider), without=place)
        gained = self.value(wider) - self.value(widths) - RISE
        if not steps.moves.any() or steps.rates[steps.moves].min() * over >= gained:
            return []
        narrower = self.narrowed(wider, without=place)
        return [] if narrower is None else [narrower]


def _value(columns: FloatArray | IntArray) -> FloatArray:
    """A cost from a formula's columns (n x columns), or as it is (n)."""
    if columns.ndim == 1:
        return columns.astype(np.float64)
    largest: FloatArray = np.rint(columns.max(axis=1, initial=0.0))
    return largest


def _with(widths: IntArray, place: int | np.intp, stepped: IntArray) -> IntArray:
    """Widths (G) in which one group has its stepped width."""
    changed = widths.copy()
    changed[place] = stepped[place]
    return changed


def _each(widths: IntArray, stepped: IntArray) -> IntArray:
    """One row for each group, in which it alone has its stepped width: G x G."""
    rows = np.repeat(widths[None], len(widths), axis=0)
    np.fill_diagonal(rows, stepped)
    return rows

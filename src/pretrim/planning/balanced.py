"""Balanced widths, the most useful network within every limit: no draws, no seed.

Limits on sums of products of widths (parameters, MACs, bytes of weights and of feature maps) and on peaks make a
geometric program, with one optimum (`program.py`). There the utility that a group gains with a per cent of width is
proportional to what that per cent costs, the group's elasticity of the cost, summed over limits by their prices: the
shares of all groups are balanced, each against its worth. Complexity-driven sampling moves toward the same point, since
it takes most from the group with the largest share, but it stops when the budget holds. The optimum is then rounded to
legal widths (`lattice.py`).

A latency is not a sum of products. The program has a sum over the layers in its place, in which each takes what it was
measured to take and shrinks as its MACs do; the widths are rounded under the latency itself.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pretrim.analysis.network import IntArray
from pretrim.cost.costs import layer_terms
from pretrim.cost.formula import Cost, Formula, FormulaCost, LayeredCost, formula

from .lattice import Lattice, rounded
from .legal import Problem
from .outlook import DIGITS, log_width
from .program import Program, limited, solve
from .utility import Utility, utility


def balanced(problem: Problem, count: int) -> IntArray:
    """The most useful widths within every limit: `count` equal rows (there is nothing random)."""
    worth = utility(problem.network)
    optimum = solve(program(problem, worth))
    return np.repeat(rounded(problem, worth, optimum)[None], count, axis=0)


def refilled(problem: Problem, widths: IntArray) -> IntArray:
    """With what fits given back, where a search by other costs left room (one row of widths)."""
    worth = utility(problem.network)
    return Lattice(problem, worth, np.ones(len(problem.budget.values))).filled(widths)


def cost_of_rounding(problem: Problem, widths: IntArray) -> tuple[float, tuple[int, float] | None]:
    """What legal widths (G) cost against the optimum, in log width, and what steps of half the size would cost.

    The latter is an estimate: no steps are exchanged for it. None where the steps cannot be smaller, or it is not less.
    """
    worth = utility(problem.network)
    optimum = solve(program(problem, worth))
    lost = round(log_width(worth, optimum.widths, widths), DIGITS)
    half = replace(problem, options=replace(problem.options, round_to=max(problem.options.round_to // 2, 1)))
    finer = rounded(half, worth, optimum, exchanges=False)
    would = round(log_width(worth, optimum.widths, finer), DIGITS)
    return lost, (half.options.round_to, would) if would < lost else None


def program(problem: Problem, worth: Utility) -> Program:
    """The program of a problem: limits that are not formulas are replaced by one in the layers' MACs."""
    budget = problem.budget
    lowest, highest = problem.smallest.astype(np.float64), problem.network.dense.astype(np.float64)
    formulas = [cost.formula if isinstance(cost, FormulaCost) else _stand_in(problem, cost) for cost in budget.costs]
    limits = [limited(f, float(most), lowest, highest) for f, most in zip(formulas, budget.values, strict=True)]
    return Program(worth, tuple(limits), lowest, highest)


def _stand_in(problem: Problem, cost: Cost) -> Formula:
    """A formula for a cost without one: each layer's part of it grows as the layer's MACs.

    A cost that does not say what its layers take is shared by their MACs.
    """
    network = problem.network
    terms = layer_terms(network, "macs")
    macs = formula(network, terms)(network.dense[None])[0]
    parts = macs
    if isinstance(cost, LayeredCost):
        parts = np.where(macs > 0, cost.by_layer(network.dense[None])[0], 0.0)
    factors = float(cost(network.dense)) * parts / max(float(parts.sum()), 1e-300) / np.maximum(macs, 1.0)
    column = [(factor, dims) for factor, layer in zip(factors.tolist(), terms, strict=True) for _, dims in layer]
    return formula(network, [column])

"""Balanced widths: the widths of highest utility within every limit, without randomness.

Limits on sums of products of widths (parameters, MACs, bytes of weights and of feature maps) and on peaks make a
geometric program with a single optimum (`program.py`). At the optimum, the utility that a group gains from one per cent
of width is proportional to the cost of that per cent: the group's elasticity of each cost, weighted by the shadow price
of the limit and summed over limits. Every group's share of the cost is thus balanced against its utility.
Complexity-driven sampling moves toward the same point, since it takes most from the group with the largest share, but
it stops as soon as the budget is met. The optimum is then rounded to legal widths (`lattice.py`).

A latency is not a sum of products. The program replaces it by a sum over layers, in which each layer starts from its
measured time and shrinks in proportion to its MACs; the widths are then rounded under the latency itself.
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
    """The widths of highest utility within every limit, as `count` equal rows (nothing is random)."""
    worth = utility(problem.network)
    optimum = solve(program(problem, worth))
    return np.repeat(rounded(problem, worth, optimum)[None], count, axis=0)


def refilled(problem: Problem, widths: IntArray) -> IntArray:
    """Widen one row of widths (G) by every step that fits, where a search by other costs left room."""
    worth = utility(problem.network)
    return Lattice(problem, worth, np.ones(len(problem.budget.values))).filled(widths)


def cost_of_rounding(problem: Problem, widths: IntArray) -> tuple[float, tuple[int, float] | None]:
    """The utility that rounding to legal widths (G) loses against the optimum, in log width.

    Returns:
        The loss, and a pair of half the rounding step and the loss with it. The latter is an estimate, since no steps
        are exchanged for it. It is None if the step cannot be smaller, or a smaller one does not reduce the loss.
    """
    worth = utility(problem.network)
    optimum = solve(program(problem, worth))
    lost = round(log_width(worth, optimum.widths, widths), DIGITS)
    half = replace(problem, options=replace(problem.options, round_to=max(problem.options.round_to // 2, 1)))
    finer = rounded(half, worth, optimum, exchanges=False)
    lost_by_half = round(log_width(worth, optimum.widths, finer), DIGITS)
    return lost, (half.options.round_to, lost_by_half) if lost_by_half < lost else None


def program(problem: Problem, worth: Utility) -> Program:
    """The geometric program of a problem; a cost that is not a formula is replaced by one in the layers' MACs."""
    budget = problem.budget
    lowest, highest = problem.smallest.astype(np.float64), problem.network.dense.astype(np.float64)
    formulas = [cost.formula if isinstance(cost, FormulaCost) else _stand_in(problem, cost) for cost in budget.costs]
    limits = [limited(f, float(limit), lowest, highest) for f, limit in zip(formulas, budget.values, strict=True)]
    return Program(worth, tuple(limits), lowest, highest)


def _stand_in(problem: Problem, cost: Cost) -> Formula:
    """A formula that approximates a cost without one: each layer's part is proportional to the layer's MACs.

    The parts equal the cost's own by-layer values at the dense widths, scaled so that their sum is the dense network's
    cost. A cost that is not known by layer is divided among the layers in proportion to their MACs.
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

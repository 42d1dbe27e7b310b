"""Whether any legal widths meet a budget, and where none do: what is in the way, and what would help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pretrim.analysis.network import IntArray, Network
from pretrim.errors import InfeasibleBudget

from .budget import amount_text
from .legal import Problem

OPEN: Mapping[str, Any] = {"round_to": 1, "min_width": 1, "min_features": 1, "freeze": ()}
"""What holds a network's widths up, at the values that hold nothing up"""
REASONS = 2
"""of frozen layers that a message gives"""


def check_reachable(problem: Problem) -> None:
    """Raises InfeasibleBudget, with what would help, if even the narrowest legal network does not fit."""
    budget = problem.budget
    for place, (most, value) in enumerate(zip(budget.values, budget.measure(problem.smallest), strict=True)):
        if value > most:
            raise _unreachable(problem, place, int(most), int(value))


def _unreachable(problem: Problem, place: int, most: int, value: int) -> InfeasibleBudget:
    """The error for one limit, by its place in the budget, that the narrowest network exceeds."""
    limit, network = problem.budget.limits[place], problem.network
    needed, lower = amount_text(limit.quantity.unit, value), _in_the_way(problem, place)
    nothing = "" if network.groups else _nothing_to_trim(network)
    frozen = sum("output" not in entry.reason for entry in network.frozen)
    why = f" (frozen layers: {frozen}, `pretrim profile` says why)" if frozen and not nothing else ""
    return InfeasibleBudget(
        f"{limit.said(most)} cannot be met; the narrowest network needs {needed}{why}: "
        f"{nothing or advice(['raise the limit'], lower)}.",
        limit.name,
        f"{needed} ({nothing})" if nothing else f"{needed}{why}",
        lower,
    )


def _in_the_way(problem: Problem, place: int) -> tuple[str, ...]:
    """The options without which the limit could be met: those that each alone exceed it, or do so only together."""
    cost, most = problem.budget.costs[place], int(problem.budget.values[place])
    given = {name: getattr(problem.options, name) for name in OPEN}
    given |= {} if given["min_features"] is not None else {"min_features": OPEN["min_features"]}  # it gives way itself
    smallest = int(cost(_smallest(problem, OPEN)))
    if smallest > most:
        return ()
    alone = {name: int(cost(_smallest(problem, {**OPEN, name: value}))) for name, value in given.items()}
    exceeding = tuple(name for name, value in alone.items() if value > most)
    return exceeding or tuple(name for name, value in alone.items() if value > smallest)


def _smallest(problem: Problem, changes: Mapping[str, Any]) -> IntArray:
    """The narrowest legal widths (G) under other options."""
    return replace(problem, options=replace(problem.options, **changes)).smallest


def advice(first: Sequence[str], lower: Sequence[str]) -> str:
    """What to do, the options that are in the way last.

    >>> advice(["raise the limit"], ()), advice(["raise the limit"], ("round_to", "freeze"))
    ('raise the limit', 'raise the limit, freeze fewer layers, or lower --round-to')
    >>> advice(["raise the limit"], ("round_to", "min_width", "min_features"))
    'raise the limit, or lower --round-to, --min-width or --min-features'
    >>> advice(["take a larger board", "lower --application"], ())
    'take a larger board, or lower --application'
    """
    options = [f"--{name.replace('_', '-')}" for name in lower if name != "freeze"]
    named = " or ".join([", ".join(options[:-1]), options[-1]] if len(options) > 1 else options)
    others = ["freeze fewer layers"] * ("freeze" in lower) + [f"lower {named}"] * bool(options)
    *before, last = [*first, *others]
    return ", or ".join([", ".join(before), last] if before else [last])


def _nothing_to_trim(network: Network) -> str:
    """Why a network has no channel groups, in words."""
    if not network.frozen:
        return "nothing can be trimmed, since no layer has filters that could go"
    reasons = "; ".join(f"{entry.layer}: {entry.reason}" for entry in network.frozen[:REASONS])
    more = f", and {len(network.frozen) - REASONS} more" if len(network.frozen) > REASONS else ""
    return (
        f"nothing can be trimmed, since all layers are frozen ({reasons}{more}); `pretrim profile` or network.frozen "
        f"shows each with its reason"
    )

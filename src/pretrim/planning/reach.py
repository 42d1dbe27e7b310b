"""Whether any legal widths meet a budget, and if none do, which options are in the way and what would help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pretrim.analysis.network import IntArray, Network
from pretrim.errors import InfeasibleBudget

from .budget import amount_text
from .legal import Problem

UNRESTRICTED: Mapping[str, Any] = {"round_to": 1, "min_width": 1, "min_features": 1, "freeze": ()}
"""The options that set minimum widths, at values that set none."""
MAX_REASONS = 2
"""Maximum number of frozen layers whose reason a message gives."""


def check_reachable(problem: Problem) -> None:
    """Raise InfeasibleBudget, with advice, if even the narrowest legal network exceeds a limit."""
    budget = problem.budget
    for place, (maximum, value) in enumerate(zip(budget.values, budget.measure(problem.smallest), strict=True)):
        if value > maximum:
            raise _unreachable(problem, place, int(maximum), int(value))


def _unreachable(problem: Problem, place: int, maximum: int, value: int) -> InfeasibleBudget:
    """The error for a limit that the narrowest network exceeds.

    Args:
        problem: the allocation problem.
        place: index of the limit in the budget.
        maximum: the limit, in the cost's unit.
        value: the cost of the narrowest network.
    """
    limit, network = problem.budget.limits[place], problem.network
    needed, lower = amount_text(limit.quantity.unit, value), _in_the_way(problem, place)
    nothing = "" if network.groups else _nothing_to_trim(network)
    frozen = sum("output" not in entry.reason for entry in network.frozen)
    why = f" (frozen layers: {frozen}, `pretrim profile` says why)" if frozen and not nothing else ""
    return InfeasibleBudget(
        f"{limit.said(maximum)} cannot be met; the narrowest network needs {needed}{why}: "
        f"{nothing or advice(['raise the limit'], lower)}.",
        limit.name,
        f"{needed} ({nothing})" if nothing else f"{needed}{why}",
        lower,
    )


def _in_the_way(problem: Problem, place: int) -> tuple[str, ...]:
    """The options that prevent a limit from being met.

    These are the options that each exceed it alone; if none does, all that raise the cost, which exceed it together.
    Empty if the limit cannot be met without them either.
    """
    cost, maximum = problem.budget.costs[place], int(problem.budget.values[place])
    options = {name: getattr(problem.options, name) for name in UNRESTRICTED}
    if options["min_features"] is None:  # the default gives way by itself
        options["min_features"] = UNRESTRICTED["min_features"]
    smallest = int(cost(_smallest(problem, UNRESTRICTED)))
    if smallest > maximum:
        return ()
    alone = {name: int(cost(_smallest(problem, {**UNRESTRICTED, name: value}))) for name, value in options.items()}
    exceeding = tuple(name for name, value in alone.items() if value > maximum)
    return exceeding or tuple(name for name, value in alone.items() if value > smallest)


def _smallest(problem: Problem, changes: Mapping[str, Any]) -> IntArray:
    """The narrowest legal widths (G) under other options."""
    return replace(problem, options=replace(problem.options, **changes)).smallest


def advice(first: Sequence[str], lower: Sequence[str]) -> str:
    """Join suggestions for a message, with the options to lower at the end.

    Args:
        first: other suggestions.
        lower: names of the options that are in the way.

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
    *initial, last = [*first, *others]
    return ", or ".join([", ".join(initial), last] if initial else [last])


def _nothing_to_trim(network: Network) -> str:
    """Why a network has no channel groups, in words."""
    if not network.frozen:
        return "nothing can be trimmed, since no layer has filters that could go"
    reasons = "; ".join(f"{entry.layer}: {entry.reason}" for entry in network.frozen[:MAX_REASONS])
    more = f", and {len(network.frozen) - MAX_REASONS} more" if len(network.frozen) > MAX_REASONS else ""
    return (
        f"nothing can be trimmed, since all layers are frozen ({reasons}{more}); `pretrim profile` or network.frozen "
        f"shows each with its reason"
    )

"""From a network and its limits to a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pretrim.analysis.network import IntArray, Network
from pretrim.cost.costs import costs
from pretrim.cost.formula import ITEM_BYTES, Cost, DType
from pretrim.cost.microcontroller import arena_cost, artifact_cost
from pretrim.errors import InfeasibleBudget, UsageError

from .allocate import allocate
from .budget import DEVICE_COSTS, Bounds, Budget, Limit, TimeCost
from .legal import settle
from .options import AIMS, Options
from .plan import GroupPlan, Plan

EQUALLY_USED = 0.98
"""of the limit that the fullest draw uses: a plan is no better for leaving a part of its budget"""
TRIES = 50
"""narrower searches for limits that no formula gives exactly"""


def make_plan(
    network: Network,
    limits: Mapping[str, str | int | float | None],
    options: Options | None = None,
    dtype: DType = "float32",
    latency: TimeCost | None = None,
) -> Plan:
    """The plan for one network under a budget; with a measured `latency` for limits on it, and for the mode latency.

    Raises:
        BudgetError: a limit that is not one (zero, negative, no number, more than the dense network needs).
        InfeasibleBudget: no legal plan meets a limit.
    """
    options = options or Options()
    budget = Budget.parse(limits, dtype, latency)
    bounds = budget.resolve(network)
    widths = _within(network, bounds, options)
    made = plan_of_widths(network, widths, dtype, limits=_texts(budget.limits), options=asdict(options))
    return made if latency is None else _with_latency(made, network, latency)


def _with_latency(made: Plan, network: Network, latency: TimeCost) -> Plan:
    """With the predicted times among what the device says."""
    device: dict[str, Any] = {"dense": {}, "slim": {}, **(made.device or {})}
    for which, widths in (("dense", network.dense), ("slim", made.widths)):
        device[which] = {**device[which], latency.name: int(latency(widths))}
    return replace(made, device=device)


def _within(network: Network, bounds: Bounds, options: Options) -> IntArray:
    """Widths within every limit as it is: searched by formulas, with narrower ones where those do not say all."""
    widths = _drawn(network, bounds, options)
    if not (broken := bounds.broken(widths)):
        return widths
    search = bounds
    for _ in range(TRIES if bounds.exact != bounds.costs else 0):
        search = search.tightened(widths, bounds.values)
        try:
            widths = _drawn(network, search, options)
        except InfeasibleBudget:  # its message would name the narrower limit
            break
        if not (broken := bounds.broken(widths)):
            return settle(network, bounds, options, widths)
    raise InfeasibleBudget(f"Expected a plan within every limit, but {'; '.join(broken)}: try another seed or mode.")


def _drawn(network: Network, bounds: Bounds, options: Options) -> IntArray:
    """Widths that are drawn; of several draws that use the limits up alike, those that cost least of the mode's aim."""
    rows: IntArray = allocate(network, bounds, options, options.candidates)
    if len(rows) > 1:
        used = (bounds.measure(rows) / bounds.values).max(axis=1)
        rows = rows[used >= EQUALLY_USED * used.max()]
        aim = AIMS[options.mode]
        cost = bounds.latency if aim == "latency_ns" else costs(network)[aim]
        rows = rows[np.argsort(cost(rows), kind="stable")] if cost is not None else rows
    chosen: IntArray = rows[0]
    return chosen


def plan_with_options(
    network: Network,
    limits: Mapping[str, str | int | float | None],
    dtype: str,
    options: Mapping[str, Any],
    latency: TimeCost | None = None,
) -> Plan:
    """The same, with options by name. Raises UsageError for a name that is no option."""
    known = {entry.name for entry in fields(Options)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise UsageError(f"Expected options out of {', '.join(sorted(known))}, but got {', '.join(unknown)}.")
    if dtype not in ITEM_BYTES:
        raise UsageError(f"Expected dtype to be one of {', '.join(ITEM_BYTES)}, but got {dtype!r}.")
    return make_plan(network, limits, Options(**options), dtype, latency)


def _texts(limits: tuple[Limit, ...]) -> dict[str, str]:
    return {limit.cost: limit.text for limit in limits}


def plan_of_widths(
    network: Network,
    widths: ArrayLike,
    dtype: DType = "float32",
    *,
    limits: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """A plan with widths chosen by hand or elsewhere: one number per group of the network.

    Raises:
        UsageError: a wrong number of widths, or one outside 1..channels.
    """
    given = np.asarray(widths)
    array = given.astype(np.int64) if given.dtype.kind in "iuf" else np.zeros(0, dtype=np.int64)
    if array.shape != network.dense.shape or ((array < 1) | (array > network.dense) | (array != given)).any():
        raise UsageError(
            f"Expected {len(network.groups)} widths, each from 1 to its group's channels, but got {given.tolist()}."
        )
    functions = costs(network, dtype)
    limited = [name for name in DEVICE_COSTS if name in (limits or {})]
    return Plan(
        groups=tuple(
            GroupPlan(group.name, group.layers, group.channels, int(kept))
            for group, kept in zip(network.groups, array, strict=True)
        ),
        limits=dict(limits or {}),
        options=dict(options or {}),
        dtype=dtype,
        dense={name: int(function(network.dense)) for name, function in functions.items()},
        slim={name: int(function(array)) for name, function in functions.items()},
        example=network.example,
        fingerprint=network.fingerprint,
        device=_on_device(network, array, dtype) if limited else None,
        network=network,
    )


def _on_device(network: Network, widths: IntArray, dtype: DType) -> dict[str, dict[str, int]]:
    """What the dense and the slim network take on a microcontroller."""
    functions: dict[str, Cost] = {
        "artifact_bytes": artifact_cost(network, dtype),
        "arena_bytes": arena_cost(network, dtype),
    }
    return {
        which: {name: int(function(at)) for name, function in functions.items()}
        for which, at in (("dense", network.dense), ("slim", widths))
    }

"""Search for a plan: from a network, its limits and options to verified widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace

import numpy as np
from numpy.typing import ArrayLike

from pretrim.analysis.network import IntArray, Network
from pretrim.cost.costs import COSTS, cost
from pretrim.cost.costs import costs as formulas
from pretrim.cost.formula import Cost, DType, item_bytes
from pretrim.cost.quantities import quantities
from pretrim.errors import InfeasibleBudget, UsageError, check_is, shown, unknown_option

from .allocate import allocate
from .balanced import cost_of_rounding, refilled
from .budget import Budget, ResolvedBudget
from .fill import fill_budget
from .legal import Problem
from .options import AIMS, INTERNAL, Options
from .outlook import Outlook, outlook
from .plan import GroupPlan, Plan
from .utility import utility

EQUALLY_USED = 0.98
"""Draws that use at least this share of what the fullest draw uses of its limit are compared: a plan gains nothing by
leaving part of its budget unused."""
MAX_TRIES = 50
"""Maximum number of searches under tightened limits, for costs that the search knows only by a bound."""


def make_plan(
    network: Network,
    limits: Mapping[str, str | int | float | None],
    options: Options | None = None,
    dtype: DType = "float32",
    costs: Mapping[str, Cost] | None = None,
) -> Plan:
    """Make the plan for one network under a budget.

    Args:
        network: the dense network.
        limits: limits by quantity (`cost.quantities`), absolute or as shares of the dense network.
        options: how widths are chosen.
        dtype: the data type that bytes are counted in.
        costs: costs measured or predicted for a device, by quantity. A limit on one of them applies to this cost, and
            the plan records the values of all of them for the dense and the slim network.

    Raises:
        BudgetError: a limit is invalid (zero, negative, not a number), or the dense network already meets all limits.
        InfeasibleBudget: no legal plan meets a limit.
        UsageError: `network` is not an analysed network.
    """
    check_planned(network, costs)
    options = options or Options()
    budget = Budget.parse(limits, dtype)
    resolved = budget.resolve(network, costs)
    widths = _within(network, resolved, options)
    texts = {limit.cost: limit.text for limit in budget.limits}
    plain = {**asdict(options), "freeze": list(options.freeze)}
    plan = plan_of_widths(network, widths, dtype, limits=texts, options=plain, costs=costs)
    if options.mode == "uniform" or not network.groups:
        return plan
    return replace(plan, outlook=_outlook(network, resolved, options, widths).to_json())


def _within(network: Network, budget: ResolvedBudget, options: Options) -> IntArray:
    """Widths (G) within every limit by the exact costs.

    The search uses bounds of the costs. If its widths exceed a limit by the exact cost, the search is repeated under
    tighter limits, never below the bounds of the narrowest network, so that it always returns widths. Finally, the
    widths are widened by every step that still fits.
    """
    widths = _best_draw(network, budget, options)
    if not budget.broken(widths):
        return widths
    if not budget.is_exact:
        exact = Problem(network, budget.with_exact_costs(), options)
        widths = _under_tighter_limits(network, budget, options, widths, exact.smallest)
        if not budget.broken(widths):
            return refilled(exact, widths) if options.mode == "balanced" else fill_budget(exact, widths)
    broken = "; ".join(budget.broken(widths))
    raise InfeasibleBudget(f"No plan found within every limit ({broken}): try another seed or mode.")


def _under_tighter_limits(
    network: Network, budget: ResolvedBudget, options: Options, widths: IntArray, narrowest: IntArray
) -> IntArray:
    """Search again where widths (G) exceed a limit by the exact costs; the narrowest network if nothing else fits."""
    tightened, lowest = budget, budget.measure(narrowest)
    for _ in range(MAX_TRIES):
        previous, tightened = tightened, tightened.with_margin(widths, budget.values, lowest)
        if (tightened.values == previous.values).all():
            break
        widths = _best_draw(network, tightened, options)
        if not budget.broken(widths):
            return widths
    return narrowest


def _outlook(network: Network, budget: ResolvedBudget, options: Options, widths: IntArray) -> Outlook:
    """Expected accuracy of a plan's widths (G), compared with uniform width under the same limits."""
    shared = {name: getattr(options, name) for name in ("round_to", "min_width", "freeze", "min_features")}
    try:
        uniform = _within(network, budget, Options(mode="uniform", **shared))
    except InfeasibleBudget:
        uniform = None
    worth = utility(network)
    expected = outlook(network, worth, widths, uniform, [limit.cost for limit in budget.limits])
    if options.mode != "balanced":
        return expected
    lost, finer = cost_of_rounding(Problem(network, budget, options), widths)
    return replace(expected, rounding=lost, finer=finer)


def _best_draw(network: Network, budget: ResolvedBudget, options: Options) -> IntArray:
    """Widths (G) of the best draw: of those that use the limits up about equally, the one that costs least.

    The cost that decides is the one that the mode reduces (`AIMS`).
    """
    rows: IntArray = allocate(network, budget, options, options.candidates)
    if len(rows) > 1:
        used = (budget.measure(rows) / budget.values).max(axis=1)
        rows = rows[used >= EQUALLY_USED * used.max()]
        aim = AIMS[options.mode]
        function = budget.handed.get(aim) or cost(network, aim)
        rows = rows[np.argsort(function(rows), kind="stable")]
    chosen: IntArray = rows[0]
    return chosen


def options_of(names: Mapping[str, object]) -> Options:
    """Build options from values by name; None means the default.

    Raises UsageError for an unknown name or an invalid value.
    """
    known = [entry.name for entry in fields(Options)]
    for name in names:
        if name not in known:
            limits = [quantity.option for quantity in quantities().values()]
            raise unknown_option(name, [*limits, *(entry for entry in known if entry not in INTERNAL)])
    return Options(**{name: value for name, value in names.items() if value is not None})  # type: ignore[arg-type]  # it checks them


def plan_of_widths(
    network: Network,
    widths: ArrayLike,
    dtype: DType = "float32",
    *,
    limits: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
    costs: Mapping[str, Cost] | None = None,
) -> Plan:
    """Make a plan from widths chosen by hand or by other means.

    Args:
        network: the dense network.
        widths: number of channels that each group keeps (G).
        dtype: the data type that bytes are counted in.
        limits: limits by quantity, which the plan only records.
        options: how the widths were chosen, which the plan only records.
        costs: as in `make_plan`.

    Raises:
        UsageError: the number of widths is wrong, or a width is outside 1..channels.
    """
    check_planned(network, costs)
    for name, mapping in (("limits", limits), ("options", options)):
        check_is(mapping, Mapping | None, f"{name} to be a mapping or None")
    for name in limits or {}:
        if name not in quantities():
            raise UsageError(f"Expected limits on {', '.join(quantities())}, but got {shown(name)}.")
    item_bytes(dtype)  # checks the data type
    values = np.asarray(widths)
    array = values.astype(np.int64) if values.dtype.kind in "iuf" else np.zeros(0, dtype=np.int64)
    if array.shape != network.dense.shape or ((array < 1) | (array > network.dense) | (array != values)).any():
        raise UsageError(
            f"Expected {len(network.groups)} widths, each from 1 to its group's channels, but got "
            f"{shown(values.tolist())}."
        )
    functions = formulas(network, dtype)
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
        device=_on_device(network, array, dtype, limits or {}, costs or {}),
        tried=network.tried,
    )


def check_planned(network: object, costs: object) -> None:
    """Raise UsageError unless `network` is an analysed network and `costs` a mapping from quantities to functions."""
    check_is(network, Network, "network to be what pretrim.analyze(model, example) found")
    check_is(costs, Mapping | None, "costs to be a mapping such as {'latency_ns': cost}")
    for name, function in dict(costs or {}).items():  # type: ignore[call-overload]  # it is a mapping
        if name not in quantities():
            raise UsageError(f"Expected costs of {', '.join(quantities())}, but got {shown(name)}.")
        check_is(function, Callable, f"the cost {name} to be a function of widths")  # type: ignore[arg-type]


def _on_device(
    network: Network, widths: IntArray, dtype: DType, limits: Mapping[str, str], handed: Mapping[str, Cost]
) -> dict[str, dict[str, int]] | None:
    """Costs of the dense and the slim network beyond the five closed-form ones, by network and quantity.

    These are the limited quantities of the table and all costs that were passed in; None if there are none.
    """
    limited = [name for name in limits if name not in COSTS and quantities()[name].factory is not None]
    functions = {name: cost(network, name, dtype) for name in limited} | dict(handed)
    if not functions:
        return None
    return {
        key: {name: int(function(row)) for name, function in functions.items()}
        for key, row in (("dense", network.dense), ("slim", widths))
    }

"""From a network and its limits to a plan."""

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
"""of the limit that the fullest draw uses: a plan gains nothing by leaving a part of its budget"""
TRIES = 50
"""narrower searches for limits that no formula gives exactly"""


def make_plan(
    network: Network,
    limits: Mapping[str, str | int | float | None],
    options: Options | None = None,
    dtype: DType = "float32",
    costs: Mapping[str, Cost] | None = None,
) -> Plan:
    """The plan for one network under a budget.

    Args:
        network: the dense network.
        limits: by quantity (`cost.quantities`), absolute or as shares of the dense network.
        options: how widths are chosen.
        dtype: the data type that bytes are counted in.
        costs: measured or predicted for a device, by quantity; a limit on one of them is kept by it, and the plan says
            what the dense and the slim network take of each.

    Raises:
        BudgetError: a limit that is not one (zero, negative, no number, more than the dense network needs).
        InfeasibleBudget: no legal plan meets a limit.
        UsageError: no analysed network.
    """
    check_planned(network, costs)
    options = options or Options()
    budget = Budget.parse(limits, dtype)
    resolved = budget.resolve(network, costs)
    widths = _within(network, resolved, options)
    texts = {limit.cost: limit.text for limit in budget.limits}
    plain = {**asdict(options), "freeze": list(options.freeze)}
    made = plan_of_widths(network, widths, dtype, limits=texts, options=plain, costs=costs)
    if options.mode == "uniform" or not network.groups:
        return made
    return replace(made, outlook=_outlook(network, resolved, options, widths).to_json())


def _within(network: Network, budget: ResolvedBudget, options: Options) -> IntArray:
    """Widths within every exact limit: searched by bounds, under narrower limits where those do not say all.

    Limits are never narrower than the bounds of the narrowest network, so that a search always finds something; where
    that is too wide as well, the narrowest network is what is left, and as much is given back as fits.
    """
    widths = _best_draw(network, budget, options)
    if not (broken := budget.broken(widths)):
        return widths
    exact, search = Problem(network, budget.with_exact_costs(), options), budget
    lowest = budget.measure(exact.smallest)
    for _ in range(0 if budget.is_exact else TRIES):
        narrower = search.with_margin(widths, budget.values, lowest)
        if (narrower.values == search.values).all():
            widths = exact.smallest
        else:
            search, widths = narrower, _best_draw(network, narrower, options)
        if not budget.broken(widths):
            return refilled(exact, widths) if options.mode == "balanced" else fill_budget(exact, widths)
        if widths is exact.smallest:
            break
    raise InfeasibleBudget(f"No plan found within every limit ({'; '.join(broken)}): try another seed or mode.")


def _outlook(network: Network, budget: ResolvedBudget, options: Options, widths: IntArray) -> Outlook:
    """What to expect of widths, beside uniform width under the same limits."""
    same = {name: getattr(options, name) for name in ("round_to", "min_width", "freeze", "min_features")}
    try:
        uniform = _within(network, budget, Options(mode="uniform", **same))
    except InfeasibleBudget:
        uniform = None
    worth = utility(network)
    found = outlook(network, worth, widths, uniform, [limit.cost for limit in budget.limits])
    if options.mode != "balanced":
        return found
    lost, finer = cost_of_rounding(Problem(network, budget, options), widths)
    return replace(found, rounding=lost, finer=finer)


def _best_draw(network: Network, budget: ResolvedBudget, options: Options) -> IntArray:
    """Widths of one draw; of several that use the limits up alike, those that cost least of what the mode is for."""
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
    """Options by name; None asks for the default. Raises UsageError for an unknown name or an invalid value."""
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
    """A plan with widths chosen by hand or elsewhere.

    Args:
        network: the dense network.
        widths: one number per group (G).
        dtype: the data type that bytes are counted in.
        limits: for the record, by quantity.
        options: likewise, how the widths were chosen.
        costs: as in `make_plan`.

    Raises:
        UsageError: a wrong number of widths, or one outside 1..channels.
    """
    check_planned(network, costs)
    for what, mapping in (("limits", limits), ("options", options)):
        check_is(mapping, Mapping | None, f"{what} to be a mapping or None")
    for name in limits or {}:
        if name not in quantities():
            raise UsageError(f"Expected limits on {', '.join(quantities())}, but got {shown(name)}.")
    item_bytes(dtype)  # checks the data type
    given = np.asarray(widths)
    array = given.astype(np.int64) if given.dtype.kind in "iuf" else np.zeros(0, dtype=np.int64)
    if array.shape != network.dense.shape or ((array < 1) | (array > network.dense) | (array != given)).any():
        raise UsageError(
            f"Expected {len(network.groups)} widths, each from 1 to its group's channels, but got "
            f"{shown(given.tolist())}."
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
    """Raises UsageError for what is no analysed network, or for costs that are no functions by name."""
    check_is(network, Network, "network to be what pretrim.analyze(model, example) found")
    check_is(costs, Mapping | None, "costs to be a mapping such as {'latency_ns': cost}")
    for name, function in dict(costs or {}).items():  # type: ignore[call-overload]  # it is a mapping
        if name not in quantities():
            raise UsageError(f"Expected costs of {', '.join(quantities())}, but got {shown(name)}.")
        check_is(function, Callable, f"the cost {name} to be a function of widths")  # type: ignore[arg-type]


def _on_device(
    network: Network, widths: IntArray, dtype: DType, limits: Mapping[str, str], handed: Mapping[str, Cost]
) -> dict[str, dict[str, int]] | None:
    """What the dense and the slim network take of quantities beyond the five: those limited, and those handed in."""
    named = [name for name in limits if name not in COSTS and quantities()[name].factory is not None]
    functions = {name: cost(network, name, dtype) for name in named} | dict(handed)
    if not functions:
        return None
    return {
        which: {name: int(function(at)) for name, function in functions.items()}
        for which, at in (("dense", network.dense), ("slim", widths))
    }

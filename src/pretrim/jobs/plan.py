"""Profile a network, and plan how many filters its layers keep on a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pretrim.errors import InfeasibleBudget, PlanError
from pretrim.planning.options import Options

from .options import Keeping, Limits, Search, TargetOptions
from .reporter import Reporter, Silent
from .target import Target, find_target

if TYPE_CHECKING:
    from pretrim.analysis.network import Network
    from pretrim.cost.formula import Cost, DType
    from pretrim.models.dense import DenseModel, ModelSource, Shape
    from pretrim.planning.plan import Plan


ROUNDS = 5
"""Maximum rounds of planning, trying the plan on the network, and updating the analysis from what fails"""
TIME_LIMITS = ("latency", "latency_ns")
"""Limits that, beside a board's own, still only ask whether a network fits, not for it to be trimmed"""


@dataclass(frozen=True)
class Profile:
    """The costs of each layer of a network, its coupled filters and its frozen ones.

    Attributes:
        model: name of the model.
        arguments: arguments its builder was called with.
        input: shape of one image.
        dtype: data type in which bytes are counted.
        totals: the five costs of the whole network.
        layers: costs of each layer, and its share of all layers by each criterion. ``params`` counts only a layer's
            weights: biases and norms follow the filters, and are included in the totals.
        groups: coupled filters, which are kept or removed together.
        frozen: filters that no plan removes, and why.
        notes: further remarks of the analysis.
    """

    model: str
    arguments: Mapping[str, int]
    input: tuple[int, ...]
    dtype: str
    totals: Mapping[str, int]
    layers: tuple[Mapping[str, Any], ...]
    groups: tuple[Mapping[str, Any], ...]
    frozen: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        lists = {name: list(getattr(self, name)) for name in ("input", "layers", "groups", "frozen", "notes")}
        return {**asdict(self), **lists}


def profile(
    model: ModelSource,
    shape: Shape,
    classes: int | None = None,
    dtype: DType = "float32",
    keeping: Keeping | None = None,
) -> Profile:
    """Profile a model: the costs of each layer, which filters are coupled, and which are frozen.

    Args:
        model: name, module, or function that builds one.
        shape: (channels, height, width) of one image.
        classes: number of outputs; None: the model's.
        dtype: data type in which bytes are counted.
        keeping: layers to freeze, and minimum widths of others.

    Raises:
        UsageError: a pattern that matches no layer; UsageError, ModelError: as `models.dense.open_model`.
    """
    from pretrim.models.dense import open_model

    dense = open_model(model, shape, classes)
    arguments = dense.reference.arguments if dense.reference is not None else {}
    return profile_network(dense.network, dense.name, arguments, dtype, keeping)


def profile_network(
    network: Network,
    name: str = "network",
    arguments: Mapping[str, int] | None = None,
    dtype: DType = "float32",
    keeping: Keeping | None = None,
) -> Profile:
    """Like `profile`, for a network that is already analysed.

    Args:
        network: the analysis.
        name: display name of the model.
        arguments: arguments its builder was called with.
        dtype: data type in which bytes are counted.
        keeping: as in :func:`profile`.
    """
    from pretrim.cost.costs import costs
    from pretrim.planning.named_layers import frozen_by_name

    options = Options(**(keeping or Keeping()).given())
    shape = network.example.get("shape", ()) if isinstance(network.example, Mapping) else ()
    return Profile(
        model=name,
        arguments=dict(arguments or {}),
        input=tuple(shape[1:]),
        dtype=dtype,
        totals={str(cost): int(function(network.dense)) for cost, function in costs(network, dtype).items()},
        layers=tuple(_layers(network, dtype)),
        groups=tuple(_groups(network, options)),
        frozen=tuple(asdict(frozen) for frozen in (*network.frozen, *frozen_by_name(network, options.freeze))),
        notes=network.notes,
    )


def _groups(network: Network, options: Options) -> list[dict[str, Any]]:
    """List the channel groups that a plan may cut, with their minimum number of channels."""
    from pretrim.planning.named_layers import fewest_filters, frozen_groups

    frozen, min_filters = frozen_groups(network, options.freeze), fewest_filters(network, options.min_width)
    return [
        {
            "name": group.name,
            "channels": group.channels,
            "min_width": min(-(-int(filters) // group.multiplicity), group.channels),
            "layers": list(group.layers),
        }
        for group, is_frozen, filters in zip(network.groups, frozen, min_filters, strict=True)
        if not is_frozen
    ]


def _layers(network: Network, dtype: DType) -> list[dict[str, Any]]:
    """List each layer's costs, with its share of all layers by each criterion."""
    from pretrim.cost.costs import layer_costs

    layers = [asdict(layer) for layer in layer_costs(network, network.dense, dtype)]
    for criterion, column in (("params", "params"), ("macs", "macs"), ("memory", "activation_bytes")):
        total = sum(layer[column] for layer in layers)
        for layer in layers:
            layer.setdefault("shares", {})[criterion] = layer[column] / total if total else 0.0
    return layers


def plan_model(
    model: ModelSource,
    shape: Shape,
    classes: int | None,
    limits: Limits,
    target: TargetOptions,
    search: Search,
    reporter: Reporter | None = None,
) -> Plan:
    """Plan the widths of a model for a target.

    Args:
        model: name, module, or function that builds one.
        shape: (channels, height, width) of one image.
        classes: number of outputs; None: the model's.
        limits: limits on the network's costs.
        target: where it is to run.
        search: how widths are chosen.
        reporter: receives remarks and the progress of measurements.

    Raises:
        UsageError: options that contradict each other; BudgetError: an invalid limit.
        InfeasibleBudget: no network meets a limit.
    """
    from pretrim.models.dense import open_model

    reporter = reporter or Silent()
    resolved = find_target(target, limits.given(), search, exports=False)
    check_before_analysis(resolved, search)
    dense = open_model(model, shape, classes)
    return plan_for(dense, resolved, search, reporter)


def check_before_analysis(target: Target, search: Search) -> None:
    """Check everything that does not depend on the model. Raises UsageError, or BudgetError for an invalid limit."""
    from pretrim.cost.formula import item_bytes
    from pretrim.planning.budget import Budget

    item_bytes(target.dtype)
    search.options(target.round_to)
    Budget.parse(target.limits)


def plan_for(dense: DenseModel, target: Target, search: Search, reporter: Reporter) -> Plan:
    """Make a plan that meets every limit; it keeps the dense network if that fits a board and no other limit was set.

    Args:
        dense: the dense network.
        target: limits, data type and board.
        search: how widths are chosen.
        reporter: receives remarks.
    """
    import torch

    from pretrim.analysis.analyze import follow

    example = torch.zeros(1, *dense.input_shape)
    for _ in range(ROUNDS):
        plan = plan_network(dense.network, target, search, target.costs(dense, reporter), reporter)
        updated = follow(dense.module, example, dense.network, plan.widths)
        if updated is dense.network:
            break
        reporter.say("note: the plan failed in the network, the analysis learnt from it, and the plan was made again")
        dense = replace(dense, network=updated)
    return replace(plan, model=None if dense.reference is None else dense.reference.to_json())


def plan_network(
    network: Network, target: Target, search: Search, costs: Mapping[str, Cost], reporter: Reporter
) -> Plan:
    """Like `plan_for`, for an analysed network, and without trying the plan on its module.

    Args:
        network: the analysis.
        target: where it is to run, with the limits.
        search: how widths are chosen.
        costs: the target's extra cost functions (`Target.costs`).
        reporter: told if nothing has to be trimmed.
    """
    from pretrim.planning.budget import Budget
    from pretrim.planning.search import make_plan, plan_of_widths

    board = target.board
    if board is not None and all(name in (*board.limits(), *TIME_LIMITS) for name in target.limits):
        budget = Budget.parse(target.limits, target.dtype).resolve_any(network, costs)
        if budget.dense_fits:
            fits = "has room" if _is_refused(network, target) else "fits"
            reporter.say(f"note: the dense network {fits} on {board.name} as it is; limits such as --macs 0.5x trim it")
            limit_texts = {limit.cost: limit.text for limit in budget.limits}
            dense_plan = plan_of_widths(network, network.dense, target.dtype, limits=limit_texts, costs=costs)
            return _labelled(dense_plan, network, target)
    try:
        plan = make_plan(network, target.limits, search.options(target.round_to), target.dtype, costs)
    except InfeasibleBudget as error:
        raise _in_user_terms(error, target) from None
    return _labelled(plan, network, target)


def _is_refused(network: Network, target: Target) -> bool:
    """Whether the target's interpreter cannot run a network, however much memory there is."""
    from pretrim.cost.microcontroller import refused_by_micro

    return target.is_microcontroller and refused_by_micro(network, target.dtype) is not None


def _in_user_terms(error: InfeasibleBudget, target: Target) -> InfeasibleBudget:
    """Rephrase an error about a limit that comes from the board, for a user who named the board."""
    limit_text = str(target.limits.get(error.limit or ""))
    if target.board is None or error.limit not in target.board.limits() or not limit_text.isdecimal():
        return error
    from pretrim.cost.quantities import quantities
    from pretrim.planning.reach import advice

    amount, title = int(limit_text), quantities()[error.limit].title
    return InfeasibleBudget(
        f"--device {target.board.name} leaves {amount:,} bytes for the {title}, but the narrowest needs "
        f"{error.needed}: {advice(['take a larger board', 'lower --application'], error.lower)}.",
        error.limit,
        error.needed,
        error.lower,
    )


def _labelled(plan: Plan, network: Network, target: Target) -> Plan:
    """Return the plan with its device figures labelled: the board's name, and the conditions of its times."""
    device = dict(plan.device) if plan.device is not None else None
    if device is not None and target.board is not None:
        device = {"name": target.board.name, **device}
    if device is not None:
        device |= _target_figures(plan, network, target)
    return replace(plan, device=device)


def _target_figures(plan: Plan, network: Network, target: Target) -> dict[str, Any]:
    """Collect what is known of a plan on its target: times, the conditions they hold for, and remarks on the arena."""
    from pretrim.cost.microcontroller import lower_bound, refused_by_micro
    from pretrim.latency.on_board import arena_text

    latencies = {which: plan.device[which].get("latency_ns") for which in ("dense", "slim")} if plan.device else {}
    times = target.times(network, {"dense": network.dense, "slim": plan.widths}, latencies)
    notes: dict[str, str] = {}
    if target.board is not None and target.is_microcontroller:
        notes["arena_text"] = arena_text(target.board, target.on_board)
        if (text := lower_bound(network)) is not None:
            notes["lower_bound"] = text
        if (text := refused_by_micro(network, plan.dtype)) is not None:
            notes["refused"] = text
    if not times:
        return notes
    is_limited = target.predicted or target.label is not None
    return {**notes, "times": times, **({"latency_on": target.label or times[0]["label"]} if is_limited else {})}


def check_plan(plan: Plan, dense: DenseModel) -> Plan:
    """Check that a plan is for this model and input. Its costs are recomputed, as the user may have edited its widths.

    Raises PlanError if it is for another model or input.
    """
    from pretrim.planning.search import plan_of_widths

    network = dense.network
    groups = [(group.name, group.channels) for group in network.groups]
    is_same = plan.fingerprint == network.fingerprint and plan.example == network.example
    if not is_same or groups != [(group.name, group.channels) for group in plan.groups]:
        made_for = plan.model.get("name") if isinstance(plan.model, dict) else "another model"
        shape = "x".join(map(str, dense.input_shape))
        raise PlanError(
            f"Expected a plan for {dense.name} with images of {shape}, but it was made for {made_for} with other "
            f"layers or another input: make one with `pretrim plan`, with the data's --classes and --input."
        )
    costs = _costs_of(plan, network)
    recounted = plan_of_widths(network, plan.widths, plan.dtype, limits=plan.limits, options=plan.options, costs=costs)
    reference = None if dense.reference is None else dense.reference.to_json()
    return replace(recounted, model=reference, device=_device(plan, recounted, network))


def _target_of(plan: Plan) -> Target | None:
    """Return the microcontroller that a plan was made for, with the runtime of its times; None for other plans."""
    from pretrim.devices import boards

    name = (plan.device or {}).get("name")
    device = next((entry for entry in boards() if entry.name == name and entry.kind == "microcontroller"), None)
    if device is None or plan.device is None:
        return None
    times = [entry for entry in plan.device.get("times", ()) if entry.get("source") == "predicted"]
    is_limited = "latency_ns" in plan.device["slim"] and bool(times)
    on_board = times[0].get("runtime") if len(times) == 1 else None
    return Target(device, {}, plan.dtype, device.round_to, None, predicted=is_limited, on_board=on_board)


def _costs_of(plan: Plan, network: Network) -> dict[str, Cost]:
    """Return the cost functions of a plan's board, to recompute its costs."""
    target = _target_of(plan)
    return {} if target is None else target.costs_on_board(network)


def _device(plan: Plan, recounted: Plan, network: Network) -> dict[str, Any] | None:
    """Merge the recomputed device figures with those that are kept: the board's name, and measured times."""
    if plan.device is None:
        return None if recounted.device is None else dict(recounted.device)
    new_figures = recounted.device or {}
    figures = {which: {**plan.device.get(which, {}), **new_figures.get(which, {})} for which in ("dense", "slim")}
    target = _target_of(plan)
    return {**plan.device, **figures, **({} if target is None else _target_figures(recounted, network, target))}

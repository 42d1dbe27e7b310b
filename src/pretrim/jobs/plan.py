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
"""of making a plan, trying it in the network, and learning from what fails"""
ALSO_FITS = ("latency", "latency_ns")
"""Limits beside a board's own under which its user asks whether a network fits, not what is left of it"""


@dataclass(frozen=True)
class Profile:
    """What each layer of a network costs.

    Attributes:
        model: its name.
        arguments: that its builder was called with.
        input: shape of one image.
        dtype: that bytes are counted in.
        totals: the five costs.
        layers: of each its costs and its share of all layers by each criterion. ``params`` are a layer's weights alone:
            biases and norms follow the filters, and count in the totals.
        groups: filters that live and die together.
        frozen: filters that no plan removes, and why.
        notes: what else was found.
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
        """Plain JSON."""
        lists = {name: list(getattr(self, name)) for name in ("input", "layers", "groups", "frozen", "notes")}
        return {**asdict(self), **lists}


def profile(
    model: ModelSource,
    shape: Shape,
    classes: int | None = None,
    dtype: DType = "float32",
    keeping: Keeping | None = None,
) -> Profile:
    """What each layer costs, what is coupled, and what is frozen.

    Args:
        model: name, module, or function that builds one.
        shape: (channels, height, width) of one image.
        classes: number of outputs; None: the model's.
        dtype: the data type that bytes are counted in.
        keeping: layers to show as frozen, and the fewest filters of others.

    Raises:
        UsageError: a pattern that names no layer; UsageError, ModelError: as `models.dense.open_model`.
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
    """The same of a network that was analysed already.

    Args:
        network: the analysis.
        name: of the model, for people.
        arguments: that its builder was called with.
        dtype: the data type that bytes are counted in.
        keeping: as in :func:`profile`.
    """
    from pretrim.cost.costs import costs
    from pretrim.planning.wishes import frozen_by_wish

    options = Options(**(keeping or Keeping()).wishes())
    first = network.example.get("shape", ()) if isinstance(network.example, Mapping) else ()
    return Profile(
        model=name,
        arguments=dict(arguments or {}),
        input=tuple(first[1:]),
        dtype=dtype,
        totals={str(cost): int(function(network.dense)) for cost, function in costs(network, dtype).items()},
        layers=tuple(_layers(network, dtype)),
        groups=tuple(_groups(network, options)),
        frozen=tuple(asdict(frozen) for frozen in (*network.frozen, *frozen_by_wish(network, options.freeze))),
        notes=network.notes,
    )


def _groups(network: Network, options: Options) -> list[dict[str, Any]]:
    """The channel groups that a plan may cut, with the fewest channels that were asked for."""
    from pretrim.planning.wishes import fewest_filters, frozen_groups

    frozen, fewest = frozen_groups(network, options.freeze), fewest_filters(network, options.min_width)
    return [
        {
            "name": group.name,
            "channels": group.channels,
            "least": min(-(-int(filters) // group.multiplicity), group.channels),
            "layers": list(group.layers),
        }
        for group, is_frozen, filters in zip(network.groups, frozen, fewest, strict=True)
        if not is_frozen
    ]


def _layers(network: Network, dtype: DType) -> list[dict[str, Any]]:
    """Each layer's costs, with its share of all layers by each criterion."""
    from pretrim.cost.costs import layer_costs

    layers = [asdict(layer) for layer in layer_costs(network, network.dense, dtype)]
    for criterion, column in (("params", "params"), ("macs", "macs"), ("memory", "activation_bytes")):
        whole = sum(layer[column] for layer in layers)
        for layer in layers:
            layer.setdefault("shares", {})[criterion] = layer[column] / whole if whole else 0.0
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
    """The plan for a model on a target.

    Args:
        model: name, module, or function that builds one.
        shape: (channels, height, width) of one image.
        classes: number of outputs; None: the model's.
        limits: what the network may take.
        target: where it is to run.
        search: how widths are chosen.
        reporter: told of remarks and measurements.

    Raises:
        UsageError: options that contradict each other; BudgetError: an invalid limit.
        InfeasibleBudget: no network meets a limit.
    """
    from pretrim.models.dense import open_model

    reporter = reporter or Silent()
    found = find_target(target, limits.given(), search, exports=False)
    check_before_analysis(found, search)
    dense = open_model(model, shape, classes)
    return plan_for(dense, found, search, reporter)


def check_before_analysis(target: Target, search: Search) -> None:
    """Everything that can be wrong without looking at the model."""
    from pretrim.cost.formula import item_bytes
    from pretrim.planning.budget import Budget

    item_bytes(target.dtype)
    search.options(target.round_to)
    Budget.parse(target.limits)


def plan_for(dense: DenseModel, target: Target, search: Search, reporter: Reporter) -> Plan:
    """The plan within every limit; the dense network, where a board has room for it and nothing else is asked.

    Args:
        dense: the network.
        target: limits, data type and board.
        search: how widths are found.
        reporter: told of remarks.
    """
    import torch

    from pretrim.analysis.analyze import follow

    example = torch.zeros(1, *dense.input_shape)
    for _ in range(ROUNDS):
        made = plan_network(dense.network, target, search, target.costs(dense, reporter), reporter)
        learnt = follow(dense.module, example, dense.network, made.widths)
        if learnt is dense.network:
            break
        reporter.say("note: the plan failed in the network, the analysis learnt from it, and the plan was made again")
        dense = replace(dense, network=learnt)
    return replace(made, model=None if dense.reference is None else dense.reference.to_json())


def plan_network(
    network: Network, target: Target, search: Search, costs: Mapping[str, Cost], reporter: Reporter
) -> Plan:
    """The same of a network that was analysed already.

    Args:
        network: the analysis.
        target: where it is to run, with the limits.
        search: how widths are chosen.
        costs: what the target decides (`Target.costs`).
        reporter: told where nothing has to be trimmed.
    """
    from pretrim.planning.budget import Budget
    from pretrim.planning.search import make_plan, plan_of_widths

    board = target.board
    if board is not None and all(name in (*board.limits(), *ALSO_FITS) for name in target.limits):
        budget = Budget.parse(target.limits, target.dtype).resolve_any(network, costs)
        if (budget.dense <= budget.values).all():
            fits = "has room" if _is_refused(network, target) else "fits"
            reporter.say(f"note: the dense network {fits} on {board.name} as it is; limits such as --macs 0.5x trim it")
            texts = {limit.cost: limit.text for limit in budget.limits}
            whole = plan_of_widths(network, network.dense, target.dtype, limits=texts, costs=costs)
            return _labelled(whole, network, target)
    try:
        made = make_plan(network, target.limits, search.options(target.round_to), target.dtype, costs)
    except InfeasibleBudget as error:
        raise _as_asked(error, target) from None
    return _labelled(made, network, target)


def _is_refused(network: Network, target: Target) -> bool:
    """Whether the target's interpreter does not run a network, whatever room there is."""
    from pretrim.cost.microcontroller import refused_by_micro

    return target.is_microcontroller and refused_by_micro(network, target.dtype) is not None


def _as_asked(error: InfeasibleBudget, target: Target) -> InfeasibleBudget:
    """The same in the user's words, who named a board and not its limits."""
    given = str(target.limits.get(error.limit or ""))
    if target.board is None or error.limit not in target.board.limits() or not given.isdecimal():
        return error
    from pretrim.cost.quantities import quantities
    from pretrim.planning.reach import advice

    amount, title = int(given), quantities()[error.limit].title
    return InfeasibleBudget(
        f"--device {target.board.name} leaves {amount:,} bytes for the {title}, but the narrowest needs "
        f"{error.needed}: {advice(['take a larger board', 'lower --application'], error.lower)}.",
        error.limit,
        error.needed,
        error.lower,
    )


def _labelled(made: Plan, network: Network, target: Target) -> Plan:
    """With what the figures of a device are of."""
    device = dict(made.device) if made.device is not None else None
    if device is not None and target.board is not None:
        device = {"name": target.board.name, **device}
    if device is not None:
        device |= _on_target(made, network, target)
    return replace(made, device=device)


def _on_target(made: Plan, network: Network, target: Target) -> dict[str, Any]:
    """The times of the dense and the slim network, what they hold for, and what the arena counts; all that is known."""
    from pretrim.cost.microcontroller import lower_bound, refused_by_micro
    from pretrim.latency.on_board import arena_text

    latencies = {which: made.device[which].get("latency_ns") for which in ("dense", "slim")} if made.device else {}
    times = target.times(network, {"dense": network.dense, "slim": made.widths}, latencies)
    about: dict[str, str] = {}
    if target.board is not None and target.is_microcontroller:
        about["arena_text"] = arena_text(target.board, target.on_board)
        if (said := lower_bound(network)) is not None:
            about["lower_bound"] = said
        if (said := refused_by_micro(network, made.dtype)) is not None:
            about["refused"] = said
    if not times:
        return about
    is_limited = target.predicted or target.label is not None
    return {**about, "times": times, **({"latency_on": target.label or times[0]["label"]} if is_limited else {})}


def check_plan(plan: Plan, dense: DenseModel) -> Plan:
    """The plan, if it is for this model and input. Its costs are counted again: a user may edit its widths.

    Raises PlanError where it is for another.
    """
    from pretrim.planning.search import plan_of_widths

    network = dense.network
    groups = [(group.name, group.channels) for group in network.groups]
    ours = plan.fingerprint == network.fingerprint and plan.example == network.example
    if not ours or groups != [(group.name, group.channels) for group in plan.groups]:
        made_for = plan.model.get("name") if isinstance(plan.model, dict) else "another model"
        shape = "x".join(map(str, dense.input_shape))
        raise PlanError(
            f"Expected a plan for {dense.name} with images of {shape}, but it was made for {made_for} with other "
            f"layers or another input: make one with `pretrim plan`, with the data's --classes and --input."
        )
    costs = _costs_of(plan, network)
    counted = plan_of_widths(network, plan.widths, plan.dtype, limits=plan.limits, options=plan.options, costs=costs)
    reference = None if dense.reference is None else dense.reference.to_json()
    return replace(counted, model=reference, device=_device(plan, counted, network))


def _target_of(plan: Plan) -> Target | None:
    """The microcontroller that a plan was made for, with the runtime of its times; None for other plans."""
    from pretrim.devices import boards

    name = (plan.device or {}).get("name")
    found = next((entry for entry in boards() if entry.name == name and entry.kind == "microcontroller"), None)
    if found is None or plan.device is None:
        return None
    times = [entry for entry in plan.device.get("times", ()) if entry.get("source") == "predicted"]
    limited = "latency_ns" in plan.device["slim"] and bool(times)
    on_board = times[0].get("runtime") if len(times) == 1 else None
    return Target(found, {}, plan.dtype, found.round_to, None, predicted=limited, on_board=on_board)


def _costs_of(plan: Plan, network: Network) -> dict[str, Cost]:
    """What the board of a plan decides, to be counted again."""
    target = _target_of(plan)
    return {} if target is None else target.costs_on_board(network)


def _device(plan: Plan, counted: Plan, network: Network) -> dict[str, Any] | None:
    """What is counted again for the device, beside what is not: its name, and measured times."""
    if plan.device is None:
        return None if counted.device is None else dict(counted.device)
    again = counted.device or {}
    parts = {which: {**plan.device.get(which, {}), **again.get(which, {})} for which in ("dense", "slim")}
    target = _target_of(plan)
    return {**plan.device, **parts, **({} if target is None else _on_target(counted, network, target))}

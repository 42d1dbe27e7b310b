"""A plan: how many channels each group keeps, for which model, under which budget. Frozen, and plain JSON.

It can be mailed, diffed and applied elsewhere; it knows its model by a fingerprint of names and shapes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from .allocate import AIMS, Options, allocate, settle
from .budget import DEVICE_COSTS, Bounds, Budget, Limit, TimeCost
from .cost import COSTS, ITEM_BYTES, Cost, DType, costs
from .errors import InfeasibleBudget, PlanError, UsageError
from .files import write_text
from .footprint import arena_cost, artifact_cost
from .identity import make_example
from .network import IntArray, Network

EQUALLY_USED = 0.98
"""of the limit that the fullest draw uses: a plan is no better for leaving a part of its budget"""
TRIES = 50
"""narrower searches for limits that no formula gives exactly"""
FORMAT = "pretrim-plan"
VERSION = 1
OPTIONAL = ("model", "device")


@dataclass(frozen=True)
class GroupPlan:
    """What one group keeps."""

    name: str
    layers: tuple[str, ...]
    channels: int
    kept: int


@dataclass(frozen=True)
class Plan:
    """Widths by group, with everything needed to repeat and to check them.

    Attributes:
        groups: what each channel group keeps, in the network's order.
        limits: the limits as the user wrote them, by cost.
        options: how the widths were chosen (`allocate.Options`); empty for widths given by hand.
        dtype: the data type that bytes are counted in.
        dense: the five costs of the dense network.
        slim: the five costs of the plan.
        example: shapes and data types of the inputs.
        fingerprint: of the dense model's parameters and buffers (`identity.fingerprint`).
        model: the model reference, where the model was built by name.
        device: for a microcontroller, its ``name``, and what the network takes there ``dense`` and ``slim``
            (`footprint.py`): the plan's limits on ``artifact_bytes`` and ``arena_bytes`` are kept by the latter.
    """

    groups: tuple[GroupPlan, ...]
    limits: Mapping[str, str]
    options: Mapping[str, Any]
    dtype: DType
    dense: Mapping[str, int]
    slim: Mapping[str, int]
    example: Any
    fingerprint: str
    model: Mapping[str, Any] | None = None
    device: Mapping[str, Any] | None = None
    network: Network | None = field(default=None, repr=False, compare=False)
    """The analysis it was made from; not written to JSON, made again where it is needed."""

    @property
    def widths(self) -> IntArray:
        """Channels kept, one number per group."""
        return np.array([group.kept for group in self.groups], dtype=np.int64)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the format's name and version."""
        names = ("model", "fingerprint", "example", "dtype", "limits", "options", "dense", "slim", "device")
        plain = json.loads(json.dumps({name: getattr(self, name) for name in names}))
        groups = [{**asdict(group), "layers": list(group.layers)} for group in self.groups]
        return {"format": FORMAT, "version": VERSION, **plain, "groups": groups}

    @classmethod
    def from_json(cls, data: Any) -> Plan:
        """Read what :meth:`to_json` wrote. Raises PlanError for anything else."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise PlanError("Expected a plan written by pretrim, but got other JSON: make one with `pretrim plan`.")
        if data.get("version") != VERSION:
            raise PlanError(f"Expected a plan of version {VERSION}, but got {data.get('version')!r}: update pretrim.")
        try:
            groups = tuple(_group(entry) for entry in data["groups"])
            rest = {name: data[name] for name in ("limits", "options", "dtype", "dense", "slim", "example")}
            rest |= {name: data.get(name) for name in OPTIONAL}
            _check_types(rest)
            return cls(groups=groups, fingerprint=str(data["fingerprint"]), **rest)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise PlanError(f"Expected a complete plan, but it is damaged ({error!r}): make it again.") from error

    def save(self, path: str | Path) -> None:
        """Write the plan as indented JSON."""
        write_text(Path(path), json.dumps(self.to_json(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan. Raises PlanError if the file is missing or is not a plan."""
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, RecursionError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not JSON"
            raise PlanError(f"Expected a plan in {path}, but could not read it ({reason}).") from error

    def apply(self, model: nn.Module, weights: str = "fresh") -> nn.Module:
        """A new, slim module; see :func:`pretrim.apply`."""
        from .surgery import apply

        return apply(model, self, weights)


def _check_types(found: Mapping[str, Any]) -> None:
    """Raises ValueError where a field is not what :meth:`Plan.to_json` writes."""
    if found["dtype"] not in ITEM_BYTES:
        raise ValueError(f"dtype is {found['dtype']!r}")
    for name in ("limits", "options", "dense", "slim"):
        if not isinstance(found[name], dict):
            raise ValueError(f"{name} is {found[name]!r}")
    for name in ("dense", "slim"):
        if sorted(found[name]) != sorted(COSTS) or not all(type(value) is int for value in found[name].values()):
            raise ValueError(f"{name} does not hold the five costs")
    for name in OPTIONAL:
        if not (found[name] is None or isinstance(found[name], dict)):
            raise ValueError(f"{name} is {found[name]!r}")
    with torch.device("meta"):
        make_example(found["example"])


def _group(entry: Mapping[str, Any]) -> GroupPlan:
    group = GroupPlan(str(entry["name"]), tuple(entry["layers"]), entry["channels"], entry["kept"])
    if not (type(group.kept) is type(group.channels) is int and 1 <= group.kept <= group.channels):
        raise ValueError(f"{group.name} keeps {group.kept!r} of {group.channels!r}")
    return group


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

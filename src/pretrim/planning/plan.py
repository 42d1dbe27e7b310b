"""A plan: how many channels each group keeps, for which model, under which budget. Frozen, and plain JSON.

It can be mailed, diffed and applied elsewhere; it knows its model by a fingerprint of names and shapes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from pretrim.analysis.identity import make_example
from pretrim.analysis.network import IntArray
from pretrim.cost.costs import COSTS
from pretrim.cost.formula import ITEM_BYTES, DType
from pretrim.errors import PlanError
from pretrim.files import write_text

from .outlook import Outlook

FORMAT = "pretrim-plan"
VERSION = 1
OPTIONAL = ("model", "device", "outlook")


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
        options: how the widths were chosen (`options.Options`); empty for widths given by hand.
        dtype: the data type that bytes are counted in.
        dense: the five costs of the dense network.
        slim: the five costs of the plan.
        example: shapes and data types of the inputs.
        fingerprint: of the dense model's parameters and buffers (`identity.fingerprint`).
        model: the model reference, where the model was built by name.
        device: what the ``dense`` and the ``slim`` network take of quantities beyond the five (the file and the arena
            on a microcontroller, a measured latency), and the device's ``name``.
        outlook: what to expect of its accuracy (`outlook.Outlook`); None for widths given by hand.
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
    outlook: Mapping[str, Any] | None = None

    apply: ClassVar[Callable[..., nn.Module]]
    """:func:`pretrim.apply` of this plan, attached by `pretrim.core`."""

    @property
    def widths(self) -> IntArray:
        """Channels kept, one number per group."""
        return np.array([group.kept for group in self.groups], dtype=np.int64)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the format's name and version."""
        names = ("model", "fingerprint", "example", "dtype", "limits", "options", "dense", "slim", *OPTIONAL[1:])
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
    if found["outlook"] is not None:
        Outlook.from_json(found["outlook"])
    with torch.device("meta"):
        make_example(found["example"])


def _group(entry: Mapping[str, Any]) -> GroupPlan:
    group = GroupPlan(str(entry["name"]), tuple(entry["layers"]), entry["channels"], entry["kept"])
    if not (type(group.kept) is type(group.channels) is int and 1 <= group.kept <= group.channels):
        raise ValueError(f"{group.name} keeps {group.kept!r} of {group.channels!r}")
    return group

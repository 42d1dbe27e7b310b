"""A plan: how many channels each group keeps, for which model and under which budget.

A plan is immutable and saved as plain JSON, so it can be mailed, diffed and applied elsewhere. It identifies its model
by a fingerprint of names and shapes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from pretrim.analysis.identity import make_example
from pretrim.analysis.network import IntArray
from pretrim.cost.costs import COSTS
from pretrim.cost.formula import DType
from pretrim.errors import PlanError, check_is
from pretrim.files import write_text

from .options import DRAWN
from .outlook import Outlook

FORMAT = "pretrim-plan"
VERSION = 1
OPTIONAL = ("model", "device", "outlook", "tried")
"""Fields with defaults, which a plan file may lack."""
MAX_VALUES = 2**31
"""Maximum number of values in an input: more would not fit in memory as zeros."""


@dataclass(frozen=True)
class GroupPlan:
    """The channels that one group keeps.

    Attributes:
        name: name of the group.
        layers: names of its layers.
        channels: number of channels in the dense network.
        kept: number of channels kept, from 1 to `channels`.
    """

    name: str
    layers: tuple[str, ...]
    channels: int
    kept: int

    def __post_init__(self) -> None:
        if not 1 <= self.kept <= self.channels:
            raise ValueError(f"{self.name} keeps {self.kept} of {self.channels}")


@dataclass(frozen=True)
class Plan:
    """Widths by group, with everything needed to reproduce and check them.

    Attributes:
        groups: channels that each group keeps, in the network's order.
        limits: the limits as the user wrote them, by cost.
        options: how the widths were chosen (`options.Options`); empty for widths given by hand.
        dtype: the data type that bytes are counted in.
        dense: the five closed-form costs of the dense network.
        slim: the five closed-form costs of the planned network.
        example: shapes and data types of the inputs.
        fingerprint: fingerprint of the dense model's parameters and buffers (`identity.fingerprint`).
        model: the model reference, if the model was built by name.
        device: other costs of the ``dense`` and the ``slim`` network (file and arena on a microcontroller, a measured
            latency), and the device's ``name``.
        outlook: expected accuracy (`outlook.Outlook`); None for widths given by hand.
        tried: widths by group with which earlier plans failed, from which the analysis had to learn (`Network.tried`).
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
    tried: tuple[Mapping[str, int], ...] = ()

    apply: ClassVar[Callable[..., nn.Module]]
    """:func:`pretrim.apply` of this plan, attached by `pretrim.core`."""

    @property
    def method(self) -> str:
        """The mode that chose the widths, with the seed if they were drawn; empty for widths given by hand."""
        mode = self.options.get("mode", "")
        return f"{mode}, seed {self.options.get('seed', 0)}" if mode in DRAWN else str(mode)

    @property
    def widths(self) -> IntArray:
        """Channels that each group keeps (G)."""
        return np.array([group.kept for group in self.groups], dtype=np.int64)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON, with the format's name and version."""
        names = ("model", "fingerprint", "example", "dtype", "limits", "options", "dense", "slim", *OPTIONAL[1:])
        plain = json.loads(json.dumps({name: getattr(self, name) for name in names}))
        groups = [{**asdict(group), "layers": list(group.layers)} for group in self.groups]
        return {"format": FORMAT, "version": VERSION, **plain, "groups": groups}

    @classmethod
    def from_json(cls, data: Any, source: Path | str = "The plan") -> Plan:
        """Read what :meth:`to_json` wrote. Raises PlanError, which names the `source`, for anything else."""
        from pretrim import records  # not at the top: the core needs torch and NumPy alone

        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise PlanError("The file is JSON, but not a plan of pretrim: make one with `pretrim plan`.")
        if type(data.get("version")) is not int or data["version"] != VERSION:
            raise PlanError(f"Expected a plan of version {VERSION}, but got {data.get('version')!r}: update pretrim.")
        plan = records.convert(data, cls, source=source, error=PlanError, remedy="make it again")
        try:
            _check(plan)
        except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            message = records.one_line(error)
            raise PlanError(f"The plan is damaged ({message}): make it again.") from error
        return plan

    def save(self, path: str | Path) -> None:
        """Write the plan as indented JSON. Raises PlanError if the file cannot be written."""
        check_is(path, str | Path, "path to be the name of a file")
        try:
            write_text(Path(path), json.dumps(self.to_json(), indent=2) + "\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise PlanError(f"Cannot write the plan {path} ({reason}).") from error

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan. Raises PlanError if the file is missing or is not a plan."""
        from pretrim import records

        check_is(path, str | Path, "path to be the name of a file")
        try:
            content = Path(path).read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise PlanError(f"Cannot read the plan {path} ({reason}).") from error
        plain = records.load(content, source=path, error=PlanError, remedy="make it again with `pretrim plan`")
        return cls.from_json(plain, path)


def _check(plan: Plan) -> None:
    """Raise an error if a field has the right type but a value that :meth:`Plan.to_json` never writes."""
    for costs in (plan.dense, plan.slim):
        if sorted(costs) != sorted(COSTS):
            raise ValueError("a network does not have the five costs")
    if plan.outlook is not None:
        Outlook.from_json(plan.outlook)
    with torch.device("meta"):
        example = make_example(plan.example)
    for tensor in _tensors(example):
        if tensor.numel() > MAX_VALUES:
            raise ValueError(f"an input has {tensor.numel()} values")


def _tensors(example: Any) -> Iterator[torch.Tensor]:
    """All tensors in an example of nested tuples and dicts."""
    if isinstance(example, torch.Tensor):
        yield example
    for part in example.values() if isinstance(example, dict) else example if isinstance(example, tuple) else ():
        yield from _tensors(part)

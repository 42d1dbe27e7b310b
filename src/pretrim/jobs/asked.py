"""What a run was asked for, kept in its record: so that a later call can say which setting is another now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

from pretrim.cost.quantities import by_option
from pretrim.planning.budget import Limit
from pretrim.planning.options import Options

from .options import CompressOptions

Asked: TypeAlias = Mapping[str, str | list[str]]
"""Option names, with the values as they would be typed"""
NOT_OF_THE_RESULT = frozenset({"ssh", "remote_python", "ssh_config", "resume", "overwrite"})
"""Options beside those of the machine that make no other network"""
CORE = ("mode", "min_width", "seed", "step", "fraction", "share_update", "coupling")
"""Options whose default is the core's"""


def asked_of(model: object, data: object, options: CompressOptions) -> dict[str, str | list[str]]:
    """What `compress` was asked for that makes the network what it is, without defaults and this machine.

    Args:
        model: kept where it is a name.
        data: likewise.
        options: all of them.
    """
    found: dict[str, Any] = {"model": model if isinstance(model, str) else None}
    found["data"] = str(data) if isinstance(data, str | Path) else None
    found |= options.limits.given()
    for part in (options.goal, options.target, options.search, options.data, options.training, options.job):
        for field in fields(part):
            value = getattr(part, field.name)
            is_default = type(value) is type(field.default) and value == field.default
            if not is_default and field.name not in NOT_OF_THE_RESULT:
                found[field.name.removesuffix("_")] = value
    return {name: _typed(value) for name, value in found.items() if value is not None}


def _typed(value: Any) -> str | list[str]:
    """A value as it would be typed; one list whatever the order of its parts."""
    if isinstance(value, Mapping):
        return sorted(f"{name}={inner}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return sorted(map(str, value)) if all(isinstance(part, str) for part in value) else ",".join(map(str, value))
    return str(value) if isinstance(value, str | int | float | Path) else type(value).__name__


def changed(run: Path, now: Asked) -> list[str]:
    """Which settings are others than those that a finished run was made from, in words.

    Args:
        run: its folder. A record of an earlier version does not say, and nothing is different.
        now: what is asked for now.

    Raises CheckpointError for a record that is damaged.
    """
    from pretrim.runs.load import read

    before: Asked | None = (read(run).results or {}).get("asked")
    if before is None:
        return []
    names = dict.fromkeys([*before, *now])
    return [
        f"{name.replace('_', '-')} was {_said(before.get(name))}, is {_said(now.get(name))}"
        for name in names
        if _meant(name, before.get(name)) != _meant(name, now.get(name))
    ]


def _meant(name: str, value: str | list[str] | None) -> object:
    """A value so that two that mean the same are equal: 50% and 0.5x, the default and what it is."""
    if value is None:
        return str(getattr(Options, name)) if name in CORE else None
    if name not in by_option() or isinstance(value, list):
        return value
    limit = Limit.parse(name, value)
    return limit.amount, limit.is_share


def _said(value: str | list[str] | None) -> str:
    """A value in words."""
    if value is None:
        return "not set"
    return " ".join(value) if isinstance(value, list) else value

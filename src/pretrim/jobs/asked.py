"""The settings that a run was made with, kept in its record so that a later call can say which of them changed."""

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
"""Values by option name, as they would be typed on the command line"""
RESULT_NEUTRAL = frozenset({"ssh", "remote_python", "ssh_config", "resume", "overwrite"})
"""Options, besides those of the machine, that do not affect the resulting network"""
CORE = ("mode", "min_width", "seed", "step", "fraction", "share_update", "coupling")
"""Options whose default value is defined in the core"""


def asked_of(model: object, data: object, options: CompressOptions) -> dict[str, str | list[str]]:
    """Collect the settings of `compress` that determine the network, without defaults and machine settings.

    Args:
        model: the model; recorded only if it is a name.
        data: the data; recorded only if they are a name or a path.
        options: all options of the call.
    """
    settings: dict[str, Any] = {"model": model if isinstance(model, str) else None}
    settings["data"] = str(data) if isinstance(data, str | Path) else None
    settings |= options.limits.given()
    for record in (options.goal, options.target, options.search, options.data, options.training, options.job):
        for field in fields(record):
            value = getattr(record, field.name)
            is_default = type(value) is type(field.default) and value == field.default
            if not is_default and field.name not in RESULT_NEUTRAL:
                settings[field.name.removesuffix("_")] = value
    return {name: _as_typed(value) for name, value in settings.items() if value is not None}


def _as_typed(value: Any) -> str | list[str]:
    """Format a value as it would be typed; lists of texts are sorted, as their order does not matter."""
    if isinstance(value, Mapping):
        return sorted(f"{name}={inner}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return sorted(map(str, value)) if all(isinstance(part, str) for part in value) else ",".join(map(str, value))
    return str(value) if isinstance(value, str | int | float | Path) else type(value).__name__


def changed(run: Path, now: Asked) -> list[str]:
    """Describe which settings differ from those of a finished run.

    Args:
        run: folder of the run. Records of earlier versions do not hold the settings; then nothing counts as changed.
        now: the current settings.

    Raises CheckpointError for a damaged record.
    """
    from pretrim.runs.load import read

    before: Asked | None = (read(run).results or {}).get("asked")
    if before is None:
        return []
    names = dict.fromkeys([*before, *now])
    return [
        f"{name.replace('_', '-')} was {_in_words(before.get(name))}, is {_in_words(now.get(name))}"
        for name in names
        if _normalised(name, before.get(name)) != _normalised(name, now.get(name))
    ]


def _normalised(name: str, value: str | list[str] | None) -> object:
    """Normalise a value so that equivalent ones compare equal: 50% and 0.5x, an unset option and its default."""
    if value is None:
        return str(getattr(Options, name)) if name in CORE else None
    if name not in by_option() or isinstance(value, list):
        return value
    limit = Limit.parse(name, value)
    return limit.amount, limit.is_share


def _in_words(value: str | list[str] | None) -> str:
    """Describe a value for a message."""
    if value is None:
        return "not set"
    return " ".join(value) if isinstance(value, list) else value

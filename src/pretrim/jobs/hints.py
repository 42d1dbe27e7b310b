"""Commands that a message advises, as they can be pasted."""

from __future__ import annotations

import shlex
from pathlib import Path

from pretrim.errors import CheckpointError

BY_NAME_ALONE = ("digits", "hard-digits", "fashion-mnist")
"""Data that a run's record names as they are typed; of others it knows where they were, not what was typed"""


def on_run(command: str, run: Path, *options: str) -> str:
    """A command on a run: quoted for a shell, and with the user's files named that the run is never asked for.

    Args:
        command: of pretrim.
        run: its folder; without a record that can be read nothing is added.
        options: the command's.
    """
    from pretrim.runs.load import read
    from pretrim.tasks import BUILTIN

    own: list[str] = []
    try:
        record = read(run)
    except CheckpointError:
        return shlex.join(["pretrim", command, str(run), *options])
    if record.reference is not None and not record.reference.trusted:
        own += ["--model", record.reference.name]
    if (task := (record.data or {}).get("task", "classification")) not in BUILTIN:
        own += ["--task", str(task)]
    return shlex.join(["pretrim", command, str(run), *options, *own])


def calibration(run: Path) -> tuple[str, ...]:
    """The options of an int8 export of a run, with its data where they have a name; a task of one's own brings them."""
    from pretrim.data.own import NAME
    from pretrim.runs.load import read
    from pretrim.tasks import BUILTIN

    try:
        data = read(run).data or {}
    except CheckpointError:
        data = {}
    name = data.get("name")
    if name == NAME and data.get("task", "classification") not in BUILTIN:
        return ("--int8",)
    return ("--int8", "--calibrate", name if name in BY_NAME_ALONE else "DATA")

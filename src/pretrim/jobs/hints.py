"""Commands that messages suggest, ready to be pasted into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

from pretrim.errors import CheckpointError

BY_NAME_ALONE = ("digits", "hard-digits", "fashion-mnist")
"""Data sets whose recorded name can be typed as is; for others the record holds their location, not what was typed"""


def on_run(command: str, run: Path, *options: str) -> str:
    """Return a shell-quoted command on a run, with options for user files, which are never taken from the run itself.

    Args:
        command: a pretrim command.
        run: folder of the run; if its record cannot be read, nothing is added.
        options: further options of the command.
    """
    from pretrim.runs.load import read
    from pretrim.tasks import BUILTIN

    extra_options: list[str] = []
    try:
        record = read(run)
    except CheckpointError:
        return shlex.join(["pretrim", command, str(run), *options])
    if record.reference is not None and not record.reference.trusted:
        extra_options += ["--model", record.reference.name]
    if (task := (record.data or {}).get("task", "classification")) not in BUILTIN:
        extra_options += ["--task", str(task)]
    return shlex.join(["pretrim", command, str(run), *options, *extra_options])


def calibration(run: Path) -> tuple[str, ...]:
    """Return the options for an int8 export of a run: its data by name if known; a user-defined task brings its own."""
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

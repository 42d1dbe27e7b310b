"""`pretrim run`: everything that the project file asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretrim.errors import CheckpointError, UsageError

from . import render
from .compress import options_of
from .project import FILE, parsed, read
from .steps import pretrim


def run() -> None:
    """Do everything that pretrim.toml asks for.

    That is to trim, train and export; then the study, its choice and its report. Called again it goes on where it
    stopped; what is finished is left alone, and what it was made from must be what the file says.
    """
    from . import app

    if not FILE.exists():
        raise UsageError(f"No project file {FILE} here: `pretrim init` writes one.")
    # The whole file is checked before any work, so that an error in its last table does not show up after hours.
    content = read()
    output = Path(str(_table(content, "compress").get("output", "run")))
    arguments = parsed(app, "compress", "-o", str(output))
    study = Path(str(_table(content, "sweep").get("output", "study")))
    page = study.with_name(f"{study.name}-report.html")
    steps = (("sweep", "-o", study), ("recommend", study), ("report", study, "-o", page)) if "sweep" in content else ()
    for words in steps:
        parsed(app, *map(str, words))
    if (output / "run.json").exists():
        _check_same(output, **arguments)
        render.say(f"{output} is finished: remove it to train again.")
    else:
        pretrim("compress", "-o", output, *(["--resume"] if output.exists() else []))
    for words in steps:
        pretrim(*words)


def _table(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A table of the file; empty if it is missing or not a table, which is reported when the whole file is checked."""
    table = content.get(name)
    return table if isinstance(table, dict) else {}


def _check_same(run: Path, model: str, output: Path, data: str | None = None, json: bool = False, **parts: Any) -> None:
    """Raises CheckpointError if a finished run was made with other settings than the file has now.

    Raises UsageError for invalid settings.
    """
    from pretrim.jobs.asked import asked_of, changed
    from pretrim.jobs.compress import check_options

    options = options_of(**parts)
    check_options(data, options)
    different = changed(run, asked_of(model, data, options))
    if different:
        raise CheckpointError(
            f"{run} is finished, but was made with other settings than {FILE} has now ({'; '.join(different)}): remove "
            f"it to train again, or name another folder, output in [compress]."
        )

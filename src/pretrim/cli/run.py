"""`pretrim run`: all that the project file asks for."""

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
    # The whole file is read before anything is done: what is wrong in its last table is not said after hours.
    content = read()
    output = Path(str(_table(content, "compress").get("output", "run")))
    asked = parsed(app, "compress", "-o", str(output))
    study = Path(str(_table(content, "sweep").get("output", "study")))
    page = study.with_name(f"{study.name}-report.html")
    after = (("sweep", "-o", study), ("recommend", study), ("report", study, "-o", page)) if "sweep" in content else ()
    for words in after:
        parsed(app, *map(str, words))
    if (output / "run.json").exists():
        _check_same(output, **asked)
        render.say(f"{output} is finished: remove it to train again.")
    else:
        pretrim("compress", "-o", output, *(["--resume"] if output.exists() else []))
    for words in after:
        pretrim(*words)


def _table(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A table of the file; empty where there is none, or something else, which is an error when all of it is read."""
    found = content.get(name)
    return found if isinstance(found, dict) else {}


def _check_same(run: Path, model: str, output: Path, data: str | None = None, json: bool = False, **asked: Any) -> None:
    """Raises CheckpointError where a finished run was made from other settings than the file has now.

    UsageError for settings that cannot be.
    """
    from pretrim.jobs.asked import asked_of, changed
    from pretrim.jobs.compress import check_options

    options = options_of(**asked)
    check_options(data, options)
    different = changed(run, asked_of(model, data, options))
    if different:
        raise CheckpointError(
            f"{run} is finished, but was made with other settings than {FILE} has now ({'; '.join(different)}): remove "
            f"it to train again, or name another folder, output in [compress]."
        )

"""`pretrim run`: all that the project file asks for."""

from __future__ import annotations

from pathlib import Path

from pretrim.errors import UsageError

from . import render
from .project import FILE, read
from .steps import pretrim


def run() -> None:
    """Do everything that pretrim.toml asks for.

    That is to trim, train and export; then the study, its choice and its report. Called again it goes on where it
    stopped; what is finished is left alone.
    """
    if not FILE.exists():
        raise UsageError(f"No project file {FILE} here: `pretrim init` writes one.")
    content = read()
    output = Path(str(content.get("compress", {}).get("output", "run")))
    if (output / "run.json").exists():
        render.say(f"{output} is finished: remove it to train again.")
    else:
        pretrim("compress", "-o", output, *(["--resume"] if output.exists() else []))
    if "sweep" in content:
        study = Path(str(content["sweep"].get("output", "study")))
        pretrim("sweep", "-o", study)
        pretrim("recommend", study)
        pretrim("report", study, "-o", study.with_name(f"{study.name}-report.html"))

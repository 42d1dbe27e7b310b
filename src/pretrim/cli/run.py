"""`pretrim run`: all that the project file asks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pretrim.errors import UsageError

from . import render
from .project import FILE, read


def run() -> None:
    """Do everything that pretrim.toml asks for.

    That is to trim, train and export; then the study, its choice and its report. Called again it goes on where it
    stopped; what is finished is left alone.
    """
    if not FILE.exists():
        raise UsageError(f"Expected a project file {FILE} here, but there is none: `pretrim init` writes one.")
    content = read()
    output = Path(str(content.get("compress", {}).get("output", "run")))
    if (output / "run.json").exists():
        render.say(f"{output} is finished: remove it to train again.")
    else:
        _pretrim("compress", "-o", output, *(["--resume"] if output.exists() else []))
    if "sweep" in content:
        study = Path(str(content["sweep"].get("output", "study")))
        _pretrim("sweep", "-o", study)
        _pretrim("recommend", study)
        _pretrim("report", study, "-o", study.with_name(f"{study.name}-report.html"))


def _pretrim(*arguments: object) -> None:
    """A command as a user would type it; `run` ends where one fails, with its exit code."""
    words = [str(argument) for argument in arguments]
    render.say(f"\n$ pretrim {' '.join(words)}")
    code = subprocess.run([sys.executable, "-m", "pretrim", *words]).returncode
    if code:
        sys.exit(code)

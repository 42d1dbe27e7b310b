"""Folders of a study's runs. Keys come from a database that others may write to, so they are checked first."""

from __future__ import annotations

from pathlib import Path

from pretrim.errors import StudyError

TRIALS = "trials"


def trial_folder(folder: Path, key: str) -> Path:
    """The run folder of a trial. Raises StudyError if it would be outside the study's folder of trials."""
    trials = folder / TRIALS
    run = trials / key
    if not run.resolve().is_relative_to(trials.resolve()) or run.parent != trials:
        raise StudyError(f"The trial {key!r} would be outside of {trials}: the study is damaged, or not pretrim's.")
    return run

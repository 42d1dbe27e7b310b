"""Where a study's runs are. A key comes from a database that others write to: it is checked before it is a path."""

from __future__ import annotations

from pathlib import Path

from pretrim.errors import StudyError

TRIALS = "trials"


def trial_folder(folder: Path, key: str) -> Path:
    """The run of a trial. Raises StudyError where it would be outside of the study's folder."""
    trials = folder / TRIALS
    found = trials / key
    if not found.resolve().is_relative_to(trials.resolve()) or found.parent != trials:
        raise StudyError(f"The trial {key!r} would be outside of {trials}: the study is damaged, or not of pretrim.")
    return found

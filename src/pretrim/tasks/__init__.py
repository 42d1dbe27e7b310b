"""What networks are trained for, by name: the built-in tasks, and those of users."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pretrim.analysis.copies import describe_failure
from pretrim.data import DataSet
from pretrim.data.own import from_torch
from pretrim.errors import UsageError, hint, shown
from pretrim.models.userfile import load_function
from pretrim.train import Classification, Task

from .base import MetricTask, Scores
from .dense import Keypoints, Segmentation
from .own import OwnTask
from .values import MultiLabel, Regression

BUILTIN: dict[str, type[Task]] = {
    kind.name: kind for kind in (Classification, MultiLabel, Regression, Segmentation, Keypoints)
}

__all__ = [
    "BUILTIN",
    "Keypoints",
    "MetricTask",
    "MultiLabel",
    "OwnTask",
    "Regression",
    "Scores",
    "Segmentation",
    "find",
    "of_task",
    "own_data",
]


def of_task(data: DataSet, task: Task) -> DataSet:
    """The data for a task. Raises UsageError where their targets are those of another built-in one."""
    if task.name in BUILTIN and task.name != data.task:
        raise UsageError(f"{data.name} has targets of a {data.task}, not of a {task.name}: give other data, or task.")
    names = task.outputs if isinstance(task, OwnTask) else ()
    return replace(data, task=task.name, classes=names or data.classes)


def own_data(task: Task | None, seed: int) -> DataSet:
    """The data that a task of the user's brings. Raises UsageError where there are none."""
    if not isinstance(task, OwnTask):
        raise UsageError("Name the data: --data digits, a folder, ... (a --task FILE.py:CLASS may bring its own).")
    return from_torch(task.data(), seed=seed, task=task.name, names=task.outputs or None)


def find(given: Any) -> Task:
    """The task of a name, of ``FILE.py:CLASS`` (whose file is run), or of an object.

    Raises UsageError for what is not a task.
    """
    if isinstance(given, Task):
        return given
    if not isinstance(given, str):
        return OwnTask(_instance(given) if isinstance(given, type) else given, _name(given))
    if given in BUILTIN:
        return BUILTIN[given]()
    path, colon, name = given.rpartition(":")
    if colon and path.endswith(".py"):
        return OwnTask(_made(Path(path), name), given)
    known = ", ".join(BUILTIN)
    raise UsageError(f"Expected a task of {known} or FILE.py:CLASS, but got {shown(given)}.{hint(given, BUILTIN)}")


def _instance(kind: type) -> object:
    try:
        return kind()
    except TypeError as error:
        said = str(error).splitlines()[0]
        raise UsageError(
            f"Expected a task that is made without arguments, but {kind.__name__}() fails: {said}."
        ) from error


def _name(given: Any) -> str:
    return given.__name__ if isinstance(given, type) else type(given).__name__


def _made(path: Path, name: str) -> Any:
    made = load_function(path, name)
    try:
        return made()
    except Exception as error:  # the user's own code; its error is shown
        raise UsageError(f"{path}:{name}() raised {describe_failure(error)}.") from error

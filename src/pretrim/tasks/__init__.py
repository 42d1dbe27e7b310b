"""The tasks that networks are trained for: the built-in ones, by name, and those of users."""

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
    """Return the data set for a task. Raises UsageError if its targets are those of another built-in task."""
    if task.name in BUILTIN and task.name != data.task:
        raise UsageError(f"{data.name} has targets of a {data.task}, not of a {task.name}: give other data, or task.")
    names = task.outputs if isinstance(task, OwnTask) else ()
    return replace(data, task=task.name, classes=names or data.classes)


def own_data(task: Task | None, seed: int) -> DataSet:
    """Return the data set that a user's task provides. Raises UsageError if it provides none."""
    if not isinstance(task, OwnTask):
        raise UsageError("Name the data: --data digits, a folder, ... (a --task FILE.py:CLASS may bring its own).")
    return from_torch(task.data(), seed=seed, task=task.name, names=task.outputs or None)


def find(given: Any) -> Task:
    """Find a task by its name, by ``FILE.py:CLASS`` (the file is executed), or from an object.

    Raises UsageError for anything that is not a task.
    """
    if isinstance(given, Task):
        return given
    if not isinstance(given, str):
        return OwnTask(_instantiate(given) if isinstance(given, type) else given, _class_name(given))
    if given in BUILTIN:
        return BUILTIN[given]()
    path, colon, name = given.rpartition(":")
    if colon and path.endswith(".py"):
        return OwnTask(_load(Path(path), name), given)
    known = ", ".join(BUILTIN)
    raise UsageError(f"Expected a task of {known} or FILE.py:CLASS, but got {shown(given)}.{hint(given, BUILTIN)}")


def _instantiate(kind: type) -> object:
    try:
        return kind()
    except TypeError as error:
        message = str(error).splitlines()[0]
        raise UsageError(
            f"Expected a task that is made without arguments, but {kind.__name__}() fails: {message}."
        ) from error


def _class_name(task: Any) -> str:
    return task.__name__ if isinstance(task, type) else type(task).__name__


def _load(path: Path, name: str) -> Any:
    factory = load_function(path, name)
    try:
        return factory()
    except Exception as error:  # the user's own code; its error is shown
        raise UsageError(f"{path}:{name}() raised {describe_failure(error)}.") from error

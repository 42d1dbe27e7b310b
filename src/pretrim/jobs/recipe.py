"""The recipe and the execution of a training, from what was asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pretrim.errors import UsageError
from pretrim.wording import as_typed

from .options import MachineOptions, TrainingOptions
from .reporter import Reporter

if TYPE_CHECKING:
    from pretrim.train import Execution, Recipe


OPTIONS = {"epochs": "--epochs", "batch_size": "--batch-size", "learning_rate": "--lr"}
"""Of fields of the recipe"""


def recipe_of(
    data: str, options: TrainingOptions, seed: int, *, images: int | None = None, fine_tune: bool = False
) -> Recipe:
    """A data set's preset, with what was asked for.

    Args:
        data: the name of the data as the user gave it.
        options: what differs from the preset.
        seed: of the order of the images and the augmentation.
        images: for training; None, where they are not known yet, checks the options alone.
        fine_tune: whether trained weights are inherited.

    Raises UsageError for a value that cannot be, or one that is given twice.
    """
    from pretrim.train import parse_changes, preset
    from pretrim.train.recipe import QAT_SHARE, checked_changes

    is_mapping = isinstance(options.set, Mapping)
    parsed = checked_changes(options.set) if is_mapping else parse_changes(list(options.set))  # type: ignore[arg-type]
    named = {"epochs": options.epochs, "batch_size": options.batch_size, "learning_rate": options.lr}
    asked: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    twice = sorted(set(parsed) & {*asked, "seed"})
    if twice:
        raise UsageError(f"{twice[0]} is given twice, in --set and by an option of its own: leave one out.")
    kind, _, rest = data.partition(":")
    name = rest.rpartition("/")[2] if kind == "hf" else kind
    try:
        recipe = preset(name, images, fine_tune=fine_tune, changes={**parsed, **asked, "seed": seed})
    except UsageError as error:
        raise as_typed(error, {field: OPTIONS[field] for field in asked}) from error
    if options.qat and not recipe.qat:
        recipe = replace(recipe, qat=max(1, round(QAT_SHARE * recipe.epochs)))
    return recipe


def note_threads(threads: int | None, reporter: Reporter) -> None:
    """Say of more threads than this machine has cores that they are slower; they may be meant, so that is all."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads is not None and threads > cores:
        reporter.say(
            f"note: {threads} threads share {cores} core{'s' if cores > 1 else ''}, which is slow: --threads {cores}"
        )


def execution_of(options: MachineOptions) -> Execution:
    """How the steps are run. Raises UsageError for a device or tracker that is not there."""
    from pretrim.train import Execution, check_device, check_trackers

    given = {
        "device": options.train_on,
        "precision": options.precision,
        "channels_last": None if options.layout is None else options.layout == "channels_last",
        "compile": options.compile,
        "threads": options.threads,
    }
    execution = Execution(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    check_device(execution.device)
    check_trackers(list(options.tracker))
    return execution

"""The recipe and the execution of a training, from the user's options."""

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
"""Options by the recipe field that they set"""


def recipe_of(
    data: str, options: TrainingOptions, seed: int, *, images: int | None = None, fine_tune: bool = False
) -> Recipe:
    """Make the recipe: the data set's preset, changed by the user's options.

    Args:
        data: the name of the data as the user gave it.
        options: what differs from the preset.
        seed: seed of the image order and the augmentation.
        images: number of training images; None if not known yet, to only check the options.
        fine_tune: whether the training starts from trained weights.

    Raises UsageError for an invalid value, or one that is set twice.
    """
    from pretrim.train import parse_changes, preset
    from pretrim.train.recipe import QAT_SHARE, checked_changes

    is_mapping = isinstance(options.set, Mapping)
    parsed = checked_changes(options.set) if is_mapping else parse_changes(list(options.set))  # type: ignore[arg-type]
    options_by_field = {"epochs": options.epochs, "batch_size": options.batch_size, "learning_rate": options.lr}
    overrides: dict[str, Any] = {name: value for name, value in options_by_field.items() if value is not None}
    duplicates = sorted(set(parsed) & {*overrides, "seed"})
    if duplicates:
        raise UsageError(f"{duplicates[0]} is given twice, in --set and by an option of its own: leave one out.")
    kind, _, rest = data.partition(":")
    name = rest.rpartition("/")[2] if kind == "hf" else kind
    try:
        recipe = preset(name, images, fine_tune=fine_tune, changes={**parsed, **overrides, "seed": seed})
    except UsageError as error:
        raise as_typed(error, {field: OPTIONS[field] for field in overrides}) from error
    if options.qat and not recipe.qat:
        recipe = replace(recipe, qat=max(1, round(QAT_SHARE * recipe.epochs)))
    return recipe


def note_threads(threads: int | None, reporter: Reporter) -> None:
    """Warn about more threads than cores, which are slower; only a note, as they may be intended."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads is not None and threads > cores:
        reporter.say(
            f"note: {threads} threads share {cores} core{'s' if cores > 1 else ''}, which is slow: --threads {cores}"
        )


def execution_of(options: MachineOptions) -> Execution:
    """Make the execution settings of a training. Raises UsageError for a missing device or tracker."""
    from pretrim.train import Execution, check_device, check_trackers

    values = {
        "device": options.train_on,
        "precision": options.precision,
        "channels_last": None if options.layout is None else options.layout == "channels_last",
        "compile": options.compile,
        "threads": options.threads,
    }
    execution = Execution(**{name: value for name, value in values.items() if value is not None})  # type: ignore[arg-type]
    check_device(execution.device)
    check_trackers(list(options.tracker))
    return execution

"""The data of a job, given by name, folder or torch data sets, in the shape that the network takes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from pretrim.errors import DataError, PretrimError, UsageError, shown
from pretrim.wording import as_typed

from .options import DataOptions, PerChannel
from .reporter import Kept, Reporter

if TYPE_CHECKING:
    from pretrim.data import DataSet
    from pretrim.models.dense import ModelSource, Shape
    from pretrim.planning.plan import Plan
    from pretrim.runs.record import Normalisation, RunRecord
    from pretrim.train import Task

DataSource: TypeAlias = "str | Path | DataSet | Sequence[Any]"
"""A name or folder, a data set of pretrim, or torch data sets as (train, test) or (train, validation, test)"""
MEAN_TOLERANCE = 1e-3
"""Tolerance on the mean and standard deviation of the same images, as image decoders differ"""
_SHAPE = re.compile(r"[1-9]\d{0,8}(x[1-9]\d{0,8}){1,3}", re.ASCII)


def parse_shape(text: str) -> Shape:
    """Read ``CxHxW``, ``CxL`` of a signal or ``CxDxHxW`` of a volume. Raises UsageError for anything else.

    >>> parse_shape("3x120x160"), parse_shape("1x16000")
    ((3, 120, 160), (1, 16000))
    """
    if _SHAPE.fullmatch(text.strip()) is None:
        raise UsageError(
            f"Expected --input to be CHANNELSxHEIGHTxWIDTH such as 3x32x32 (1x16000 for a signal, 1x8x32x32 for a "
            f"volume), but got {shown(text)}."
        )
    return tuple(int(size) for size in text.strip().split("x"))


def input_shape(model: str, text: str | None) -> Shape:
    """Return the shape of one image: as given, or the usual one of the model's family."""
    if text is not None:
        return parse_shape(text)
    if model.startswith(("torchvision:", "timm:")):
        return (3, 224, 224)
    if ".py:" in model and Path(model.rpartition(":")[0]).is_file():
        raise UsageError("A network of your own file needs --input CxHxW: add e.g. --input 3x32x32.")
    return (3, 32, 32)  # of the built-in networks; unknown names raise an error later, when the model is looked up


def wanted_shape(text: str | None, plan: Plan | None) -> Shape | None:
    """Return the requested input shape, or else that of the plan; None if there is neither."""
    from pretrim.runs.record import image_shape

    return parse_shape(text) if text is not None else image_shape(plan) if plan is not None else None


def open_data(
    source: DataSource | None,
    options: DataOptions,
    *,
    model: ModelSource = "",
    plan: Plan | None = None,
    seed: int = 0,
    reporter: Reporter,
) -> tuple[DataSet, Task]:
    """Load the data of a job, and determine its task.

    Args:
        source: name, folder, data set, or torch data sets; None: the task's own data.
        options: shape, number of images, normalisation, task.
        model: the model; networks of torchvision always take colour images.
        plan: plan whose input shape is the default.
        seed: seed of the split into training, validation and test images.
        reporter: told where the data come from.

    Raises:
        UsageError: no such data or task, or options that do not fit them.
        DataError: missing, empty or damaged data.
    """
    from pretrim.tasks import find

    shape = wanted_shape(options.input, plan)
    task = None if options.task is None else find(options.task)
    data = _load(source, shape, model, seed, options, reporter, task)
    if shape is not None and data.input_shape != shape:
        expected, actual = ("x".join(map(str, part)) for part in (shape, data.input_shape))
        raise DataError(f"Expected images of {expected}, but the data have {actual}: give data of that shape.")
    _report(data, reporter)
    return _with_normalisation(data, options.mean, options.std), task or find(data.task)


def _load(
    source: DataSource | None,
    shape: Shape | None,
    model: ModelSource,
    seed: int,
    options: DataOptions,
    reporter: Reporter,
    task: Task | None,
    memory: int | None = None,
) -> DataSet:
    from pretrim.data import DataSet, load
    from pretrim.data.own import from_torch
    from pretrim.tasks import of_task, own_data

    if source is None:
        return own_data(task, seed)
    if isinstance(source, DataSet):
        return source if task is None else of_task(source, task)
    if not isinstance(source, str | Path):
        data = from_torch(source, seed=seed, task="classification" if task is None else task.name)
        return data if task is None else of_task(data, task)
    channels, size = image_format(shape, model)
    try:
        data_set = load(
            str(source),
            seed=seed,
            image_size=size,
            fit=options.fit or "crop",
            channels=channels,
            limit=options.max_images,
            memory=memory,
            announce=reporter.say,
        )
    except UsageError as error:
        raise as_typed(error, {"limit": "--max-images"}) from error
    return data_set if task is None else of_task(data_set, task)


def image_format(shape: Shape | None, model: ModelSource) -> tuple[int | None, tuple[int, int] | None]:
    """Return the channels and (height, width) to read images with; None means as stored.

    Raises UsageError for the shape of a signal or volume: such files are read by a user-defined task.
    """
    if shape is None:
        return (3 if isinstance(model, str) and model.startswith("torchvision:") else None), None
    if len(shape) != 3:
        raise UsageError(
            f"Expected --input CxHxW for images, but got {'x'.join(map(str, shape))}: signals and volumes come from "
            f"torch data sets, in Python or by --task."
        )
    return shape[0], (shape[1], shape[2])


def _with_normalisation(data: DataSet, mean: PerChannel | None, std: PerChannel | None) -> DataSet:
    """Replace the normalisation of the data by the given mean and standard deviation, if any."""
    pair = normalisation(mean, std, data.input_shape[0])
    if pair is not None and data.as_given:
        raise UsageError(
            f"--mean and --std apply to pixels, but {data.name} has float tensors, which are taken as they are: "
            f"normalise them in the data set, or give uint8 or PIL images."
        )
    return data if pair is None else replace(data, mean=pair[0], std=pair[1])


def normalisation(mean: PerChannel | None, std: PerChannel | None, channels: int) -> Normalisation | None:
    """Parse ``--mean`` and ``--std``; None without them. Raises UsageError for only one of them or unusable numbers.

    Args:
        mean: per-channel mean: a sequence, or comma-separated text.
        std: per-channel standard deviation, in the same form.
        channels: number of image channels.
    """
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise UsageError("Expected --mean and --std, but got one of them: give both.")
    return _numbers("--mean", mean, channels), _numbers("--std", std, channels, above=0.0)


def _numbers(name: str, values: PerChannel, channels: int, above: float = -math.inf) -> tuple[float, ...]:
    """Parse one number per channel.

    >>> _numbers("--mean", "0.5,0.25", 2)
    (0.5, 0.25)
    """
    text = values if isinstance(values, str) else ",".join(map(str, values))
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"Expected {name} to be a number for each channel, such as 0.5,0.5,0.5, but got {shown(text)}."
        ) from None
    if len(numbers) != channels:
        expected = "1 number, as the images have 1 channel" if channels == 1 else f"{channels} numbers, one per channel"
        raise UsageError(f"Expected {name} to be {expected}, but got {len(numbers)}: {text}.")
    if not all(above < number < math.inf for number in numbers):
        expected = "numbers above 0" if above == 0 else "finite numbers"
        raise UsageError(f"Expected {name} to be {expected}, for pixels from 0 to 1, but got {text}.")
    return numbers


def load_like_run(source: DataSource | None, record: RunRecord, task: Task, reporter: Reporter) -> DataSet:
    """Load data in the run's input shape, split by the run's seed so that no training image ends up in the test part.

    Args:
        source: name, folder, or data sets; None: the task's own data.
        record: record of the run.
        task: the run's task.
        reporter: told where the data come from.

    Raises DataError if classes or input shape differ from the run's, or if one has floats and the other has pixels.
    """
    shape, seed = record.input_shape, (record.data or {}).get("split_seed", 0)
    fit = (record.data or {}).get("fit")
    data = _load(source, shape, "", seed, DataOptions(fit=fit), reporter, task)
    return _checked_for_run(data, record, reporter)


def _checked_for_run(data: DataSet, record: RunRecord, reporter: Reporter) -> DataSet:
    """Report the data and return them. Raises DataError if classes, input shape or kind of values are not the run's."""
    from pretrim.data import shown_classes

    _check_kind(data, record)
    shape = record.input_shape
    if data.classes != record.classes:
        raise DataError(
            f"Expected the run's classes ({shown_classes(record.classes or ())}), but {data.name} has "
            f"{shown_classes(data.classes)}: give data with the same classes."
        )
    if data.input_shape != shape:
        expected, actual = ("x".join(map(str, part or ())) for part in (shape, data.input_shape))
        raise DataError(
            f"Expected images of {expected}, as the run has them, but {data.name} has {actual}: give other data."
        )
    _report(data, reporter)
    return data


def _check_kind(data: DataSet, record: RunRecord) -> None:
    """Raise DataError if the images are floats and those of the training were pixels, or the other way round."""
    if record.as_given and not data.as_given:
        raise DataError(
            f"Expected float tensors as in the training of the run (what made them is not recorded), but {data.name} "
            f"has pixels: give torch data sets as in the training, or train on uint8 or PIL images."
        )
    if data.as_given and not record.as_given:
        raise DataError(
            f"Expected pixels, which are normalised as in the training of the run, but {data.name} has float tensors: "
            f"give uint8 or PIL images."
        )


def _report(data: DataSet, reporter: Reporter) -> None:
    reporter.say(f"data: {data.source}: {data.contents} ({data.split_note})")


def data_to_evaluate(source: DataSource | None, record: RunRecord, task: Task, reporter: Reporter) -> DataSet:
    """Load the images to evaluate a run on: the test part of its own data, or all images of other data.

    Other data are a folder or a table; if they have a test part, only that is used. Data count as the run's own by
    their location or by their content, so that training images in a folder that was moved are not used as test images.

    Args:
        source: name, folder, or data sets; None: the task's own data.
        record: record of the run.
        task: the run's task.
        reporter: told where the data come from.

    Raises DataError if the data have classes or an input shape that the run does not have.
    """
    from pretrim.tasks import BUILTIN

    if not _is_path(source) or task.name not in BUILTIN or not record.classes:
        return load_like_run(source, record, task, reporter)
    kept = Kept()
    data = _split_like_run(source, record, task, kept)
    recorded = record.data or {}
    if data is None:
        data, remarks = _load_other_data(source, record, task, reporter), _subset_remarks(source, recorded)
    else:
        remarks = [*kept.lines, *_size_remarks(data, recorded)]
    for line in remarks:
        reporter.say(line)
    return _checked_for_run(data, record, reporter)


def _is_path(source: DataSource | None) -> TypeGuard[str | Path]:
    """Whether the data are named by an existing folder or file, whose content may change over time."""
    from pretrim.data import NAMES

    if not isinstance(source, str | Path):
        return False
    return str(source).partition(":")[0] not in NAMES and Path(source).exists()


def _split_like_run(source: str | Path, record: RunRecord, task: Task, reporter: Reporter) -> DataSet | None:
    """Load the data with the run's split; None if the run was not trained on them. Nothing is cached in memory."""
    recorded = record.data or {}
    seed, options = recorded.get("split_seed", 0), DataOptions(fit=recorded.get("fit"))
    try:
        data = _load(source, record.input_shape, "", seed, options, reporter, task, memory=0)
    except PretrimError:  # for instance, too small to be split
        if _is_below(recorded.get("source") or "", Path(source)):
            raise
        return None
    return data if _is_of_run(data, recorded) else None


def _is_below(description: str, path: Path) -> bool:
    """Whether the description of a data set names a path, or something inside it."""
    return description.endswith(f" {path}") or f" {path}/" in description


def _is_of_run(data: DataSet, recorded: Mapping[str, Any]) -> bool:
    """Whether a run was trained on these data: in the same location, or elsewhere with equal sizes and similar images.

    Image statistics say nothing about runs with --mean or --max-images; when in doubt, the data count as the run's.
    """
    if data.source == recorded.get("source"):
        return True
    if not _is_as_large(data, recorded):
        return False
    if "limit" in recorded or data.name == recorded.get("name"):
        return True
    pairs = zip((*data.mean, *data.std), (*recorded.get("mean", ()), *recorded.get("std", ())), strict=False)
    return all(math.isclose(here, there, abs_tol=MEAN_TOLERANCE) for here, there in pairs)


def _is_as_large(data: DataSet, recorded: Mapping[str, Any]) -> bool:
    """Whether the parts have the same numbers of images as those of the run."""
    parts = ("validation", "test") if "limit" in recorded else ("train", "validation", "test")
    sizes = data.to_json()["sizes"]
    return all(sizes[part] == recorded.get("sizes", {}).get(part) for part in parts)


def _size_remarks(data: DataSet, recorded: Mapping[str, Any]) -> list[str]:
    """Warn if the data have gained or lost images since the training, as the test part is then drawn differently."""
    if "test" not in data.drawn or _is_as_large(data, recorded):
        return []
    return [
        f"note: {data.name} has more or fewer images than when the run was trained: some of the test images may have "
        f"been trained on"
    ]


def _subset_remarks(source: str | Path, recorded: Mapping[str, Any]) -> list[str]:
    """Warn if the data are part of the run's data, as they may contain its training images."""
    description = recorded.get("source") or ""
    if not any(description.endswith(f" {place}") for place in Path(source).parents if place != Path()):
        return []
    return [f"note: {source} is part of the data that the run was trained on: its images may have been trained on"]


def _load_other_data(source: str | Path, record: RunRecord, task: Task, reporter: Reporter) -> DataSet:
    from pretrim.data import Known, load_to_evaluate
    from pretrim.tasks import of_task

    channels, size = image_format(record.input_shape, "")
    assert size is not None  # a run always has an input shape
    known = Known(task.name, record.classes or ())
    fit = (record.data or {}).get("fit", "crop")
    return of_task(
        load_to_evaluate(str(source), known, image_size=size, fit=fit, channels=channels, announce=reporter.say), task
    )

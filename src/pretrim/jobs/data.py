"""The data of a job: by name, folder or torch data sets, in the shape that the network takes."""

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
ALIKE = 1e-3
"""By which the mean of the same images may differ, as decoders do"""
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
    """The shape of one image: as given, or the usual one of the model's family."""
    if text is not None:
        return parse_shape(text)
    if model.startswith(("torchvision:", "timm:")):
        return (3, 224, 224)
    if ".py:" in model and Path(model.rpartition(":")[0]).is_file():
        raise UsageError("A network of your own file needs --input CxHxW: add e.g. --input 3x32x32.")
    return (3, 32, 32)  # of the built-in networks; a name that is none is told when it is looked for


def wanted_shape(text: str | None, plan: Plan | None) -> Shape | None:
    """The input that was asked for, or else that of the plan."""
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
    """Load the data of a job, and find what its network is for.

    Args:
        source: name, folder, data set, or torch data sets; None: those of the task.
        options: shape, number of images, normalisation, task.
        model: all networks of torchvision take colour images.
        plan: whose input shape is taken where none is given.
        seed: of the parts that are split off.
        reporter: told where the data are from.

    Raises:
        UsageError: no such data or task, or options that do not fit them.
        DataError: missing, empty or damaged data.
    """
    from pretrim.tasks import find

    shape = wanted_shape(options.input, plan)
    named = None if options.task is None else find(options.task)
    data = _named(source, shape, model, seed, options, reporter, named)
    if shape is not None and data.input_shape != shape:
        wanted, got = ("x".join(map(str, part)) for part in (shape, data.input_shape))
        raise DataError(f"Expected images of {wanted}, but the data have {got}: give data of that shape.")
    _say(data, reporter)
    return _normalised_by(data, options.mean, options.std), named or find(data.task)


def _named(
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
        found = load(
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
    return found if task is None else of_task(found, task)


def image_format(shape: Shape | None, model: ModelSource) -> tuple[int | None, tuple[int, int] | None]:
    """Channels and (height, width) that images are read with; None as they are stored.

    Raises UsageError for the shape of a signal or volume: files of those are read by a task of the user's own.
    """
    if shape is None:
        return (3 if isinstance(model, str) and model.startswith("torchvision:") else None), None
    if len(shape) != 3:
        raise UsageError(
            f"Expected --input CxHxW for images, but got {'x'.join(map(str, shape))}: signals and volumes come from "
            f"torch data sets, in Python or by --task."
        )
    return shape[0], (shape[1], shape[2])


def _normalised_by(data: DataSet, mean: PerChannel | None, std: PerChannel | None) -> DataSet:
    """The data with the mean and deviation that a trained network is used to, if they were given."""
    pair = normalisation(mean, std, data.input_shape[0])
    if pair is not None and data.as_given:
        raise UsageError(
            f"--mean and --std are of pixels, but {data.name} has float tensors, which are taken as they are: "
            f"normalise them in the data set, or give uint8 or PIL images."
        )
    return data if pair is None else replace(data, mean=pair[0], std=pair[1])


def normalisation(mean: PerChannel | None, std: PerChannel | None, channels: int) -> Normalisation | None:
    """What ``--mean`` and ``--std`` say; None without them. Raises UsageError for one alone, or unusable numbers.

    Args:
        mean: a number for each channel: a text with commas between them, or a sequence.
        std: likewise.
        channels: of an image.
    """
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise UsageError("Expected --mean and --std, but got one of them: give both.")
    return _numbers("--mean", mean, channels), _numbers("--std", std, channels, above=0.0)


def _numbers(name: str, given: PerChannel, channels: int, above: float = -math.inf) -> tuple[float, ...]:
    """Read a number for each channel.

    >>> _numbers("--mean", "0.5,0.25", 2)
    (0.5, 0.25)
    """
    text = given if isinstance(given, str) else ",".join(map(str, given))
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"Expected {name} to be a number for each channel, such as 0.5,0.5,0.5, but got {shown(text)}."
        ) from None
    if len(found) != channels:
        counted = "1 number, as the images have 1 channel" if channels == 1 else f"{channels} numbers, one a channel"
        raise UsageError(f"Expected {name} to be {counted}, but got {len(found)}: {text}.")
    if not all(above < number < math.inf for number in found):
        wanted = "numbers above 0" if above == 0 else "finite numbers"
        raise UsageError(f"Expected {name} to be {wanted}, for pixels of 0 to 1, but got {text}.")
    return found


def load_like_run(source: DataSource | None, record: RunRecord, task: Task, reporter: Reporter) -> DataSet:
    """A data set in the run's input shape, split by the run's seed, so that no training image gets into the test.

    Args:
        source: name, folder, or data sets; None: those of the task.
        record: of the run.
        task: what its network is for.
        reporter: told where the data are from.

    Raises DataError where its classes or its input are not the run's, or its images are floats where the run's are
    pixels, or pixels where they are floats.
    """
    shape, seed = record.input_shape, (record.data or {}).get("split_seed", 0)
    fit = (record.data or {}).get("fit")
    data = _named(source, shape, "", seed, DataOptions(fit=fit), reporter, task)
    return _as_the_run(data, record, reporter)


def _as_the_run(data: DataSet, record: RunRecord, reporter: Reporter) -> DataSet:
    """The data, which are said. Raises DataError where their classes or their input are not the run's."""
    from pretrim.data import shown_classes

    _check_kind(data, record)
    shape = record.input_shape
    if data.classes != record.classes:
        raise DataError(
            f"Expected the run's classes ({shown_classes(record.classes or ())}), but {data.name} has "
            f"{shown_classes(data.classes)}: give data with the same classes."
        )
    if data.input_shape != shape:
        wanted, got = ("x".join(map(str, part or ())) for part in (shape, data.input_shape))
        raise DataError(
            f"Expected images of {wanted}, as the run has them, but {data.name} has {got}: give other data."
        )
    _say(data, reporter)
    return data


def _check_kind(data: DataSet, record: RunRecord) -> None:
    """Raises DataError where images are not prepared as those of the training were."""
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


def _say(data: DataSet, reporter: Reporter) -> None:
    reporter.say(f"data: {data.source}: {data.contents} ({data.split_note})")


def data_to_evaluate(source: DataSource | None, record: RunRecord, task: Task, reporter: Reporter) -> DataSet:
    """The images to judge a run by: the test part of the data that it was trained on, all images of other data.

    Other data are a folder or a table; if they bring a test part, it is that. Data are the run's own by their place, or
    by what they are: a folder that was moved must not be tested on what was trained.

    Args:
        source: name, folder, or data sets; None: those of the task.
        record: of the run.
        task: what its network is for.
        reporter: told where the data are from.

    Raises DataError where the data have classes or an input that the run does not have.
    """
    from pretrim.tasks import BUILTIN

    if not _is_place(source) or task.name not in BUILTIN or not record.classes:
        return load_like_run(source, record, task, reporter)
    heard = Kept()
    found = _split_like_run(source, record, task, heard)
    known = record.data or {}
    if found is None:
        found, remarks = _new_data(source, record, task, reporter), _inside(source, known)
    else:
        remarks = [*heard.lines, *_changed(found, known)]
    for line in remarks:
        reporter.say(line)
    return _as_the_run(found, record, reporter)


def _is_place(source: DataSource | None) -> TypeGuard[str | Path]:
    """Whether data are named by a folder or a file, which may be other ones at another time."""
    from pretrim.data import NAMES

    if not isinstance(source, str | Path):
        return False
    return str(source).partition(":")[0] not in NAMES and Path(source).exists()


def _split_like_run(source: str | Path, record: RunRecord, task: Task, reporter: Reporter) -> DataSet | None:
    """The data that the run was trained on, split as they were; None for others. Nothing is held in memory."""
    known = record.data or {}
    seed, options = known.get("split_seed", 0), DataOptions(fit=known.get("fit"))
    try:
        found = _named(source, record.input_shape, "", seed, options, reporter, task, memory=0)
    except PretrimError:  # too small to be split, say
        if _is_below(known.get("source") or "", Path(source)):
            raise
        return None
    return found if _is_of_run(found, known) else None


def _is_below(described: str, place: Path) -> bool:
    """Whether the description of a data set names a place, or what is in it."""
    return described.endswith(f" {place}") or f" {place}/" in described


def _is_of_run(data: DataSet, known: Mapping[str, Any]) -> bool:
    """Whether data are those that a run was trained on: at their place, or elsewhere with as many images of one kind.

    Their statistics tell more, but not of a run with --mean or --max-images; in doubt they are the run's.
    """
    if data.source == known.get("source"):
        return True
    if not _is_as_large(data, known):
        return False
    if "limit" in known or data.name == known.get("name"):
        return True
    pairs = zip((*data.mean, *data.std), (*known.get("mean", ()), *known.get("std", ())), strict=False)
    return all(math.isclose(here, there, abs_tol=ALIKE) for here, there in pairs)


def _is_as_large(data: DataSet, known: Mapping[str, Any]) -> bool:
    """Whether the parts have as many images as those of the run."""
    compared = ("validation", "test") if "limit" in known else ("train", "validation", "test")
    sizes = data.to_json()["sizes"]
    return all(sizes[part] == known.get("sizes", {}).get(part) for part in compared)


def _changed(data: DataSet, known: Mapping[str, Any]) -> list[str]:
    """A remark on data that were more or less when the run was trained: another test part is drawn."""
    if "test" not in data.drawn or _is_as_large(data, known):
        return []
    return [
        f"note: {data.name} has more or fewer images than when the run was trained: some of the test images may have "
        f"been trained on"
    ]


def _inside(source: str | Path, known: Mapping[str, Any]) -> list[str]:
    """A remark on data that are a part of those of the run: its training images, it may be."""
    described = known.get("source") or ""
    if not any(described.endswith(f" {place}") for place in Path(source).parents if place != Path()):
        return []
    return [f"note: {source} is a part of what the run was trained on: its images may have been trained on"]


def _new_data(source: str | Path, record: RunRecord, task: Task, reporter: Reporter) -> DataSet:
    from pretrim.data import Known, load_to_evaluate
    from pretrim.tasks import of_task

    channels, size = image_format(record.input_shape, "")
    assert size is not None  # the run says its input
    known = Known(task.name, record.classes or ())
    fit = (record.data or {}).get("fit", "crop")
    return of_task(
        load_to_evaluate(str(source), known, image_size=size, fit=fit, channels=channels, announce=reporter.say), task
    )

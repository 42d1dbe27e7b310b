"""The data of a job: by name, folder or torch data sets, in the shape that the network takes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pretrim.errors import DataError, UsageError

from .options import DataOptions
from .reporter import Reporter

if TYPE_CHECKING:
    from pretrim.data import DataSet
    from pretrim.models.dense import ModelSource, Shape
    from pretrim.planning.plan import Plan
    from pretrim.runs.record import RunRecord

DataSource: TypeAlias = "str | Path | DataSet | Sequence[Any]"
"""A name or folder, a data set of pretrim, or torch data sets as (train, test) or (train, validation, test)"""
_SHAPE = re.compile(r"(\d{1,9})x(\d{1,9})x(\d{1,9})", re.ASCII)


def parse_shape(text: str) -> Shape:
    """Read ``CxHxW``. Raises UsageError for anything else.

    >>> parse_shape("3x32x32")
    (3, 32, 32)
    """
    match = _SHAPE.fullmatch(text.strip())
    if match is None or 0 in (shape := (int(match[1]), int(match[2]), int(match[3]))):
        raise UsageError(f"Expected --input to be CHANNELSxHEIGHTxWIDTH such as 3x32x32, but got {text!r}.")
    return shape


def input_shape(model: str, text: str | None) -> Shape:
    """The shape of one image: as given, or the usual one of the model's family."""
    if text is not None:
        return parse_shape(text)
    if model.startswith(("torchvision:", "timm:")):
        return (3, 224, 224)
    if ".py" in model:
        raise UsageError("A network of your own file needs --input CxHxW: add e.g. --input 3x32x32.")
    return (3, 32, 32)


def wanted_shape(text: str | None, plan: Plan | None) -> Shape | None:
    """The input that was asked for, or else that of the plan. Raises UsageError unless it is square."""
    from pretrim.runs.record import image_shape

    shape = parse_shape(text) if text is not None else image_shape(plan) if plan is not None else None
    if shape is not None and shape[1] != shape[2]:
        raise UsageError(f"Expected square images, but got {shape[1]}x{shape[2]}: data are cropped to a square.")
    return shape


def open_data(
    source: DataSource,
    options: DataOptions,
    *,
    model: ModelSource = "",
    plan: Plan | None = None,
    seed: int = 0,
    reporter: Reporter,
) -> DataSet:
    """Load the data of a job.

    Args:
        source: name, folder, data set, or torch data sets.
        options: shape, number of images, normalisation.
        model: all networks of torchvision take colour images.
        plan: whose input shape is taken where none is given.
        seed: of the parts that are split off.
        reporter: told where the data are from.

    Raises:
        UsageError: no such data, or options that do not fit it.
        DataError: missing, empty or damaged data.
    """
    shape = wanted_shape(options.input, plan)
    data = _named(source, shape, model, seed, options.max_images, reporter)
    if shape is not None and data.input_shape != shape:
        wanted, got = ("x".join(map(str, part)) for part in (shape, data.input_shape))
        raise DataError(f"Expected images of {wanted}, but the data have {got}: give data of that shape.")
    reporter.say(f"data: {data.source} ({data.split_note})")
    return _normalised_by(data, options.mean, options.std)


def _named(
    source: DataSource, shape: Shape | None, model: ModelSource, seed: int, most: int | None, reporter: Reporter
) -> DataSet:
    from pretrim.data import DataSet, load
    from pretrim.data.own import from_torch

    if isinstance(source, DataSet):
        return source
    if not isinstance(source, str | Path):
        return from_torch(source, seed=seed)
    channels, size = (shape[0], shape[1]) if shape is not None else (None, None)
    if channels is None and isinstance(model, str) and model.startswith("torchvision:"):
        channels = 3
    return load(str(source), seed=seed, image_size=size, channels=channels, limit=most, announce=reporter.say)


def _normalised_by(data: DataSet, mean: str | None, std: str | None) -> DataSet:
    """The data with the mean and deviation that a trained network is used to, if they were given."""
    if mean is None and std is None:
        return data
    if mean is None or std is None:
        raise UsageError("Expected --mean and --std, but got one of them: give both.")
    pair = _numbers("--mean", mean), _numbers("--std", std)
    channels = data.input_shape[0]
    usable = all(math.isfinite(number) for part in pair for number in part) and min(pair[1]) > 0
    if {len(part) for part in pair} != {channels} or not usable:
        raise UsageError(
            f"Expected --mean and --std with {channels} numbers each, deviations above 0, as the images have."
        )
    return replace(data, mean=pair[0], std=pair[1])


def _numbers(name: str, text: str) -> tuple[float, ...]:
    """Read numbers with commas between them.

    >>> _numbers("--mean", "0.5,0.25")
    (0.5, 0.25)
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"Expected {name} to be a number for each channel, such as 0.5,0.5,0.5, but got {text!r}."
        ) from None


def load_like_run(source: DataSource, record: RunRecord, reporter: Reporter) -> DataSet:
    """A data set in the run's input shape, split by the run's seed, so that no training image gets into the test.

    Raises DataError where its classes or its input are not the run's.
    """
    shape, seed = record.input_shape, (record.data or {}).get("split_seed", 0)
    data = _named(source, shape, "", seed, None, reporter)
    if data.classes != record.classes:
        raise DataError(
            f"Expected the run's classes ({_shown(record.classes or ())}), but {data.name} has {_shown(data.classes)}: "
            f"give data with the same classes."
        )
    if data.input_shape != shape:
        wanted, got = ("x".join(map(str, part or ())) for part in (shape, data.input_shape))
        raise DataError(
            f"Expected images of {wanted}, as the run has them, but {data.name} has {got}: give other data."
        )
    reporter.say(f"data: {data.source} ({data.split_note})")
    return data


def _shown(classes: tuple[str, ...], most: int = 5) -> str:
    rest = f", ... {len(classes)} in all" if len(classes) > most else ""
    return ", ".join(classes[:most]) + rest

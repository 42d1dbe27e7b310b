"""Data sets by name or folder, each with train, validation and test parts, in memory or streamed.

``digits``, ``hard-digits``, ``fashion-mnist``, ``fashion-mnist:FOLDER``, ``cifar10:FOLDER`` (parquet, as on the hub),
``hf:OWNER/NAME`` or ``hf:FOLDER`` (by the package `datasets`), a CSV or parquet file that names images and targets, or
a folder: with such a table, with ``images/`` and ``masks/``, with images in one folder per class, with parquet files,
or with IDX files, told apart by what is in it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from pretrim.errors import DataError, UsageError, hint, shown

from . import boxes, digits, fashion_mnist, folder, hub, masks, parquet, table
from .augment import Augmentation, AugmentParams, augment, cut_out, draw, normalise
from .images import FITS, MODES, Fit, Resize, decode_image, remarks, with_channels
from .record import DataSet, Known, Parts, Split, batches, held, shown_classes, statistics
from .split import Completed, absent, complete, limited, matched, to_evaluate
from .stream import Streamed, free_bytes, prefetched

NAMES = ("digits", "hard-digits", "fashion-mnist", "cifar10")

__all__ = [
    "FITS",
    "NAMES",
    "AugmentParams",
    "Augmentation",
    "DataSet",
    "Fit",
    "Known",
    "Split",
    "Streamed",
    "augment",
    "batches",
    "cut_out",
    "decode_image",
    "draw",
    "load",
    "load_to_evaluate",
    "normalise",
    "prefetched",
    "shown_classes",
]


def load(
    spec: str,
    *,
    seed: int = 0,
    image_size: int | tuple[int, int] | None = None,
    fit: Fit = "crop",
    channels: int | None = None,
    validation: float = 0.1,
    limit: int | None = None,
    memory: int | None = None,
    announce: Callable[[str], None] | None = None,
) -> DataSet:
    """Load a data set.

    Args:
        spec: a name, ``NAME:FOLDER``, or a folder.
        seed: of the parts that are split off (stratified, the same on every machine); it is saved with a run.
        image_size: (height, width), or one number for both; without it 32 for the named sets, 64 for folders
            of images, and the stored size
            for parquet and other IDX files.
        fit: how images of other proportions get that size: crop, pad or stretch (`images.Resize`).
        channels: 1, 3, or 4 with the transparency of files that have it; grey images are repeated, colours made grey.
            Without it as the images are stored.
        validation: share of the training part that is split off where the set brings no validation (or no test) part.
        limit: keep so many training images, of every class its share and at least one, for quick trials.
        memory: bytes that pixels may take; by default half of what is free. Larger folders and parquet files are
            streamed: decoded when they are needed, in threads.
        announce: gets a line before anything is downloaded; it is printed to stderr otherwise.

    Raises:
        UsageError: an unknown name, an option out of range, or a package that is missing.
        DataError: missing, empty or damaged data.
    """
    _check_options(seed, channels, validation)
    resize = Resize((image_size, image_size) if isinstance(image_size, int) else image_size, fit)
    say = announce or _print
    parts = _parts(spec, resize, channels, say)
    whole = complete(parts, seed, validation)
    for remark in absent(parts, {"training": whole.train, "validation": whole.validation, "test": whole.test}):
        say(f"note: {remark}")
    if limit is not None:
        least = len(parts.classes) if parts.task == "classification" else 2
        if limit < least:
            raise UsageError(f"Expected limit to be at least {least} images, but got {limit}.")
        train = limited(whole.train, limit, seed)
        whole = whole._replace(train=train, note=f"{whole.note}; {len(train):,} training images")
    described = _described(parts, whole, channels, fit, free_bytes() if memory is None else memory)
    return replace(described, split_seed=seed, limit=limit)


def load_to_evaluate(
    spec: str,
    known: Known,
    *,
    image_size: tuple[int, int],
    fit: Fit = "crop",
    channels: int | None = None,
    announce: Callable[[str], None] | None = None,
) -> DataSet:
    """Load data that a network was not trained on: their test part, or all images where they have none.

    Neither a training part is needed, nor images of every class; classes are matched by name. The other parts of the
    data set are empty.

    Args:
        spec: a folder or a table, as for `load`.
        known: what the network was trained for.
        image_size: (height, width).
        fit: as for `load`.
        channels: as for `load`.
        announce: as for `load`.

    Raises DataError for missing, empty or damaged data, and for classes that the network does not have.
    """
    say = announce or _print
    parts = matched(_parts(spec, Resize(image_size, fit), channels, say, known), known)
    whole = to_evaluate(parts)
    for remark in absent(parts, {"test": whole.test}):
        say(f"note: {remark}")
    return _described(parts, whole, channels, fit, free_bytes())


def _described(parts: Parts, whole: Completed, channels: int | None, fit: Fit, memory: int) -> DataSet:
    """A data set of its three parts, in memory where they fit, with the statistics of what is trained on, or judged."""
    train, validation, test = held((whole.train, whole.validation, whole.test), memory)
    if channels is not None:
        train, validation, test = (_with_channels(split, channels) for split in (train, validation, test))
    mean, std = statistics((train if len(train) else test).images)
    return DataSet(
        name=parts.name,
        source=parts.source,
        classes=parts.classes,
        train=train,
        validation=validation,
        test=test,
        mean=mean,
        std=std,
        flip=parts.flip,
        split_seed=0,
        split_note=whole.note,
        padding=parts.padding,
        fit=fit,
        task=parts.task,
        drawn=whole.drawn,
    )


def _print(line: str) -> None:
    print(line, file=sys.stderr)


def _parts(
    spec: str, resize: Resize, channels: int | None, say: Callable[[str], None], known: Known | None = None
) -> Parts:
    """What the data bring; what is special about them is said."""
    try:
        parts = _read(spec, resize, channels, say, known)
    except OSError as error:
        raise DataError(f"Cannot read {spec} ({error}): check its permissions.") from error
    for remark in (*parts.notes, *_remarks(parts)):
        say(f"note: {remark}")
    return parts


def _remarks(parts: Parts) -> list[str]:
    """What is special about the files of the images."""
    images = (parts.train if len(parts.train) or parts.test is None else parts.test).images
    return remarks(images.items, images.channels) if isinstance(images, Streamed) else []


def _with_channels(split: Split, channels: int) -> Split:
    """Streamed images are decoded with the channels that are wanted."""
    images = split.images
    return Split(with_channels(images, channels), split.targets) if isinstance(images, torch.Tensor) else split


def _check_options(seed: int, channels: int | None, validation: float) -> None:
    if not 0 < validation < 1:
        raise UsageError(f"Expected the validation share to be between 0 and 1, but got {validation}.")
    if seed < 0:
        raise UsageError(f"Expected a seed of 0 or more, but got {seed}.")
    if channels not in (None, *MODES):
        raise UsageError(f"Expected 1 channel (grey), 3 (colour) or 4 (with transparency), but got {channels}.")


def _read(
    spec: str, resize: Resize, channels: int | None, announce: Callable[[str], None], known: Known | None
) -> Parts:
    name, colon, rest = spec.partition(":")
    if name in NAMES:
        return _read_named(name, _folder(name, rest) if colon else None, resize, channels, announce)
    if name == "hf" and colon:
        return hub.read(rest, resize, channels, announce)
    path = Path(spec)
    if path.suffix.lower() in table.SUFFIXES and path.is_file():
        return _read_table(path, resize, channels, known)
    if spec and not path.is_dir() and (kind := boxes.format_of(path)) is not None:
        raise boxes.refuse(path, kind)
    if not spec or not path.is_dir():
        raise UsageError(
            f"Expected {', '.join(NAMES)}, hf:OWNER/NAME, a table ({', '.join(table.SUFFIXES)}) or a folder as data, "
            f"but got {shown(spec)}.{hint(name.lower(), NAMES) or ' Check the path.'}"
        )
    if (found := table.find(path)) is not None:
        return _read_table(found, resize, channels, known)
    if masks.is_here(path):
        return masks.read(path, resize, channels, known)
    if (kind := boxes.format_of(path)) is not None:
        raise boxes.refuse(path, kind)
    if parquet.is_here(path):
        return parquet.read(path, path.resolve().name, resize, channels)
    if fashion_mnist.is_here(path):
        return fashion_mnist.read_folder(path, resize)
    if not any(path.iterdir()):
        raise DataError(f"No images in {path}, the folder is empty: put them in {path}/CLASS/.")
    return folder.read(path, resize, channels, known)


def _read_table(path: Path, resize: Resize, channels: int | None, known: Known | None) -> Parts:
    if path.suffix.lower() == ".parquet" and parquet.has_images(path):
        return parquet.read_file(path, resize, channels)
    return table.read(path, resize, channels, known)


def _folder(name: str, rest: str) -> Path:
    place = Path(os.path.expanduser(rest))  # no shell expands the ~ of cifar10:~/data
    if not rest or not place.is_dir():
        raise DataError(f"Expected a folder with {name}, but {rest or 'nothing'} is not one: check the path.")
    return place


def _read_named(
    name: str, place: Path | None, resize: Resize, channels: int | None, announce: Callable[[str], None]
) -> Parts:
    if name == "fashion-mnist":
        return fashion_mnist.read(place, resize, announce)
    if name in ("digits", "hard-digits"):
        if place is not None:
            raise UsageError(f"Expected {name} alone, which ship with scikit-learn, but got {name}:{place}.")
        return digits.read(resize) if name == "digits" else digits.read_hard(resize)
    if place is None:
        raise UsageError("Expected the folder of the parquet files, but got 'cifar10' alone: write cifar10:FOLDER.")
    return parquet.read(place, name, resize, channels)

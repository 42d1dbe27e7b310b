"""Load data sets by name or from a folder, with training, validation and test splits, in memory or streamed.

``digits``, ``hard-digits``, ``fashion-mnist``, ``fashion-mnist:FOLDER``, ``cifar10:FOLDER`` (parquet files as on the
Hugging Face Hub), ``hf:OWNER/NAME`` or ``hf:FOLDER`` (through the `datasets` package), a CSV or parquet table that
lists images and targets, or a folder. The contents of a folder decide how it is read: such a table, ``images/`` and
``masks/``, one folder of images per class, parquet files, or IDX files.
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
        spec: a data set name, ``NAME:FOLDER``, or a folder.
        seed: seed of the splits that are drawn from the training data (stratified, the same on every machine); it is
            saved with a run.
        image_size: (height, width), or one number for both. Default: 32 for the named sets, 64 for folders of images,
            and the stored size for parquet and other IDX files.
        fit: how images of other proportions are brought to that size: crop, pad or stretch (`images.Resize`).
        channels: 1, 3, or 4 with the alpha channel of files that have one; grey images are repeated, colour images
            converted to grey. Default: as the images are stored.
        validation: fraction of the training split to hold out where the data set has no validation (or no test) split.
        limit: maximum number of training images, for quick trials; classes keep their proportions, each with at least
            one image.
        memory: maximum bytes of decoded pixels; default: half of the free memory. Larger folders and parquet files are
            streamed: images are decoded on demand, in threads.
        announce: called with each note on the data, and before anything is downloaded; default: print to stderr.

    Raises:
        UsageError: unknown name, option out of range, or missing package.
        DataError: missing, empty or damaged data.
    """
    _check_options(seed, channels, validation)
    resize = Resize((image_size, image_size) if isinstance(image_size, int) else image_size, fit)
    report = announce or _print
    parts = _parts(spec, resize, channels, report)
    completed = complete(parts, seed, validation)
    for remark in absent(
        parts, {"training": completed.train, "validation": completed.validation, "test": completed.test}
    ):
        report(f"note: {remark}")
    if limit is not None:
        minimum = len(parts.classes) if parts.task == "classification" else 2
        if limit < minimum:
            raise UsageError(f"Expected limit to be at least {minimum} images, but got {limit}.")
        train = limited(completed.train, limit, seed)
        completed = completed._replace(train=train, note=f"{completed.note}; {len(train):,} training images")
    data = _described(parts, completed, channels, fit, free_bytes() if memory is None else memory)
    return replace(data, split_seed=seed, limit=limit)


def load_to_evaluate(
    spec: str,
    known: Known,
    *,
    image_size: tuple[int, int],
    fit: Fit = "crop",
    channels: int | None = None,
    announce: Callable[[str], None] | None = None,
) -> DataSet:
    """Load data that a network was not trained on: the test split, or all images if there is none.

    The data need neither a training split nor images of every class; classes are matched by name. The other splits of
    the returned data set are empty.

    Args:
        spec: a folder or a table, as for `load`.
        known: the task and classes the network was trained for.
        image_size: (height, width).
        fit: as for `load`.
        channels: as for `load`.
        announce: as for `load`.

    Raises DataError for missing, empty or damaged data, and for classes that the network does not have.
    """
    report = announce or _print
    parts = matched(_parts(spec, Resize(image_size, fit), channels, report, known), known)
    completed = to_evaluate(parts)
    for remark in absent(parts, {"test": completed.test}):
        report(f"note: {remark}")
    return _described(parts, completed, channels, fit, free_bytes())


def _described(parts: Parts, completed: Completed, channels: int | None, fit: Fit, memory: int) -> DataSet:
    """Build the data set, in memory if it fits, with statistics of its training (or else test) split."""
    train, validation, test = held((completed.train, completed.validation, completed.test), memory)
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
        split_note=completed.note,
        padding=parts.padding,
        fit=fit,
        task=parts.task,
        drawn=completed.drawn,
    )


def _print(line: str) -> None:
    print(line, file=sys.stderr)


def _parts(
    spec: str, resize: Resize, channels: int | None, report: Callable[[str], None], known: Known | None = None
) -> Parts:
    """Read the splits that the data provide, and report anything noteworthy."""
    try:
        parts = _read(spec, resize, channels, report, known)
    except OSError as error:
        raise DataError(f"Cannot read {spec} ({error}): check its permissions.") from error
    for remark in (*parts.notes, *_remarks(parts)):
        report(f"note: {remark}")
    return parts


def _remarks(parts: Parts) -> list[str]:
    """Return notes on the image files, such as 16-bit depth or dropped transparency."""
    images = (parts.train if len(parts.train) or parts.test is None else parts.test).images
    return remarks(images.items, images.channels) if isinstance(images, Streamed) else []


def _with_channels(split: Split, channels: int) -> Split:
    """Convert in-memory images to `channels`; streamed images are decoded with them already."""
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
    if spec and not path.is_dir() and (annotation_format := boxes.format_of(path)) is not None:
        raise boxes.refuse(path, annotation_format)
    if not spec or not path.is_dir():
        raise UsageError(
            f"Expected {', '.join(NAMES)}, hf:OWNER/NAME, a table ({', '.join(table.SUFFIXES)}) or a folder as data, "
            f"but got {shown(spec)}.{hint(name.lower(), NAMES) or ' Check the path.'}"
        )
    if (table_file := table.find(path)) is not None:
        return _read_table(table_file, resize, channels, known)
    if masks.is_here(path):
        return masks.read(path, resize, channels, known)
    if (annotation_format := boxes.format_of(path)) is not None:
        raise boxes.refuse(path, annotation_format)
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
    path = Path(os.path.expanduser(rest))  # the shell does not expand the ~ in cifar10:~/data
    if not rest or not path.is_dir():
        raise DataError(f"Expected a folder with {name}, but {rest or 'nothing'} is not one: check the path.")
    return path


def _read_named(
    name: str, path: Path | None, resize: Resize, channels: int | None, announce: Callable[[str], None]
) -> Parts:
    if name == "fashion-mnist":
        return fashion_mnist.read(path, resize, announce)
    if name in ("digits", "hard-digits"):
        if path is not None:
            raise UsageError(f"Expected {name} alone, which ship with scikit-learn, but got {name}:{path}.")
        return digits.read(resize) if name == "digits" else digits.read_hard(resize)
    if path is None:
        raise UsageError("Expected the folder of the parquet files, but got 'cifar10' alone: write cifar10:FOLDER.")
    return parquet.read(path, name, resize, channels)

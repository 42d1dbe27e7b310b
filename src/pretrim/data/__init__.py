"""Data sets by name or folder, each with train, validation and test parts in memory.

``digits``, ``fashion-mnist``, ``fashion-mnist:FOLDER``, ``cifar10:FOLDER`` (the parquet layout of the Hugging Face hub),
or a folder: images with one folder per class, parquet files, or Fashion-MNIST's IDX files, told apart by content.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from pretrim.errors import DataError, UsageError

from . import digits, fashion_mnist, folder, parquet
from .augment import normalise, random_crop_flip
from .images import decode_image, with_channels
from .record import DataSet, Parts, Split, batches, statistics
from .split import complete, limited

NAMES = ("digits", "fashion-mnist", "cifar10")

__all__ = ["DataSet", "Split", "batches", "decode_image", "load", "normalise", "random_crop_flip"]


def load(
    spec: str,
    *,
    seed: int = 0,
    image_size: int | None = None,
    channels: int | None = None,
    validation: float = 0.1,
    limit: int | None = None,
    announce: Callable[[str], None] | None = None,
) -> DataSet:
    """Load a data set.

    Args:
        spec: a name, ``NAME:FOLDER``, or a folder.
        seed: of the parts that are split off (stratified, the same on every machine); it is saved with a run.
        image_size: height and width; without it 32 for the named sets, 64 for folders of images.
        channels: 1 or 3; grey images are repeated, colours made grey.
        validation: share of the training part that is split off where the set brings no validation (or no test) part.
        limit: keep about so many training images, of every class the same share, for quick trials.
        announce: gets a line before anything is downloaded; it is printed to stderr otherwise.

    Raises:
        UsageError: an unknown name, or a package that is missing.
        DataError: missing, empty or damaged data.
    """
    if not 0 < validation < 1:
        raise UsageError(f"Expected the validation share to be between 0 and 1, but got {validation}.")
    parts = _read(spec, image_size, channels, announce or (lambda line: print(line, file=sys.stderr)))
    train, valid, test, note = complete(parts, seed, validation)
    if limit is not None:
        if limit < len(parts.classes):
            raise UsageError(f"Expected a limit of at least {len(parts.classes)} images, but got {limit}.")
        train, note = limited(train, limit, seed), f"{note}; {limit:,} training images"
    if channels is not None:
        train, valid, test = (Split(with_channels(s.images, channels), s.labels) for s in (train, valid, test))
    mean, std = statistics(train.images)
    return DataSet(parts.name, parts.source, parts.classes, train, valid, test, mean, std, parts.flip, seed, note)


def _read(spec: str, image_size: int | None, channels: int | None, announce: Callable[[str], None]) -> Parts:
    name, colon, rest = spec.partition(":")
    if name in NAMES:
        place = Path(rest) if colon else None
        if place is not None and not place.is_dir():
            raise DataError(f"Expected a folder with {name}, but {rest or 'nothing'} is not one: check the path.")
        if name == "digits":
            return digits.read(image_size)
        if name == "fashion-mnist":
            return fashion_mnist.read(place, image_size, announce)
        if place is None:
            raise UsageError("Expected the folder of the parquet files, but got 'cifar10' alone: write cifar10:FOLDER.")
        return parquet.read(place, name, image_size, channels)
    path = Path(spec)
    if not path.is_dir():
        close = get_close_matches(spec, NAMES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UsageError(f"Expected {', '.join(NAMES)} or a folder as data, but got {spec!r}.{hint}")
    if parquet.is_here(path):
        return parquet.read(path, path.name, image_size, channels)
    if fashion_mnist.is_here(path):
        return fashion_mnist.read(path, image_size, announce)
    if not any(path.iterdir()):
        raise DataError(f"Expected images in {path}, but the folder is empty: put them in {path}/CLASS/.")
    return folder.read(path, image_size, channels)

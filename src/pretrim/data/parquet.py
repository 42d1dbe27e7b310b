"""Image data sets in the parquet layout of the Hugging Face hub: files by part, images and labels in columns."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pretrim.errors import DataError, UsageError

from .images import decode, decode_all
from .record import Parts, Split, check_labels

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PREFIXES = {"train": ("train-",), "validation": ("validation-", "valid-", "val-"), "test": ("test-",)}
IMAGE_COLUMNS, LABEL_COLUMNS = ("img", "image"), ("label", "labels", "fine_label")


def is_here(folder: Path) -> bool:
    """Whether a folder (or its folder ``data``) holds a training part."""
    return bool(_files(folder, "train"))


def read(folder: Path, name: str, image_size: int | None, channels: int | None) -> Parts:
    """The parts that the folder holds. Classes are CIFAR-10's where the folder is named so, else numbered.

    Raises DataError for missing files, missing columns, and images or labels that cannot be read.
    """
    if not is_here(folder):
        raise DataError(f"Expected train-*.parquet in {folder}, but there is none: give the folder that holds them.")
    read_part = partial(_part, folder, image_size=image_size, channels=channels or 3)
    train, validation, test = (read_part(part) for part in PREFIXES)
    assert train is not None  # is_here found it
    count = int(train.labels.max()) + 1
    classes = CIFAR10 if name == "cifar10" else tuple(str(label) for label in range(count))
    for split in (train, validation, test):
        if split is not None:
            check_labels(split.labels, len(classes), str(folder))
    return Parts(name, f"{_title(folder) or name}, parquet files in {folder}", classes, train, validation, test)


def _title(folder: Path) -> str:
    """The heading of the folder's README, which says which copy of a data set it holds."""
    try:
        heading = (folder / "README.md").read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return ""
    return heading.removeprefix("#").strip() if heading.startswith("# ") else ""


def _files(folder: Path, part: str) -> list[Path]:
    return sorted(
        path
        for place in (folder, folder / "data")
        for prefix in PREFIXES[part]
        for path in place.glob(f"{prefix}*.parquet")
    )


def _part(folder: Path, part: str, *, image_size: int | None, channels: int) -> Split | None:
    files = _files(folder, part)
    if not files:
        return None
    encoded: list[bytes] = []
    labels: list[Any] = []
    for path in files:
        images, numbers = _columns(path)
        encoded += images
        labels += numbers
    size = None if image_size is None else (image_size, image_size)
    where = f"{folder} ({part})"
    pixels = decode_all(encoded, partial(decode, where=where, channels=channels, size=size))
    return Split(pixels, torch.from_numpy(np.array(labels, dtype=np.int64)))


def _columns(path: Path) -> tuple[list[bytes], list[int]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UsageError(
            "Expected pyarrow for parquet files, but it is missing: pip install 'pretrim[data]'."
        ) from None
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        said = str(error).splitlines()[0]
        raise DataError(
            f"Expected a parquet file in {path}, but it cannot be read ({said}): fetch it again."
        ) from error
    image = next((name for name in IMAGE_COLUMNS if name in table.column_names), None)
    label = next((name for name in LABEL_COLUMNS if name in table.column_names), None)
    if image is None or label is None:
        raise DataError(
            f"Expected the columns {IMAGE_COLUMNS[0]} and {LABEL_COLUMNS[0]} in {path}, but got "
            f"{', '.join(table.column_names)}: give a data set of images with labels."
        )
    entries = table.column(image).to_pylist()
    numbers = table.column(label).to_pylist()
    if not all(isinstance(e, dict) and isinstance(e.get("bytes"), bytes) for e in entries) or None in numbers:
        raise DataError(
            f"Expected encoded images and labels in every row of {path}, but some are missing: mend the file."
        )
    return [entry["bytes"] for entry in entries], numbers

"""Image data sets in the parquet layout of the Hugging Face Hub: files by split, images and labels in columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pretrim.errors import DataError, UsageError

from .images import Resize, channels_of, size_of
from .record import Parts, Split, check_labels
from .stream import Streamed

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PREFIXES = {"train": ("train-",), "validation": ("validation-", "valid-", "val-"), "test": ("test-",)}
ENCODED_TYPES = ("struct", "binary", "large_binary")
"""Prefixes of pyarrow's type names for columns of encoded images."""
IMAGE_COLUMNS, LABEL_COLUMNS = ("img", "image"), ("label", "labels", "fine_label")


class Encoded(NamedTuple):
    """One split as stored: image files, their labels (int64), and the class names if the files hold them."""

    images: Sequence[Path | bytes]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    classes: tuple[str, ...] = ()


def is_here(folder: Path) -> bool:
    """Whether a folder (or its subfolder ``data``) holds a training split."""
    return bool(_files(folder, "train"))


def read(folder: Path, name: str, resize: Resize, channels: int | None) -> Parts:
    """Read the splits that a folder holds.

    Class names come from the files as the Hub writes them, are CIFAR-10's for a data set of that name, or else numbers.

    Without `channels`, images are grey if every image is stored in grey, else in colour.

    Raises DataError for missing files, missing columns, and images or labels that cannot be read.

    Args:
        folder: folder of the .parquet files.
        name: name of the data set.
        resize: requested size, and how it is reached.
        channels: 1, 3 or 4.
    """
    if not is_here(folder):
        raise DataError(f"No train-*.parquet in {folder}: give the folder that holds them.")
    parts = {part: _encoded(files) for part in PREFIXES if (files := _files(folder, part))}
    source = f"{_title(folder) or name}, parquet files in {folder}"
    return _of_parts(parts, folder, name, source, resize, channels)


def has_images(path: Path) -> bool:
    """Whether a file holds images rather than file names. Raises DataError if it cannot be read."""
    with _opened(path) as file:
        types = {name: str(file.schema_arrow.field(name).type) for name in file.schema_arrow.names}
    return any(types.get(name, "").startswith(ENCODED_TYPES) for name in IMAGE_COLUMNS)


def read_file(path: Path, resize: Resize, channels: int | None) -> Parts:
    """Read one file of images and labels as a training split; otherwise like `read`.

    Args:
        path: the .parquet file.
        resize: requested size, and how it is reached.
        channels: 1, 3 or 4.
    """
    return _of_parts({"train": _encoded([path])}, path, path.stem, f"images in {path}", resize, channels)


def _of_parts(
    parts: Mapping[str, Encoded], where: Path, name: str, source: str, resize: Resize, channels: int | None
) -> Parts:
    names = parts["train"].classes or (CIFAR10 if name == "cifar10" else ())
    classes = names or _numbered(parts["train"].labels, where)
    channels = channels or channels_of(image for part in parts.values() for image in part.images)
    splits = streamed(parts, str(where), len(classes), resize, channels)
    return Parts(name, source, classes, splits["train"], splits.get("validation"), splits.get("test"))


def _title(folder: Path) -> str:
    """Return the heading of the folder's README, which says which copy of a data set it holds."""
    try:
        heading = (folder / "README.md").read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return ""
    return heading.removeprefix("#").strip() if heading.startswith("# ") else ""


def _files(folder: Path, part: str) -> list[Path]:
    paths = (
        path
        for parent in (folder, folder / "data")
        for prefix in PREFIXES[part]
        for path in parent.glob(f"{prefix}*.parquet")
    )
    return sorted(paths, key=lambda path: path.relative_to(folder).parts)


def _numbered(labels: np.ndarray[Any, np.dtype[np.int64]], folder: Path) -> tuple[str, ...]:
    """Return class names by number.

    A label that exceeds the number of images can only be damage, so no list of that size is made.
    """
    count = int(labels.max()) + 1
    if count < 2:
        raise DataError(f"Expected at least 2 classes in {folder}, but got labels up to {count - 1}: add images.")
    if count > len(labels):
        raise DataError(f"Expected labels below {len(labels)}, the number of images in {folder}, but got {count - 1}.")
    return tuple(str(label) for label in range(count))


def _encoded(files: list[Path]) -> Encoded:
    parts = [_columns(path) for path in files]
    images = [image for part in parts for image in part.images]
    encoded = Encoded(images, np.concatenate([part.labels for part in parts]), parts[0].classes)
    if not encoded.images:
        raise DataError(f"No rows in {files[0]}: fetch it again.")
    return encoded


def streamed(parts: Mapping[str, Encoded], where: str, classes: int, resize: Resize, channels: int) -> dict[str, Split]:
    """Return the splits with images to be decoded on demand. Without an image size, the first image sets it.

    Args:
        parts: encoded images and labels, by split.
        where: the data set, for error messages.
        classes: number of classes.
        resize: requested size, and how it is reached.
        channels: 1, 3 or 4.
    """
    part, first = next(iter(parts.items()))
    height, width = resize.size or size_of(first.images[0], f"{where} ({part})")
    splits = {}
    for name, encoded in parts.items():
        labels = torch.from_numpy(encoded.labels)
        check_labels(labels, classes, f"{where} ({name})")
        images = Streamed(
            encoded.images, f"{where} ({name})", channels, height, width, resize.size is not None, resize.fit
        )
        splits[name] = Split(images, labels)
    return splits


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a parquet file. Raises DataError if it is not one or is damaged, also for reads inside the context."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UsageError("Parquet files need pyarrow: pip install 'pretrim[data]'.") from None
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"Cannot read the parquet file {path} ({reason}): fetch it again.") from error


def _columns(path: Path) -> Encoded:
    """Read the images and labels of one file, and no other column."""
    with _opened(path) as file:
        image, label = _names(file.schema_arrow.names, path)
        table = file.read(columns=[image, label])
        classes = class_names(file.schema_arrow.metadata, label)
        return _checked(table.column(image), table.column(label), path)._replace(classes=classes)


def class_names(metadata: Mapping[bytes, bytes] | None, column: str) -> tuple[str, ...]:
    """Return the class names that files of the Hub store for a label column; empty if there are none that can be used.

    >>> class_names({b"huggingface": b'{"info": {"features": {"label": {"names": ["cat", "dog"]}}}}'}, "label")
    ('cat', 'dog')
    """
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    usable = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    return tuple(names) if usable and len(set(names)) == len(names) > 1 else ()


def _names(columns: list[str], path: Path) -> tuple[str, str]:
    image = next((name for name in IMAGE_COLUMNS if name in columns), None)
    label = next((name for name in LABEL_COLUMNS if name in columns), None)
    if image is None or label is None:
        raise DataError(
            f"Expected the columns {IMAGE_COLUMNS[0]} and {LABEL_COLUMNS[0]} in {path}, but got "
            f"{', '.join(columns)}: give a data set of images with labels."
        )
    return image, label


def _checked(images: Any, labels: Any, path: Path) -> Encoded:
    from pyarrow import int64, types

    encoded: list[Any] = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in images.to_pylist()]
    if not all(isinstance(cell, bytes) for cell in encoded) or labels.null_count:
        raise DataError(f"Some rows of {path} have no image or no label: fix the file.")
    if not types.is_integer(labels.type):
        raise DataError(f"Expected whole numbers as labels in {path}, but got {labels.type}: number the classes.")
    return Encoded(encoded, labels.cast(int64()).to_numpy())

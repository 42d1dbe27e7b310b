"""Image data sets in the parquet layout of the Hugging Face hub: files by part, images and labels in columns."""

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
STORED = ("struct", "binary", "large_binary")
"""Types of a column of encoded images, in the words of pyarrow"""
IMAGE_COLUMNS, LABEL_COLUMNS = ("img", "image"), ("label", "labels", "fine_label")


class Encoded(NamedTuple):
    """One part as it is stored: image files, their labels (int64), and the names of the classes if it has them."""

    images: Sequence[Path | bytes]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    classes: tuple[str, ...] = ()


def is_here(folder: Path) -> bool:
    """Whether a folder (or its folder ``data``) holds a training part."""
    return bool(_files(folder, "train"))


def read(folder: Path, name: str, resize: Resize, channels: int | None) -> Parts:
    """The parts that the folder holds.

    Classes have the names that the files bring as the hub writes them, CIFAR-10's in a set of that name, or numbers.

    Without `channels` the images are grey where every one is stored in grey, else in colour.

    Raises DataError for missing files, missing columns, and images or labels that cannot be read.

    Args:
        folder: of the .parquet files.
        name: of the data set.
        resize: the size that is wanted, and how it is reached.
        channels: 1, 3 or 4.
    """
    if not is_here(folder):
        raise DataError(f"No train-*.parquet in {folder}: give the folder that holds them.")
    parts = {part: _encoded(files) for part in PREFIXES if (files := _files(folder, part))}
    source = f"{_title(folder) or name}, parquet files in {folder}"
    return _of_parts(parts, folder, name, source, resize, channels)


def has_images(path: Path) -> bool:
    """Whether one file holds its images, and not the names of files. Raises DataError where it cannot be read."""
    with _opened(path) as file:
        kinds = {name: str(file.schema_arrow.field(name).type) for name in file.schema_arrow.names}
    return any(kinds.get(name, "").startswith(STORED) for name in IMAGE_COLUMNS)


def read_file(path: Path, resize: Resize, channels: int | None) -> Parts:
    """One file of images and labels, which has no parts; otherwise as `read`.

    Args:
        path: of the file.
        resize: the size that is wanted, and how it is reached.
        channels: 1, 3 or 4.
    """
    return _of_parts({"train": _encoded([path])}, path, path.stem, f"images in {path}", resize, channels)


def _of_parts(
    parts: Mapping[str, Encoded], where: Path, name: str, source: str, resize: Resize, channels: int | None
) -> Parts:
    named = parts["train"].classes or (CIFAR10 if name == "cifar10" else ())
    classes = named or _numbered(parts["train"].labels, where)
    channels = channels or channels_of(image for part in parts.values() for image in part.images)
    splits = streamed(parts, str(where), len(classes), resize, channels)
    return Parts(name, source, classes, splits["train"], splits.get("validation"), splits.get("test"))


def _title(folder: Path) -> str:
    """The heading of the folder's README, which says which copy of a data set it holds."""
    try:
        heading = (folder / "README.md").read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return ""
    return heading.removeprefix("#").strip() if heading.startswith("# ") else ""


def _files(folder: Path, part: str) -> list[Path]:
    found = (
        path
        for place in (folder, folder / "data")
        for prefix in PREFIXES[part]
        for path in place.glob(f"{prefix}*.parquet")
    )
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def _numbered(labels: np.ndarray[Any, np.dtype[np.int64]], folder: Path) -> tuple[str, ...]:
    """Class names by number. A label beyond the number of images can only be damage: nothing of that size is made."""
    count = int(labels.max()) + 1
    if count < 2:
        raise DataError(f"Expected at least 2 classes in {folder}, but got labels up to {count - 1}: add images.")
    if count > len(labels):
        raise DataError(f"Expected labels below {len(labels)}, the number of images in {folder}, but got {count - 1}.")
    return tuple(str(label) for label in range(count))


def _encoded(files: list[Path]) -> Encoded:
    parts = [_columns(path) for path in files]
    images = [image for part in parts for image in part.images]
    together = Encoded(images, np.concatenate([part.labels for part in parts]), parts[0].classes)
    if not together.images:
        raise DataError(f"No rows in {files[0]}: fetch it again.")
    return together


def streamed(parts: Mapping[str, Encoded], where: str, classes: int, resize: Resize, channels: int) -> dict[str, Split]:
    """The parts, whose images are yet to be decoded. Without an image size the first of them gives it.

    Args:
        parts: encoded images and labels, by part.
        where: the data set, for errors.
        classes: number of classes.
        resize: the size that is wanted, and how it is reached.
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
    """A parquet file. Raises DataError where it is none or damaged, also for what is read of it inside."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UsageError("Parquet files need pyarrow: pip install 'pretrim[data]'.") from None
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (ArrowException, OSError) as error:
        said = str(error).splitlines()[0]
        raise DataError(f"Cannot read the parquet file {path} ({said}): fetch it again.") from error


def _columns(path: Path) -> Encoded:
    """The images and labels of one file; no other column is read."""
    with _opened(path) as file:
        image, label = _names(file.schema_arrow.names, path)
        table = file.read(columns=[image, label])
        classes = class_names(file.schema_arrow.metadata, label)
        return _checked(table.column(image), table.column(label), path)._replace(classes=classes)


def class_names(metadata: Mapping[bytes, bytes] | None, column: str) -> tuple[str, ...]:
    """What the hub's files say of a column of labels; nothing for files of others, or names that cannot be used.

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

    entries: list[Any] = [entry.get("bytes") if isinstance(entry, dict) else entry for entry in images.to_pylist()]
    if not all(isinstance(entry, bytes) for entry in entries) or labels.null_count:
        raise DataError(f"Some rows of {path} have no image or no label: mend the file.")
    if not types.is_integer(labels.type):
        raise DataError(f"Expected whole numbers as labels in {path}, but got {labels.type}: number the classes.")
    return Encoded(entries, labels.cast(int64()).to_numpy())

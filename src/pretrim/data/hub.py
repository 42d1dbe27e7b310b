"""`hf:OWNER/NAME` and `hf:FOLDER`: data sets loaded by the Hugging Face package `datasets`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pretrim.errors import DataError, UsageError

from .images import Resize, channels_of
from .parquet import Encoded, streamed
from .record import Parts

PARTS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}


def read(name: str, resize: Resize, channels: int | None, announce: Callable[[str], None]) -> Parts:
    """Read the splits of a data set with one image column and one label column that has class names.

    Args:
        name: OWNER/NAME, or a folder.
        resize: requested size, and how it is reached.
        channels: 1, 3 or 4.
        announce: called with a line of text before anything is downloaded.

    Raises:
        UsageError: the package is missing, or no name is given.
        DataError: the data set cannot be loaded, or does not hold images by class.
    """
    if not name:
        raise UsageError("Expected hf:OWNER/NAME or hf:FOLDER, but got 'hf:' alone.")
    loaded = _load(name, announce)
    tables = {split: next((loaded[key] for key in names if key in loaded), None) for split, names in PARTS.items()}
    if tables["train"] is None:
        present = ", ".join(map(str, loaded))
        raise DataError(f"Expected a train split in {name}, but got {present}: give another data set.")
    image, label, classes = _columns(tables["train"].features, name)
    encoded = {split: _encoded(table, image, label, name) for split, table in tables.items() if table is not None}
    channels = channels or channels_of(item for split in encoded.values() for item in split.images)
    splits = streamed(encoded, name, len(classes), resize, channels)
    source = f"{name}, by Hugging Face datasets"
    return Parts(
        name.rstrip("/").rpartition("/")[2],
        source,
        classes,
        splits["train"],
        splits.get("validation"),
        splits.get("test"),
    )


def _load(name: str, announce: Callable[[str], None]) -> Any:
    try:
        import datasets
    except ImportError:
        raise UsageError("Names with hf: need the package datasets: pip install 'pretrim[hub]'.") from None
    if not Path(name).exists():
        announce(f"loading {name} by Hugging Face datasets: from its cache, or else downloaded from the hub")
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name)
    except Exception as error:  # many types: no network, no such data set, damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"datasets could not load {name} ({reason}): check the name and the network.") from error


def _columns(features: Any, name: str) -> tuple[str, str, tuple[str, ...]]:
    """Return the names of the image and label columns, and the class names."""
    import datasets

    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    labels = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if len(images) != 1 or not labels:
        raise DataError(
            f"Expected one column of images and one of classes in {name}, but got {', '.join(features)}: "
            f"give a set of images by class."
        )
    return images[0], labels[0], tuple(features[labels[0]].names)


def _encoded(table: Any, image: str, label: str, name: str) -> Encoded:
    """Return the images as stored, and their labels."""
    import datasets

    columns = table.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
    images: list[Path | bytes] = []
    for record in columns[image]:
        content = record["bytes"] if record["bytes"] is not None else record["path"]
        if content is None:
            raise DataError(f"A row of {name} has no image: fix the data set.")
        images.append(content if isinstance(content, bytes) else Path(content))
    if not images:
        raise DataError(f"A split of {name} has no rows: fetch it again.")
    return Encoded(images, np.asarray(columns[label], dtype=np.int64))

"""A folder of images with one folder per class; with the parts train, validation and test above them, if it has any."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from pretrim.errors import DataError

from .images import SUFFIXES, decode, decode_all
from .record import Parts, Split

PARTS = {"train": ("train", "training"), "validation": ("validation", "valid", "val"), "test": ("test", "testing")}
DEFAULT_SIZE = 64


def read(folder: Path, image_size: int | None, channels: int | None) -> Parts:
    """Images by class, resized to 64x64 unless another size is asked for; classes in the order of their names.

    Raises DataError for a folder that is empty, that has one class, or whose parts have different classes.
    """
    places = {part: _place(folder, names) for part, names in PARTS.items()}
    root = places["train"] or folder
    classes = _classes(root)
    if not classes:
        raise DataError(f"Expected a folder of images per class in {root}, but found none: put them in {root}/CLASS/.")
    if len(classes) < 2:
        raise DataError(f"Expected at least 2 classes in {root}, but got one ({classes[0]}): add a folder per class.")
    size = image_size or DEFAULT_SIZE
    splits = {
        part: _split(place, classes, size, channels or 3)
        for part, place in ({"train": root} | {p: places[p] for p in ("validation", "test")}).items()
        if place is not None
    }
    return Parts(
        folder.name, f"images in {folder}", classes, splits["train"], splits.get("validation"), splits.get("test")
    )


def _place(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _classes(root: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir() and _images(entry)))


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _split(root: Path, classes: tuple[str, ...], size: int, channels: int) -> Split:
    extra = set(_classes(root)) - set(classes)
    if extra:
        raise DataError(f"Expected the classes {', '.join(classes)} in {root}, but got {', '.join(sorted(extra))} too.")
    found = [(path, label) for label, name in enumerate(classes) for path in _images(root / name)]
    if not found:
        raise DataError(f"Expected images in {root}, but found none: put them in {root}/CLASS/.")
    read_one = partial(_decode, channels=channels, size=(size, size))
    return Split(decode_all([path for path, _ in found], read_one), torch.tensor([label for _, label in found]))


def _decode(path: Path, channels: int, size: tuple[int, int]) -> torch.Tensor:
    return decode(path, str(path), channels=channels, size=size)

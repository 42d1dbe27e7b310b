"""A folder of images with one folder per class; with the parts train, validation and test above them, if it has any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from pretrim.errors import DataError

from .images import SUFFIXES, Resize, channels_of
from .record import Parts, Split
from .stream import Streamed

PARTS = {"train": ("train", "training"), "validation": ("validation", "valid", "val"), "test": ("test", "testing")}
PART_NAMES = frozenset(name for names in PARTS.values() for name in names)
DEFAULT_SIZE = 64

Labelled = list[tuple[Path, int]]


def read(folder: Path, resize: Resize, channels: int | None) -> Parts:
    """Images by class, resized to 64x64 unless another size is asked for; classes in the order of their names.

    Without `channels` the images are grey where every one is stored in grey, else in colour.

    Raises DataError for a folder that is empty, that has one class, or whose parts have different classes.

    Args:
        folder: one folder per class, or train/, val/ and test/ of these.
        resize: the size that is wanted, and how it is reached.
        channels: 1, 3 or 4.
    """
    places = _places(folder)
    classes = _classes(places["train"])
    _check_classes(classes, places["train"])
    files = {part: _files(place, classes) for part, place in places.items()}
    resize = resize.or_square(DEFAULT_SIZE)
    channels = channels or channels_of(path for found in files.values() for path, _ in found)
    splits = {part: _split(found, str(folder), resize, channels) for part, found in files.items()}
    name = folder.resolve().name
    return Parts(name, f"images in {folder}", classes, splits["train"], splits.get("validation"), splits.get("test"))


def _places(folder: Path) -> dict[str, Path]:
    """The parts that the folder has, in any case. A folder named `train` with images right inside is a class."""
    inside = {entry.name.lower(): entry for entry in sorted(folder.iterdir()) if entry.is_dir()}
    found = {}
    for part, names in PARTS.items():
        for name in names:
            if part not in found and name in inside and _classes(inside[name]):
                found[part] = inside[name]
    for part, names in PARTS.items():
        if found and part not in found and (empty := next((inside[name] for name in names if name in inside), None)):
            raise DataError(f"No folder of images per class in {empty}: sort its images by class, or move it away.")
    if found and "train" not in found:
        raise DataError(
            f"Expected classes in {folder / 'train'} too, but got {' and '.join(found)} alone: bring the part train."
        )
    return found or {"train": folder}


def _classes(root: Path) -> tuple[str, ...]:
    folders = (entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return tuple(sorted(entry.name for entry in folders if any(images_in(entry))))


def images_in(folder: Path) -> Iterator[Path]:
    """Image files at any depth, in no order; hidden ones (`._cat.png` of macOS) are not images.

    Raises OSError for a folder that cannot be read: its class must not get lost.
    """
    for place, folders, names in os.walk(folder, onerror=_raised):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                yield path


def _raised(error: OSError) -> None:
    raise error


def _check_classes(classes: tuple[str, ...], root: Path) -> None:
    if not classes or PART_NAMES.issuperset(name.lower() for name in classes):
        inside = f"{root / classes[0]}/CLASS/" if classes else f"{root}/CLASS/"
        raise DataError(f"No folder of images per class in {root}: put them in {inside}.")
    if len(classes) < 2:
        raise DataError(f"Expected at least 2 classes in {root}, but got one ({classes[0]}): add a folder per class.")


def _files(root: Path, classes: tuple[str, ...]) -> Labelled:
    """Images and labels, by class, then by name: the same on every machine."""
    extra = sorted(set(_classes(root)) - set(classes))
    if extra:
        raise DataError(
            f"Expected the classes {', '.join(classes)} in {root}, but got {', '.join(extra)} too: "
            f"give every part the classes of the training part."
        )
    return [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted(images_in(root / name), key=lambda path: path.relative_to(root).parts)
    ]


def _split(files: Labelled, where: str, resize: Resize, channels: int) -> Split:
    assert resize.size is not None
    images = Streamed([path for path, _ in files], where, channels, *resize.size, fit=resize.fit)
    return Split(images, torch.tensor([label for _, label in files]))

"""A folder of images with one folder per class; with the parts train, validation and test above them, if it has any."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from pretrim.errors import DataError, first_of

from .images import SUFFIXES, Resize, channels_of
from .record import Known, Parts, Split
from .stream import Streamed

PARTS = {"train": ("train", "training"), "validation": ("validation", "valid", "val"), "test": ("test", "testing")}
PART_NAMES = frozenset(name for names in PARTS.values() for name in names)
DEFAULT_SIZE = 64
OTHER_PICTURES = frozenset(
    {".arw", ".avif", ".cr2", ".dng", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".nef", ".psd", ".raw", ".svg"}
)
"""Of files that are images, and not read"""
SYSTEM = frozenset({"thumbs.db", "desktop.ini"})
"""Files that Windows leaves in folders of images"""

Labelled = list[tuple[Path, int]]


def read(folder: Path, resize: Resize, channels: int | None, known: Known | None = None) -> Parts:
    """Images by class, resized to 64x64 unless another size is asked for; classes in the order of their names.

    Without `channels` the images are grey where every one is stored in grey, else in colour.

    Raises DataError for a folder that is empty, that has one class, or whose parts have classes that are not trained.

    Args:
        folder: one folder per class, or train/, val/ and test/ of these.
        resize: the size that is wanted, and how it is reached.
        channels: 1, 3 or 4.
        known: of a network that is to be evaluated on the folder, which then needs no training part, nor every class.
    """
    places = _places(folder, needs_training=known is None)
    roots = [places["train"]] if known is None else list(places.values())
    classes = tuple(sorted({name for root in roots for name in _classes(root)}))
    _check_classes(classes, roots[0], least=2 if known is None else 1)
    files = {part: _files(place, classes) for part, place in places.items()}
    resize = resize.or_square(DEFAULT_SIZE)
    channels = channels or channels_of(path for found in files.values() for path, _ in found)
    splits = {part: _split(found, str(folder), resize, channels) for part, found in files.items()}
    return Parts(
        name=folder.resolve().name,
        source=f"images in {folder}",
        classes=classes,
        train=splits.get("train") or next(iter(splits.values())).none(),
        validation=splits.get("validation"),
        test=splits.get("test"),
        notes=(*_empty(roots[0], classes), *left_out(place / name for place in places.values() for name in classes)),
    )


def _places(folder: Path, *, needs_training: bool) -> dict[str, Path]:
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
    if found and "train" not in found and needs_training:
        raise DataError(
            f"Expected classes in {folder / 'train'} too, but got {' and '.join(found)} alone: bring the part train."
        )
    return found or {"train": folder}


def _classes(root: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in _folders(root) if any(images_in(entry))))


def _folders(root: Path) -> list[Path]:
    """Folders that may be classes: not hidden ones, nor what macOS adds to archives."""
    entries = sorted(root.iterdir())
    return [entry for entry in entries if not entry.name.startswith((".", "__MACOSX")) and entry.is_dir()]


def _empty(root: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """A sentence on folders beside the classes that have no images."""
    names = [entry.name for entry in _folders(root) if entry.name not in classes]
    return (f"{first_of(names)} {'has' if len(names) == 1 else 'have'} no images",) if names else ()


def images_in(folder: Path) -> Iterator[Path]:
    """Image files at any depth, in no order; hidden ones (`._cat.png` of macOS) are not images.

    Raises OSError for a folder that cannot be read: its class must not get lost.
    """
    return (path for path in _inside(folder) if _is_image(path))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _inside(folder: Path) -> Iterator[Path]:
    """Files at any depth, and links to folders, which are not followed; nothing that is hidden."""
    for place, folders, names in os.walk(folder, onerror=_raised):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if Path(place, name).is_symlink()]
        yield from (Path(place, name) for name in (*names, *links) if not name.startswith("."))


def left_out(folders: Iterable[Path | None]) -> tuple[str, ...]:
    """A sentence on the files in folders of images that are not read.

    Args:
        folders: of images; None and those that are not there have no files.
    """
    there = [folder for folder in folders if folder is not None and folder.is_dir()]
    others = sorted(path for folder in there for path in _inside(folder) if not _is_image(path))
    others = [path for path in others if path.name.lower() not in SYSTEM]
    if not others:
        return ()
    kinds = Counter(map(_kind, others)).most_common()
    counts = first_of([f"{count:,} {noun}{'s' * (count > 1)}{rest}" for (noun, rest), count in kinds])
    verb = "is" if len(others) == 1 else "are"
    mend = ": save pictures as .jpg or .png" if any(path.suffix.lower() in OTHER_PICTURES for path in others) else ""
    return (f"{counts} {verb} not read (such as {others[0]}){mend}",)


def _kind(path: Path) -> tuple[str, str]:
    """What a file is: a noun, and what comes behind it."""
    if path.is_symlink() and not path.is_file():
        return "link", " to a folder" if path.is_dir() else " to nothing"
    return (f"{path.suffix.lower()} file", "") if path.suffix else ("file", " without a suffix")


def _raised(error: OSError) -> None:
    raise error


def _check_classes(classes: tuple[str, ...], root: Path, least: int) -> None:
    if not classes or PART_NAMES.issuperset(name.lower() for name in classes):
        inside = f"{root / classes[0]}/CLASS/" if classes else f"{root}/CLASS/"
        raise DataError(f"No folder of images per class in {root}: put them in {inside}.")
    if len(classes) < least:
        deeper = root / classes[0]
        mend = f"did you mean {deeper}?" if len(_classes(deeper)) > 1 else "add a folder per class."
        raise DataError(f"Expected at least 2 classes in {root}, but got one ({classes[0]}): {mend}")


def _files(root: Path, classes: tuple[str, ...]) -> Labelled:
    """Images and labels, by class, then by name: the same on every machine. A class may be without a folder."""
    extra = sorted(set(_classes(root)) - set(classes))
    if extra:
        raise DataError(
            f"Expected the classes {', '.join(classes)} in {root}, but got {', '.join(extra)} too: "
            f"give every part the classes of the training part."
        )
    return [
        (path, label)
        for label, name in enumerate(classes)
        if (root / name).is_dir()
        for path in sorted(images_in(root / name), key=lambda path: path.relative_to(root).parts)
    ]


def _split(files: Labelled, where: str, resize: Resize, channels: int) -> Split:
    assert resize.size is not None
    images = Streamed([path for path, _ in files], where, channels, *resize.size, fit=resize.fit)
    return Split(images, torch.tensor([label for _, label in files]))

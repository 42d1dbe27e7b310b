"""A folder of images with one subfolder per class, optionally below train, validation and test folders."""

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
"""Suffixes of image formats that are not read."""
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
"""Files that Windows leaves in image folders."""

Labelled = list[tuple[Path, int]]


def read(folder: Path, resize: Resize, channels: int | None, known: Known | None = None) -> Parts:
    """Read images by class, resized to 64x64 unless another size is requested; classes are sorted by name.

    Without `channels`, images are grey if every file is stored in grey, else in colour.

    Raises DataError for an empty folder, for a single class, and for classes that the training split lacks.

    Args:
        folder: one folder per class, or train/, val/ and test/ folders of these.
        resize: requested size, and how it is reached.
        channels: 1, 3 or 4.
        known: the network to evaluate on this folder, which then needs neither a training split nor every class.
    """
    folders = _split_folders(folder, needs_training=known is None)
    roots = [folders["train"]] if known is None else list(folders.values())
    classes = tuple(sorted({name for root in roots for name in _classes(root)}))
    _check_classes(classes, roots[0], min_classes=2 if known is None else 1)
    files = {split: _files(split_folder, classes) for split, split_folder in folders.items()}
    resize = resize.or_square(DEFAULT_SIZE)
    channels = channels or channels_of(path for labelled in files.values() for path, _ in labelled)
    splits = {split: _split(labelled, str(folder), resize, channels) for split, labelled in files.items()}
    return Parts(
        name=folder.resolve().name,
        source=f"images in {folder}",
        classes=classes,
        train=splits.get("train") or next(iter(splits.values())).none(),
        validation=splits.get("validation"),
        test=splits.get("test"),
        notes=(
            *_empty_note(roots[0], classes),
            *left_out(split_folder / name for split_folder in folders.values() for name in classes),
        ),
    )


def _split_folders(folder: Path, *, needs_training: bool) -> dict[str, Path]:
    """Return the folder of each split, with names matched in any case.

    A folder named `train` that holds images directly is a class.
    """
    subfolders = {entry.name.lower(): entry for entry in sorted(folder.iterdir()) if entry.is_dir()}
    folders = {}
    for split, names in PARTS.items():
        for name in names:
            if split not in folders and name in subfolders and _classes(subfolders[name]):
                folders[split] = subfolders[name]
    for split, names in PARTS.items():
        if (
            folders
            and split not in folders
            and (empty := next((subfolders[name] for name in names if name in subfolders), None))
        ):
            raise DataError(f"No folder of images per class in {empty}: sort its images by class, or move it away.")
    if folders and "train" not in folders and needs_training:
        raise DataError(
            f"Expected classes in {folder / 'train'} too, but got {' and '.join(folders)} alone: add a train split."
        )
    return folders or {"train": folder}


def _classes(root: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in _folders(root) if any(images_in(entry))))


def _folders(root: Path) -> list[Path]:
    """Return the folders that may be classes, without hidden ones and those that macOS adds to archives."""
    entries = sorted(root.iterdir())
    return [entry for entry in entries if not entry.name.startswith((".", "__MACOSX")) and entry.is_dir()]


def _empty_note(root: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return a note on folders beside the classes that have no images."""
    names = [entry.name for entry in _folders(root) if entry.name not in classes]
    return (f"{first_of(names)} {'has' if len(names) == 1 else 'have'} no images",) if names else ()


def images_in(folder: Path) -> Iterator[Path]:
    """Yield image files at any depth, in no particular order, without hidden ones (`._cat.png` of macOS).

    Raises OSError for a folder that cannot be read, so that its class is not lost silently.
    """
    return (path for path in _inside(folder) if _is_image(path))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _inside(folder: Path) -> Iterator[Path]:
    """Yield visible files at any depth, and links to folders, which are not followed."""
    for parent, subfolders, names in os.walk(folder, onerror=_raise):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        links = [name for name in subfolders if Path(parent, name).is_symlink()]
        yield from (Path(parent, name) for name in (*names, *links) if not name.startswith("."))


def left_out(folders: Iterable[Path | None]) -> tuple[str, ...]:
    """Return a note on the files in image folders that are not read.

    Args:
        folders: image folders; None and missing ones are skipped.
    """
    existing = [folder for folder in folders if folder is not None and folder.is_dir()]
    others = sorted(path for folder in existing for path in _inside(folder) if not _is_image(path))
    others = [path for path in others if path.name.lower() not in SYSTEM_FILES]
    if not others:
        return ()
    kinds = Counter(map(_kind, others)).most_common()
    counts = first_of([f"{count:,} {noun}{'s' * (count > 1)}{rest}" for (noun, rest), count in kinds])
    verb = "is" if len(others) == 1 else "are"
    advice = ": save pictures as .jpg or .png" if any(path.suffix.lower() in OTHER_PICTURES for path in others) else ""
    return (f"{counts} {verb} not read (such as {others[0]}){advice}",)


def _kind(path: Path) -> tuple[str, str]:
    """Describe a file by a noun and a phrase that follows it, such as ``link`` and `` to a folder``."""
    if path.is_symlink() and not path.is_file():
        return "link", " to a folder" if path.is_dir() else " to nothing"
    return (f"{path.suffix.lower()} file", "") if path.suffix else ("file", " without a suffix")


def _raise(error: OSError) -> None:
    raise error


def _check_classes(classes: tuple[str, ...], root: Path, min_classes: int) -> None:
    if not classes or PART_NAMES.issuperset(name.lower() for name in classes):
        wanted = f"{root / classes[0]}/CLASS/" if classes else f"{root}/CLASS/"
        raise DataError(f"No folder of images per class in {root}: put them in {wanted}.")
    if len(classes) < min_classes:
        deeper = root / classes[0]
        advice = f"did you mean {deeper}?" if len(_classes(deeper)) > 1 else "add a folder per class."
        raise DataError(f"Expected at least 2 classes in {root}, but got one ({classes[0]}): {advice}")


def _files(root: Path, classes: tuple[str, ...]) -> Labelled:
    """Return images and labels, sorted by class, then by name, as on every machine. A class may lack a folder."""
    extra = sorted(set(_classes(root)) - set(classes))
    if extra:
        raise DataError(
            f"Expected the classes {', '.join(classes)} in {root}, but got {', '.join(extra)} too: "
            f"give every split the classes of the training split."
        )
    return [
        (path, label)
        for label, name in enumerate(classes)
        if (root / name).is_dir()
        for path in sorted(images_in(root / name), key=lambda path: path.relative_to(root).parts)
    ]


def _split(labelled: Labelled, where: str, resize: Resize, channels: int) -> Split:
    assert resize.size is not None
    images = Streamed([path for path, _ in labelled], where, channels, *resize.size, fit=resize.fit)
    return Split(images, torch.tensor([label for _, label in labelled]))

"""Semantic segmentation in folders: ``images/`` and ``masks/`` with files of the same names, in parts or not.

A mask has the class of each pixel as its grey value or index of its palette; 255 counts nowhere. Masks of 0 and 255
alone are of two classes. Names of the classes may be in ``classes.txt``, a line each. Masks whose numbers leave most
classes out are refused: they are rather shades of grey.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from pretrim.errors import DataError

from .folder import PARTS, images_in, left_out
from .images import FORMATS, Resize, channels_of, size_of
from .record import Known, Parts, Split, shown_names
from .stream import Streamed

IMAGES, MASKS = "images", ("masks", "mask")
IGNORED = 255
MARK = 254
"""In the place of 255, until all masks are read and it is known whether that is a class; a pad is of none"""
TWO = frozenset({0, IGNORED})
DEFAULT_SIZE = 64

Pair = tuple[Path, Path]


class Mask(NamedTuple):
    """The class of each pixel (uint8, H x W), and all values of the file, before it was resized."""

    pixels: torch.Tensor
    values: frozenset[int]


class Labels(NamedTuple):
    """The masks of each part (uint8, N x H x W), the names of their classes, and what they were made of."""

    masks: dict[str, torch.Tensor]
    names: tuple[str, ...]
    note: str


def is_here(folder: Path) -> bool:
    """Whether a folder, or its training part, has images and masks. Raises DataError for masks alone."""
    _check_not_alone(folder)
    return bool(_roots(folder))


def read(folder: Path, resize: Resize, channels: int | None, known: Known | None = None) -> Parts:
    """Images and masks, resized to 64x64 unless another size is asked for; masks without values in between.

    Raises DataError for images without a mask, masks without an image or of another shape, and masks that are not
    classes.

    Args:
        folder: with images/ and masks/.
        resize: the size that is wanted, and how it is reached.
        channels: 1, 3 or 4.
        known: of a network that is to be evaluated on the folder, which then needs no training part, nor every class.
    """
    roots = _roots(folder)
    if "train" not in roots and known is None:
        raise DataError(f"Expected images and masks in {folder / 'train'} too, but got {' and '.join(roots)} alone.")
    pairs = {part: _pairs(root) for part, root in roots.items()}
    channels = channels or channels_of(image for part in pairs.values() for image, _ in part)
    sized = resize.or_square(DEFAULT_SIZE)
    labels = _labels(folder, {part: [_mask(*pair, sized) for pair in found] for part, found in pairs.items()}, known)
    splits = {}
    for part, found in pairs.items():
        assert sized.size is not None
        images = Streamed([image for image, _ in found], str(folder), channels, *sized.size, fit=sized.fit)
        splits[part] = Split(images, labels.masks[part])
    return Parts(
        name=folder.resolve().name,
        source=f"images and masks in {folder}",
        classes=labels.names,
        train=splits.get("train") or next(iter(splits.values())).none(),
        validation=splits.get("validation"),
        test=splits.get("test"),
        task="segmentation",
        notes=(
            labels.note,
            *left_out(inside for root in roots.values() for inside in (root / IMAGES, _masks_of(root))),
        ),
    )


def _roots(folder: Path) -> dict[str, Path]:
    """The folders that hold images and masks, by part."""
    if _masks_of(folder) is not None:
        return {"train": folder}
    inside = {entry.name.lower(): entry for entry in folder.iterdir() if entry.is_dir()}
    there = {part: [inside[name] for name in names if name in inside] for part, names in PARTS.items()}
    roots = {part: found[0] for part, found in there.items() if found and _masks_of(found[0]) is not None}
    for part, found in there.items():
        if roots and found and part not in roots:
            raise DataError(f"Expected {IMAGES} and masks in {found[0]}, as in other parts: add them, or remove it.")
    return roots


def _check_not_alone(folder: Path) -> None:
    """A folder of masks and nothing else is no data set of one class."""
    for root in (folder, *(entry for entry in folder.iterdir() if entry.is_dir())):
        inside = [entry.name for entry in root.iterdir() if entry.is_dir()]
        if len(inside) == 1 and inside[0].lower() in MASKS:
            raise DataError(
                f"Expected a folder {IMAGES} beside {root / inside[0]}, with an image of the same name for each mask."
            )


def _masks_of(root: Path) -> Path | None:
    """The folder of masks, beside one of images."""
    if not (root / IMAGES).is_dir():
        return None
    return next((root / name for name in MASKS if (root / name).is_dir()), None)


def _pairs(root: Path) -> list[Pair]:
    """Each image with its mask, by name."""
    folder = _masks_of(root)
    assert folder is not None
    images, masks = (_by_name(place) for place in (root / IMAGES, folder))
    if not images and not masks:
        raise DataError(f"No images in {root / IMAGES}.")
    for first, second, what in ((images, masks, "mask"), (masks, images, "image")):
        missing = sorted(set(first) - set(second))
        if missing:
            path = first[missing[0]]
            raise DataError(f"No {what} for {path}: there is none of that name ({len(missing)} in all lack one).")
    return [(images[name], masks[name]) for name in sorted(images)]


def _by_name(folder: Path) -> dict[Path, Path]:
    """The images of a folder by their path in it without a suffix. Raises DataError for two of one name."""
    found: dict[Path, Path] = {}
    for path in sorted(images_in(folder)):
        first = found.setdefault(path.relative_to(folder).with_suffix(""), path)
        if first != path:
            raise DataError(f"{first} and {path} have one name, by which images and masks are paired: keep one.")
    return found


def _mask(image: Path, path: Path, resize: Resize) -> Mask:
    """Raises DataError for a mask that does not say a class a pixel, or is of another shape than its image."""
    assert resize.size is not None
    try:
        with Image.open(path, formats=FORMATS) as opened:
            _check_kind(opened, path)
            ImageOps.exif_transpose(opened, in_place=True)
            mask = opened.convert("L") if opened.mode == "1" else opened
            numbers = Image.fromarray(np.asarray(mask, dtype=np.uint8))
    except OSError as error:
        raise DataError(f"Cannot read the mask {path} ({error}).") from error
    _check_shape(image, path, numbers.size)
    values = frozenset(np.flatnonzero(np.bincount(np.asarray(numbers).ravel())).tolist())
    if values <= TWO:
        numbers = numbers.point(lambda value: MARK if value == IGNORED else value)
    return Mask(torch.from_numpy(np.asarray(_sized(numbers, resize)).copy()), values)


def _check_kind(mask: Image.Image, path: Path) -> None:
    if mask.mode not in ("L", "P", "1"):
        raise DataError(
            f"Expected a mask with a class a pixel (grey, or a palette) in {path}, but it is {mask.mode}: "
            f"store class numbers from 0."
        )
    if mask.format == "JPEG":
        raise DataError(
            f"Expected a mask with a class a pixel, but {path} is a JPEG, whose compression changes the numbers of "
            f"classes: make the masks again as PNG."
        )


def _check_shape(image: Path, mask: Path, size: tuple[int, int]) -> None:
    """A mask may be smaller or larger than its image, to a pixel; of other proportions it is another image's."""
    (height, width), (wide, high) = size_of(image, str(image)), size
    if abs(width * high - height * wide) > max(width, height, wide, high):
        raise DataError(
            f"Expected a mask in the proportions of its image, but {mask} has {wide} x {high} pixels and {image} has "
            f"{width} x {height}: give each image a mask of its own shape."
        )


def _sized(mask: Image.Image, resize: Resize) -> Image.Image:
    """As the images are, without values in between; what a pad adds counts nowhere."""
    assert resize.size is not None
    size = (resize.size[1], resize.size[0])
    if mask.size == size:
        return mask
    if resize.fit == "crop":
        return ImageOps.fit(mask, size, Image.Resampling.NEAREST)
    if resize.fit == "pad":
        return ImageOps.pad(mask, size, Image.Resampling.NEAREST, color=IGNORED)
    return mask.resize(size, Image.Resampling.NEAREST)


def _labels(folder: Path, masks: dict[str, list[Mask]], known: Known | None) -> Labels:
    """Masks of 0 and 255 alone, which drawing programs write, are of two classes."""
    values = frozenset[int]().union(*(mask.values for found in masks.values() for mask in found))
    is_of_two = values == TWO
    pixels = {
        part: torch.stack([_unmarked(mask, 1 if is_of_two else IGNORED) for mask in found])
        for part, found in masks.items()
    }
    if is_of_two:
        note = "masks have the values 0 and 255, which are the classes 0 and 1"
        return Labels(pixels, _names(folder, {0, 1}, known), note)
    classes = set(values - {IGNORED})
    names = _names(folder, classes, known)
    note = f"masks have the values {_ranges(values)}: {len(names)} classes"
    if missing := set(range(len(names))) - classes:
        note = f"{note}, of which no mask has {_ranges(missing)}"
    return Labels(pixels, names, f"{note}; 255 counts nowhere" if IGNORED in values else note)


def _unmarked(mask: Mask, number: int) -> torch.Tensor:
    """The pixels, with what 255 of the file is."""
    return torch.where(mask.pixels == MARK, number, mask.pixels) if mask.values <= TWO else mask.pixels


def _ranges(values: Iterable[int]) -> str:
    """Numbers in words.

    >>> _ranges({0, 1, 2, 3, 7, 255})
    '0 to 3, 7, 255'
    """
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    words = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return shown_names(words, most=8)


def _names(folder: Path, classes: set[int], known: Known | None) -> tuple[str, ...]:
    """Of all classes up to the largest number, or of those that ``classes.txt`` names."""
    count = 1 + max(classes, default=0)
    if count < 2 and known is None:
        raise DataError(f"Expected masks of at least 2 classes in {folder}, but every known pixel is of class 0.")
    file = folder / "classes.txt"
    if file.is_file():
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        names = tuple(line.strip() for line in lines if line.strip())
        if len(names) < count:
            raise DataError(f"Expected {count} names in {file}, one a class of the masks, but got {len(names)}.")
        return names
    if known is not None and count <= len(known.classes):
        return known.classes
    if 2 * len(classes) < count:
        raise DataError(
            f"Expected masks with the classes 0, 1, 2, ... in {folder}, but their values are {_ranges(classes)}: "
            f"re-number them 0 to {len(classes) - 1}, or, if there are {count} classes, name each in {file}."
        )
    return tuple(map(str, range(count)))

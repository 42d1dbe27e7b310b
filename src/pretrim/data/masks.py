"""Semantic segmentation in folders: ``images/`` and ``masks/`` with files of the same names, per split or not.

A mask stores the class of each pixel as its grey value or palette index; 255 is ignored. Masks that hold only 0 and
255 have two classes. ``classes.txt`` may list class names, one per line. Masks whose values skip most classes are
refused, since they are probably shades of grey.
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
MARKER = 254
"""Stands for 255 until all masks are read and show whether 255 is a class; padding is always ignored."""
BINARY = frozenset({0, IGNORED})
DEFAULT_SIZE = 64

Pair = tuple[Path, Path]


class Mask(NamedTuple):
    """The class of each pixel (uint8, H x W), and all values in the file before resizing."""

    pixels: torch.Tensor
    values: frozenset[int]


class Labels(NamedTuple):
    """The masks of each split (uint8, N x H x W), the class names, and a note on how the masks were read."""

    masks: dict[str, torch.Tensor]
    names: tuple[str, ...]
    note: str


def is_here(folder: Path) -> bool:
    """Whether a folder, or its training split, has images and masks. Raises DataError for masks without images."""
    _check_not_only_masks(folder)
    return bool(_roots(folder))


def read(folder: Path, resize: Resize, channels: int | None, known: Known | None = None) -> Parts:
    """Read images and masks, resized to 64x64 unless another size is requested; masks by nearest neighbour.

    Raises DataError for images without a mask, masks without an image or with other proportions, and masks that do not
    hold class numbers.

    Args:
        folder: a folder with images/ and masks/, or with these in a folder per split.
        resize: requested size, and how it is reached.
        channels: 1, 3 or 4.
        known: the network to evaluate on this folder, which then needs neither a training split nor every class.
    """
    roots = _roots(folder)
    if "train" not in roots and known is None:
        raise DataError(f"Expected images and masks in {folder / 'train'} too, but got {' and '.join(roots)} alone.")
    pairs = {split: _pairs(root) for split, root in roots.items()}
    channels = channels or channels_of(image for split in pairs.values() for image, _ in split)
    sized = resize.or_square(DEFAULT_SIZE)
    labels = _labels(
        folder, {split: [_mask(*pair, sized) for pair in split_pairs] for split, split_pairs in pairs.items()}, known
    )
    splits = {}
    for split, split_pairs in pairs.items():
        assert sized.size is not None
        images = Streamed([image for image, _ in split_pairs], str(folder), channels, *sized.size, fit=sized.fit)
        splits[split] = Split(images, labels.masks[split])
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
    """Return the folders that hold images and masks, by split."""
    if _masks_of(folder) is not None:
        return {"train": folder}
    subfolders = {entry.name.lower(): entry for entry in folder.iterdir() if entry.is_dir()}
    candidates = {split: [subfolders[name] for name in names if name in subfolders] for split, names in PARTS.items()}
    roots = {
        split: present[0] for split, present in candidates.items() if present and _masks_of(present[0]) is not None
    }
    for split, present in candidates.items():
        if roots and present and split not in roots:
            raise DataError(
                f"Expected {IMAGES} and masks in {present[0]}, as in the other splits: add them, or remove it."
            )
    return roots


def _check_not_only_masks(folder: Path) -> None:
    """Raise DataError for masks without images, which would be read as a data set with one class."""
    for root in (folder, *(entry for entry in folder.iterdir() if entry.is_dir())):
        names = [entry.name for entry in root.iterdir() if entry.is_dir()]
        if len(names) == 1 and names[0].lower() in MASKS:
            raise DataError(
                f"Expected a folder {IMAGES} beside {root / names[0]}, with an image of the same name for each mask."
            )


def _masks_of(root: Path) -> Path | None:
    """Return the folder of masks beside a folder of images."""
    if not (root / IMAGES).is_dir():
        return None
    return next((root / name for name in MASKS if (root / name).is_dir()), None)


def _pairs(root: Path) -> list[Pair]:
    """Return each image with the mask of the same name."""
    folder = _masks_of(root)
    assert folder is not None
    images, masks = (_by_name(subfolder) for subfolder in (root / IMAGES, folder))
    if not images and not masks:
        raise DataError(f"No images in {root / IMAGES}.")
    for first, second, kind in ((images, masks, "mask"), (masks, images, "image")):
        missing = sorted(set(first) - set(second))
        if missing:
            path = first[missing[0]]
            raise DataError(f"No {kind} for {path}: there is none of that name ({len(missing)} in all lack one).")
    return [(images[name], masks[name]) for name in sorted(images)]


def _by_name(folder: Path) -> dict[Path, Path]:
    """Map relative paths without suffix to image files. Raises DataError for two files of one name."""
    files: dict[Path, Path] = {}
    for path in sorted(images_in(folder)):
        first = files.setdefault(path.relative_to(folder).with_suffix(""), path)
        if first != path:
            raise DataError(f"{first} and {path} have one name, by which images and masks are paired: keep one.")
    return files


def _mask(image: Path, path: Path, resize: Resize) -> Mask:
    """Read a mask. Raises DataError if it has no class per pixel, or other proportions than its image."""
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
    if values <= BINARY:
        numbers = numbers.point(lambda value: MARKER if value == IGNORED else value)
    return Mask(torch.from_numpy(np.asarray(_sized(numbers, resize)).copy()), values)


def _check_kind(mask: Image.Image, path: Path) -> None:
    if mask.mode not in ("L", "P", "1"):
        raise DataError(
            f"Expected a mask with one class per pixel (grey, or a palette) in {path}, but it is {mask.mode}: "
            f"store class numbers from 0."
        )
    if mask.format == "JPEG":
        raise DataError(
            f"Expected a mask with one class per pixel, but {path} is a JPEG, whose compression changes the numbers of "
            f"classes: make the masks again as PNG."
        )


def _check_shape(image: Path, mask: Path, size: tuple[int, int]) -> None:
    """Raise DataError for a mask of other proportions than its image: it belongs to another image.

    A mask may be smaller or larger than its image; proportions need to match to within a pixel.
    """
    (height, width), (mask_width, mask_height) = size_of(image, str(image)), size
    if abs(width * mask_height - height * mask_width) > max(width, height, mask_width, mask_height):
        raise DataError(
            f"Expected a mask in the proportions of its image, but {mask} has {mask_width} x {mask_height} "
            f"pixels and {image} has {width} x {height}: give each image a mask of its own shape."
        )


def _sized(mask: Image.Image, resize: Resize) -> Image.Image:
    """Resize a mask as its image is, by nearest neighbour; padded pixels are ignored."""
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
    """Combine the masks of all splits, and name their classes.

    Masks of 0 and 255 only, as drawing programs write them, have two classes.
    """
    values = frozenset[int]().union(*(mask.values for split_masks in masks.values() for mask in split_masks))
    is_binary = values == BINARY
    pixels = {
        split: torch.stack([_without_marker(mask, 1 if is_binary else IGNORED) for mask in split_masks])
        for split, split_masks in masks.items()
    }
    if is_binary:
        note = "masks have the values 0 and 255, which are the classes 0 and 1"
        return Labels(pixels, _names(folder, {0, 1}, known), note)
    classes = set(values - {IGNORED})
    names = _names(folder, classes, known)
    note = f"masks have the values {_ranges(values)}: {len(names)} classes"
    if missing := set(range(len(names))) - classes:
        note = f"{note}, of which no mask has {_ranges(missing)}"
    return Labels(pixels, names, f"{note}; 255 counts nowhere" if IGNORED in values else note)


def _without_marker(mask: Mask, class_number: int) -> torch.Tensor:
    """Return the pixels with marked ones replaced by the class that 255 stands for."""
    return torch.where(mask.pixels == MARKER, class_number, mask.pixels) if mask.values <= BINARY else mask.pixels


def _ranges(values: Iterable[int]) -> str:
    """Format numbers as ranges.

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
    """Return names for all classes up to the largest number, or those listed in ``classes.txt``."""
    count = 1 + max(classes, default=0)
    if count < 2 and known is None:
        raise DataError(f"Expected masks of at least 2 classes in {folder}, but every known pixel is of class 0.")
    file = folder / "classes.txt"
    if file.is_file():
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        names = tuple(line.strip() for line in lines if line.strip())
        if len(names) < count:
            raise DataError(f"Expected {count} names in {file}, one per class of the masks, but got {len(names)}.")
        return names
    if known is not None and count <= len(known.classes):
        return known.classes
    if 2 * len(classes) < count:
        raise DataError(
            f"Expected masks with the classes 0, 1, 2, ... in {folder}, but their values are {_ranges(classes)}: "
            f"re-number them 0 to {len(classes) - 1}, or, if there are {count} classes, name each in {file}."
        )
    return tuple(map(str, range(count)))

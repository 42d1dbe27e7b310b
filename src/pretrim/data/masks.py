"""Semantic segmentation in folders: ``images/`` and ``masks/`` with files of the same names, in parts or not.

A mask has the class of each pixel as its grey value or index of its palette; 255 counts nowhere. Masks of 0 and 255
alone are of two classes. Names of the classes may be in ``classes.txt``, a line each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from pretrim.errors import DataError

from .folder import PARTS, images_in
from .images import FORMATS, Resize, channels_of
from .record import Parts, Split
from .stream import Streamed

IMAGES, MASKS = "images", ("masks", "mask")
IGNORED = 255
DEFAULT_SIZE = 64


def is_here(folder: Path) -> bool:
    """Whether a folder, or its training part, has images and masks. Raises DataError for masks alone."""
    _check_not_alone(folder)
    return bool(_roots(folder))


def read(folder: Path, resize: Resize, channels: int | None) -> Parts:
    """Images and masks, resized to 64x64 unless another size is asked for; masks without values in between.

    Raises DataError for images without a mask, masks without an image, and masks that are not classes.

    Args:
        folder: with images/ and masks/.
        resize: the size that is wanted, and how it is reached.
        channels: 1, 3 or 4.
    """
    roots = _roots(folder)
    if "train" not in roots:
        raise DataError(f"Expected images and masks in {folder / 'train'} too, but got {' and '.join(roots)} alone.")
    pairs = {part: _pairs(root) for part, root in roots.items()}
    channels = channels or channels_of(image for part in pairs.values() for image, _ in part)
    sized = resize.or_square(DEFAULT_SIZE)
    masks = {part: torch.stack([_mask(mask, sized) for _, mask in found]) for part, found in pairs.items()}
    masks = _as_classes(masks)
    names = _names(folder, masks)
    splits = {}
    for part, found in pairs.items():
        assert sized.size is not None
        images = Streamed([image for image, _ in found], str(folder), channels, *sized.size, fit=sized.fit)
        splits[part] = Split(images, masks[part])
    return Parts(
        name=folder.resolve().name,
        source=f"images and masks in {folder}",
        classes=names,
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        task="segmentation",
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
    if not (root / IMAGES).is_dir():
        return None
    return next((root / name for name in MASKS if (root / name).is_dir()), None)


def _pairs(root: Path) -> list[tuple[Path, Path]]:
    """Each image with its mask, by name."""
    folder = _masks_of(root)
    assert folder is not None
    images, masks = (
        {path.relative_to(place).with_suffix(""): path for path in images_in(place)}
        for place in (root / IMAGES, folder)
    )
    if not images and not masks:
        raise DataError(f"No images in {root / IMAGES}.")
    for first, second, what in ((images, masks, "mask"), (masks, images, "image")):
        missing = sorted(set(first) - set(second))
        if missing:
            path = first[missing[0]]
            raise DataError(f"No {what} for {path}: there is none of that name ({len(missing)} in all lack one).")
    return [(images[name], masks[name]) for name in sorted(images)]


def _mask(path: Path, resize: Resize) -> torch.Tensor:
    """uint8, H x W."""
    assert resize.size is not None
    try:
        with Image.open(path, formats=FORMATS) as opened:
            ImageOps.exif_transpose(opened, in_place=True)
            if opened.mode not in ("L", "P", "1"):
                raise DataError(
                    f"Expected a mask with a class a pixel (grey, or a palette) in {path}, but it is {opened.mode}: "
                    f"store class numbers from 0."
                )
            mask = opened.convert("L") if opened.mode == "1" else opened
            numbers = Image.fromarray(np.asarray(mask, dtype=np.uint8))
            return torch.from_numpy(np.asarray(_sized(numbers, resize)).copy())
    except OSError as error:
        raise DataError(f"Cannot read the mask {path} ({error}).") from error


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


def _as_classes(masks: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Masks of 0 and 255 alone, which drawing programs write, are of two classes."""
    values = {int(value) for part in masks.values() for value in np.unique(part.numpy())}
    if values != {0, IGNORED}:
        return masks
    return {part: (mask == IGNORED).to(torch.uint8) for part, mask in masks.items()}


def _names(folder: Path, masks: dict[str, torch.Tensor]) -> tuple[str, ...]:
    count = 1 + max((int(known.max()) for part in masks.values() if len(known := part[part != IGNORED])), default=0)
    if count < 2:
        raise DataError(f"Expected masks of at least 2 classes in {folder}, but every known pixel is of class 0.")
    file = folder / "classes.txt"
    if not file.is_file():
        return tuple(map(str, range(count)))
    names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    if len(names) < count:
        raise DataError(f"Expected {count} names in {file}, one a class of the masks, but got {len(names)}.")
    return names

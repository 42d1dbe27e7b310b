"""Image files, which may come from anywhere, to uint8 tensors."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pretrim.errors import DataError, UsageError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# Pillow goes by content, not by suffix, and would hand an EPS file named .png to Ghostscript: only these are tried.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
DEEP_GREY = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
GREY = frozenset({"1", "L", "LA", "La"}) | DEEP_GREY
CHUNK = 256
LYING = (5, 6, 7, 8)
"""EXIF orientations of images whose rows are stored as columns"""

Item = TypeVar("Item")
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def decode(source: bytes | Path, where: str, *, channels: int, size: tuple[int, int] | None) -> Pixels:
    """One image as uint8, H x W x C; with a size (H, W) its shorter side is resized and its centre cropped.

    Raises DataError, naming the file, for anything that is not a readable image of 8 or 16 bits.
    """
    try:
        with _open(source) as opened:
            image = _plain(opened, "RGB" if channels == 3 else "L")
            if size is not None and image.size != (size[1], size[0]):
                image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BILINEAR)
            return np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, channels)
    except Exception as error:  # Pillow raises many kinds for damaged files; each means the same to the user
        raise _unreadable(where, error) from error


def _unreadable(where: str, error: Exception) -> DataError:
    if isinstance(error, UnidentifiedImageError):  # its text names an object in memory
        said = "it is of no known format"
    else:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"Expected an image in {where}, but it cannot be read ({said}): mend or remove it.")


def _open(source: bytes | Path) -> Image.Image:
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """Upright, in RGB or L; 16-bit grey is stretched (Pillow's own conversion makes nearly all of it white)."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in DEEP_GREY:
        image = Image.fromarray(_stretched(np.asarray(image)))
    image.info.pop("transparency", None)  # its colours stay what they are; Pillow would warn of each palette
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of mode {image.mode}, not of 8 or 16 bits")
    return image if image.mode == mode else image.convert(mode)


def _stretched(deep: np.ndarray[Any, Any]) -> Pixels:
    """16-bit grey in 8 bits, from the darkest value of the image to its brightest.

    Sensors use a part of the range: of a thermal image between 51,200 and 52,200 the upper byte has 4 values. Where
    absolute levels matter, images are to be stored in 8 bits.
    """
    least, most = int(deep.min()), int(deep.max())
    if least == most:
        return (deep >> 8).astype(np.uint8)
    return np.rint((deep.astype(np.float64) - least) * (255.0 / (most - least))).astype(np.uint8)


def channels_of(sources: Iterable[bytes | Path]) -> int:
    """1 where every image is stored in grey, else 3; only headers are read, up to the first image in colour."""
    return 1 if all(_is_grey(source) for source in sources) else 3


def _is_grey(source: bytes | Path) -> bool:
    try:
        with _open(source) as opened:
            return opened.mode in GREY
    except Exception:  # a damaged image decides nothing; `decode` names it
        return True


def size_of(source: bytes | Path, where: str) -> tuple[int, int]:
    """Height and width of the upright image, by its header. Raises DataError for what is no image."""
    try:
        with _open(source) as opened:
            lies = opened.getexif().get(ExifTags.Base.Orientation) in LYING
            return (opened.width, opened.height) if lies else (opened.height, opened.width)
    except Exception as error:  # as in decode
        raise _unreadable(where, error) from error


def decode_image(path: str | Path, input_shape: tuple[int, int, int], padding: int = 0) -> torch.Tensor:
    """One image file as uint8, C x H x W, resized and cropped to a network's input.

    Args:
        path: the file.
        input_shape: C, H, W, with the padding.
        padding: of zeros round the images that the network was trained on; the image goes inside of it.

    Raises DataError for a file that is missing or damaged, and for an input of other than 1 or 3 channels.
    """
    channels, height, width = input_shape
    if channels not in (1, 3):
        raise DataError(f"Expected a network for images of 1 or 3 channels, but its input has {channels}.")
    if Path(path).is_dir():
        raise DataError(f"Expected an image file, but {path} is a folder: give the files in it.")
    if not Path(path).is_file():
        raise DataError(f"Expected an image file, but {path} is not there: check the path.")
    size = (height - 2 * padding, width - 2 * padding)
    pixels = decode(Path(path), str(path), channels=channels, size=size)
    return torch.nn.functional.pad(torch.from_numpy(pixels.transpose(2, 0, 1).copy()), [padding] * 4)


def decode_all(
    items: Sequence[Item], decode_one: Callable[[Item], Pixels], shape: tuple[int, int, int]
) -> torch.Tensor:
    """Decode images of one shape (C, H, W) in threads, as Pillow lets go of the lock, into uint8, N x C x H x W.

    Each goes to its place at once: no image is in memory twice. The first error ends the work: the first by the order
    of the items, however many threads there are.
    """
    images = np.empty((len(items), *shape), dtype=np.uint8)
    workers = os.cpu_count() or 1
    size = max(1, min(CHUNK, -(-len(items) // workers)))  # a batch is small, and still for all workers

    def fill(start: int) -> None:
        for place in range(start, min(start + size, len(items))):
            images[place] = decode_one(items[place]).transpose(2, 0, 1)

    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            for _ in pool.map(fill, range(0, len(items), size)):
                pass
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return torch.from_numpy(images)


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 images, N x C x H x W, resized bilinearly to size x size. Raises UsageError if memory is too small."""
    if images.shape[-2:] == (size, size):
        return images
    try:
        scaled = torch.nn.functional.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)
    except RuntimeError as error:
        wanted = f"{len(images):,} images of {size}x{size}"
        raise UsageError(f"Expected {wanted} to fit in memory, but they do not: give a smaller image size.") from error
    return scaled.round().clamp(0, 255).to(torch.uint8)


def with_channels(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Grey repeated to three channels, or RGB to its luminance (ITU-R BT.601, as Pillow has it)."""
    if images.shape[1] == channels:
        return images
    if channels == 3 and images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1).contiguous()
    if channels == 1 and images.shape[1] == 3:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        return (images * weights).sum(dim=1, keepdim=True).round().to(torch.uint8)
    raise DataError(f"Expected images of 1 or 3 channels, but {channels} were asked of images with {images.shape[1]}.")

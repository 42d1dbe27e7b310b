"""Decode image files from any source to uint8 tensors."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pretrim.errors import DataError, UsageError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# Pillow detects formats by content, and would hand an EPS file named .png to Ghostscript: only these are tried.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
DEEP_GREY = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
GREY = frozenset({"1", "L", "LA", "La"}) | DEEP_GREY
CHUNK = 256
TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations of images stored with rows and columns swapped."""

Item = TypeVar("Item")
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Fit: TypeAlias = Literal["crop", "pad", "stretch"]
FITS: tuple[Fit, ...] = get_args(Fit)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode by number of channels."""
MODES_WITH_ALPHA = 4
HEADERS_READ = 64
"""Maximum number of images whose headers are read for notes to the user."""


@dataclass(frozen=True)
class Resize:
    """The size that images are resized to.

    Attributes:
        size: (height, width) in pixels; None keeps the stored size.
        fit: how images of other proportions are handled: ``"crop"`` fills the size and cuts off the excess,
            ``"pad"`` shows the whole image with zeros beside it, ``"stretch"`` changes the proportions.
    """

    size: tuple[int, int] | None = None
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise UsageError(f"Expected an image size of 1 or more, but got {min(self.size)}.")
        if self.fit not in FITS:
            raise UsageError(f"Expected fit to be {', '.join(FITS)}, but got {self.fit!r}.")

    def or_square(self, side: int) -> Resize:
        """Return self if it has a size, else a square of this side with the same fit."""
        return self if self.size is not None else Resize((side, side), self.fit)


def decode(
    source: bytes | Path | Image.Image, where: str, *, channels: int, size: tuple[int, int] | None, fit: Fit = "crop"
) -> Pixels:
    """Decode one image to uint8, H x W x C.

    Args:
        source: a file, its encoded bytes, or an open image.
        where: name of the source, for error messages.
        channels: 1, 3, or 4 with the alpha channel.
        size: (height, width) of the result; None: the stored size.
        fit: how an image of other proportions is brought to that size.

    Raises DataError, naming the file, for anything that is not a readable image of 8 or 16 bits.
    """
    try:
        with _open(source) as opened:
            image = _plain(opened.copy() if opened is source else opened, MODES[channels])
            if size is not None and image.size != (size[1], size[0]):
                image = _sized(image, (size[1], size[0]), fit)
            return np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, channels)
    except Exception as error:  # Pillow raises many types for damaged files, which mean the same to the user
        raise _unreadable(where, error) from error


def _sized(image: Image.Image, size: tuple[int, int], fit: Fit) -> Image.Image:
    """Resize an image to (width, height)."""
    if fit == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    if fit == "pad":
        return ImageOps.pad(image, size, Image.Resampling.BILINEAR, color=0 if image.mode == "L" else None)
    return image.resize(size, Image.Resampling.BILINEAR)


def _unreadable(where: str, error: Exception) -> DataError:
    if isinstance(error, UnidentifiedImageError):  # its text names an object in memory
        reason = "it is of no known format"
    else:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"Cannot read the image in {where} ({reason}): fix or remove it.")


def _open(source: bytes | Path | Image.Image) -> AbstractContextManager[Image.Image]:
    if isinstance(source, Image.Image):
        return nullcontext(source)  # its owner closes it
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """Rotate an image upright, and convert it to L, RGB or RGBA.

    16-bit grey is stretched to 8 bits, as Pillow's own conversion turns nearly all of it white.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in DEEP_GREY:
        image = Image.fromarray(_stretched(np.asarray(image)))
    image.info.pop("transparency", None)  # colours are unaffected; Pillow would warn about each palette
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of mode {image.mode}, not of 8 or 16 bits")
    return image if image.mode == mode else image.convert(mode)


def _stretched(deep: np.ndarray[Any, Any]) -> Pixels:
    """Convert 16-bit grey to 8 bits, scaled from the darkest value of the image to its brightest.

    Sensors use only part of the range: the upper byte of a thermal image between 51,200 and 52,200 has 4 values. Where
    absolute levels matter, store images in 8 bits.
    """
    darkest, brightest = int(deep.min()), int(deep.max())
    if darkest == brightest:
        return (deep >> 8).astype(np.uint8)
    return np.rint((deep.astype(np.float64) - darkest) * (255.0 / (brightest - darkest))).astype(np.uint8)


def channels_of(sources: Iterable[bytes | Path]) -> int:
    """Return 1 if every image is stored in grey, else 3; reads headers only, up to the first colour image."""
    return 1 if all(_is_grey(source) for source in sources) else 3


def _is_grey(source: bytes | Path) -> bool:
    try:
        with _open(source) as opened:
            return opened.mode in GREY
    except Exception:  # a damaged image is ignored here; `decode` reports it
        return True


def remarks(sources: Sequence[bytes | Path], channels: int) -> list[str]:
    """Return notes on how images are read: 16 bits reduced to 8, and transparency dropped.

    Args:
        sources: images; the headers of an evenly spaced sample are read.
        channels: number of channels they are decoded to.
    """
    step = max(1, len(sources) // HEADERS_READ)
    modes = {_mode(source) for source in sources[::step]}
    notes = []
    if modes & DEEP_GREY:
        notes.append("16-bit images are read in 8 bits, each from its darkest value to its brightest")
    if channels != MODES_WITH_ALPHA and modes & {"RGBA", "LA", "PA"}:
        notes.append("transparency is left out (--input 4xHxW keeps it as a channel)")
    return notes


def _mode(source: bytes | Path) -> str:
    try:
        with _open(source) as opened:
            return opened.mode
    except Exception:  # a damaged image is reported when it is decoded
        return ""


def size_of(source: bytes | Path, where: str) -> tuple[int, int]:
    """Return height and width of the upright image from its header. Raises DataError if it is not an image."""
    try:
        with _open(source) as opened:
            is_transposed = opened.getexif().get(ExifTags.Base.Orientation) in TRANSPOSED
            return (opened.width, opened.height) if is_transposed else (opened.height, opened.width)
    except Exception as error:  # as in decode
        raise _unreadable(where, error) from error


def decode_image(
    path: str | Path | Image.Image, input_shape: tuple[int, ...], padding: int = 0, fit: Fit = "crop"
) -> torch.Tensor:
    """Decode one image file to uint8, C x H x W, resized to a network's input.

    Args:
        path: the file, or an open image.
        input_shape: C, H, W, including the padding.
        padding: zeros around the images that the network was trained on; the image is placed inside them.
        fit: how an image of other proportions is resized.

    Raises DataError for a missing or damaged file, and for an input that is not an image of 1, 3 or 4 channels.
    """
    if len(input_shape) != 3:
        raise DataError(f"Expected a network for images, but its input is {'x'.join(map(str, input_shape))}.")
    channels, height, width = input_shape
    if channels not in MODES:
        raise DataError(f"Expected a network for images of 1, 3 or 4 channels, but its input has {channels}.")
    source = path if isinstance(path, Image.Image) else _file(Path(path))
    where = "the PIL image" if source is path else str(path)
    size = (height - 2 * padding, width - 2 * padding)
    pixels = decode(source, where, channels=channels, size=size, fit=fit)
    return torch.nn.functional.pad(torch.from_numpy(pixels.transpose(2, 0, 1).copy()), [padding] * 4)


def _file(path: Path) -> Path:
    """Return the path of an existing file. Raises DataError if there is none."""
    if path.is_dir():
        raise DataError(f"{path} is a folder: give the image files in it.")
    if not path.is_file():
        raise DataError(f"No file {path}: check the path.")
    return path


def decode_all(
    items: Sequence[Item], decode_one: Callable[[Item], Pixels], shape: tuple[int, int, int]
) -> torch.Tensor:
    """Decode images of one shape (C, H, W) to uint8, N x C x H x W, in threads, as Pillow releases the GIL.

    Each image is written straight into the result, so none is in memory twice. An error stops the work; the error
    raised is that of the first failing item, whatever the number of threads.

    Args:
        items: what to decode.
        decode_one: decodes one item to H x W x C.
        shape: shape of one image: C, H, W.
    """
    images = np.empty((len(items), *shape), dtype=np.uint8)
    workers = os.cpu_count() or 1
    chunk = max(1, min(CHUNK, -(-len(items) // workers)))  # small sets are still shared among all workers

    def fill(start: int) -> None:
        for index in range(start, min(start + chunk, len(items))):
            images[index] = decode_one(items[index]).transpose(2, 0, 1)

    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            for _ in pool.map(fill, range(0, len(items), chunk)):
                pass
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return torch.from_numpy(images)


def resized(images: torch.Tensor, how: Resize) -> torch.Tensor:
    """Resize uint8 images, N x C x H x W, bilinearly. Raises UsageError if memory is too small."""
    if how.size is None or images.shape[-2:] == how.size:
        return images
    height, width = how.size
    try:
        scaled = torch.nn.functional.interpolate(
            images.float(), size=_inner_size(images.shape[-2:], how), mode="bilinear", antialias=True
        )
    except RuntimeError as error:
        request = f"{len(images):,} images of {height}x{width}"
        raise UsageError(f"Expected {request} to fit in memory, but they do not: give a smaller image size.") from error
    return _placed(scaled.round().clamp(0, 255).to(torch.uint8), height, width)


def _inner_size(stored: Sequence[int], how: Resize) -> tuple[int, int]:
    """Return the size that images are scaled to before cropping or padding."""
    assert how.size is not None
    ratios = [target / current for target, current in zip(how.size, stored, strict=True)]
    if how.fit == "stretch" or ratios[0] == ratios[1]:
        return how.size
    scale = max(ratios) if how.fit == "crop" else min(ratios)
    return max(1, round(stored[0] * scale)), max(1, round(stored[1] * scale))


def _placed(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Crop the centre of larger images, or centre smaller ones in zeros."""
    excess = (images.shape[-2] - height, images.shape[-1] - width)
    before = [-(pixels // 2) for pixels in excess]
    after = [-(pixels - pixels // 2) for pixels in excess]
    if excess == (0, 0):
        return images
    return torch.nn.functional.pad(images, [before[1], after[1], before[0], after[0]])


def with_channels(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Repeat grey to three channels, or reduce RGB to its luminance (ITU-R BT.601, as in Pillow)."""
    if images.shape[1] == channels:
        return images
    if channels == 3 and images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1).contiguous()
    if channels == 1 and images.shape[1] == 3:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        return (images * weights).sum(dim=1, keepdim=True).round().to(torch.uint8)
    raise DataError(f"Expected images of 1 or 3 channels, but {channels} were asked of images with {images.shape[1]}.")

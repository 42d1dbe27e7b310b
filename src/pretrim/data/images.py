"""Image files, which may come from anywhere, to uint8 tensors."""

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
# Pillow goes by content, not by suffix, and would hand an EPS file named .png to Ghostscript: only these are tried.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
DEEP_GREY = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
GREY = frozenset({"1", "L", "LA", "La"}) | DEEP_GREY
CHUNK = 256
LYING = (5, 6, 7, 8)
"""EXIF orientations of images whose rows are stored as columns"""

Item = TypeVar("Item")
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Fit: TypeAlias = Literal["crop", "pad", "stretch"]
FITS: tuple[Fit, ...] = get_args(Fit)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name for images of so many channels"""
MODES_WITH_ALPHA = 4
LOOKED_AT = 64
"""Images whose headers are read to say what is special about them"""


@dataclass(frozen=True)
class Resize:
    """The size that images get.

    Attributes:
        size: (height, width) in pixels; None keeps the stored size.
        fit: what is done where the proportions differ: ``"crop"`` fills the size and cuts off what is over,
            ``"pad"`` shows the whole image with zeros beside it, ``"stretch"`` gives up the proportions.
    """

    size: tuple[int, int] | None = None
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise UsageError(f"Expected an image size of 1 or more, but got {min(self.size)}.")
        if self.fit not in FITS:
            raise UsageError(f"Expected fit to be {', '.join(FITS)}, but got {self.fit!r}.")

    def or_square(self, side: int) -> Resize:
        """With a size: its own, or this square."""
        return self if self.size is not None else Resize((side, side), self.fit)


def decode(
    source: bytes | Path | Image.Image, where: str, *, channels: int, size: tuple[int, int] | None, fit: Fit = "crop"
) -> Pixels:
    """One image as uint8, H x W x C.

    Args:
        source: a file, the bytes of one, or an image that is open already.
        where: it is, for errors.
        channels: 1, 3, or 4 with the transparency.
        size: (height, width) that it gets; None: its own.
        fit: how, where its proportions are others.

    Raises DataError, naming the file, for anything that is not a readable image of 8 or 16 bits.
    """
    try:
        with _open(source) as opened:
            image = _plain(opened.copy() if opened is source else opened, MODES[channels])
            if size is not None and image.size != (size[1], size[0]):
                image = _sized(image, (size[1], size[0]), fit)
            return np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, channels)
    except Exception as error:  # Pillow raises many kinds for damaged files; each means the same to the user
        raise _unreadable(where, error) from error


def _sized(image: Image.Image, size: tuple[int, int], fit: Fit) -> Image.Image:
    """An image of another size (width, height)."""
    if fit == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    if fit == "pad":
        return ImageOps.pad(image, size, Image.Resampling.BILINEAR, color=0 if image.mode == "L" else None)
    return image.resize(size, Image.Resampling.BILINEAR)


def _unreadable(where: str, error: Exception) -> DataError:
    if isinstance(error, UnidentifiedImageError):  # its text names an object in memory
        said = "it is of no known format"
    else:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"Cannot read the image in {where} ({said}): mend or remove it.")


def _open(source: bytes | Path | Image.Image) -> AbstractContextManager[Image.Image]:
    if isinstance(source, Image.Image):
        return nullcontext(source)  # its owner closes it
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """Upright, in RGB, RGBA or L; 16-bit grey is stretched (Pillow's own conversion makes nearly all of it white)."""
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


def remarks(sources: Sequence[bytes | Path], channels: int) -> list[str]:
    """What a user should know of how images are read: 16 bits become 8, and transparency is left out.

    Args:
        sources: images, of which the headers of some, evenly spaced, are read.
        channels: that they are read with.
    """
    step = max(1, len(sources) // LOOKED_AT)
    modes = {_mode(source) for source in sources[::step]}
    found = []
    if modes & DEEP_GREY:
        found.append("16-bit images are read in 8 bits, each from its darkest value to its brightest")
    if channels != MODES_WITH_ALPHA and modes & {"RGBA", "LA", "PA"}:
        found.append("transparency is left out (--input 4xHxW keeps it as a channel)")
    return found


def _mode(source: bytes | Path) -> str:
    try:
        with _open(source) as opened:
            return opened.mode
    except Exception:  # a damaged image is named when it is decoded
        return ""


def size_of(source: bytes | Path, where: str) -> tuple[int, int]:
    """Height and width of the upright image, by its header. Raises DataError for what is not an image."""
    try:
        with _open(source) as opened:
            lies = opened.getexif().get(ExifTags.Base.Orientation) in LYING
            return (opened.width, opened.height) if lies else (opened.height, opened.width)
    except Exception as error:  # as in decode
        raise _unreadable(where, error) from error


def decode_image(
    path: str | Path | Image.Image, input_shape: tuple[int, ...], padding: int = 0, fit: Fit = "crop"
) -> torch.Tensor:
    """One image file as uint8, C x H x W, resized to a network's input.

    Args:
        path: the file, or an image that is open already.
        input_shape: C, H, W, with the padding.
        padding: of zeros round the images that the network was trained on; the image goes inside of it.
        fit: how an image of other proportions gets there.

    Raises DataError for a file that is missing or damaged, and for an input that is not an image of 1, 3 or 4 channels.
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
    """A file that is there. Raises DataError."""
    if path.is_dir():
        raise DataError(f"{path} is a folder: give the image files in it.")
    if not path.is_file():
        raise DataError(f"No file {path}: check the path.")
    return path


def decode_all(
    items: Sequence[Item], decode_one: Callable[[Item], Pixels], shape: tuple[int, int, int]
) -> torch.Tensor:
    """Decode images of one shape (C, H, W) in threads, as Pillow lets go of the lock, into uint8, N x C x H x W.

    Each goes to its place at once: no image is in memory twice. The first error ends the work: the first by the order
    of the items, however many threads there are.

    Args:
        items: what to decode.
        decode_one: decodes one of them.
        shape: of one image: C, H, W.
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


def resized(images: torch.Tensor, how: Resize) -> torch.Tensor:
    """uint8 images, N x C x H x W, resized bilinearly. Raises UsageError if memory is too small."""
    if how.size is None or images.shape[-2:] == how.size:
        return images
    height, width = how.size
    try:
        scaled = torch.nn.functional.interpolate(
            images.float(), size=_inner_size(images.shape[-2:], how), mode="bilinear", antialias=True
        )
    except RuntimeError as error:
        wanted = f"{len(images):,} images of {height}x{width}"
        raise UsageError(f"Expected {wanted} to fit in memory, but they do not: give a smaller image size.") from error
    return _placed(scaled.round().clamp(0, 255).to(torch.uint8), height, width)


def _inner_size(stored: Sequence[int], how: Resize) -> tuple[int, int]:
    """The size that images are scaled to before they are cropped or padded."""
    assert how.size is not None
    ratios = [wanted / there for wanted, there in zip(how.size, stored, strict=True)]
    if how.fit == "stretch" or ratios[0] == ratios[1]:
        return how.size
    scale = max(ratios) if how.fit == "crop" else min(ratios)
    return max(1, round(stored[0] * scale)), max(1, round(stored[1] * scale))


def _placed(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The centre of larger images, or smaller ones in the centre of zeros."""
    over = (images.shape[-2] - height, images.shape[-1] - width)
    before = [-(size // 2) for size in over]
    after = [-(size - size // 2) for size in over]
    if over == (0, 0):
        return images
    return torch.nn.functional.pad(images, [before[1], after[1], before[0], after[0]])


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

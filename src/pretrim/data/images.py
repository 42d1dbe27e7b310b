"""Image files, which may come from anywhere, to uint8 tensors."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from pretrim.errors import DataError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
Item = TypeVar("Item")


def decode(source: bytes | Path, where: str, *, channels: int, size: tuple[int, int] | None) -> torch.Tensor:
    """One image as uint8, C x H x W; with a size (H, W) its shorter side is resized and its centre cropped.

    Raises DataError, naming the file, for anything that is not a readable image.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            image = opened.convert("RGB" if channels == 3 else "L")
    except Exception as error:  # Pillow raises many kinds for damaged files; each means the same to the user
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"Expected an image in {where}, but it cannot be read ({said}): mend or remove it.") from error
    if size is not None and image.size != (size[1], size[0]):
        image = _fit(image, size)
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels.permute(2, 0, 1).contiguous() if channels == 3 else pixels[None]


def _fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    scale = max(height / image.height, width / image.width)
    wide, high = max(round(image.width * scale), width), max(round(image.height * scale), height)
    resized = image.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = (wide - width) // 2, (high - height) // 2
    return resized.crop((left, top, left + width, top + height))


def decode_image(path: str | Path, input_shape: tuple[int, int, int]) -> torch.Tensor:
    """One image file as uint8, C x H x W, resized and cropped to a network's input."""
    channels, height, width = input_shape
    if not Path(path).is_file():
        raise DataError(f"Expected an image file, but {path} is not there: check the path.")
    return decode(Path(path), str(path), channels=channels, size=(height, width))


def decode_all(items: Sequence[Item], decode_one: Callable[[Item], torch.Tensor]) -> torch.Tensor:
    """Decode many images in threads (Pillow releases the lock) into one tensor, N x C x H x W."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        chunks = [items[start : start + 256] for start in range(0, len(items), 256)]
        parts = list(pool.map(lambda chunk: [decode_one(item) for item in chunk], chunks))
    shapes = {tuple(image.shape) for part in parts for image in part}
    if len(shapes) > 1:
        raise DataError(f"Expected images of one size, but got {sorted(shapes)[:3]}: give an image size.")
    return torch.stack([image for part in parts for image in part])


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 images, N x C x H x W, resized bilinearly to size x size."""
    if images.shape[-2:] == (size, size):
        return images
    scaled = torch.nn.functional.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)
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

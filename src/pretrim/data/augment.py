"""Augmentation of whole batches on the device, and the normalisation from stored bytes to network input.

Random parameters are drawn first, on the CPU, for any number of images (`draw`), and applied later (`augment`): the
same seed gives the same images on every device, in any number of processes, and after training is resumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch.nn import functional

from pretrim.errors import UsageError

ASPECT = (3 / 4, 4 / 3)
"""Range of width / height of a random resized crop (Szegedy et al. 2015, section 6)."""


@dataclass(frozen=True)
class Augmentation:
    """Augmentation settings for training images.

    Attributes:
        padding: pixels of zero padding around an image before a random crop of the original size (He et al. 2016, 4.2).
        flip: mirror half of the images.
        resize: smallest fraction of the area that a random resized crop keeps (Szegedy et al. 2015); replaces the
            padded crop. 0 is off.
        cutout: side in pixels of a square blanked at a random position (DeVries and Taylor 2017). 0 is off.
    """

    padding: int = 4
    flip: bool = True
    resize: float = 0.0
    cutout: int = 0


@dataclass(frozen=True)
class AugmentParams:
    """Randomly drawn augmentation parameters, one entry per image; unused ones are None."""

    corner: torch.Tensor | None
    """N x 2, top and left of the crop in pixels of the padded image."""
    box: torch.Tensor | None
    """N x 4, centre (y, x) and half sides (y, x) of the resized crop; the image spans -1..1."""
    mirrored: torch.Tensor | None
    """N, bool."""
    hole: torch.Tensor | None
    """N x 2, centre (y, x) of the cut-out in pixels."""

    def take(self, places: torch.Tensor) -> AugmentParams:
        """Return the parameters of the images at these indices."""
        return AugmentParams(*(None if part is None else part[places] for part in self._parts()))

    def to(self, device: torch.device) -> AugmentParams:
        """Return a copy on a device."""
        return AugmentParams(*(None if part is None else part.to(device) for part in self._parts()))

    def _parts(self) -> tuple[torch.Tensor | None, ...]:
        return (self.corner, self.box, self.mirrored, self.hole)


def draw(count: int, size: Sequence[int], how: Augmentation, generator: torch.Generator) -> AugmentParams:
    """Draw parameters for `count` images of one size (H, W), on the CPU, in the order crop, mirror, cut-out.

    Args:
        count: number of images.
        size: (H, W) of every image.
        how: augmentation settings.
        generator: random number generator, on the CPU.
    """
    corner, box, mirrored, hole = None, None, None, None
    if how.resize:
        box = _boxes(count, size[0], size[1], how.resize, generator)
    elif how.padding:
        corner = torch.randint(0, 2 * how.padding + 1, (count, 2), generator=generator)
    if how.flip:
        mirrored = torch.randint(0, 2, (count,), generator=generator).bool()
    if how.cutout:
        hole = (torch.rand((count, 2), generator=generator) * torch.tensor(size)).long()
    return AugmentParams(corner, box, mirrored, hole)


def _boxes(count: int, height: int, width: int, min_area: float, generator: torch.Generator) -> torch.Tensor:
    """Return centres and half sides of random crops (count x 4); sides are clipped to the image."""
    area, ratio, *offsets = torch.rand((4, count), generator=generator, dtype=torch.float64)
    area_fraction = min_area + (1 - min_area) * area
    aspect = torch.exp(math.log(ASPECT[0]) + (math.log(ASPECT[1]) - math.log(ASPECT[0])) * ratio) * height / width
    half = torch.stack([torch.sqrt(area_fraction / aspect), torch.sqrt(area_fraction * aspect)], dim=1).clamp(max=1.0)
    centre = (2 * torch.stack(offsets, dim=1) - 1) * (1 - half)
    return torch.cat([centre, half], dim=1).float()


def augment(
    images: torch.Tensor, draws: AugmentParams, how: Augmentation, mode: Literal["bilinear", "nearest"] = "bilinear"
) -> torch.Tensor:
    """Crop and mirror images, N x C x H x W of any type, as drawn. Resized crops of uint8 images are float32.

    Cut-outs are made after :func:`normalise`, by :func:`cut_out`, because they are filled with the mean.

    Args:
        images: N x C x H x W.
        draws: drawn parameters, one entry per image.
        how: the settings that the parameters were drawn with.
        mode: interpolation of resized crops; masks need ``"nearest"``, as class numbers cannot be interpolated.
    """
    if draws.box is not None:
        return _resized_crop(images, draws.box, draws.mirrored, mode)
    if draws.corner is None and draws.mirrored is None:
        return images
    return _shifted(images, draws, how.padding)


def _shifted(images: torch.Tensor, draws: AugmentParams, padding: int) -> torch.Tensor:
    """Apply padded crops and mirroring with a single gather for the whole batch."""
    count, channels, height, width = images.shape
    device = images.device
    corner = draws.corner if draws.corner is not None else torch.zeros((count, 2), dtype=torch.int64, device=device)
    padding = padding if draws.corner is not None else 0
    padded = functional.pad(images, (padding, padding, padding, padding))
    columns = torch.arange(width, device=device).expand(count, width)
    if draws.mirrored is not None:
        columns = torch.where(draws.mirrored[:, None], columns.flip(1), columns)
    rows = corner[:, :1] + torch.arange(height, device=device)
    columns = corner[:, 1:] + columns
    indices = (rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]).view(count, 1, height * width)
    return padded.flatten(2).gather(2, indices.expand(count, channels, height * width)).view_as(images)


def _resized_crop(images: torch.Tensor, box: torch.Tensor, mirrored: torch.Tensor | None, mode: str) -> torch.Tensor:
    """Sample the crops; they lie inside the image, so nothing outside it is read."""
    images = images if images.is_floating_point() else images.float()
    centre_y, centre_x, half_y, half_x = box.to(images.dtype).unbind(1)
    if mirrored is not None:
        half_x = torch.where(mirrored, -half_x, half_x)
    zero = torch.zeros_like(half_x)
    theta = torch.stack([half_x, zero, centre_x, zero, half_y, centre_y], dim=1).view(-1, 2, 3)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def cut_out(images: torch.Tensor, draws: AugmentParams, side: int) -> torch.Tensor:
    """Blank a square of normalised images (0 is the mean) around each drawn centre, clipped at the border.

    Args:
        images: N x C x H x W, float32, normalised.
        draws: drawn parameters, one entry per image.
        side: side of the square in pixels.
    """
    if draws.hole is None:
        return images
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) - (draws.hole[:, :1] - side // 2)
    columns = torch.arange(width, device=images.device) - (draws.hole[:, 1:] - side // 2)
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
    return images.masked_fill(inside[:, None], 0.0)


def normalise(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Convert values 0..255, N x C x ..., to float32 of mean 0 and deviation 1 per channel: ``(x / 255 - mean) / std``.

    Raises UsageError unless there is one mean and one deviation per channel.

    Args:
        images: N x C x H x W, uint8 or float32.
        mean: per-channel mean of values in 0..1.
        std: per-channel standard deviation of values in 0..1.
    """
    if not len(mean) == len(std) == images.shape[1]:
        raise UsageError(
            f"Expected a mean and a deviation for each of {images.shape[1]} channels, but got {len(mean)} and "
            f"{len(std)}: give those of the data set that the network was trained on."
        )
    scale, shift = _affine(tuple(mean), tuple(std), images.device)
    per_channel = (1, -1) + (1,) * (images.ndim - 2)
    return images.float() * scale.view(per_channel) - shift.view(per_channel)


@cache
def _affine(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and shift, cached on the device: otherwise they would be copied there at every step."""
    scale = torch.tensor([1.0 / (255.0 * s) for s in std], device=device)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=device)
    return scale, shift

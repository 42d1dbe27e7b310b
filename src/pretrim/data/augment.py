"""Augmentation of whole batches, and the step from stored bytes to a network's input."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def random_crop_flip(
    images: torch.Tensor, generator: torch.Generator, *, padding: int = 4, flip: bool = True
) -> torch.Tensor:
    """Pad with zeros, crop back at a random place, mirror half of the images: N x C x H x W, any type, no loop.

    He et al. 2016, section 4.2. Each image has its own place and its own coin.
    """
    count, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (padding, padding, padding, padding))
    top = torch.randint(0, 2 * padding + 1, (count, 1), generator=generator)
    left = torch.randint(0, 2 * padding + 1, (count, 1), generator=generator)
    columns = torch.arange(width).expand(count, width)
    if flip:
        mirrored = torch.randint(0, 2, (count, 1), generator=generator).bool()
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = top + torch.arange(height), left + columns
    number = torch.arange(count).view(-1, 1, 1, 1)
    return padded[number, torch.arange(channels).view(1, -1, 1, 1), rows[:, None, :, None], columns[:, None, None, :]]


def normalise(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """uint8 images to float32 with mean 0 and deviation 1 per channel: ``(x / 255 - mean) / std``."""
    shape = (1, -1, 1, 1)
    scale = torch.tensor([1.0 / (255.0 * s) for s in std]).view(shape)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)]).view(shape)
    return images.float() * scale - shift

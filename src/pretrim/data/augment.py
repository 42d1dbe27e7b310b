"""Augmentation of whole batches, and the step from stored bytes to a network's input."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pretrim.errors import UsageError


def random_crop_flip(
    images: torch.Tensor, generator: torch.Generator, *, padding: int = 4, flip: bool = True
) -> torch.Tensor:
    """Pad with zeros, crop back at a random place, mirror half of the images: N x C x H x W, any type, no loop.

    He et al. 2016, section 4.2. Each image has its own place and its own coin, drawn on the CPU in this order: all
    tops, all lefts, all coins.
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
    places = (rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]).view(count, 1, height * width)
    places = places.expand(count, channels, height * width).to(images.device)
    return padded.flatten(2).gather(2, places).view_as(images)


def normalise(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """uint8 images, N x C x H x W, to float32 with mean 0 and deviation 1 per channel: ``(x / 255 - mean) / std``.

    Raises UsageError unless there is one mean and one deviation per channel.
    """
    if not len(mean) == len(std) == images.shape[1]:
        raise UsageError(
            f"Expected a mean and a deviation for each of {images.shape[1]} channels, but got {len(mean)} and "
            f"{len(std)}: give those of the data set that the network was trained on."
        )
    shape, device = (1, -1, 1, 1), images.device
    scale = torch.tensor([1.0 / (255.0 * s) for s in std], device=device).view(shape)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=device).view(shape)
    return images.float() * scale - shift

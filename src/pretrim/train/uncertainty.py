"""The uncertainty of an accuracy, and tests of whether two networks differ on the same images.

An accuracy measured on n images is a draw from a binomial distribution. Its 95 % interval is Wilson's (1927), which,
unlike the normal approximation, holds for few images and for accuracies near 0 and 1 (Brown, Cai and DasGupta 2001).
Two networks tested on the same images are compared image by image: only images count that one of them gets right and
the other wrong (McNemar 1947). This detects smaller differences than two separate intervals do.

Neither accounts for the seed: a network that is trained again varies by more than the choice of test images explains.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from pretrim.errors import UsageError

CONFIDENCE = 0.95
LARGEST_EXACT = 1000
"""Number of images on which two networks differ above which the normal distribution replaces the binomial one: their
p-values then differ by less than 0.001."""


@dataclass(frozen=True)
class Interval:
    """The interval of a share or of a difference of shares, from `low` to `high`."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def to_json(self) -> list[float]:
        """Plain JSON."""
        return [self.low, self.high]


def wilson(right: int, images: int, confidence: float = CONFIDENCE) -> Interval:
    """The interval of the share of `right` in `images` (Wilson 1927).

    Args:
        right: images classified correctly.
        images: images in all.
        confidence: confidence level of the interval.

    >>> interval = wilson(13, 60)
    >>> f"{interval.low:.3f} to {interval.high:.3f}"
    '0.131 to 0.336'

    Raises UsageError for impossible counts.
    """
    if not 0 <= right <= images or images < 1:
        raise UsageError(f"Expected 1 or more images and at most as many right ones, but got {right} of {images}.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = right / images
    scale = 1 + z * z / images
    centre = (share + z * z / (2 * images)) / scale
    half = z * math.sqrt(share * (1 - share) / images + (z / (2 * images)) ** 2) / scale
    # Exactly 0 and 1 at the extremes, which rounding would miss by 1e-17.
    return Interval(centre - half if right else 0.0, centre + half if right < images else 1.0)


@dataclass(frozen=True)
class Comparison:
    """The comparison of two networks on the same images.

    Attributes:
        images: number of images.
        only_first: images that only the first network gets right.
        only_second: images that only the second network gets right.
        p_value: probability of a split of those images at least as uneven if the networks are equally good.
        interval: 95 % interval of the second network's accuracy minus the first's.
    """

    images: int
    only_first: int
    only_second: int
    p_value: float
    interval: Interval

    @property
    def difference(self) -> float:
        """The second network's accuracy minus the first's."""
        return (self.only_second - self.only_first) / self.images

    @property
    def is_significant(self) -> bool:
        """Whether the networks differ significantly at the 5 % level."""
        return self.p_value < 1 - CONFIDENCE

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**vars(self), "interval": self.interval.to_json(), "difference": self.difference}


def compare(first: torch.Tensor, second: torch.Tensor) -> Comparison:
    """Compare two networks by McNemar's test.

    Args:
        first: whether the first network classifies each image correctly, bool, N.
        second: the same for the second network, on the same images in the same order.

    Raises UsageError if the shapes differ or are not N.
    """
    if first.shape != second.shape or first.dim() != 1 or not len(first):
        shapes = " and ".join("x".join(map(str, part.shape)) or "none" for part in (first, second))
        raise UsageError(f"Expected two networks' results on the same images, but got {shapes}.")
    images, only_first, only_second = len(first), int((first & ~second).sum()), int((~first & second).sum())
    interval = difference_interval(only_first, only_second, images)
    return Comparison(images, only_first, only_second, mcnemar(only_first, only_second), interval)


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p-value of McNemar's test: exact up to 1,000 discordant images, else by the normal distribution.

    Args:
        only_first: images that only the first network gets right.
        only_second: images that only the second network gets right.

    >>> mcnemar(2, 8)
    0.109375

    Raises UsageError for counts below 0.
    """
    if min(only_first, only_second) < 0:
        raise UsageError(f"Expected counts of 0 or more, but got {only_first} and {only_second}.")
    discordant, fewer = only_first + only_second, min(only_first, only_second)
    if discordant <= LARGEST_EXACT:
        tail = sum(math.comb(discordant, count) for count in range(fewer + 1))
        return min(1.0, float(2 * tail / 2**discordant))
    z = max(abs(only_first - only_second) - 1, 0) / math.sqrt(
        discordant
    )  # 1 is the continuity correction (Edwards 1948)
    return math.erfc(z / math.sqrt(2))


def difference_interval(only_first: int, only_second: int, images: int, confidence: float = CONFIDENCE) -> Interval:
    """The interval of the second accuracy minus the first, on the same images (Agresti and Min 2005).

    Half an image is added to each of the four counts; otherwise the interval would have no width if no image is
    discordant.

    Args:
        only_first: images that only the first network gets right.
        only_second: images that only the second network gets right.
        images: number of all images.
        confidence: confidence level of the interval.
    """
    total, first, second = images + 2.0, only_first + 0.5, only_second + 0.5
    centre = (second - first) / total
    half = (
        NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt((first + second) / total - centre**2) / math.sqrt(total)
    )
    return Interval(max(centre - half, -1.0), min(centre + half, 1.0))


def pack(right: torch.Tensor) -> dict[str, Any]:
    """Pack which images were classified correctly into compact plain JSON: 8 images per byte, in base64."""
    bits = np.packbits(right.cpu().numpy().astype(bool))
    return {"images": len(right), "bits": base64.b64encode(bits.tobytes()).decode("ascii")}


def unpack(packed: Mapping[str, Any]) -> torch.Tensor:
    """Restore what `pack` packed. Raises UsageError for anything else."""
    try:
        images = int(packed["images"])
        bits = np.frombuffer(base64.b64decode(packed["bits"], validate=True), dtype=np.uint8)
        if len(bits) != -(-images // 8):
            raise ValueError(f"{len(bits)} bytes for {images} images")
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"Expected which images were right, as `pack` writes it, but {error!r}.") from error
    return torch.from_numpy(np.unpackbits(bits, count=images).astype(bool))

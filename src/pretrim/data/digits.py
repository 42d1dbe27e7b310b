"""`digits` and `hard-digits`: the 1,797 handwritten digits that ship with scikit-learn; no download needed."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from pretrim.errors import UsageError

from .images import Resize, resized
from .record import Parts, Split

DEFAULT_SIZE = 32


ANGLE, SHIFT, SCALE, NOISE = 35.0, 0.3, (0.65, 1.1), 60.0
"""Maximum distortions of `hard-digits`: rotation in degrees and shift in fractions of half the image, both in either
direction; range of scales; standard deviation of the noise in grey levels of 0..255.
"""


def read(resize: Resize) -> Parts:
    """Read the 8x8 grey images (Alpaydin and Kaynak 1998, UCI), enlarged to 32x32 unless another size is requested."""
    images, labels = _enlarged(resize.or_square(DEFAULT_SIZE))
    return _parts("digits", "digits of scikit-learn, 8x8 enlarged", images, labels)


def read_hard(resize: Resize) -> Parts:
    """Read the digits rotated, shifted, scaled and with noise; each image once, always distorted in the same way.

    Networks of any width classify the plain digits almost perfectly; on these, larger networks do better, so that a
    trade-off shows. Made for demonstrations; not a published benchmark.
    """
    images, labels = _enlarged(resize.or_square(DEFAULT_SIZE))
    distorted = _distorted(images, torch.Generator().manual_seed(0))
    return _parts("hard-digits", "digits of scikit-learn, turned, moved, scaled and noisy", distorted, labels)


def _parts(name: str, source: str, images: torch.Tensor, labels: torch.Tensor) -> Parts:
    names = tuple(str(digit) for digit in range(10))
    return Parts(name, source, names, Split(images, labels), None, None, flip=False)


def _enlarged(resize: Resize) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images (uint8, N x 1 x H x W) and their classes."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UsageError("The digits need scikit-learn: pip install 'pretrim[data]'.") from None
    raw = load_digits()
    pixels = np.rint(raw.images * (255 / 16)).astype(np.uint8)
    return resized(torch.from_numpy(pixels)[:, None], resize), torch.from_numpy(raw.target.astype(np.int64))


def _distorted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Warp every image by its own random affine map, and add noise."""
    count = len(images)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    angle, scale = uniform(-ANGLE, ANGLE) * math.pi / 180, uniform(*SCALE)
    shift = torch.stack([uniform(-SHIFT, SHIFT), uniform(-SHIFT, SHIFT)], 1)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(count, 2, 2)
    theta = torch.cat([rotation / scale.view(count, 1, 1), shift[:, :, None]], 2)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    warped = functional.grid_sample(images.float(), grid, align_corners=False)
    noisy = warped + NOISE * torch.randn(warped.shape, generator=generator)
    return noisy.round().clamp(0, 255).to(torch.uint8)

"""`digits`: 1,797 handwritten digits that ship with scikit-learn; nothing to download."""

from __future__ import annotations

import numpy as np
import torch

from pretrim.errors import UsageError

from .images import Resize, resized
from .record import Parts, Split

DEFAULT_SIZE = 32


def read(resize: Resize) -> Parts:
    """8x8 grey images (Alpaydin and Kaynak 1998, UCI), enlarged to 32x32 unless another size is asked for."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UsageError(
            "Expected scikit-learn for the digits, but it is missing: pip install 'pretrim[data]'."
        ) from None
    raw = load_digits()
    pixels = np.rint(raw.images * (255 / 16)).astype(np.uint8)
    images = resized(torch.from_numpy(pixels)[:, None], resize.or_square(DEFAULT_SIZE))
    split = Split(images, torch.from_numpy(raw.target.astype(np.int64)))
    names = tuple(str(digit) for digit in range(10))
    return Parts("digits", "digits of scikit-learn, 8x8 enlarged", names, split, None, None, flip=False)

"""Random numbers that are the same on every machine and with every version of NumPy."""

from __future__ import annotations

import numpy as np

from pretrim.analysis.network import IntArray

from .legal import FloatArray


class Stream:
    """Uniform numbers in [0, 1) from PCG64's raw 64-bit stream."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def uniform(self, *shape: int) -> FloatArray:
        """The next numbers of the stream, in an array of the given shape, each with 53 random bits."""
        raw = self._bits.random_raw(int(np.prod(shape)))
        return (raw >> np.uint64(11)).reshape(shape).astype(np.float64) * 2.0**-53

    def orders(self, count: int, size: int) -> IntArray:
        """Random permutations of ``0..size-1`` (count x size)."""
        return np.argsort(self.uniform(count, size), axis=1, kind="stable")

"""Stream images that do not fit in memory: decoded on demand, a few batches ahead of their use."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from pretrim.errors import DataError

from .images import Fit, Pixels, decode, decode_all

AHEAD = 2
"""Number of batches decoded ahead of their use."""
SHARE = 0.5
"""Fraction of the free memory that decoded images may take."""
FALLBACK_BYTES = 2 << 30
"""Limit for decoded images if the system does not report its free memory."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Streamed:
    """Encoded images that are indexed like a tensor of pixels, N x C x H x W.

    Files are read on access; encoded bytes (from parquet files) stay in memory, where they take about a tenth of the
    size of their pixels. Decoding runs in threads, as Pillow releases the GIL.

    Attributes:
        items: a file or its encoded bytes, per image.
        where: origin of the images, for error messages.
        channels: 1, 3, or 4 with the alpha channel.
        height: height in pixels.
        width: width in pixels.
        resize: whether images of other sizes are resized; otherwise they are an error.
        fit: how images of other proportions are resized.
    """

    items: Sequence[Path | bytes]
    where: str
    channels: int
    height: int
    width: int
    resize: bool = True
    fit: Fit = "crop"

    def __len__(self) -> int:
        return len(self.items)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return len(self.items), self.channels, self.height, self.width

    def __getitem__(self, places: torch.Tensor | slice) -> torch.Tensor:
        """Decode the images at these indices to uint8. Raises DataError for an unreadable image or another size."""
        chosen = range(len(self))[places] if isinstance(places, slice) else places.tolist()
        return decode_all([self.items[index] for index in chosen], self._decoded, self.shape[1:])

    def _decoded(self, item: Path | bytes) -> Pixels:
        where = str(item) if isinstance(item, Path) else self.where
        size = (self.height, self.width)
        pixels = decode(item, where, channels=self.channels, size=size if self.resize else None, fit=self.fit)
        if pixels.shape[:2] != size:
            raise DataError(
                f"Expected images of one size in {self.where}, but got {self.height}x{self.width} and "
                f"{pixels.shape[0]}x{pixels.shape[1]}: give an image size."
            )
        return pixels

    def take(self, places: Sequence[int]) -> Streamed:
        """Return the images at these indices, in this order, without decoding them."""
        items = [self.items[index] for index in places]
        return replace(self, items=items)


def free_bytes() -> int:
    """Return the memory that decoded images may take: half of the machine's free memory."""
    try:
        return int(SHARE * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return FALLBACK_BYTES


def prefetched(fetch: Callable[[int], Item], count: int, ahead: int = AHEAD) -> Iterator[Item]:
    """Yield ``fetch(0)``, ``fetch(1)``, ..., computed in a thread up to `ahead` items in advance.

    An error is raised where its item would have come. Closing the iterator waits for the item that is being fetched.

    Args:
        fetch: returns the item of a number.
        count: number of items.
        ahead: maximum number of items waiting.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
    pending: deque[Future[Item]] = deque()
    try:
        for number in range(count):
            pending.append(pool.submit(fetch, number))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

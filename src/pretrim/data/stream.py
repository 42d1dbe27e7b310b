"""Images that do not fit in memory: decoded when they are asked for, a few batches ahead of their use."""

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
"""Batches that are decoded before they are asked for."""
SHARE = 0.5
"""Of the memory that is free, what decoded images may take."""
FALLBACK_BYTES = 2 << 30
"""What they may take where the system does not say what is free."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Streamed:
    """Encoded images that are indexed like a tensor of pixels, N x C x H x W.

    Files are read when they are asked for; encoded bytes (of parquet files) stay in memory, where they take about a
    tenth of their pixels. Decoding runs in threads, as Pillow lets go of the lock.

    Attributes:
        items: a file, or the bytes of one, an image.
        where: where they are, for errors.
        channels: 1, 3, or 4 with the transparency.
        height: of the pixels.
        width: likewise.
        resize: whether images of other sizes are resized; otherwise they are an error.
        fit: how, where their proportions are others.
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
        """Those images as uint8. Raises DataError for one that cannot be read, or that has another size."""
        chosen = range(len(self))[places] if isinstance(places, slice) else places.tolist()
        return decode_all([self.items[place] for place in chosen], self._decoded, self.shape[1:])

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
        """The images at these places, in this order."""
        items = [self.items[place] for place in places]
        return replace(self, items=items)


def free_bytes() -> int:
    """What decoded images may take: half of what the machine has free."""
    try:
        return int(SHARE * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return FALLBACK_BYTES


def prefetched(fetch: Callable[[int], Item], count: int, ahead: int = AHEAD) -> Iterator[Item]:
    """``fetch(0)``, ``fetch(1)``, ... in a thread, up to `ahead` of them before they are asked for.

    An error is raised where its item would have come. Closing the iterator waits for the one that is being fetched.

    Args:
        fetch: makes an item of its number.
        count: number of items.
        ahead: items that may wait.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
    waiting: deque[Future[Item]] = deque()
    try:
        for number in range(count):
            waiting.append(pool.submit(fetch, number))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

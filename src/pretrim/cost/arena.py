"""Placing buffers in a tensor arena: offsets that are free while a buffer lives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import TypeAlias

ALIGNMENT = 16
"""of buffers in the arena (TensorFlow Lite for Microcontrollers, micro_arena_constants.h)"""


Order: TypeAlias = Callable[[int], tuple[int, ...]]


def place(
    sizes: Sequence[int],
    births: Sequence[int],
    deaths: Sequence[int],
    order: Order | None = None,
    fixed: Sequence[int] = (),
) -> list[int]:
    """Offsets of buffers, each placed in its turn at the lowest offset that is free while it lives.

    Args:
        sizes: bytes of each buffer.
        births: the first operator that needs it.
        deaths: the last one.
        order: in which they are placed; by default largest first, of equal ones the last, as `GreedyMemoryPlanner` of
            TensorFlow Lite for Microcontrollers does it.
        fixed: offsets of the first buffers, which stay: those of a memory plan that the file brings.

    >>> place([100, 40, 60], [0, 0, 2], [1, 1, 2])
    [0, 112, 0]
    >>> place([100, 40, 16], [0, 0, 1], [1, 1, 1], fixed=[0, 128])
    [0, 128, 112]
    """
    aligned = [-(-size // ALIGNMENT) * ALIGNMENT for size in sizes]
    offsets = [*fixed, *[0] * (len(sizes) - len(fixed))]
    is_placed = [True] * len(fixed) + [False] * (len(sizes) - len(fixed))
    others_of = _alive_with(tuple(births), tuple(deaths))
    for buffer in sorted(range(len(fixed), len(sizes)), key=order or (lambda b: (-aligned[b], -b))):
        offset = 0
        for start, end in sorted((offsets[o], offsets[o] + aligned[o]) for o in others_of[buffer] if is_placed[o]):
            if start - offset >= aligned[buffer]:
                break
            offset = max(offset, end)
        offsets[buffer], is_placed[buffer] = offset, True
    return offsets


@lru_cache(maxsize=8)
def _alive_with(births: tuple[int, ...], deaths: tuple[int, ...]) -> list[list[int]]:
    """The other buffers that live while each does: the same for all widths of a network."""
    lives = list(enumerate(zip(births, deaths, strict=True)))
    return [[o for o, (b, d) in lives if o != buffer and b <= death and d >= birth] for buffer, (birth, death) in lives]


def top(sizes: Sequence[int], offsets: Sequence[int]) -> int:
    """Bytes that placed buffers take."""
    ends = (offset - (-size // ALIGNMENT) * ALIGNMENT for size, offset in zip(sizes, offsets, strict=True))
    return max(ends, default=0)


def pack(sizes: Sequence[int], births: Sequence[int], deaths: Sequence[int]) -> list[int]:
    """Offsets that take little memory: the best of several orders. The first is the planner's own, so never worse.

    ResNet-20 in int8 needs 51,264 bytes so, and 67,648 as the planner of the microcontroller places it.

    Args:
        sizes: bytes of each buffer.
        births: the step at which each is written first.
        deaths: the step at which each is read last.
    """
    changes = [0] * (max(deaths, default=0) + 2)
    for size, birth, death in zip(sizes, births, deaths, strict=True):
        changes[birth] += size
        changes[death + 1] -= size
    load = list(accumulate(changes))
    spans = [d - b for b, d in zip(births, deaths, strict=True)]
    peaks = [max(load[b : d + 1]) for b, d in zip(births, deaths, strict=True)]
    orders: list[Order | None] = [
        None,
        lambda b: (-sizes[b], b),
        lambda b: (births[b], -sizes[b]),
        lambda b: (-spans[b], -sizes[b]),
        lambda b: (-(spans[b] + 1) * sizes[b],),
        lambda b: (-peaks[b], -spans[b], -sizes[b]),
    ]
    best: list[int] = []
    for order in orders:
        offsets = place(sizes, births, deaths, order)
        if not best or top(sizes, offsets) < top(sizes, best):
            best = offsets
        if top(sizes, best) <= max(load, default=0):  # nothing can be smaller
            break
    return best

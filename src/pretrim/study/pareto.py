"""Fronts of resources against accuracy, pure functions on arrays: costs (n x k) to keep low, values (n) to be high."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrim.errors import UsageError

FloatArray = NDArray[np.float64]
BLOCK = 512
"""rows that are compared with the front at once"""


def _arrays(costs: ArrayLike, values: ArrayLike) -> tuple[FloatArray, FloatArray]:
    given, gains = np.asarray(costs, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if given.ndim == 1:
        given = given[:, None]
    if given.ndim != 2 or gains.ndim != 1 or len(given) != len(gains):
        raise UsageError(f"Expected costs (n x k) and values (n), but got {given.shape} and {gains.shape}.")
    return given, gains


def front(costs: ArrayLike, values: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other beats: none costs at most as much in everything, is worth as much, and better in one.

    Equal points are on the front together; points with a NaN are not.

    Args:
        costs: n x k, or n for one cost.
        values: n.

    >>> front([1, 2, 2, 3], [0.5, 0.7, 0.6, 0.7]).tolist()
    [True, True, False, False]
    """
    given, gains = _arrays(costs, values)
    points = np.column_stack([given, -gains])  # everything to be low
    there = np.flatnonzero(~np.isnan(points).any(axis=1))
    # In this order no point is beaten by a later one, except by an equal one, which beats nothing.
    order = there[np.lexsort(points[there].T[::-1])]
    found = np.zeros(len(points), dtype=bool)
    best = np.empty((0, points.shape[1]))
    for start in range(0, len(order), BLOCK):
        rows = order[start : start + BLOCK]
        rows = rows[~_beaten(points[rows], best)]
        rows = rows[~_beaten(points[rows], points[rows])]
        found[rows] = True
        best = np.concatenate([best, points[rows]])
    return found


def _beaten(points: FloatArray, by: FloatArray) -> NDArray[np.bool_]:
    """Which points another set has a better one for."""
    no_worse = np.ones((len(points), len(by)), dtype=bool)
    better = np.zeros_like(no_worse)
    for column in range(points.shape[1]):
        no_worse &= by[None, :, column] <= points[:, None, column]
        better |= by[None, :, column] < points[:, None, column]
    return np.asarray((no_worse & better).any(axis=1))


def knee(costs: ArrayLike, values: ArrayLike) -> int | None:
    """The point of a front of one cost after which more of it buys the least: farthest above the line between its ends.

    Both axes count from 0 to 1 (Das 1999; Satopää et al. 2011). None for fewer than three points on the front.

    >>> knee([1, 2, 10], [0.1, 0.8, 0.9])
    1
    """
    given, gains = _arrays(costs, values)
    if given.shape[1] != 1:
        raise UsageError(f"Expected one cost for a knee, but got {given.shape[1]}.")
    places = np.flatnonzero(front(given, gains))
    places = places[np.argsort(given[places, 0], kind="stable")]
    x, y = given[places, 0], gains[places]
    if len(places) < 3 or x[-1] == x[0] or y[-1] == y[0]:
        return None
    above = (y - y[0]) / (y[-1] - y[0]) - (x - x[0]) / (x[-1] - x[0])
    return int(places[int(np.argmax(above))])


def hypervolume(costs: ArrayLike, values: ArrayLike, worst: ArrayLike) -> float:
    """The volume between a front and a worst point (its k costs, then its value): larger is better (Zitzler 1999).

    By slices along the last cost, which is exact; meant for fronts of some hundred points and up to four costs.

    Args:
        costs: of each point (N, or N x k), smaller is better.
        values: of each point (N), larger is better.
        worst: k costs, then a value.

    >>> hypervolume([1, 2], [0.5, 1.0], worst=[3, 0])
    1.5
    """
    given, gains = _arrays(costs, values)
    reference = np.asarray(worst, dtype=np.float64)
    if reference.shape != (given.shape[1] + 1,):
        raise UsageError(f"Expected a worst point of {given.shape[1] + 1} numbers, but got {reference.shape}.")
    points = np.column_stack([given, -gains])
    limits = np.append(reference[:-1], -reference[-1])
    points = points[(points < limits).all(axis=1)]
    return float(_volume(points, limits))


def _volume(points: FloatArray, limits: FloatArray) -> float:
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(limits[0] - points.min())
    points = points[np.argsort(points[:, -1], kind="stable")]
    edges = np.append(points[1:, -1], limits[-1])
    total = 0.0
    for place, (low, high) in enumerate(zip(points[:, -1], edges, strict=True)):
        if high > low:
            slab = points[: place + 1, :-1]
            slab = slab[front(slab, np.zeros(len(slab)))] if slab.shape[1] > 1 else slab
            total += (high - low) * _volume(slab, limits[:-1])
    return total

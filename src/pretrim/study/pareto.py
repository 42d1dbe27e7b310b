"""Pareto fronts of costs (n x k, lower is better) against values (n, higher is better), as pure functions on arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrim.errors import UsageError

FloatArray = NDArray[np.float64]
BLOCK = 512
"""Number of rows that are compared with the front at once."""


def _arrays(costs: ArrayLike, values: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Costs (n x k) and values (n) as float arrays. Raises UsageError if their shapes do not match."""
    cost_array, gains = np.asarray(costs, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if cost_array.ndim == 1:
        cost_array = cost_array[:, None]
    if cost_array.ndim != 2 or gains.ndim != 1 or len(cost_array) != len(gains):
        raise UsageError(f"Expected costs (n x k) and values (n), but got {cost_array.shape} and {gains.shape}.")
    return cost_array, gains


def front(costs: ArrayLike, values: ArrayLike) -> NDArray[np.bool_]:
    """Mask (n) of the points that no other point dominates.

    A point dominates another if it is at least as good in every cost and in the value, and better in one of them. Equal
    points are on the front together; points with a NaN are not on it.

    Args:
        costs: costs of each point (n x k, or n for one cost), lower is better.
        values: value of each point (n), higher is better.

    >>> front([1, 2, 2, 3], [0.5, 0.7, 0.6, 0.7]).tolist()
    [True, True, False, False]
    """
    cost_array, gains = _arrays(costs, values)
    points = np.column_stack([cost_array, -gains])  # lower is better in every column
    valid = np.flatnonzero(~np.isnan(points).any(axis=1))
    # In lexicographic order no point is dominated by a later one.
    order = valid[np.lexsort(points[valid].T[::-1])]
    on_front = np.zeros(len(points), dtype=bool)
    front_points = np.empty((0, points.shape[1]))
    for start in range(0, len(order), BLOCK):
        rows = order[start : start + BLOCK]
        rows = rows[~_dominated(points[rows], front_points)]
        rows = rows[~_dominated(points[rows], points[rows])]
        on_front[rows] = True
        front_points = np.concatenate([front_points, points[rows]])
    return on_front


def _dominated(points: FloatArray, by: FloatArray) -> NDArray[np.bool_]:
    """Mask of the points that any point of another set dominates."""
    no_worse = np.ones((len(points), len(by)), dtype=bool)
    better = np.zeros_like(no_worse)
    for column in range(points.shape[1]):
        no_worse &= by[None, :, column] <= points[:, None, column]
        better |= by[None, :, column] < points[:, None, column]
    return np.asarray((no_worse & better).any(axis=1))


def knee(costs: ArrayLike, values: ArrayLike) -> int | None:
    """Index of the knee of a front with one cost: the point farthest above the line between the front's ends.

    Beyond it, more cost buys less. Both axes are scaled to 0..1 (Das 1999; Satopää et al. 2011). None if the front has
    fewer than three points.

    >>> knee([1, 2, 10], [0.1, 0.8, 0.9])
    1
    """
    cost_array, gains = _arrays(costs, values)
    if cost_array.shape[1] != 1:
        raise UsageError(f"Expected one cost for a knee, but got {cost_array.shape[1]}.")
    indices = np.flatnonzero(front(cost_array, gains))
    indices = indices[np.argsort(cost_array[indices, 0], kind="stable")]
    x, y = cost_array[indices, 0], gains[indices]
    if len(indices) < 3 or x[-1] == x[0] or y[-1] == y[0]:
        return None
    above = (y - y[0]) / (y[-1] - y[0]) - (x - x[0]) / (x[-1] - x[0])
    return int(indices[int(np.argmax(above))])


def hypervolume(costs: ArrayLike, values: ArrayLike, worst: ArrayLike) -> float:
    """Hypervolume between a front and a reference point (Zitzler 1999): larger is better.

    Exact, by recursive slices along the last column; meant for fronts of a few hundred points and up to four costs.

    Args:
        costs: costs of each point (n, or n x k), lower is better.
        values: value of each point (n), higher is better.
        worst: the reference point: k costs, then a value.

    >>> hypervolume([1, 2], [0.5, 1.0], worst=[3, 0])
    1.5
    """
    cost_array, gains = _arrays(costs, values)
    reference = np.asarray(worst, dtype=np.float64)
    if reference.shape != (cost_array.shape[1] + 1,):
        raise UsageError(f"Expected a worst point of {cost_array.shape[1] + 1} numbers, but got {reference.shape}.")
    points = np.column_stack([cost_array, -gains])
    limits = np.append(reference[:-1], -reference[-1])
    points = points[(points < limits).all(axis=1)]
    return float(_volume(points, limits))


def _volume(points: FloatArray, limits: FloatArray) -> float:
    """The volume that points (n x d) dominate below their upper limits (d), lower is better in every column."""
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(limits[0] - points.min())
    points = points[np.argsort(points[:, -1], kind="stable")]
    edges = np.append(points[1:, -1], limits[-1])
    total = 0.0
    for index, (low, high) in enumerate(zip(points[:, -1], edges, strict=True)):
        if high > low:
            slab = points[: index + 1, :-1]
            slab = slab[front(slab, np.zeros(len(slab)))] if slab.shape[1] > 1 else slab
            total += (high - low) * _volume(slab, limits[:-1])
    return total

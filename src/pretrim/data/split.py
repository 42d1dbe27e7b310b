"""Split parts off by a seed, class by class, the same on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np

from pretrim.errors import DataError

from .record import Parts, Split

Places = np.ndarray[Any, np.dtype[np.int64]]


def draw(labels: Places, share: float, seed: int) -> tuple[Places, Places]:
    """Places of the drawn images and of the rest, both ascending; of every class the same share, at least one of each.

    The draw sorts raw 64-bit numbers of PCG64, whose stream NumPy keeps unchanged between versions.

    >>> drawn, rest = draw(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25, seed=0)
    >>> len(drawn), len(rest)
    (2, 6)
    """
    keys = np.random.PCG64(seed).random_raw(len(labels))
    chosen = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        count = min(max(1, round(share * len(places))), len(places) - 1)
        chosen.append(places[np.argsort(keys[places], kind="stable")[:count]])
    drawn = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
    return drawn, np.setdiff1d(np.arange(len(labels)), drawn)


def complete(parts: Parts, seed: int, share: float) -> tuple[Split, Split, Split, str]:
    """Train, validation and test; what the data set does not bring is split off the training part.

    Raises DataError for a class with fewer than 3 images to split.
    """
    train, validation, test, notes = parts.train, parts.validation, parts.test, []
    if validation is None or test is None:
        _check_sizes(parts)
    total = len(train)
    if test is None:
        train, test = _split_off(train, share, seed)
        notes.append(f"test: {len(test):,} of {total:,} images, seed {seed}")
    if validation is None:
        total = len(train)
        train, validation = _split_off(train, share, seed + 1)
        notes.append(f"validation: {len(validation):,} of {total:,} training images, seed {seed}")
    return train, validation, test, "; ".join(notes) or "all three parts as the data set brings them"


def _split_off(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    drawn, rest = draw(split.labels.numpy(), share, seed)
    return split.take(rest), split.take(drawn)


def _check_sizes(parts: Parts) -> None:
    counts = np.bincount(parts.train.labels.numpy(), minlength=len(parts.classes))
    for name, count in zip(parts.classes, counts, strict=True):
        if count < 3:
            raise DataError(
                f"Expected at least 3 training images of each class in {parts.name}, but {name!r} has {count}: "
                f"add some, or bring the parts train, validation and test as folders."
            )


def limited(split: Split, limit: int, seed: int) -> Split:
    """About `limit` images, of every class the same share, for quick trials."""
    if limit >= len(split):
        return split
    drawn, _ = draw(split.labels.numpy(), limit / len(split), seed + 2)
    return split.take(drawn)

"""Split parts off by a seed, class by class, the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from pretrim.errors import DataError, first_of

from .record import Known, OnDemand, Parts, Split, shown_classes
from .stream import Streamed

Places = np.ndarray[Any, np.dtype[np.int64]]
KEPT = -1
"""In the place of a class: not to be drawn"""


def draw(labels: Places, share: float, seed: int) -> tuple[Places, Places]:
    """Places of the drawn images and of the rest, both ascending; of every class the same share.

    At least one image of every class is drawn, and at least one stays unless it is the only one. Each image gets a raw
    64-bit number of PCG64, whose stream NumPy keeps unchanged between versions; of each class the smallest are drawn.

    Args:
        labels: the class of each image (N); `KEPT` of those that are not to be drawn.
        share: to draw, between 0 and 1.
        seed: of the draw.

    >>> drawn, rest = draw(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25, seed=0)
    >>> len(drawn), len(rest)
    (2, 6)
    """
    classes, sizes = np.unique(labels, return_counts=True)
    counts = [min(max(1, round(share * size)), max(size - 1, 1)) for size in sizes.tolist()]
    counts = [0 if label == KEPT else count for label, count in zip(classes.tolist(), counts, strict=True)]
    drawn = _smallest(labels, classes, counts, seed)
    return drawn, np.setdiff1d(np.arange(len(labels)), drawn)


def _smallest(labels: Places, classes: Places, counts: Sequence[int], seed: int) -> Places:
    """Places, ascending, of so many images of each class: those with the smallest numbers."""
    keys = np.random.PCG64(seed).random_raw(len(labels))
    chosen = [np.zeros(0, dtype=np.int64)]
    for label, count in zip(classes, counts, strict=True):
        places = np.flatnonzero(labels == label)
        chosen.append(places[np.argsort(keys[places], kind="stable")[:count]])
    return np.sort(np.concatenate(chosen))


class Completed(NamedTuple):
    """The three parts, those that were split off by a seed, by their names, and the same in words."""

    train: Split
    validation: Split
    test: Split
    drawn: tuple[str, ...]
    note: str


def complete(parts: Parts, seed: int, share: float) -> Completed:
    """Train, validation and test; what the data set does not bring is split off the training part.

    The test part is drawn first, with `seed`; the validation part from what is left, with `seed + 1`.

    Raises DataError for a class with fewer than 3 images to split.

    Args:
        parts: what the data set brings.
        seed: of the draws.
        share: of the training part that becomes validation.
    """
    train, validation, test, notes = parts.train, parts.validation, parts.test, []
    drawn = tuple(name for name in ("validation", "test") if getattr(parts, name) is None)
    if drawn:
        _check_sizes(parts)
    _check_not_empty(parts)
    total = len(train)
    if test is None:
        train, test = _split_off(train, share, seed)
        notes.append(f"test: {len(test):,} of {total:,} images, seed {seed}")
    if validation is None:
        total = len(train)
        train, validation = _split_off(train, share, seed + 1)
        notes.append(f"validation: {len(validation):,} of {total:,} training images, seed {seed}")
    return Completed(train, validation, test, drawn, "; ".join(notes) or "all three parts as the data set brings them")


def to_evaluate(parts: Parts) -> Completed:
    """All that a network that was not trained on the data can be judged by: the test part, or else every image.

    The other parts are empty.

    Raises DataError where there is none.
    """
    if parts.test is not None:
        found, note = parts.test, f"test: the part of {len(parts.test):,} images"
    else:
        found = parts.train if parts.validation is None else _joined(parts.train, parts.validation)
        note = f"test: all {len(found):,} images"
    if not len(found):
        raise DataError(f"No images in {parts.name} to evaluate on: add some.")
    return Completed(found.none(), found.none(), found, (), note)


def _joined(first: Split, second: Split) -> Split:
    return Split(_together(first.images, second.images), _together(first.targets, second.targets))


def _together(first: torch.Tensor | OnDemand, second: torch.Tensor | OnDemand) -> torch.Tensor | OnDemand:
    if isinstance(first, Streamed) and isinstance(second, Streamed):
        return replace(first, items=[*first.items, *second.items])
    return torch.cat([first[:], second[:]])


def matched(parts: Parts, known: Known) -> Parts:
    """The data with the classes of a network, found by their names; data of another task as they are.

    Raises DataError for a class that the network does not have, and for values to regress that the data lack.
    """
    if parts.task != known.task or parts.classes == known.classes:
        return parts
    others = set(parts.classes) - set(known.classes)
    if (
        others
        or parts.task == "segmentation"
        or (parts.task == "regression" and len(parts.classes) < len(known.classes))
    ):
        raise DataError(
            f"Expected the run's classes ({shown_classes(known.classes)}), but {parts.name} has "
            f"{shown_classes(parts.classes)}: give data with the same classes."
        )
    train = _renumbered(parts.train, parts, known)
    validation, test = (
        None if part is None else _renumbered(part, parts, known) for part in (parts.validation, parts.test)
    )
    return replace(parts, classes=known.classes, train=train, validation=validation, test=test)


def _renumbered(split: Split, parts: Parts, known: Known) -> Split:
    """The targets by the places that their names have in a network's outputs."""
    places = torch.tensor([known.classes.index(name) for name in parts.classes])
    if parts.task == "classification":
        return Split(split.images, places[split.labels])
    targets = torch.zeros(len(split), len(known.classes))
    targets[:, places] = split.labels
    return Split(split.images, targets)


def absent(parts: Parts, splits: Mapping[str, Split]) -> list[str]:
    """A sentence on each part in which no image has some class, or some label: it tells nothing of these.

    Raises DataError for labels that no image of the validation or test part has: there is no average precision.

    Args:
        parts: what the data are.
        splits: the parts, by the name that they are told by.
    """
    found = []
    for name, split in splits.items():
        there = _there(parts, split)
        if there is not None and len(split) and not there.all():
            if parts.task == "multilabel" and not there.any() and name != "training":
                raise DataError(
                    f"No image of the {name} part of {parts.name} has a label, so that nothing can be said of a "
                    f"network: give it some that have one."
                )
            missing = first_of([name for name, is_there in zip(parts.classes, there, strict=True) if not is_there])
            what = "image of the class" if parts.task == "classification" else "image with the label"
            found.append(f"the {name} part has no {what} {missing}")
    return found


def _there(parts: Parts, split: Split) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    """Of each class or label whether any image of a part has it; None for other targets."""
    targets = split.targets
    if not isinstance(targets, torch.Tensor):
        return None
    if parts.task == "classification":
        return np.bincount(targets.numpy(), minlength=len(parts.classes)) > 0
    return np.asarray((targets > 0.5).any(dim=0).numpy()) if parts.task == "multilabel" else None


def _split_off(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    drawn, rest = draw(strata(split), share, seed)
    return split.take(rest), split.take(drawn)


def strata(split: Split) -> Places:
    """The class of each image, of which every part gets its share; one class where there are no classes.

    Of several labels the rarest that the image has counts, so that no part is without one by chance.
    """
    targets = split.targets
    if isinstance(targets, torch.Tensor) and targets.ndim == 1 and targets.dtype == torch.int64:
        return np.asarray(targets.numpy())
    if isinstance(targets, torch.Tensor) and targets.ndim == 2 and bool(((targets == 0) | (targets == 1)).all()):
        return _rarest((targets == 1).numpy())
    return np.zeros(len(split), dtype=np.int64)


def _rarest(labels: np.ndarray[Any, np.dtype[np.bool_]]) -> Places:
    """Of each image (N x labels) its rarest label, the number of labels where it has none.

    The only image of a label stays in the training part.
    """
    images, count = labels.shape
    sizes = np.where(labels, labels.sum(axis=0), images + 1)
    found = np.where(labels.any(axis=1), sizes.argmin(axis=1), count)
    members = np.bincount(found, minlength=count + 1)
    return np.where((members[found] == 1) & (found < count), KEPT, found)


def _check_not_empty(parts: Parts) -> None:
    for name in ("train", "validation", "test"):
        part = getattr(parts, name)
        if part is not None and not len(part):
            raise DataError(f"The {name} part of {parts.name} is empty: add images.")


def _check_sizes(parts: Parts) -> None:
    if parts.task != "classification":
        if len(parts.train) < 3:
            raise DataError(f"Expected at least 3 training images in {parts.name}, but got {len(parts.train)}.")
        return
    counts = np.bincount(parts.train.labels.numpy(), minlength=len(parts.classes))
    for name, count in zip(parts.classes, counts, strict=True):
        if count < 3:
            raise DataError(
                f"Expected at least 3 training images of each class in {parts.name}, but {name!r} has {count}: "
                f"add some, or bring the parts train, validation and test (folders, or a column split of a table)."
            )


def limited(split: Split, limit: int, seed: int) -> Split:
    """`limit` images, of every class its share and at least one, for quick trials; drawn with `seed + 2`.

    Args:
        split: images and labels.
        limit: number of images that stay.
        seed: of the draw.
    """
    if limit >= len(split):
        return split
    labels = strata(split)
    classes, sizes = np.unique(labels, return_counts=True)
    if limit < len(classes):  # of several labels: one image of each would be too many
        labels, classes, sizes = np.zeros_like(labels), classes[:1] * 0, np.array([len(labels)])
    return split.take(_smallest(labels, classes, _shares(sizes, limit), seed + 2))


def _shares(sizes: Places, total: int) -> list[int]:
    """Whole numbers in proportion to `sizes`, each at least 1, that sum to `total` (largest remainders first)."""
    counts = np.maximum(1, total * sizes // sizes.sum())
    while (missing := total - int(counts.sum())) != 0:
        owed = total * sizes - counts * sizes.sum()
        if missing > 0:
            counts[owed.argmax()] += 1
        else:  # classes that got their 1 without owning a whole one: the others give it
            counts[np.where(counts > 1, owed, owed.max() + 1).argmin()] -= 1
    return [int(count) for count in counts]

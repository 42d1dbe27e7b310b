"""Draw validation and test splits by a seed, class by class, the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from pretrim.errors import DataError, first_of

from .record import Known, OnDemand, Parts, Split, shown_classes
from .stream import Streamed

Indices = np.ndarray[Any, np.dtype[np.int64]]
NOT_DRAWN = -1
"""Stands for the class of an image that must not be drawn."""


def draw(labels: Indices, share: float, seed: int) -> tuple[Indices, Indices]:
    """Return the indices of drawn images and of the rest, both ascending, with the same share drawn from every class.

    At least one image of every class is drawn, and at least one is left unless it is the only one. Each image gets a
    raw 64-bit number of PCG64, whose stream NumPy keeps unchanged between versions; each class's smallest are drawn.

    Args:
        labels: class of each image (N); `NOT_DRAWN` for those that must not be drawn.
        share: fraction to draw, between 0 and 1.
        seed: seed of the draw.

    >>> drawn, rest = draw(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 0.25, seed=0)
    >>> len(drawn), len(rest)
    (2, 6)
    """
    classes, sizes = np.unique(labels, return_counts=True)
    counts = [min(max(1, round(share * size)), max(size - 1, 1)) for size in sizes.tolist()]
    counts = [0 if label == NOT_DRAWN else count for label, count in zip(classes.tolist(), counts, strict=True)]
    drawn = _smallest(labels, classes, counts, seed)
    return drawn, np.setdiff1d(np.arange(len(labels)), drawn)


def _smallest(labels: Indices, classes: Indices, counts: Sequence[int], seed: int) -> Indices:
    """Return ascending indices of `counts` images per class: those with the smallest random numbers."""
    keys = np.random.PCG64(seed).random_raw(len(labels))
    chosen = [np.zeros(0, dtype=np.int64)]
    for label, count in zip(classes, counts, strict=True):
        indices = np.flatnonzero(labels == label)
        chosen.append(indices[np.argsort(keys[indices], kind="stable")[:count]])
    return np.sort(np.concatenate(chosen))


class Completed(NamedTuple):
    """The three splits, the names of those drawn from the training data, and a description of the draws."""

    train: Split
    validation: Split
    test: Split
    drawn: tuple[str, ...]
    note: str


def complete(parts: Parts, seed: int, share: float) -> Completed:
    """Return training, validation and test splits; those that the data set lacks are drawn from the training split.

    The test split is drawn first, with `seed`, then the validation split from the remaining images, with `seed + 1`.

    Raises DataError for a class with fewer than 3 images to split.

    Args:
        parts: the splits that the data set provides.
        seed: seed of the draws.
        share: fraction of the training split to draw.
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
    return Completed(train, validation, test, drawn, "; ".join(notes) or "all three splits as the data set has them")


def to_evaluate(parts: Parts) -> Completed:
    """Return the data for evaluating a network that was not trained on them: the test split, or else every image.

    The other splits are empty.

    Raises DataError if there are no images.
    """
    if parts.test is not None:
        split, note = parts.test, f"test: the split of {len(parts.test):,} images"
    else:
        split = parts.train if parts.validation is None else _joined(parts.train, parts.validation)
        note = f"test: all {len(split):,} images"
    if not len(split):
        raise DataError(f"No images in {parts.name} to evaluate on: add some.")
    return Completed(split.none(), split.none(), split, (), note)


def _joined(first: Split, second: Split) -> Split:
    return Split(_concatenated(first.images, second.images), _concatenated(first.targets, second.targets))


def _concatenated(first: torch.Tensor | OnDemand, second: torch.Tensor | OnDemand) -> torch.Tensor | OnDemand:
    if isinstance(first, Streamed) and isinstance(second, Streamed):
        return replace(first, items=[*first.items, *second.items])
    return torch.cat([first[:], second[:]])


def matched(parts: Parts, known: Known) -> Parts:
    """Reorder the data's classes as a network has them, matched by name; data of another task are returned unchanged.

    Raises DataError for a class that the network does not have, and for missing regression targets.
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
    """Rearrange targets to the positions of their names in the network's outputs."""
    positions = torch.tensor([known.classes.index(name) for name in parts.classes])
    if parts.task == "classification":
        return Split(split.images, positions[split.labels])
    targets = torch.zeros(len(split), len(known.classes))
    targets[:, positions] = split.labels
    return Split(split.images, targets)


def absent(parts: Parts, splits: Mapping[str, Split]) -> list[str]:
    """Return a note on each split in which some class or label has no image, so that it says nothing about these.

    Raises DataError if no image of the validation or test split has any label: average precision is undefined there.

    Args:
        parts: the data set, with its task and class names.
        splits: the splits, by the name to call them.
    """
    notes = []
    for name, split in splits.items():
        present = _present(parts, split)
        if present is not None and len(split) and not present.all():
            if parts.task == "multilabel" and not present.any() and name != "training":
                raise DataError(
                    f"No image of the {name} split of {parts.name} has a label, so that no score can be given to a "
                    f"network: give it some that have one."
                )
            missing = first_of(
                [name for name, is_present in zip(parts.classes, present, strict=True) if not is_present]
            )
            noun = "image of the class" if parts.task == "classification" else "image with the label"
            notes.append(f"the {name} split has no {noun} {missing}")
    return notes


def _present(parts: Parts, split: Split) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    """Return for each class or label whether any image of the split has it; None for other targets."""
    targets = split.targets
    if not isinstance(targets, torch.Tensor):
        return None
    if parts.task == "classification":
        return np.bincount(targets.numpy(), minlength=len(parts.classes)) > 0
    return np.asarray((targets > 0.5).any(dim=0).numpy()) if parts.task == "multilabel" else None


def _split_off(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    drawn, rest = draw(strata(split), share, seed)
    return split.take(rest), split.take(drawn)


def strata(split: Split) -> Indices:
    """Return the class of each image for stratified splitting; one class if there are none.

    An image with several labels counts for the rarest of them, so that no split lacks a label by chance.
    """
    targets = split.targets
    if isinstance(targets, torch.Tensor) and targets.ndim == 1 and targets.dtype == torch.int64:
        return np.asarray(targets.numpy())
    if isinstance(targets, torch.Tensor) and targets.ndim == 2 and bool(((targets == 0) | (targets == 1)).all()):
        return _rarest((targets == 1).numpy())
    return np.zeros(len(split), dtype=np.int64)


def _rarest(labels: np.ndarray[Any, np.dtype[np.bool_]]) -> Indices:
    """Return the rarest label of each image (`labels` is N x L), or L if it has none.

    The only image of a label stays in the training split.
    """
    images, count = labels.shape
    sizes = np.where(labels, labels.sum(axis=0), images + 1)
    rarest = np.where(labels.any(axis=1), sizes.argmin(axis=1), count)
    members = np.bincount(rarest, minlength=count + 1)
    return np.where((members[rarest] == 1) & (rarest < count), NOT_DRAWN, rarest)


def _check_not_empty(parts: Parts) -> None:
    for name in ("train", "validation", "test"):
        part = getattr(parts, name)
        if part is not None and not len(part):
            raise DataError(f"The {name} split of {parts.name} is empty: add images.")


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
                f"add some, or provide splits for train, validation and test (folders, or a column split of a table)."
            )


def limited(split: Split, limit: int, seed: int) -> Split:
    """Return `limit` images for quick trials, each class in proportion and with at least one; drawn with `seed + 2`.

    Args:
        split: images and targets.
        limit: number of images to keep.
        seed: seed of the draw.
    """
    if limit >= len(split):
        return split
    labels = strata(split)
    classes, sizes = np.unique(labels, return_counts=True)
    if limit < len(classes):  # multilabel strata may outnumber the images to keep
        labels, classes, sizes = np.zeros_like(labels), classes[:1] * 0, np.array([len(labels)])
    return split.take(_smallest(labels, classes, _shares(sizes, limit), seed + 2))


def _shares(sizes: Indices, total: int) -> list[int]:
    """Return integers in proportion to `sizes`, each at least 1, that sum to `total` (largest remainders first)."""
    counts = np.maximum(1, total * sizes // sizes.sum())
    while (missing := total - int(counts.sum())) != 0:
        remainders = total * sizes - counts * sizes.sum()
        if missing > 0:
            counts[remainders.argmax()] += 1
        else:  # small classes were raised to 1: take that from the others
            counts[np.where(counts > 1, remainders, remainders.max() + 1).argmin()] -= 1
    return [int(count) for count in counts]

"""What a torch DataLoader gives of its data set: all of it, or the part that its sampler chooses.

Order, batches and workers are pretrim's own. What else a loader makes of its data set (draws with replacement, batches
of its own, changed items) cannot be taken over, and is refused: the images would silently be others than the user's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
    default_convert,
)

from pretrim.errors import UsageError

MEND = "give the data set itself (loader.dataset)"


def dataset_of(loader: DataLoader[Any], name: str) -> Dataset[Any]:
    """The images that a loader gives in an epoch, each once, as a data set.

    Args:
        loader: of a data set whose items can be asked for by number.
        name: of the part of the data, for errors.

    Raises UsageError for a loader that changes items, or whose sampler does not take each image once.
    """
    _check_leaves_items(loader, name)
    sampler = _sampler(loader, name)
    places = _places(sampler)
    if places is None:
        balanced = isinstance(sampler, WeightedRandomSampler)
        mend = f"{MEND}, and for classes of different sizes set={{'balance': 'sampling'}}" if balanced else MEND
        raise UsageError(f"{_expected(name)} whose sampler takes each image once, but got a {_said(sampler)}: {mend}.")
    size = len(loader.dataset)  # type: ignore[arg-type]  # it was checked
    if len({place % size for place in places}) < len(places):  # -1 is the last image
        raise UsageError(
            f"{_expected(name)} whose sampler takes each image once, but its {_said(sampler)} names an image twice: "
            f"{MEND}, or each image once."
        )
    return loader.dataset if places == range(size) else Subset(loader.dataset, places)


def _check_leaves_items(loader: DataLoader[Any], name: str) -> None:
    """Raises UsageError unless images come out of a loader as its data set has them."""
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise UsageError(
            f"{_expected(name)} of torch's own class, but got a {type(loader).__name__}, which may change the images: "
            f"{MEND}."
        )
    if loader.collate_fn not in (default_collate, default_convert):
        raise UsageError(
            f"{_expected(name)} without a collate_fn, for what it makes of the items is not known: {MEND}, with items "
            f"that are (image, label) already."
        )


def _sampler(loader: DataLoader[Any], name: str) -> Any:
    """What chooses the images. Raises UsageError for batches that are chosen in another way than torch's."""
    batches: Any = loader.batch_sampler
    if batches is None:  # batch_size=None: items come one by one
        return loader.sampler
    if getattr(type(batches), "__iter__", None) is not BatchSampler.__iter__:
        raise UsageError(
            f"{_expected(name)} without a batch_sampler of its own, but got a {type(batches).__name__}: {MEND}."
        )
    return batches.sampler


def _places(sampler: Any) -> Sequence[int] | None:
    """The items that a sampler takes in each epoch, whatever their order; None where they are not always the same.

    Classes are told by how they iterate, so that one derived from torch's counts as it only while it does as torch's.
    """
    iterates = getattr(type(sampler), "__iter__", None)
    if iterates is SubsetRandomSampler.__iter__:
        return _numbers(sampler.indices)
    if iterates is SequentialSampler.__iter__:
        return range(len(sampler.data_source))
    if iterates is RandomSampler.__iter__:
        takes_each = not sampler.replacement and sampler.num_samples == len(sampler.data_source)
        return range(len(sampler.data_source)) if takes_each else None
    if iterates is DistributedSampler.__iter__:  # pretrim divides the images among its processes
        return range(len(sampler.dataset))
    return _numbers(sampler) if isinstance(sampler, Sequence | np.ndarray | torch.Tensor) else None


def _numbers(values: Any) -> Sequence[int] | None:
    """The numbers of items; None for what is not a number (a data set may have names)."""
    try:
        return values if isinstance(values, range) else [int(value) for value in values]
    except (TypeError, ValueError):
        return None


def _expected(name: str) -> str:
    return f"Expected a loader of {name} images"


def _said(sampler: Any) -> str:
    """A sampler in words: what it is, and what of it cannot be followed."""
    if isinstance(sampler, RandomSampler):
        how = "replacement=True" if sampler.replacement else f"num_samples={sampler.num_samples}"
        return f"{type(sampler).__name__} with {how}"
    return type(sampler).__name__

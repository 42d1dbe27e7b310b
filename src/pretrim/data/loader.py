"""Turn a torch DataLoader into a data set: all of its images, or those that its sampler selects.

pretrim chooses order, batches and workers itself. Other changes that a loader makes to its data set (sampling with
replacement, custom batches, modified items) cannot be reproduced and are refused: training would silently use
images other than the user's.
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

FIX = "give the data set itself (loader.dataset)"


def dataset_of(loader: DataLoader[Any], name: str) -> Dataset[Any]:
    """Return the images that a loader yields in an epoch, each once, as a data set.

    Args:
        loader: loader of a data set whose items are accessible by index.
        name: name of the split, for error messages.

    Raises UsageError for a loader that changes items, or whose sampler does not take each image once.
    """
    _check_leaves_items(loader, name)
    sampler = _sampler(loader, name)
    indices = _indices(sampler)
    if indices is None:
        balanced = isinstance(sampler, WeightedRandomSampler)
        fix = f"{FIX}, and for classes of different sizes set={{'balance': 'sampling'}}" if balanced else FIX
        raise UsageError(f"{_expected(name)} whose sampler takes each image once, but got a {_named(sampler)}: {fix}.")
    size = len(loader.dataset)  # type: ignore[arg-type]  # checked before
    if len({index % size for index in indices}) < len(indices):  # -1 is the last image
        raise UsageError(
            f"{_expected(name)} whose sampler takes each image once, but its {_named(sampler)} yields an image twice: "
            f"{FIX}, or each image once."
        )
    return loader.dataset if indices == range(size) else Subset(loader.dataset, indices)


def _check_leaves_items(loader: DataLoader[Any], name: str) -> None:
    """Raise UsageError unless the loader yields images unchanged."""
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise UsageError(
            f"{_expected(name)} of torch's own class, but got a {type(loader).__name__}, which may change the images: "
            f"{FIX}."
        )
    if loader.collate_fn not in (default_collate, default_convert):
        raise UsageError(
            f"{_expected(name)} without a collate_fn, since what it does to the items is unknown: {FIX}, with items "
            f"that are (image, label) already."
        )


def _sampler(loader: DataLoader[Any], name: str) -> Any:
    """Return the sampler. Raises UsageError for batches that are not formed by torch's BatchSampler."""
    batches: Any = loader.batch_sampler
    if batches is None:  # batch_size=None: items are not batched
        return loader.sampler
    if getattr(type(batches), "__iter__", None) is not BatchSampler.__iter__:
        raise UsageError(
            f"{_expected(name)} without a batch_sampler of its own, but got a {type(batches).__name__}: {FIX}."
        )
    return batches.sampler


def _indices(sampler: Any) -> Sequence[int] | None:
    """Return the indices that a sampler takes in each epoch, in any order; None if they vary between epochs.

    Samplers are recognised by their ``__iter__``, so that a subclass of torch's counts only if it does not override it.
    """
    iteration = getattr(type(sampler), "__iter__", None)
    if iteration is SubsetRandomSampler.__iter__:
        return _numbers(sampler.indices)
    if iteration is SequentialSampler.__iter__:
        return range(len(sampler.data_source))
    if iteration is RandomSampler.__iter__:
        takes_each = not sampler.replacement and sampler.num_samples == len(sampler.data_source)
        return range(len(sampler.data_source)) if takes_each else None
    if iteration is DistributedSampler.__iter__:  # pretrim divides the images among its processes
        return range(len(sampler.dataset))
    return _numbers(sampler) if isinstance(sampler, Sequence | np.ndarray | torch.Tensor) else None


def _numbers(values: Any) -> Sequence[int] | None:
    """Return item indices; None if they are not numbers (a data set may use names)."""
    try:
        return values if isinstance(values, range) else [int(value) for value in values]
    except (TypeError, ValueError):
        return None


def _expected(name: str) -> str:
    return f"Expected a loader of {name} images"


def _named(sampler: Any) -> str:
    """Describe a sampler, with the setting that cannot be reproduced."""
    if isinstance(sampler, RandomSampler):
        setting = "replacement=True" if sampler.replacement else f"num_samples={sampler.num_samples}"
        return f"{type(sampler).__name__} with {setting}"
    return type(sampler).__name__

"""Data set records: splits of images and targets, and the metadata that a run saves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from pretrim.errors import DataError, UsageError

from .images import Fit
from .stream import Streamed, prefetched

SAMPLE = 4096
"""Maximum number of streamed images that `statistics` decodes."""
DIGEST_IMAGES = 64
"""Number of images per split in a data set's digest."""
NAMED = 5
"""Maximum number of output names to show."""
OUTPUTS = {
    "classification": ("class", "classes"),
    "segmentation": ("class", "classes"),
    "multilabel": ("label", "labels"),
    "regression": ("target", "targets"),
    "keypoints": ("point", "points"),
}
"""Nouns for the outputs of each task, singular and plural."""
PIECE = 256
"""Images per histogram chunk: 0.1 GB for one channel of 224 x 224."""


class OnDemand(Protocol):
    """Images that are read or decoded when accessed, indexed like a tensor N x C x H x W."""

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""

    def __getitem__(self, places: torch.Tensor | slice) -> torch.Tensor:
        """Return the images at these indices."""

    def take(self, places: Sequence[int]) -> OnDemand:
        """Return the images at these indices, in this order, without reading them."""


@runtime_checkable
class Joint(Protocol):
    """Images that are read together with their targets."""

    def pairs(self, places: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images at these indices and their targets."""


@dataclass(frozen=True)
class Split:
    """Images and targets of one split."""

    images: torch.Tensor | OnDemand
    """uint8, N x C x H x W; images on demand are decoded when indexed."""
    targets: torch.Tensor | OnDemand
    """Targets per image, N x ...: class numbers (int64, N), values, or masks."""

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labels(self) -> torch.Tensor:
        """Classification targets: int64, N. Raises DataError if they are read on demand."""
        if not isinstance(self.targets, torch.Tensor):
            raise DataError("Expected a class for each image, but the targets are read with the images: set the task.")
        return self.targets

    def pairs(self, places: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images at these indices and their targets.

        Both come from one access if the data set provides both: its transforms may be random.
        """
        if isinstance(self.images, Joint) and not isinstance(self.targets, torch.Tensor):
            return self.images.pairs(places)
        return self.images[places], self.targets[places]

    def take(self, places: np.ndarray[Any, np.dtype[np.int64]]) -> Split:
        """Return a split of the images at these indices, in this order."""
        return Split(_take(self.images, places), _take(self.targets, places))

    def none(self) -> Split:
        """Return an empty split of the same kind."""
        return self.take(np.zeros(0, dtype=np.int64))


def _take(values: torch.Tensor | OnDemand, indices: np.ndarray[Any, np.dtype[np.int64]]) -> torch.Tensor | OnDemand:
    return values[torch.from_numpy(indices)] if isinstance(values, torch.Tensor) else values.take(indices.tolist())


def held(splits: Sequence[Split], memory: int) -> list[Split]:
    """Decode the images of all splits if their pixels take at most `memory` bytes, else return the splits unchanged.

    Call this after splitting: splits of tensors are copies, and would hold pixels in memory several times.
    """
    streamed = [values for split in splits for values in (split.images, split.targets) if isinstance(values, Streamed)]
    if sum(prod(values.shape) for values in streamed) > memory:
        return list(splits)
    return [Split(_decoded(split.images), _decoded(split.targets)) for split in splits]


def _decoded(values: torch.Tensor | OnDemand) -> torch.Tensor | OnDemand:
    return values[:] if isinstance(values, Streamed) else values


@dataclass(frozen=True)
class DataSet:
    """A data set, in memory, or streamed if it does not fit.

    All choices (early stopping, a sweep, a default) read `validation` only; `test` is read once, for the final score.

    Attributes:
        name: as the user gave it.
        source: which copy of the data this is; shown with every score.
        classes: names of the outputs: class names in label order, or value names; empty if unknown.
        mean: per-channel mean of the training images scaled to 0..1.
        std: per-channel standard deviation of these.
        flip: whether a mirrored image keeps its class (a mirrored digit does not).
        split_seed: seed of the splits drawn from the training data.
        split_note: readable description of which splits were drawn, and their sizes.
        drawn: names of these splits.
        limit: requested maximum number of training images; None: all.
        padding: zeros around each image in pixels, included in its shape.
        fit: how images of other proportions were resized (`images.Resize`).
        task: name of the task that the targets are for.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    split_seed: int
    split_note: str
    padding: int = 0
    fit: Fit = "crop"
    task: str = "classification"
    drawn: tuple[str, ...] = ()
    limit: int | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channels, height, width); (channels, length) of signals; (channels, depth, height, width) of volumes."""
        return tuple(self.train.images.shape[1:])

    @property
    def streamed(self) -> bool:
        """Whether any split is decoded on demand."""
        parts = (self.train, self.validation, self.test)
        return any(not isinstance(part.images, torch.Tensor) for part in parts)

    @property
    def as_given(self) -> bool:
        """Whether images are floats from a user's data set, used unchanged: their preprocessing is unknown."""
        return isinstance(self.train.images, Joint)

    @property
    def contents(self) -> str:
        """Readable description of the targets: ``classification, 3 classes: a, b, c``."""
        count = len(self.classes)
        words = f"{count} {OUTPUTS.get(self.task, ('output', 'outputs'))[count != 1]}"
        is_named = self.task in ("classification", "segmentation") or self.classes != tuple(map(str, range(count)))
        names = f": {shown_names(self.classes)}" if is_named else ""
        return f"{self.task}, {words}{names}" if count else self.task

    @property
    def identity(self) -> dict[str, Any]:
        """What has to match when training resumes: the images' contents and metadata, wherever they are stored."""
        metadata = {name: value for name, value in self.to_json().items() if name not in ("name", "source", "limit")}
        return {**metadata, "content": self._digest()}

    def _digest(self) -> str:
        """Hash all targets in memory, and 64 images of each split.

        Float images from a user's data set are left out: their transforms may return something else at each access.
        """
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            if isinstance(split.images, Joint):
                continue
            if isinstance(split.targets, torch.Tensor):
                digest.update(split.targets.numpy().tobytes())
            indices = np.linspace(0, len(split) - 1, min(len(split), DIGEST_IMAGES)).round().astype(np.int64)
            digest.update(split.take(indices).images[:].numpy().tobytes() if len(split) else b"")
        return digest.hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Return what a run saves about its data: plain JSON, without the images."""
        return {
            "name": self.name,
            "source": self.source,
            "classes": list(self.classes),
            "input_shape": list(self.input_shape),
            "mean": list(self.mean),
            "std": list(self.std),
            "sizes": {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)},
            "split_seed": self.split_seed,
            "split_note": self.split_note,
            "padding": self.padding,
            **({} if self.limit is None else {"limit": self.limit}),
            **({"as_given": True} if self.as_given else {}),
            **({"fit": self.fit} if self.fit != "crop" else {}),
            **({"task": self.task} if self.task != "classification" else {}),
        }


def shown_names(names: Sequence[str], most: int = NAMED) -> str:
    """List the first names.

    >>> shown_names(["a", "b", "c"], most=2)
    'a, b, ...'
    """
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def shown_classes(classes: Sequence[str]) -> str:
    """List the first names, and the total number if there are more.

    >>> shown_classes("abcdefg")
    'a, b, c, d, e, ... 7 in all'
    """
    return shown_names(classes) + (f" {len(classes)} in all" if len(classes) > NAMED else "")


@dataclass(frozen=True)
class Parts:
    """The splits that a data set provides, before any others are drawn from them."""

    name: str
    source: str
    classes: tuple[str, ...]
    train: Split
    validation: Split | None
    test: Split | None
    flip: bool = True
    padding: int = 0
    task: str = "classification"
    notes: tuple[str, ...] = ()
    """Notes for the user on how the data were read, one sentence each, without a full stop."""


@dataclass(frozen=True)
class Known:
    """What the network to be evaluated was trained for, which decides how other data are read.

    Attributes:
        task: name of the task.
        classes: names of the network's outputs, in order.
    """

    task: str
    classes: tuple[str, ...]


def statistics(images: torch.Tensor | OnDemand) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of uint8 images scaled to 0..1, from integer histograms.

    Streamed images are sampled, 4,096 of them evenly spaced: that gives the mean to within about one grey level.
    """
    if not isinstance(images, torch.Tensor):
        images = images.take(np.linspace(0, len(images) - 1, min(len(images), SAMPLE)).round().astype(int).tolist())
    values = np.arange(256) / 255.0
    mean, std = [], []
    for counts in _histograms(images):
        average = float((counts * values).sum() / counts.sum())
        mean.append(round(average, 6))
        std.append(round(float(np.sqrt((counts * (values - average) ** 2).sum() / counts.sum())), 6) or 1.0)
    return tuple(mean), tuple(std)


def _histograms(images: torch.Tensor | OnDemand) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Count how often each value occurs, C x 256, in chunks: bincount needs 8 bytes per pixel."""
    counts = torch.zeros((images.shape[1], 256), dtype=torch.int64)
    for start in range(0, len(images), PIECE):
        chunk = images[start : start + PIECE]
        for channel in range(images.shape[1]):
            counts[channel] += torch.bincount(chunk[:, channel].reshape(-1).long(), minlength=256)
    return counts.numpy()


def batches(
    split: Split, batch_size: int, *, generator: torch.Generator | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches of images and targets, in random order if there is a generator. The last batch may be smaller.

    Raises UsageError for a batch size below 1.

    Args:
        split: images and targets.
        batch_size: images per batch.
        generator: random number generator of the order; None: the order of the split.
    """
    if batch_size < 1:
        raise UsageError(f"Expected a batch of 1 or more images, but got {batch_size}: give a larger batch size.")
    count = len(split)
    order = None if generator is None else torch.randperm(count, generator=generator)

    def fetch(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        window = slice(number * batch_size, (number + 1) * batch_size)
        indices = window if order is None else order[window]
        return split.pairs(indices)

    numbers = range(-(-count // batch_size))
    return map(fetch, numbers) if isinstance(split.images, torch.Tensor) else prefetched(fetch, len(numbers))


def check_labels(labels: torch.Tensor, classes: int, where: str) -> None:
    """Raise DataError for labels outside ``0..classes-1``.

    Args:
        labels: one per image.
        classes: number of classes.
        where: the data set, for error messages.
    """
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        label_range = f"{int(labels.min())}..{int(labels.max())}"
        raise DataError(
            f"Expected labels from 0 to {classes - 1} in {where}, but got {label_range}: the file is damaged."
        )

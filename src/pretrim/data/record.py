"""The record of a data set: three parts of images, and what a run has to remember of them."""

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
"""the most streamed images that `statistics` decodes"""
IDENTIFYING = 64
"""images of each part that a data set is known by"""
NAMED = 5
"""Outputs whose names are shown"""
OUTPUTS = {
    "classification": ("class", "classes"),
    "segmentation": ("class", "classes"),
    "multilabel": ("label", "labels"),
    "regression": ("target", "targets"),
    "keypoints": ("point", "points"),
}
"""What the outputs of a task are called, one and several"""
PIECE = 256
"""images that it counts at once: 0.1 GB for one channel of 224 x 224"""


class OnDemand(Protocol):
    """Images that are read or decoded when they are asked for, indexed like a tensor N x C x H x W."""

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""

    def __getitem__(self, places: torch.Tensor | slice) -> torch.Tensor:
        """Those images."""

    def take(self, places: Sequence[int]) -> OnDemand:
        """The images at these places, in this order."""


@runtime_checkable
class Joint(Protocol):
    """Images whose targets come with them."""

    def pairs(self, places: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Those images and their targets."""


@dataclass(frozen=True)
class Split:
    """Images and targets of one part."""

    images: torch.Tensor | OnDemand
    """uint8, N x C x H x W; those on demand are decoded when they are indexed"""
    targets: torch.Tensor | OnDemand
    """what the network is to say of each image, N x ...: class numbers (int64, N), values, masks"""

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labels(self) -> torch.Tensor:
        """The targets of a classification: int64, N. Raises DataError where they are read on demand."""
        if not isinstance(self.targets, torch.Tensor):
            raise DataError("Expected a class for each image, but the targets are read with the images: set the task.")
        return self.targets

    def pairs(self, places: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Those images and their targets, from one access where a data set has both: its transforms may be random."""
        if isinstance(self.images, Joint) and not isinstance(self.targets, torch.Tensor):
            return self.images.pairs(places)
        return self.images[places], self.targets[places]

    def take(self, places: np.ndarray[Any, np.dtype[np.int64]]) -> Split:
        """The images at these places, in this order."""
        return Split(_taken(self.images, places), _taken(self.targets, places))

    def none(self) -> Split:
        """A part without images, of the same kind."""
        return self.take(np.zeros(0, dtype=np.int64))


def _taken(values: torch.Tensor | OnDemand, places: np.ndarray[Any, np.dtype[np.int64]]) -> torch.Tensor | OnDemand:
    return values[torch.from_numpy(places)] if isinstance(values, torch.Tensor) else values.take(places.tolist())


def held(splits: Sequence[Split], memory: int) -> list[Split]:
    """The parts with their images decoded, if the pixels of all of them take at most `memory` bytes; else as given.

    What is split off is split off before: parts of tensors would be copied, and pixels be in memory several times.
    """
    streamed = [part for split in splits for part in (split.images, split.targets) if isinstance(part, Streamed)]
    if sum(prod(part.shape) for part in streamed) > memory:
        return list(splits)
    return [Split(_held(split.images), _held(split.targets)) for split in splits]


def _held(values: torch.Tensor | OnDemand) -> torch.Tensor | OnDemand:
    return values[:] if isinstance(values, Streamed) else values


@dataclass(frozen=True)
class DataSet:
    """A data set, in memory or, where it does not fit, streamed.

    Whatever chooses (early stopping, a sweep, a default) reads `validation` only; `test` is read once, for the final
    figure.

    Attributes:
        name: as the user named it.
        source: which copy this is; shown wherever a figure is shown.
        classes: names of the outputs: of the classes, in the order of the labels, or of the values; empty if unknown.
        mean: per channel, of the training images scaled to 0..1.
        std: likewise.
        flip: whether a mirrored image is still of its class (a mirrored digit is not).
        split_seed: the seed of any part that was split off.
        split_note: in words, which parts were split off and how large they are.
        drawn: the names of these parts.
        limit: the most training images that were asked for; None: all.
        padding: pixels of zeros round each image, which are part of its shape.
        fit: how images of other proportions got their shape (`images.Resize`).
        task: what the targets are of, by the name of the task.
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
        """Channels, height, width; of signals channels and length, of volumes channels, depth, height, width."""
        return tuple(self.train.images.shape[1:])

    @property
    def streamed(self) -> bool:
        """Whether any part is decoded when it is asked for."""
        parts = (self.train, self.validation, self.test)
        return any(not isinstance(part.images, torch.Tensor) for part in parts)

    @property
    def as_given(self) -> bool:
        """Whether images are floats of a data set of the user's own, taken as they are: what made them is not known."""
        return isinstance(self.train.images, Joint)

    @property
    def contents(self) -> str:
        """What the targets are, for people: ``classification, 3 classes: a, b, c``."""
        count = len(self.classes)
        words = f"{count} {OUTPUTS.get(self.task, ('output', 'outputs'))[count != 1]}"
        is_named = self.task in ("classification", "segmentation") or self.classes != tuple(map(str, range(count)))
        names = f": {shown_names(self.classes)}" if is_named else ""
        return f"{self.task}, {words}{names}" if count else self.task

    @property
    def identity(self) -> dict[str, Any]:
        """What a training that goes on must be given again: what the images are, wherever they lie."""
        known = {name: value for name, value in self.to_json().items() if name not in ("name", "source", "limit")}
        return {**known, "content": self._digest()}

    def _digest(self) -> str:
        """Of all targets that are in memory, and of 64 images of each part.

        Not of a data set of the user's own, whose transforms may give something else at each access.
        """
        content = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            if isinstance(part.images, Joint):
                continue
            if isinstance(part.targets, torch.Tensor):
                content.update(part.targets.numpy().tobytes())
            places = np.linspace(0, len(part) - 1, min(len(part), IDENTIFYING)).round().astype(np.int64)
            content.update(part.take(places).images[:].numpy().tobytes() if len(part) else b"")
        return content.hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """What a run remembers: plain JSON, without the images."""
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
    """The first of them.

    >>> shown_names(["a", "b", "c"], most=2)
    'a, b, ...'
    """
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def shown_classes(classes: Sequence[str]) -> str:
    """The first of them, and how many there are.

    >>> shown_classes("abcdefg")
    'a, b, c, d, e, ... 7 in all'
    """
    return shown_names(classes) + (f" {len(classes)} in all" if len(classes) > NAMED else "")


@dataclass(frozen=True)
class Parts:
    """What a data set brings, before anything is split off."""

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
    """what the user should know of how the data were read, a sentence each, without a full stop"""


@dataclass(frozen=True)
class Known:
    """What a network that is to be evaluated was trained for, by which other data are read.

    Attributes:
        task: by name.
        classes: names of its outputs, in their order.
    """

    task: str
    classes: tuple[str, ...]


def statistics(images: torch.Tensor | OnDemand) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images scaled to 0..1, from whole-number histograms.

    Of streamed images, 4,096 that are evenly spaced are taken: they give the mean to about one grey value.
    """
    if not isinstance(images, torch.Tensor):
        images = images.take(np.linspace(0, len(images) - 1, min(len(images), SAMPLE)).round().astype(int).tolist())
    values = np.arange(256) / 255.0
    mean, std = [], []
    for counts in _histograms(images):
        centre = float((counts * values).sum() / counts.sum())
        mean.append(round(centre, 6))
        std.append(round(float(np.sqrt((counts * (values - centre) ** 2).sum() / counts.sum())), 6) or 1.0)
    return tuple(mean), tuple(std)


def _histograms(images: torch.Tensor | OnDemand) -> np.ndarray[Any, np.dtype[np.int64]]:
    """How often each value occurs, C x 256, in pieces: bincount needs 8 bytes for each of its own."""
    counts = torch.zeros((images.shape[1], 256), dtype=torch.int64)
    for start in range(0, len(images), PIECE):
        piece = images[start : start + PIECE]
        for channel in range(images.shape[1]):
            counts[channel] += torch.bincount(piece[:, channel].reshape(-1).long(), minlength=256)
    return counts.numpy()


def batches(
    split: Split, batch_size: int, *, generator: torch.Generator | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Images and targets in batches: in a random order with a generator, else in their own. The last may be smaller.

    Raises UsageError for a batch size below 1.

    Args:
        split: images and labels.
        batch_size: images in a batch.
        generator: of the order.
    """
    if batch_size < 1:
        raise UsageError(f"Expected a batch of 1 or more images, but got {batch_size}: give a larger batch size.")
    count = len(split)
    order = None if generator is None else torch.randperm(count, generator=generator)

    def fetch(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = slice(number * batch_size, (number + 1) * batch_size)
        places = chosen if order is None else order[chosen]
        return split.pairs(places)

    numbers = range(-(-count // batch_size))
    return map(fetch, numbers) if isinstance(split.images, torch.Tensor) else prefetched(fetch, len(numbers))


def check_labels(labels: torch.Tensor, classes: int, where: str) -> None:
    """Raises DataError for labels outside ``0..classes-1``.

    Args:
        labels: one for each image.
        classes: number of classes.
        where: the data set, for errors.
    """
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        found = f"{int(labels.min())}..{int(labels.max())}"
        raise DataError(f"Expected labels from 0 to {classes - 1} in {where}, but got {found}: the file is damaged.")

"""User data: torch data sets or loaders, as a pair (train, test) or a triple (train, validation, test).

Items are (image, label). PIL and uint8 images are kept as pixels, and normalised and augmented like those of any other
data set. Float tensors and arrays are passed to the network unchanged: pretrim neither normalises nor augments them,
and reads each item from the data set again in every epoch, so that its random transforms keep working.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pretrim.errors import DataError, UsageError, channels_last_hint

from .items import Items, class_number, is_of_values, kind_of, labels_of, pixels, sizes_text, values
from .loader import dataset_of
from .record import DataSet, Parts, Split, statistics
from .split import complete

NAME = "your own data"
"""Name of all such data sets in saved records."""
IGNORED = 255
"""Class number of mask pixels to ignore."""
READY_MEAN, READY_STD = 0.0, 1.0 / 255.0
"""With these, `normalise` leaves images unchanged: ``(x / 255 - 0) / (1 / 255)``."""


@dataclass(frozen=True)
class FromDataset:
    """Images of a torch data set, indexed like a tensor N x C x H x W; each access reads from the data set."""

    items: Items
    numbers: Sequence[int]
    image_shape: tuple[int, ...]
    target_shape: tuple[int, ...] = ()
    """Shape of one target, for `pairs`."""

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return len(self.numbers), *self.image_shape

    def __getitem__(self, indices: torch.Tensor | slice) -> torch.Tensor:
        """Return the images at these indices as float32. Raises DataError for another shape or non-finite values."""
        images = [self._image(self.items[number][0], number) for number in self._chosen(indices)]
        return torch.stack(images) if images else torch.zeros(0, *self.image_shape)

    def take(self, indices: Sequence[int]) -> FromDataset:
        """Return the images at these indices, in this order."""
        return replace(self, numbers=[self.numbers[index] for index in indices])

    def pairs(self, indices: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images and targets, reading each item once. Raises DataError as for images alone."""
        numbers = self._chosen(indices)
        items = [self.items[number] for number in numbers]
        images = [self._image(image, number) for number, (image, _) in zip(numbers, items, strict=True)]
        targets = [
            _target(target, self.target_shape, self.items.where(number))
            for number, (_, target) in zip(numbers, items, strict=True)
        ]
        return torch.stack(images), torch.stack(targets)

    def _chosen(self, indices: torch.Tensor | slice) -> list[int]:
        """Return the item numbers behind these indices."""
        chosen = range(len(self))[indices] if isinstance(indices, slice) else indices.tolist()
        return [self.numbers[index] for index in chosen]

    def _image(self, image: Any, number: int) -> torch.Tensor:
        return values(image, self.image_shape, self.items.where(number))


@dataclass(frozen=True)
class TargetsOf:
    """The targets of images that are read on demand, indexed like a tensor."""

    images: FromDataset

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""
        return len(self.images), *self.images.target_shape

    def __getitem__(self, indices: torch.Tensor | slice) -> torch.Tensor:
        """Return the targets at these indices."""
        return self.images.pairs(indices)[1]

    def take(self, indices: Sequence[int]) -> TargetsOf:
        """Return the targets at these indices, in this order."""
        return TargetsOf(self.images.take(indices))


def from_torch(
    parts: Sequence[Any],
    *,
    seed: int = 0,
    validation: float = 0.1,
    task: str = "classification",
    names: Sequence[str] | None = None,
) -> DataSet:
    """Build a `DataSet` from torch data sets or loaders.

    Args:
        parts: (train, test) or (train, validation, test), with items (image, target). A loader contributes the images
            that it yields in an epoch.
        seed: seed of the validation split, if it is drawn from the training split.
        validation: fraction of the training split to hold out.
        task: task name; targets of a classification are class numbers, others any numbers of one shape.
        names: output names, if the task defines them; None: from the data.

    Raises:
        UsageError: neither a pair nor a triple of data sets with a length, or a loader that changes its images or does
            not take each once.
        DataError: an item cannot be read, is not an (image, label) pair, or its label is not a class.
    """
    if not isinstance(parts, Sequence) or len(parts) not in (2, 3):
        got = f"{len(parts)} parts" if isinstance(parts, Sequence) else f"a {type(parts).__name__}"
        raise UsageError(f"Expected data as (train, test) or (train, validation, test), but got {got}.")
    split_names = ("training", "test") if len(parts) == 2 else ("training", "validation", "test")
    items = [Items(_dataset(part, name), name) for part, name in zip(parts, split_names, strict=True)]
    is_of_classes = task == "classification"
    splits = [_split(part) if is_of_classes else _joint(part) for part in items]
    _check_alike(splits)
    origin = items[0].origin
    if names is None:
        names = _classes(origin, splits) if is_of_classes else _outputs(origin, splits[0], task)
    user_parts = Parts(
        name=NAME,
        source=_source(origin),
        classes=tuple(names),
        train=splits[0],
        validation=splits[1] if len(splits) == 3 else None,
        test=splits[-1],
        flip=False,
        task=task,
    )
    completed = complete(user_parts, seed, validation)
    images = completed.train.images
    if isinstance(images, FromDataset):
        mean, std = (READY_MEAN,) * images.shape[1], (READY_STD,) * images.shape[1]
    else:
        mean, std = statistics(images)
    return DataSet(
        name=user_parts.name,
        source=user_parts.source,
        classes=user_parts.classes,
        train=completed.train,
        validation=completed.validation,
        test=completed.test,
        mean=mean,
        std=std,
        flip=user_parts.flip,
        split_seed=seed,
        split_note=completed.note,
        task=task,
        drawn=completed.drawn,
    )


def _source(dataset: Any) -> str:
    """Describe the data; the type of a data set is informative, list or tuple is not.

    >>> _source([])
    'your own data'
    """
    return NAME if isinstance(dataset, list | tuple) else f"{NAME} ({type(dataset).__name__})"


def _dataset(part: Any, name: str) -> Dataset[Any]:
    dataset = part.dataset if isinstance(part, DataLoader) else part
    has_index = hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)
    if not (has_index and hasattr(dataset, "__len__")):
        raise UsageError(
            f"Expected torch data sets or loaders that can be indexed by number, but got a "
            f"{type(dataset).__name__}: {_advice(dataset)}."
        )
    if not len(dataset):
        raise _empty(name)
    selected: Any = dataset_of(part, name) if isinstance(part, DataLoader) else dataset
    if not len(selected):
        raise _empty(name)
    return selected  # type: ignore[no-any-return]  # checked above


def _advice(source: Any) -> str:
    """Advise what to give instead of something that is no data set; loaders of other libraries hold one."""
    if hasattr(source, "dataset"):
        return "give its data set (loader.dataset), since what such a loader does to the images is unknown"
    return "an iterable data set has no length and no index"


def _empty(name: str) -> DataError:
    return DataError(f"A split of the data is empty: there are no {name} images.")


def _check_alike(splits: Sequence[Split]) -> None:
    """Raise DataError if a split has images or targets of another shape than the training split."""
    for kind in ("images", "targets"):
        first, *others = (tuple(getattr(split, kind).shape[1:]) for split in splits)
        for shape in others:
            if shape != first:
                raise DataError(
                    f"Expected {kind} of one shape in every split of the data, but got {sizes_text(first)} and "
                    f"{sizes_text(shape)}."
                )


def _split(items: Items) -> Split:
    image, _ = items[0]
    if is_of_values(image):
        shape = tuple(values(image, None, items.where(0)).shape)
        return Split(FromDataset(items, range(len(items)), shape), labels_of(items))
    images, labels = _loaded(items)
    return Split(images, torch.tensor([class_number(label, items.where(index)) for index, label in enumerate(labels)]))


def _joint(items: Items) -> Split:
    """Read images and targets of any shape. Float images are read together with their targets at each access."""
    image, target = items[0]
    shape = tuple(_target(target, None, items.where(0)).shape)
    if is_of_values(image):
        images = FromDataset(items, range(len(items)), tuple(values(image, None, items.where(0)).shape), shape)
        return Split(images, TargetsOf(images))
    loaded, targets = _loaded(items)
    return Split(
        loaded, torch.stack([_target(target, shape, items.where(index)) for index, target in enumerate(targets)])
    )


def _loaded(items: Items) -> tuple[torch.Tensor, list[Any]]:
    """Return the pixels of all images, and their targets, reading each item once.

    Raises DataError for channels that stand last: a network built for the data would take the height for them.
    """
    images: list[torch.Tensor] = []
    targets = []
    for index in range(len(items)):
        image, target = items[index]
        tensor = pixels(image, images[0].shape if images else None, items.where(index))
        if not images and (meant := channels_last_hint(tensor.shape)):
            raise DataError(f"Expected images C x H x W, but {items.where(index)} has {kind_of(image)}.{meant}")
        images.append(tensor)
        targets.append(target)
    return torch.stack(images), targets


def _target(target: Any, shape: tuple[int, ...] | None, where: str) -> torch.Tensor:
    """Convert numbers to a tensor. Raises DataError for anything else, or for another shape; None: any shape."""
    try:
        tensor = torch.as_tensor(np.asarray(target) if isinstance(target, Image.Image) else target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"Expected numbers as the target of {where}, but got a {type(target).__name__}.") from error
    if shape is not None and tuple(tensor.shape) != shape:
        raise DataError(
            f"Expected targets of one shape, but got {sizes_text(shape)} and {sizes_text(tensor.shape)}: pad those "
            f"of different lengths."
        )
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _outputs(dataset: Any, split: Split, task: str) -> tuple[str, ...]:
    """Return output names: those of the data set, else class numbers for masks and positions for values."""
    names = getattr(dataset, "classes", None)
    if isinstance(names, Sequence) and len(names):
        return tuple(map(str, names))
    if task == "segmentation":
        known = split.targets[:]
        return tuple(map(str, range(int(known[known != IGNORED].max()) + 1)))
    return tuple(map(str, range(split.targets.shape[1] if len(split.targets.shape) > 1 else 1)))


def _classes(dataset: Any, splits: Sequence[Split]) -> tuple[str, ...]:
    """Return class names if the data set has them, else class numbers."""
    count = 1 + max(int(split.labels.max()) for split in splits)
    names = getattr(dataset, "classes", None)
    if isinstance(names, Sequence) and len(names) >= count:
        return tuple(map(str, names))
    return tuple(map(str, range(max(count, 2))))

"""Data of the user's own: torch data sets or loaders, as a pair (train, test) or a triple (train, validation, test).

Items are (image, label). Images that are PIL or uint8 are held as pixels, and normalised and augmented as any other
data set's. Float tensors and arrays are taken as the network wants them: pretrim neither normalises nor augments them,
and the data set is asked for each image again in every epoch, so that random transforms of its own go on working.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pretrim.errors import DataError, UsageError

from .items import Items, class_number, is_of_values, labels_of, pixels, sizes_text, values
from .loader import dataset_of
from .record import DataSet, Parts, Split, statistics
from .split import complete

NAME = "your own data"
"""Of all such data, in records"""
IGNORED = 255
"""The class of pixels of a mask that count nowhere"""
READY_MEAN, READY_STD = 0.0, 1.0 / 255.0
"""By which `normalise` leaves an image as it is: ``(x / 255 - 0) / (1 / 255)``"""


@dataclass(frozen=True)
class FromDataset:
    """Images of a torch data set, indexed like a tensor N x C x H x W; the data set is asked at each access."""

    items: Items
    places: Sequence[int]
    image_shape: tuple[int, ...]
    target_shape: tuple[int, ...] = ()
    """of `pairs`"""

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return len(self.places), *self.image_shape

    def __getitem__(self, places: torch.Tensor | slice) -> torch.Tensor:
        """Those images as float32. Raises DataError where one has another shape, or is not finite."""
        images = [self._image(self.items[place][0], place) for place in self._chosen(places)]
        return torch.stack(images) if images else torch.zeros(0, *self.image_shape)

    def take(self, places: Sequence[int]) -> FromDataset:
        """The images at these places, in this order."""
        return replace(self, places=[self.places[place] for place in places])

    def pairs(self, places: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Those images and their targets, each item asked for once. Raises DataError as for images alone."""
        chosen = self._chosen(places)
        items = [self.items[place] for place in chosen]
        images = [self._image(image, place) for place, (image, _) in zip(chosen, items, strict=True)]
        targets = [
            _target(target, self.target_shape, self.items.where(place))
            for place, (_, target) in zip(chosen, items, strict=True)
        ]
        return torch.stack(images), torch.stack(targets)

    def _chosen(self, places: torch.Tensor | slice) -> list[int]:
        """The numbers of those items."""
        chosen = range(len(self))[places] if isinstance(places, slice) else places.tolist()
        return [self.places[place] for place in chosen]

    def _image(self, image: Any, place: int) -> torch.Tensor:
        return values(image, self.image_shape, self.items.where(place))


@dataclass(frozen=True)
class TargetsOf:
    """The targets of images that are asked for, indexed like a tensor."""

    images: FromDataset

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""
        return len(self.images), *self.images.target_shape

    def __getitem__(self, places: torch.Tensor | slice) -> torch.Tensor:
        """Those targets."""
        return self.images.pairs(places)[1]

    def take(self, places: Sequence[int]) -> TargetsOf:
        """The targets at these places, in this order."""
        return TargetsOf(self.images.take(places))


def from_torch(
    parts: Sequence[Any],
    *,
    seed: int = 0,
    validation: float = 0.1,
    task: str = "classification",
    names: Sequence[str] | None = None,
) -> DataSet:
    """A data set of pretrim from torch data sets or loaders.

    Args:
        parts: (train, test) or (train, validation, test); of a loader the images that it gives in an epoch are taken.
            Items are (image, target).
        seed: of the validation part, where it is split off the training part.
        validation: its share.
        task: what the targets are of; those of a classification are class numbers, others any numbers of one shape.
        names: of the outputs, where the task says; None: as the data have them.

    Raises:
        UsageError: neither a pair nor a triple of data sets with a length, or a loader that changes its images or does
            not take each once.
        DataError: an item cannot be had, is not an (image, label) pair, or its label is not a class.
    """
    if not isinstance(parts, Sequence) or len(parts) not in (2, 3):
        got = f"{len(parts)} parts" if isinstance(parts, Sequence) else f"a {type(parts).__name__}"
        raise UsageError(f"Expected data as (train, test) or (train, validation, test), but got {got}.")
    names_of_parts = ("training", "test") if len(parts) == 2 else ("training", "validation", "test")
    items = [Items(_dataset(part, name), name) for part, name in zip(parts, names_of_parts, strict=True)]
    is_of_classes = task == "classification"
    splits = [_split(part) if is_of_classes else _joint(part) for part in items]
    _check_alike(splits)
    origin = items[0].origin
    if names is None:
        names = _classes(origin, splits) if is_of_classes else _outputs(origin, splits[0], task)
    given = Parts(
        name=NAME,
        source=_source(origin),
        classes=tuple(names),
        train=splits[0],
        validation=splits[1] if len(splits) == 3 else None,
        test=splits[-1],
        flip=False,
        task=task,
    )
    whole = complete(given, seed, validation)
    images = whole.train.images
    if isinstance(images, FromDataset):
        mean, std = (READY_MEAN,) * images.shape[1], (READY_STD,) * images.shape[1]
    else:
        mean, std = statistics(images)
    return DataSet(
        name=given.name,
        source=given.source,
        classes=given.classes,
        train=whole.train,
        validation=whole.validation,
        test=whole.test,
        mean=mean,
        std=std,
        flip=given.flip,
        split_seed=seed,
        split_note=whole.note,
        task=task,
        drawn=whole.drawn,
    )


def _source(dataset: Any) -> str:
    """What the data are, in words; the class of a data set says something, list or tuple does not.

    >>> _source([])
    'your own data'
    """
    return NAME if isinstance(dataset, list | tuple) else f"{NAME} ({type(dataset).__name__})"


def _dataset(part: Any, name: str) -> Dataset[Any]:
    dataset = part.dataset if isinstance(part, DataLoader) else part
    has_number = hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)
    if not (has_number and hasattr(dataset, "__len__")):
        raise UsageError(
            f"Expected torch data sets or loaders whose images can be asked for by number, but got a "
            f"{type(dataset).__name__}: {_mend(dataset)}."
        )
    if not len(dataset):
        raise _empty(name)
    found: Any = dataset_of(part, name) if isinstance(part, DataLoader) else dataset
    if not len(found):
        raise _empty(name)
    return found  # type: ignore[no-any-return]  # it was checked


def _mend(given: Any) -> str:
    """What to do about something that is no data set; loaders of other libraries hold one."""
    if hasattr(given, "dataset"):
        return "give its data set (loader.dataset), for what such a loader makes of the images is not known"
    return "an iterable data set has no parts and no length"


def _empty(name: str) -> DataError:
    return DataError(f"A part of the data is empty: there are no {name} images.")


def _check_alike(splits: Sequence[Split]) -> None:
    """Raises DataError where a part has images or targets of another shape than the training part."""
    for what in ("images", "targets"):
        first, *others = (tuple(getattr(split, what).shape[1:]) for split in splits)
        for shape in others:
            if shape != first:
                raise DataError(
                    f"Expected {what} of one shape in every part of the data, but got {sizes_text(first)} and "
                    f"{sizes_text(shape)}."
                )


def _split(items: Items) -> Split:
    image, _ = items[0]
    if is_of_values(image):
        shape = tuple(values(image, None, items.where(0)).shape)
        return Split(FromDataset(items, range(len(items)), shape), labels_of(items))
    images, labels = _held(items)
    return Split(images, torch.tensor([class_number(label, items.where(place)) for place, label in enumerate(labels)]))


def _joint(items: Items) -> Split:
    """Images and targets of any shape. Where images are float tensors, both are asked for together at each access."""
    image, target = items[0]
    shape = tuple(_target(target, None, items.where(0)).shape)
    if is_of_values(image):
        images = FromDataset(items, range(len(items)), tuple(values(image, None, items.where(0)).shape), shape)
        return Split(images, TargetsOf(images))
    held, targets = _held(items)
    return Split(
        held, torch.stack([_target(target, shape, items.where(place)) for place, target in enumerate(targets)])
    )


def _held(items: Items) -> tuple[torch.Tensor, list[Any]]:
    """The pixels of all images, and their targets, each item asked for once."""
    images: list[torch.Tensor] = []
    targets = []
    for place in range(len(items)):
        image, target = items[place]
        images.append(pixels(image, images[0].shape if images else None, items.where(place)))
        targets.append(target)
    return torch.stack(images), targets


def _target(target: Any, shape: tuple[int, ...] | None, where: str) -> torch.Tensor:
    """Numbers as a tensor. Raises DataError for what is not numbers, or not of the shape; None: any."""
    try:
        found = torch.as_tensor(np.asarray(target) if isinstance(target, Image.Image) else target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"Expected numbers as the target of {where}, but got a {type(target).__name__}.") from error
    if shape is not None and tuple(found.shape) != shape:
        raise DataError(
            f"Expected targets of one shape, but got {sizes_text(shape)} and {sizes_text(found.shape)}: pad those "
            f"of different lengths."
        )
    return found.float() if found.dtype == torch.float64 else found


def _outputs(dataset: Any, split: Split, task: str) -> tuple[str, ...]:
    """Names of the outputs of a task: the data set's, or the numbers of its values; masks say their classes."""
    names = getattr(dataset, "classes", None)
    if isinstance(names, Sequence) and len(names):
        return tuple(map(str, names))
    if task == "segmentation":
        known = split.targets[:]
        return tuple(map(str, range(int(known[known != IGNORED].max()) + 1)))
    return tuple(map(str, range(split.targets.shape[1] if len(split.targets.shape) > 1 else 1)))


def _classes(dataset: Any, splits: Sequence[Split]) -> tuple[str, ...]:
    """Their names, where the data set has them; else their numbers."""
    count = 1 + max(int(split.labels.max()) for split in splits)
    names = getattr(dataset, "classes", None)
    if isinstance(names, Sequence) and len(names) >= count:
        return tuple(map(str, names))
    return tuple(map(str, range(max(count, 2))))

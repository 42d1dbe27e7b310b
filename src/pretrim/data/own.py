"""Data of the user's own: torch data sets or loaders, as a pair (train, test) or a triple (train, validation, test).

Items are (image, label). Images that are PIL or uint8 are held as pixels, and normalised and augmented as any other
data set's. Float tensors are taken as the network wants them: pretrim neither normalises nor augments them, and the
data set is asked for each image again in every epoch, so that random transforms of its own go on working.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from pretrim.errors import DataError, UsageError

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

    dataset: Dataset[Any]
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
        """Those images as float32. Raises DataError where one has another shape."""
        chosen = range(len(self))[places] if isinstance(places, slice) else places.tolist()
        images = [self.dataset[self.places[place]][0].float() for place in chosen]
        checked = [_of_shape(image, self.image_shape) for image in images]
        return torch.stack(checked) if checked else torch.zeros(0, *self.image_shape)

    def take(self, places: Sequence[int]) -> FromDataset:
        """The images at these places, in this order."""
        return replace(self, places=[self.places[place] for place in places])

    def pairs(self, places: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Those images and their targets, each item asked for once. Raises DataError where one has another shape."""
        chosen = range(len(self))[places] if isinstance(places, slice) else places.tolist()
        items = [_item(self.dataset, self.places[place]) for place in chosen]
        images = [_of_shape(image.float(), self.image_shape) for image, _ in items]
        targets = [_checked(_target(target, place), self.target_shape) for place, (_, target) in enumerate(items)]
        return torch.stack(images), torch.stack(targets)


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


def _of_shape(image: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    if tuple(image.shape) != shape:
        raise DataError(
            f"Expected images of one shape, but got {_shown(shape)} and {_shown(image.shape)}: "
            f"resize them in the data set's transform."
        )
    return image


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
        parts: (train, test) or (train, validation, test); of a loader its data set is taken. Items are (image, target).
        seed: of the validation part, where it is split off the training part.
        validation: its share.
        task: what the targets are of; those of a classification are class numbers, others any numbers of one shape.
        names: of the outputs, where the task says; None: as the data have them.

    Raises:
        UsageError: neither a pair nor a triple of data sets with a length.
        DataError: an item is not an (image, label) pair, or a label is not a class.
    """
    if not isinstance(parts, Sequence) or len(parts) not in (2, 3):
        got = f"{len(parts)} parts" if isinstance(parts, Sequence) else f"a {type(parts).__name__}"
        raise UsageError(f"Expected data as (train, test) or (train, validation, test), but got {got}.")
    datasets = [_dataset(part) for part in parts]
    is_of_classes = task == "classification"
    splits = [_split(dataset) if is_of_classes else _joint(dataset) for dataset in datasets]
    _check_alike(splits)
    if names is None:
        names = _classes(datasets[0], splits) if is_of_classes else _outputs(datasets[0], splits[0], task)
    given = Parts(
        name=NAME,
        source=_source(datasets[0], len(splits[0])),
        classes=tuple(names),
        train=splits[0],
        validation=splits[1] if len(splits) == 3 else None,
        test=splits[-1],
        flip=False,
        task=task,
    )
    train, valid, test, note = complete(given, seed, validation)
    channels = train.images.shape[1]
    if isinstance(train.images, FromDataset):
        mean, std = (READY_MEAN,) * channels, (READY_STD,) * channels
    else:
        mean, std = statistics(train.images)
    return DataSet(
        name=given.name,
        source=given.source,
        classes=given.classes,
        train=train,
        validation=valid,
        test=test,
        mean=mean,
        std=std,
        flip=given.flip,
        split_seed=seed,
        split_note=note,
        task=task,
    )


def _source(dataset: Any, images: int) -> str:
    """What the data are, in words: the class of a data set says something, list or tuple does not.

    >>> _source([], 96)
    '96 training images of your own'
    """
    if isinstance(dataset, list | tuple):
        return f"{images:,} training images of your own"
    return f"{type(dataset).__name__} of {images:,} training images"


def _dataset(part: Any) -> Dataset[Any]:
    dataset = part.dataset if isinstance(part, DataLoader) else part
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise UsageError(
            f"Expected torch data sets or loaders whose images can be asked for by number, but got a "
            f"{type(dataset).__name__}: an iterable data set has no parts and no length."
        )
    if not len(dataset):
        raise DataError("A part of the data is empty.")
    checked: Dataset[Any] = dataset
    return checked


def _check_alike(splits: Sequence[Split]) -> None:
    """Raises DataError where a part has images or targets of another shape than the training part."""
    for what in ("images", "targets"):
        first, *others = (tuple(getattr(split, what).shape[1:]) for split in splits)
        for shape in others:
            if shape != first:
                raise DataError(
                    f"Expected {what} of one shape in every part of the data, but got {_shown(first) or 'one number'} "
                    f"and {_shown(shape) or 'one number'}."
                )


def _split(dataset: Dataset[Any]) -> Split:
    image, _ = _item(dataset, 0)
    count = len(dataset)  # type: ignore[arg-type]  # it was checked
    labels = torch.tensor([_label(dataset, place) for place in range(count)], dtype=torch.int64)
    if isinstance(image, torch.Tensor) and image.is_floating_point():
        return Split(FromDataset(dataset, range(count), tuple(image.shape)), labels)
    return Split(torch.stack([_pixels(_item(dataset, place)[0]) for place in range(count)]), labels)


def _joint(dataset: Dataset[Any]) -> Split:
    """Images and targets of any shape. Where images are float tensors, both are asked for together at each access."""
    image, target = _item(dataset, 0)
    count, shape = len(dataset), tuple(_target(target, 0).shape)  # type: ignore[arg-type]  # it was checked
    if isinstance(image, torch.Tensor) and image.is_floating_point():
        images = FromDataset(dataset, range(count), tuple(image.shape), shape)
        return Split(images, TargetsOf(images))
    items = [_item(dataset, place) for place in range(count)]
    targets = [_checked(_target(target, place), shape) for place, (_, target) in enumerate(items)]
    return Split(torch.stack([_pixels(image) for image, _ in items]), torch.stack(targets))


def _target(target: Any, place: int) -> torch.Tensor:
    try:
        found = torch.as_tensor(np.asarray(target) if isinstance(target, Image.Image) else target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"Expected numbers as the target of item {place}, but got a {type(target).__name__}."
        ) from error
    return found.float() if found.dtype == torch.float64 else found


def _checked(target: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    if tuple(target.shape) != shape:
        raise DataError(
            f"Expected targets of one shape, but got {_shown(shape) or 'one number'} and "
            f"{_shown(target.shape) or 'one number'}: pad those of different lengths."
        )
    return target


def _outputs(dataset: Any, split: Split, task: str) -> tuple[str, ...]:
    """Names of the outputs of a task: the data set's, or the numbers of its values; masks say their classes."""
    names = getattr(dataset, "classes", None)
    if isinstance(names, Sequence) and len(names):
        return tuple(map(str, names))
    if task == "segmentation":
        known = split.targets[:]
        return tuple(map(str, range(int(known[known != IGNORED].max()) + 1)))
    return tuple(map(str, range(split.targets.shape[1] if len(split.targets.shape) > 1 else 1)))


def _item(dataset: Dataset[Any], place: int) -> tuple[Any, Any]:
    item = dataset[place]
    if not isinstance(item, Sequence) or len(item) != 2:
        raise DataError(f"Expected items (image, label) in the data, but item {place} is a {type(item).__name__}.")
    return item[0], item[1]


def _label(dataset: Dataset[Any], place: int) -> int:
    """From `targets`, where the data set keeps them, so that no image has to be read for it."""
    kept = getattr(dataset, "targets", None)
    known = isinstance(kept, Sequence | torch.Tensor | np.ndarray) and len(kept) == len(dataset)  # type: ignore[arg-type]
    label = kept[place] if known else _item(dataset, place)[1]  # type: ignore[index]
    try:
        found = int(label)
    except (TypeError, ValueError) as error:
        raise DataError(f"Expected a class number as the label of item {place}, but got {label!r}.") from error
    if found < 0:
        raise DataError(f"Expected class numbers from 0, but item {place} has {found}.")
    return found


def _pixels(image: Any) -> torch.Tensor:
    """uint8, C x H x W, of a PIL image, or of a uint8 tensor or array."""
    if isinstance(image, Image.Image):
        array = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        tensor = torch.from_numpy(array.copy())
        return tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1).contiguous()
    tensor = torch.as_tensor(image)
    if tensor.dtype != torch.uint8 or tensor.ndim not in (2, 3):
        raise DataError(
            f"Expected images as PIL images, uint8 or float tensors C x H x W, but got {tensor.dtype} of "
            f"{_shown(tensor.shape)}."
        )
    return tensor[None] if tensor.ndim == 2 else tensor


def _classes(dataset: Any, splits: Sequence[Split]) -> tuple[str, ...]:
    """Their names, where the data set has them; else their numbers."""
    count = 1 + max(int(split.labels.max()) for split in splits)
    names = getattr(dataset, "classes", None)
    if isinstance(names, Sequence) and len(names) >= count:
        return tuple(map(str, names))
    return tuple(map(str, range(max(count, 2))))


def _shown(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))

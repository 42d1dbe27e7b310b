"""Checked access to a user's data set: (image, target) pairs, and errors that name the item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset

from pretrim.errors import DataError, PretrimError, shown

SAMPLE = 64
"""Maximum number of evenly spaced items whose labels are compared with stored ones, besides one of each class."""
TORCHVISION = "torchvision.datasets."


@dataclass(frozen=True)
class Items:
    """One split of the data, indexed by item.

    Attributes:
        dataset: the user's data set.
        part: name of the split, for error messages: ``"training"``.
    """

    dataset: Dataset[Any]
    part: str

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # checked before

    def __getitem__(self, place: int) -> tuple[Any, Any]:
        """Return image and target. Raises DataError for an item that cannot be read or is not such a pair."""
        try:
            item = self.dataset[place]
        except PretrimError:
            raise
        except Exception as error:  # the user's own code may raise anything
            lines = str(error).strip().splitlines() or [""]
            raise DataError(
                f"Cannot read {self.where(place)} ({type(error).__name__}: {lines[0]}): fix the item, or leave it out."
            ) from error
        if not isinstance(item, Sequence) or isinstance(item, str) or len(item) != 2:
            is_parts = isinstance(item, tuple | list)
            got = f"has {len(item)} parts" if is_parts else f"is a {type(item).__name__}"
            raise DataError(
                f"Expected items (image, label), but {self.where(place)} {got}: give a data set whose __getitem__ "
                f"returns those two."
            )
        return item[0], item[1]

    def where(self, place: int) -> str:
        """Describe an item by its index in the original data set, even if a subset was taken."""
        dataset: Any = self.dataset
        while type(dataset) is Subset:
            dataset, place = dataset.dataset, int(dataset.indices[place])
        return f"item {place} of the {self.part} data"

    def label(self, place: int) -> int:
        """Return the class of an item. Raises DataError if its label is not a class number."""
        return class_number(self[place][1], self.where(place))

    @property
    def origin(self) -> Any:
        """The original data set: itself, or the one that a subset was taken from."""
        dataset = self.dataset
        while type(dataset) is Subset:
            dataset = dataset.dataset
        return dataset


def class_number(label: Any, where: str) -> int:
    """Convert a label to a class number. Raises DataError unless it is a whole number of at least 0.

    Args:
        label: label of an item.
        where: the item, for error messages.
    """
    try:
        number = int(label)
        is_whole = number == float(label)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise _no_class(label, where) from error
    if not is_whole:
        raise _no_class(label, where)
    if number < 0:
        raise DataError(f"Expected class numbers from 0, but {where} has {number}.")
    return number


def _no_class(label: Any, where: str) -> DataError:
    got = kind_of(label) if isinstance(label, torch.Tensor | np.ndarray) and label.ndim else shown(label)
    return DataError(f"Expected a class number as the label of {where}, but got {got}.")


def labels_of(items: Items) -> torch.Tensor:
    """Return the classes of all items, int64, as the items give them: a transform may change what the data set stores.

    Stored labels are used only if `kept_labels` knows that items give them unchanged and a sample of items confirms it;
    then the other images need not be read.
    """
    stored = kept_labels(items.dataset)
    if stored is not None and all(items.label(index) == stored[index] for index in _sample(stored)):
        return stored
    return torch.tensor([items.label(index) for index in range(len(items))], dtype=torch.int64)


def kept_labels(dataset: Any) -> torch.Tensor | None:
    """Return the stored ``targets`` of a data set that is known to give them unchanged, else None.

    These are torchvision's own data sets, and subsets and concatenations of them; the labels of any other class are
    only known by reading its items.
    """
    if type(dataset) is Subset:
        inner = kept_labels(dataset.dataset)
        return None if inner is None else inner[torch.tensor([int(index) for index in dataset.indices])]
    if type(dataset) is ConcatDataset:
        parts = [kept_labels(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return torch.cat(known) if len(known) == len(parts) else None
    module = getattr(type(dataset).__getitem__, "__module__", None) or ""
    if not module.startswith(TORCHVISION) or getattr(dataset, "target_transform", None) is not None:
        return None
    try:
        stored = torch.as_tensor(dataset.targets)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return None
    is_of_classes = stored.ndim == 1 and len(stored) == len(dataset) and not stored.is_floating_point()
    return stored.long() if is_of_classes else None


def _sample(labels: torch.Tensor) -> list[int]:
    """Return indices of the first item of each class and of an evenly spaced sample with the last item."""
    firsts = np.unique(labels.numpy(), return_index=True)[1]
    spread = np.linspace(0, len(labels) - 1, min(len(labels), SAMPLE)).round()
    return sorted({int(index) for index in (*firsts, *spread)})


def is_of_values(image: Any) -> bool:
    """Whether an image holds floats, which are used as they are."""
    if isinstance(image, torch.Tensor):
        return image.is_floating_point()
    return isinstance(image, np.ndarray) and np.issubdtype(image.dtype, np.floating)


def values(image: Any, shape: Sequence[int] | None, where: str) -> torch.Tensor:
    """Convert a float image to float32.

    Args:
        image: a float tensor or array, C x ...
        shape: required shape; None: any.
        where: the item, for error messages.

    Raises DataError for another type or shape, and for values that are not finite.
    """
    if not is_of_values(image):
        raise DataError(
            f"Expected float images in every item, as in the first one, but {where} has {kind_of(image)}: give one "
            f"kind."
        )
    array = image if isinstance(image, torch.Tensor) else torch.from_numpy(np.array(image, dtype=np.float32))
    tensor = _of_shape(array.float(), shape, where)
    if not tensor.isfinite().all():
        raise DataError(f"Expected finite images, but {where} holds NaN or infinity: fix the item, or leave it out.")
    return tensor


def pixels(image: Any, shape: Sequence[int] | None, where: str) -> torch.Tensor:
    """Convert a PIL image, or a uint8 tensor or array, to uint8, C x H x W. Raises DataError for another type or shape.

    Args:
        image: image of an item; H x W is taken as one channel.
        shape: required shape; None: any.
        where: the item, for error messages.
    """
    if isinstance(image, Image.Image):
        array = np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        return _of_shape(_with_channel(torch.from_numpy(array), last=True), shape, where)
    tensor = torch.from_numpy(np.array(image)) if is_bytes(image) and isinstance(image, np.ndarray) else image
    if not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.uint8 or tensor.ndim not in (2, 3):
        raise DataError(
            f"Expected images as PIL images, or as uint8 or float tensors or arrays C x H x W, all of one kind, but "
            f"{where} has {kind_of(image)}."
        )
    return _of_shape(_with_channel(tensor), shape, where)


def is_bytes(image: Any) -> bool:
    """Whether an image is uint8, with pixels of 0..255."""
    return isinstance(image, torch.Tensor | np.ndarray) and _dtype(image) == "uint8"


def kind_of(image: Any) -> str:
    """Describe an object that was given as an image.

    >>> kind_of(np.zeros((8, 8), np.int32)), kind_of(None)
    ('an int32 array of 8x8', 'a NoneType')
    """
    if isinstance(image, torch.Tensor | np.ndarray):
        dtype, what = _dtype(image), "tensor" if isinstance(image, torch.Tensor) else "array"
        return f"{'an' if dtype[0] == 'i' else 'a'} {dtype} {what} of {sizes_text(image.shape)}"
    return "a PIL image" if isinstance(image, Image.Image) else f"a {type(image).__name__}"


def sizes_text(shape: Sequence[int]) -> str:
    """Describe a shape, including that of a single number."""
    return "x".join(map(str, shape)) or "one number"


def _dtype(image: torch.Tensor | np.ndarray[Any, Any]) -> str:
    return str(image.dtype).removeprefix("torch.")


def _with_channel(image: torch.Tensor, *, last: bool = False) -> torch.Tensor:
    if image.ndim == 2:
        return image[None]
    return image.permute(2, 0, 1).contiguous() if last else image


def _of_shape(image: torch.Tensor, shape: Sequence[int] | None, where: str) -> torch.Tensor:
    if shape is not None and tuple(image.shape) != tuple(shape):
        raise DataError(
            f"Expected images of one shape, but got {sizes_text(shape)} and, in {where}, {sizes_text(image.shape)}: "
            f"resize them in the data set's transform."
        )
    return image

"""The items of a data set of the user's own, checked: (image, target) pairs, and errors that name the item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset

from pretrim.errors import DataError, PretrimError, shown

LOOKED_AT = 64
"""Items whose labels are compared with those that the data set keeps, beside one of each class"""
TORCHVISION = "torchvision.datasets."


@dataclass(frozen=True)
class Items:
    """A part of the data, indexed by item.

    Attributes:
        dataset: of the user's.
        part: its name, for errors: ``"training"``.
    """

    dataset: Dataset[Any]
    part: str

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # it was checked

    def __getitem__(self, place: int) -> tuple[Any, Any]:
        """Image and target. Raises DataError for an item that cannot be had, or that is not such a pair."""
        try:
            found = self.dataset[place]
        except PretrimError:
            raise
        except Exception as error:  # the user's own code; its error is shown
            words = str(error).strip().splitlines() or [""]
            raise DataError(
                f"Cannot read {self.where(place)} ({type(error).__name__}: {words[0]}): mend the item, or leave it out."
            ) from error
        if not isinstance(found, Sequence) or isinstance(found, str) or len(found) != 2:
            is_parts = isinstance(found, tuple | list)
            got = f"has {len(found)} parts" if is_parts else f"is a {type(found).__name__}"
            raise DataError(
                f"Expected items (image, label), but {self.where(place)} {got}: give a data set whose __getitem__ "
                f"returns those two."
            )
        return found[0], found[1]

    def where(self, place: int) -> str:
        """An item in words, by its number in the data set that it is from, also where that was divided."""
        dataset: Any = self.dataset
        while type(dataset) is Subset:
            dataset, place = dataset.dataset, int(dataset.indices[place])
        return f"item {place} of the {self.part} data"

    def label(self, place: int) -> int:
        """The class of an item. Raises DataError where it is not one."""
        return class_number(self[place][1], self.where(place))

    @property
    def origin(self) -> Any:
        """The data set that it is from: itself, or the one that was divided."""
        dataset = self.dataset
        while type(dataset) is Subset:
            dataset = dataset.dataset
        return dataset


def class_number(label: Any, where: str) -> int:
    """A label as a class. Raises DataError for what is not a number from 0.

    Args:
        label: of an item.
        where: the item, for errors.
    """
    try:
        found = int(label)
        is_whole = found == float(label)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise _no_class(label, where) from error
    if not is_whole:
        raise _no_class(label, where)
    if found < 0:
        raise DataError(f"Expected class numbers from 0, but {where} has {found}.")
    return found


def _no_class(label: Any, where: str) -> DataError:
    got = kind_of(label) if isinstance(label, torch.Tensor | np.ndarray) and label.ndim else shown(label)
    return DataError(f"Expected a class number as the label of {where}, but got {got}.")


def labels_of(items: Items) -> torch.Tensor:
    """The classes of all items, int64: what they give, for a transform may change what their data set keeps.

    Kept ones are taken where `kept_labels` knows that items give them, and some were looked at: no image has to be read
    for the others.
    """
    kept = kept_labels(items.dataset)
    if kept is not None and all(items.label(place) == kept[place] for place in _looked_at(kept)):
        return kept
    return torch.tensor([items.label(place) for place in range(len(items))], dtype=torch.int64)


def kept_labels(dataset: Any) -> torch.Tensor | None:
    """The ``targets`` of a data set that is known to give them as they are: torchvision's own, also divided or joined.

    None for any other class: what it gives is only known by asking it.
    """
    if type(dataset) is Subset:
        inner = kept_labels(dataset.dataset)
        return None if inner is None else inner[torch.tensor([int(place) for place in dataset.indices])]
    if type(dataset) is ConcatDataset:
        parts = [kept_labels(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return torch.cat(known) if len(known) == len(parts) else None
    home = getattr(type(dataset).__getitem__, "__module__", None) or ""
    if not home.startswith(TORCHVISION) or getattr(dataset, "target_transform", None) is not None:
        return None
    try:
        kept = torch.as_tensor(dataset.targets)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return None
    is_of_classes = kept.ndim == 1 and len(kept) == len(dataset) and not kept.is_floating_point()
    return kept.long() if is_of_classes else None


def _looked_at(labels: torch.Tensor) -> list[int]:
    """Places of the first item of each class, and of some that are evenly spaced, the last one too."""
    firsts = np.unique(labels.numpy(), return_index=True)[1]
    spread = np.linspace(0, len(labels) - 1, min(len(labels), LOOKED_AT)).round()
    return sorted({int(place) for place in (*firsts, *spread)})


def is_of_values(image: Any) -> bool:
    """Whether an image is floats, which are taken as they are."""
    if isinstance(image, torch.Tensor):
        return image.is_floating_point()
    return isinstance(image, np.ndarray) and np.issubdtype(image.dtype, np.floating)


def values(image: Any, shape: Sequence[int] | None, where: str) -> torch.Tensor:
    """An image of floats as float32.

    Args:
        image: a float tensor or array, C x ...
        shape: that it must have; None: any.
        where: the item, for errors.

    Raises DataError for another kind or shape, and for values that are not finite.
    """
    if not is_of_values(image):
        raise DataError(
            f"Expected float images in every item, as in the first one, but {where} has {kind_of(image)}: give one "
            f"kind."
        )
    array = image if isinstance(image, torch.Tensor) else torch.from_numpy(np.array(image, dtype=np.float32))
    found = _of_shape(array.float(), shape, where)
    if not found.isfinite().all():
        raise DataError(f"Expected finite images, but {where} holds NaN or infinity: mend the item, or leave it out.")
    return found


def pixels(image: Any, shape: Sequence[int] | None, where: str) -> torch.Tensor:
    """A PIL image, or a uint8 tensor or array, as uint8, C x H x W. Raises DataError for another kind or shape.

    Args:
        image: of an item; H x W is taken as one channel.
        shape: that it must have; None: any.
        where: the item, for errors.
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
    """Whether an image is uint8: pixels of 0..255."""
    return isinstance(image, torch.Tensor | np.ndarray) and _dtype(image) == "uint8"


def kind_of(image: Any) -> str:
    """What was given as an image, in words.

    >>> kind_of(np.zeros((8, 8), np.int32)), kind_of(None)
    ('an int32 array of 8x8', 'a NoneType')
    """
    if isinstance(image, torch.Tensor | np.ndarray):
        dtype, what = _dtype(image), "tensor" if isinstance(image, torch.Tensor) else "array"
        return f"{'an' if dtype[0] == 'i' else 'a'} {dtype} {what} of {sizes_text(image.shape)}"
    return "a PIL image" if isinstance(image, Image.Image) else f"a {type(image).__name__}"


def sizes_text(shape: Sequence[int]) -> str:
    """A shape in words; that of a single number too."""
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

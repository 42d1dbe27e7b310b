"""Evaluation of a classifier: accuracy, loss, class scores and confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pretrim.data import Split, batches, normalise
from pretrim.errors import CheckpointError, DataError, ModelError

from .outputs import forward, modes_kept, split_outputs
from .uncertainty import Interval, pack, wilson


@dataclass(frozen=True)
class Evaluation:
    """The performance of a classifier on a split.

    Attributes:
        accuracy: share of images whose largest output is their class.
        loss: mean cross-entropy.
        per_class: accuracy per class; None for a class without images.
        images_per_class: number of images per class.
        n: number of images.
        confusion: number of images by class (rows) and predicted class (columns).
        labels: the class of each image, int64, N, in the order of the split.
        predicted: the predicted class of each image, int64, N.
        losses: cross-entropy of each image, float32, N: the largest are the worst.
    """

    accuracy: float
    loss: float
    per_class: tuple[float | None, ...]
    images_per_class: tuple[int, ...]
    n: int
    confusion: tuple[tuple[int, ...], ...]
    labels: torch.Tensor = field(repr=False, compare=False)
    predicted: torch.Tensor = field(repr=False, compare=False)
    losses: torch.Tensor = field(repr=False, compare=False)

    @property
    def plain_loss(self) -> float | None:
        """The loss as JSON can hold it: None if it is not finite, as for a network whose scores overflow."""
        return self.loss if math.isfinite(self.loss) else None

    @property
    def score(self) -> float:
        """The accuracy."""
        return self.accuracy

    @property
    def ends(self) -> tuple[float, float]:
        """The lower and upper end of the 95 % interval."""
        return self.interval.low, self.interval.high

    def details(self, names: Sequence[str]) -> dict[str, Any]:
        """Accuracy per class with its 95 % interval, and the confusion matrix (rows: classes, columns: predictions)."""
        if len(names) != len(self.per_class):
            raise CheckpointError(
                f"Expected a network with {len(names)} outputs, one per class, but got {len(self.per_class)}: "
                f"the run is edited, or was saved with other classes."
            )
        rows = zip(names, self.images_per_class, self.per_class, self.confusion, strict=True)
        return {
            "classes": [
                {
                    "name": name,
                    "images": images,
                    "accuracy": accuracy,
                    "interval_95": wilson(row[index], images).to_json() if images else None,
                }
                for index, (name, images, accuracy, row) in enumerate(rows)
            ],
            "confusion": [list(row) for row in self.confusion],
        }

    @property
    def right(self) -> torch.Tensor:
        """Whether each image is classified correctly, bool, N: `uncertainty.compare` takes those of two networks."""
        return self.predicted == self.labels

    @property
    def interval(self) -> Interval:
        """95 % interval of the accuracy (Wilson)."""
        return wilson(int(self.right.sum()), self.n)

    def worst(self, count: int) -> list[int]:
        """Indices in the split of the images with the largest loss, the worst first."""
        ranked = self.losses.nan_to_num(nan=math.inf).argsort(descending=True, stable=True)
        return [int(index) for index in ranked[:count]]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; of the values per image, only which ones were right is kept (`uncertainty.unpack`)."""
        return {
            "accuracy": self.accuracy,
            "interval_95": self.interval.to_json(),
            "images": self.n,
            "loss": self.plain_loss,
            "per_class": list(self.per_class),
            "images_per_class": list(self.images_per_class),
            "right": pack(self.right),
        }


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, mean: Sequence[float], std: Sequence[float], batch_size: int = 256
) -> Evaluation:
    """Accuracy and loss on a split, in eval mode, on the model's device; the model's modes are restored.

    Args:
        model: a classifier.
        split: images and labels; not empty.
        mean: per-channel mean of pixel values in 0..1, to normalise by.
        std: per-channel standard deviation of them.
        batch_size: images per forward pass.

    Raises:
        DataError: the split is empty.
        ModelError: the outputs are not class scores.
    """
    if not len(split):
        raise DataError("No images to evaluate on: the split is empty.")
    logits = torch.cat([scores(model, images, mean, std) for images, _ in batches(split, batch_size)])
    labels = split.labels
    classes = logits.shape[1]
    needed = int(labels.max()) + 1
    if needed > classes:
        raise ModelError(f"Expected the model to return {needed} or more class scores, but got {classes}.")
    return _evaluation(logits, labels, classes)


def _evaluation(logits: torch.Tensor, labels: torch.Tensor, classes: int) -> Evaluation:
    predicted = logits.argmax(dim=1)
    confusion = torch.bincount(labels * classes + predicted, minlength=classes * classes).view(classes, classes)
    hits, images = confusion.diagonal().tolist(), confusion.sum(dim=1).tolist()
    return Evaluation(
        accuracy=int((predicted == labels).sum()) / len(labels),
        loss=float(functional.cross_entropy(logits, labels)),
        per_class=tuple(h / n if n else None for h, n in zip(hits, images, strict=True)),
        images_per_class=tuple(images),
        n=len(labels),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        labels=labels,
        predicted=predicted,
        losses=functional.cross_entropy(logits, labels, reduction="none"),
    )


@torch.no_grad()
def main_output(model: nn.Module, images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """The main output (float32, on the CPU) for uint8 images; the model's modes are restored.

    Args:
        model: a network for normalised images.
        images: N x C x H x W, uint8.
        mean: per-channel mean of pixel values in 0..1, to normalise by.
        std: per-channel standard deviation of them.
    """
    first = next(model.parameters(), torch.zeros(0))
    with modes_kept(model):
        model.eval()
        outputs = forward(model, normalise(images.to(first.device), mean, std).to(first.dtype))
    return split_outputs(outputs)[0].float().cpu()


def scores(model: nn.Module, images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Class scores (N x classes, float32, on the CPU) of uint8 images; the model's modes are restored.

    Args:
        model: a classifier of normalised images.
        images: N x C x H x W, uint8.
        mean: per-channel mean of pixel values in 0..1, to normalise by.
        std: per-channel standard deviation of them.
    """
    logits = main_output(model, images, mean, std)
    if logits.dim() != 2:
        raise ModelError(f"Expected the model to return class scores, but got the shape {tuple(logits.shape)}.")
    return logits

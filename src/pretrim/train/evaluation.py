"""Accuracy and scores of a network, and where it errs."""

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
    """How well a network does on a split.

    Attributes:
        accuracy: share of images whose largest output is their class.
        loss: mean cross-entropy.
        per_class: that accuracy by class; None for a class without images.
        images_per_class: images of each class.
        n: images.
        confusion: images of each class (rows), by the class that the network says (columns).
        labels: the class of each image, int64, N, in the order of the split.
        predicted: the class that the network says.
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
        """The loss as JSON has it: None for that of a network whose scores overflow."""
        return self.loss if math.isfinite(self.loss) else None

    @property
    def score(self) -> float:
        """The accuracy."""
        return self.accuracy

    @property
    def ends(self) -> tuple[float, float]:
        """Those of the interval."""
        return self.interval.low, self.interval.high

    def details(self, names: Sequence[str]) -> dict[str, Any]:
        """Accuracy by class with its 95 % interval, and the matrix: rows are classes, columns what is said."""
        if len(names) != len(self.per_class):
            raise CheckpointError(
                f"Expected a network with {len(names)} outputs, one a class, but got {len(self.per_class)}: "
                f"the run is edited, or was saved with other classes."
            )
        rows = zip(names, self.images_per_class, self.per_class, self.confusion, strict=True)
        return {
            "classes": [
                {
                    "name": name,
                    "images": images,
                    "accuracy": accuracy,
                    "interval_95": wilson(row[place], images).to_json() if images else None,
                }
                for place, (name, images, accuracy, row) in enumerate(rows)
            ],
            "confusion": [list(row) for row in self.confusion],
        }

    @property
    def right(self) -> torch.Tensor:
        """Whether each image is classified right, bool, N: `uncertainty.compare` takes that of two networks."""
        return self.predicted == self.labels

    @property
    def interval(self) -> Interval:
        """95 %, of the accuracy (Wilson)."""
        return wilson(int(self.right.sum()), self.n)

    def worst(self, count: int) -> list[int]:
        """Places in the split of the images with the largest loss, the worst first."""
        ranked = self.losses.nan_to_num(nan=math.inf).argsort(descending=True, stable=True)
        return [int(place) for place in ranked[:count]]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, without what there is of each image but which were right (`uncertainty.unpack`)."""
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
        mean: per channel, that images scaled to 0..1 are normalised by.
        std: likewise.
        batch_size: of the forward passes.

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
        model: takes normalised images.
        images: N x C x H x W, uint8.
        mean: of each channel, of values in 0..1.
        std: likewise.
    """
    first = next(model.parameters(), torch.zeros(0))
    with modes_kept(model):
        model.eval()
        outputs = forward(model, normalise(images.to(first.device), mean, std).to(first.dtype))
    return split_outputs(outputs)[0].float().cpu()


def scores(model: nn.Module, images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Class scores (n x classes, float32, on the CPU) of uint8 images; the model's modes are restored.

    Args:
        model: takes normalised images.
        images: N x C x H x W, uint8.
        mean: of each channel, of values in 0..1.
        std: likewise.
    """
    logits = main_output(model, images, mean, std)
    if logits.dim() != 2:
        raise ModelError(f"Expected the model to return class scores, but got the shape {tuple(logits.shape)}.")
    return logits

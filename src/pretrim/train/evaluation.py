"""Accuracy and scores of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from pretrim.data import Split, batches, normalise
from pretrim.errors import DataError, ModelError

from .outputs import forward, modes_kept, split_outputs


@dataclass(frozen=True)
class Evaluation:
    """How well a network does on a split.

    Attributes:
        accuracy: share of images whose largest output is their class.
        loss: mean cross-entropy.
        per_class: that accuracy by class; None for a class without images.
        images_per_class: images of each class.
        n: images.
    """

    accuracy: float
    loss: float
    per_class: tuple[float | None, ...]
    images_per_class: tuple[int, ...]
    n: int

    @property
    def plain_loss(self) -> float | None:
        """The loss as JSON has it: None for that of a network whose scores overflow."""
        return self.loss if math.isfinite(self.loss) else None


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, mean: Sequence[float], std: Sequence[float], batch_size: int = 256
) -> Evaluation:
    """Accuracy and loss on a split, in eval mode, on the model's device; the model's modes are restored.

    Raises:
        DataError: the split is empty.
        ModelError: the outputs are not class scores.
    """
    if not len(split):
        raise DataError("Expected images to evaluate on, but the split is empty.")
    logits = torch.cat([scores(model, images, mean, std) for images, _ in batches(split, batch_size)])
    labels = split.labels
    classes = logits.shape[1]
    needed = int(labels.max()) + 1
    if needed > classes:
        raise ModelError(f"Expected the model to return {needed} or more class scores, but got {classes}.")
    right = logits.argmax(dim=1) == labels
    images = torch.bincount(labels, minlength=classes)
    hits = torch.bincount(labels[right], minlength=classes)
    return Evaluation(
        accuracy=int(right.sum()) / len(labels),
        loss=float(functional.cross_entropy(logits, labels)),
        per_class=tuple(int(h) / int(n) if n else None for h, n in zip(hits, images, strict=True)),
        images_per_class=tuple(int(n) for n in images),
        n=len(labels),
    )


@torch.no_grad()
def scores(model: nn.Module, images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Class scores (n x classes, float32, on the CPU) of uint8 images; the model's modes are restored."""
    first = next(model.parameters(), torch.zeros(0))
    with modes_kept(model):
        model.eval()
        outputs = forward(model, normalise(images.to(first.device), mean, std).to(first.dtype))
    logits = split_outputs(outputs)[0].float().cpu()
    if logits.dim() != 2:
        raise ModelError(f"Expected the model to return class scores, but got the shape {tuple(logits.shape)}.")
    return logits

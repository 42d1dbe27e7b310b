"""Classification: one class per image, cross-entropy, accuracy. The default task of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pretrim.data import Augmentation, DataSet, Split, normalise

from .diagnosis import diagnose, majority_share
from .evaluation import Evaluation, evaluate
from .metric import ACCURACY, Baseline
from .mistakes import write_mistakes
from .outputs import (
    Loss,
    check_auxiliary,
    check_logits,
    class_weights,
    forward,
    modes_kept,
    renormalised,
    split_outputs,
)
from .recipe import Recipe
from .state import EpochRecord
from .task import Assessment, Objective, Task
from .teacher import Teacher


class Classification(Task):
    """One class per image: targets are class indices (int64, N), outputs are N x classes."""

    name = "classification"
    metric = ACCURACY
    divides = True

    def objective(self, recipe: Recipe, data: DataSet, device: torch.device, teacher: Teacher | None) -> Objective:
        """Cross-entropy with the options of the recipe; the score is the number of correctly classified images."""
        teach = None if teacher is None else renormalised(teacher, data.mean, data.std)
        is_weighted = recipe.balance == "loss"
        weights = class_weights(data.train.labels, len(data.classes)).to(device) if is_weighted else None
        return Loss(recipe, len(data.classes), teach, weights)

    @torch.no_grad()
    def check(self, model: nn.Module, data: DataSet) -> None:
        """Run one image in eval mode and check that every output has a score for each class.

        Heads that exist only in train mode are checked by the loss.
        """
        first = next(model.parameters(), torch.zeros(0))
        image = normalise(data.train.images[:1].to(first.device), data.mean, data.std).to(first.dtype)
        with modes_kept(model):
            main, auxiliary = split_outputs(forward(model.eval(), image))
        check_logits(main, len(data.classes))
        check_auxiliary(auxiliary, len(data.classes))

    def assess(
        self, model: nn.Module, split: Split, mean: Sequence[float], std: Sequence[float], *, is_final: bool = True
    ) -> Evaluation:
        """Accuracy and cross-entropy; see `evaluation.evaluate`."""
        return evaluate(model, split, mean, std)

    def augmentation(self, how: Augmentation) -> Augmentation:
        """The augmentation unchanged: a class describes the whole image."""
        return how

    def baseline(self, data: DataSet) -> Baseline | None:
        """The share of the most common class among the validation images."""
        if not len(data.validation):
            return None
        return Baseline(majority_share(data.validation.labels), "most common class")

    def warnings(self, records: Sequence[EpochRecord], data: DataSet, recipe: Recipe) -> tuple[str, ...]:
        """Warnings of an accuracy at chance level, of one that is still climbing, and of imbalanced classes."""
        return diagnose(records, data, recipe)

    def write_details(self, folder: Path, test: Assessment, data: DataSet, title: str, worst: int = 0) -> None:
        """Write the confusion matrix and, if requested, the worst images."""
        assert isinstance(test, Evaluation)  # `assess` made it
        write_mistakes(folder, test, data, title, worst)

    def proof_material(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        """The class labels."""
        return {"labels": targets}

    def answer(self, outputs: torch.Tensor, names: Sequence[str], top: int) -> list[list[dict[str, Any]]]:
        """The most likely classes with their probabilities."""
        check_logits(outputs, len(names))
        top_classes = outputs.softmax(dim=1).topk(min(top, len(names)), dim=1)
        return [
            [{"class": names[index], "probability": value} for value, index in zip(values, indices, strict=True)]
            for values, indices in zip(top_classes.values.tolist(), top_classes.indices.tolist(), strict=True)
        ]

"""Tasks whose answer is a row of numbers: regression, and multi-label classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from pretrim.data import Augmentation, DataSet
from pretrim.errors import ModelError
from pretrim.train import Baseline, EpochRecord, Metric, Recipe, split_outputs

from .base import MetricTask

MAX_SCALE, MIN_SCALE = 20.0, 0.05
"""Range of the targets' standard deviation outside of which networks learn slowly."""


def row(output: Any, target: torch.Tensor, task: str) -> torch.Tensor:
    """Return the main output, N x K like the target. Raises ModelError for other shapes, which torch would broadcast.

    Args:
        output: the outputs of the network.
        target: N or N x K.
        task: name of the task, for the error message.
    """
    main = split_outputs(output)[0]
    main = main[:, None] if main.ndim == 1 else main
    wanted = target[:, None] if target.ndim == 1 else target
    if main.shape != wanted.shape:
        shapes = ["x".join(map(str, part.shape[1:])) for part in (main, wanted)]
        raise ModelError(
            f"Expected a network for {task} with {shapes[1]} outputs, as the targets, but got {shapes[0]}."
        )
    return main


def rows(target: torch.Tensor) -> torch.Tensor:
    """Targets as N x K in float32."""
    return (target[:, None] if target.ndim == 1 else target).float()


class Regression(MetricTask):
    """One or more numbers per image: targets N or N x K, outputs N x K. Huber loss (1964) with its threshold at 1.

    Metrics: mean absolute error, which is the selection metric; root mean squared error; r2 (1 is perfect, 0 is as good
    as the mean).
    """

    name = "regression"
    metric = Metric("mae", higher_is_better=False, is_share=False)
    largest_loss = 0.1

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Mean Huber loss over images and outputs."""
        return functional.smooth_l1_loss(row(output, target, self.name), rows(target))

    def metrics(self, output: Any, target: torch.Tensor) -> Mapping[str, float]:
        """``mae``, ``rmse``, ``r2`` over all outputs."""
        wanted = rows(target)
        error = row(output, target, self.name).float() - wanted
        spread = ((wanted - wanted.mean(dim=0)) ** 2).sum()
        r2 = 1 - float((error**2).sum() / spread) if float(spread) > 0 else float("nan")
        return {"mae": float(error.abs().mean()), "rmse": float((error**2).mean().sqrt()), "r2": r2}

    def baseline(self, data: DataSet) -> Baseline | None:
        """The error of always predicting the median of the training targets."""
        median = rows(_loaded(data.train.targets)).median(dim=0).values
        wanted = rows(_loaded(data.validation.targets))
        return Baseline(float((wanted - median).abs().mean()), "always the median")

    def warnings(self, records: Sequence[EpochRecord], data: DataSet, recipe: Recipe) -> tuple[str, ...]:
        """The usual warnings, and one about targets whose scale is far from 1."""
        spread = rows(_loaded(data.train.targets)).std(dim=0, correction=0)
        warnings = super().warnings(records, data, recipe)
        if MIN_SCALE <= float(spread.min()) and float(spread.max()) <= MAX_SCALE:
            return warnings
        if float(spread.max()) == 0:
            return (
                *warnings,
                "all training targets are the same: there is nothing to learn from them, check the data.",
            )
        low, high = f"{float(spread.min()):.3g}", f"{float(spread.max()):.3g}"
        scale = f"the targets' deviation is {low if low == high else f'from {low} to {high}'}"
        return (*warnings, f"{scale}: scale them to about 1, which networks learn faster.")

    def answer(self, outputs: torch.Tensor, names: Sequence[str], top: int) -> list[list[dict[str, Any]]]:
        """Each output with its name."""
        return [_named(values, names, "value") for values in rows(outputs).tolist()]


class MultiLabel(MetricTask):
    """Any number of labels per image: targets N x labels of 0 and 1, outputs N x labels of logits.

    Metrics: average precision, mean over the labels, which is the selection metric; F1 at a probability of 0.5, mean
    over the labels; the share of images whose labels are all correct.
    """

    name = "multilabel"
    metric = Metric("mean_ap")
    judged = "a label"

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Mean binary cross-entropy over images and labels."""
        return functional.binary_cross_entropy_with_logits(row(output, target, self.name), rows(target))

    def metrics(self, output: Any, target: torch.Tensor) -> Mapping[str, float]:
        """``mean_ap``, ``f1``, ``exact_match``; labels that no image has are left out of the first two."""
        scores, wanted = row(output, target, self.name).float(), rows(target) > 0.5
        present = wanted.any(dim=0)
        predicted = scores > 0
        true_positives, positives = (
            (predicted & wanted).sum(dim=0)[present],
            (predicted.sum(dim=0) + wanted.sum(dim=0))[present],
        )
        precisions = [
            average_precision(scores[:, label], wanted[:, label]) for label in present.nonzero().flatten().tolist()
        ]
        return {
            "mean_ap": sum(precisions) / len(precisions) if precisions else float("nan"),
            "f1": float((2 * true_positives / positives).mean()) if precisions else float("nan"),
            "exact_match": float((predicted == wanted).all(dim=1).float().mean()),
        }

    def can_judge(self, target: torch.Tensor) -> bool:
        """Whether any image has a label."""
        return bool((rows(target) > 0.5).any())

    def augmentation(self, how: Augmentation) -> Augmentation:
        """The augmentation unchanged: labels describe the whole image."""
        return how

    def baseline(self, data: DataSet) -> Baseline | None:
        """The score of random outputs: their average precision is the share of images that have the label."""
        shares = rows(_loaded(data.validation.targets)).mean(dim=0)
        present = shares[shares > 0]
        return Baseline(float(present.mean()), "random scores") if len(present) else None

    def answer(self, outputs: torch.Tensor, names: Sequence[str], top: int) -> list[list[dict[str, Any]]]:
        """The most likely labels with their probabilities."""
        answers = [_named(values, names, "probability", "class") for values in outputs.sigmoid().tolist()]
        return [sorted(entries, key=lambda entry: -entry["probability"])[:top] for entries in answers]


def average_precision(scores: torch.Tensor, wanted: torch.Tensor) -> float:
    """Average precision: precision summed over the steps in recall, as in scikit-learn and torchmetrics.

    Args:
        scores: scores of one label, N.
        wanted: whether each image has the label, bool, N; at least one is True.

    >>> average_precision(torch.tensor([0.9, 0.8, 0.1]), torch.tensor([True, False, True]))
    0.8333333333333333
    """
    order = scores.argsort(descending=True, stable=True)
    ranked, hits = scores[order], wanted[order].double().cumsum(0)
    ends = torch.cat([ranked[1:] != ranked[:-1], torch.tensor([True])])  # images with equal scores are ranked together
    precision = (hits / torch.arange(1, len(hits) + 1))[ends]
    gained = torch.diff(hits[ends], prepend=torch.zeros(1, dtype=torch.float64))
    return float((precision * gained).sum() / hits[-1])


def _named(values: Sequence[float], names: Sequence[str], value_key: str, key: str = "output") -> list[dict[str, Any]]:
    known = names if len(names) == len(values) else [str(number) for number in range(len(values))]
    return [{key: name, value_key: value} for name, value in zip(known, values, strict=True)]


def _loaded(targets: Any) -> torch.Tensor:
    """All targets as one tensor."""
    loaded: torch.Tensor = targets if isinstance(targets, torch.Tensor) else targets[:]
    return loaded

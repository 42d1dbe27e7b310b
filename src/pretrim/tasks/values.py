"""Tasks whose answer is a row of numbers: regression, and several labels an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from pretrim.data import Augmentation, DataSet
from pretrim.errors import ModelError
from pretrim.train import Baseline, EpochRecord, Metric, Recipe, split_outputs

from .base import MetricTask

MOST_SCALE, LEAST_SCALE = 20.0, 0.05
"""Deviations of targets outside of which a network takes long to reach them"""


def row(output: Any, target: torch.Tensor, task: str) -> torch.Tensor:
    """The main output, N x K like the target. Raises ModelError for other shapes: torch would broadcast them.

    Args:
        output: what the network returned.
        target: N x K.
        task: its name, for the error.
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
    """Targets as N x K."""
    return (target[:, None] if target.ndim == 1 else target).float()


class Regression(MetricTask):
    """Numbers an image: targets N or N x K, outputs N x K. Huber loss (1964) with its corner at 1.

    Metrics: mean absolute error, which chooses; root of the mean squared error; r2 (1 is perfect, 0 is the mean).
    """

    name = "regression"
    metric = Metric("mae", higher_is_better=False, is_share=False)
    largest_loss = 0.1

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Huber loss, mean over images and outputs."""
        return functional.smooth_l1_loss(row(output, target, self.name), rows(target))

    def metrics(self, output: Any, target: torch.Tensor) -> Mapping[str, float]:
        """``mae``, ``rmse``, ``r2`` over all outputs."""
        wanted = rows(target)
        error = row(output, target, self.name).float() - wanted
        spread = ((wanted - wanted.mean(dim=0)) ** 2).sum()
        r2 = 1 - float((error**2).sum() / spread) if float(spread) > 0 else float("nan")
        return {"mae": float(error.abs().mean()), "rmse": float((error**2).mean().sqrt()), "r2": r2}

    def baseline(self, data: DataSet) -> Baseline | None:
        """The median of the training targets for every image."""
        median = rows(_held(data.train.targets)).median(dim=0).values
        wanted = rows(_held(data.validation.targets))
        return Baseline(float((wanted - median).abs().mean()), "always the median")

    def warnings(self, records: Sequence[EpochRecord], data: DataSet, recipe: Recipe) -> tuple[str, ...]:
        """And targets that are far from numbers about 1."""
        spread = rows(_held(data.train.targets)).std(dim=0, correction=0)
        said = super().warnings(records, data, recipe)
        if LEAST_SCALE <= float(spread.min()) and float(spread.max()) <= MOST_SCALE:
            return said
        if float(spread.max()) == 0:
            return (*said, "all training targets are the same: there is nothing to learn from them, check the data.")
        least, most = f"{float(spread.min()):.3g}", f"{float(spread.max()):.3g}"
        scale = f"the targets' deviation is {least if least == most else f'from {least} to {most}'}"
        return (*said, f"{scale}: scale them to about 1, which networks learn faster.")

    def answer(self, outputs: torch.Tensor, names: Sequence[str], top: int) -> list[list[dict[str, Any]]]:
        """Each output by its name."""
        return [_named(values, names, "value") for values in rows(outputs).tolist()]


class MultiLabel(MetricTask):
    """Any number of labels an image: targets N x labels of 0 and 1, outputs N x labels, logits.

    Metrics: mean over the labels of the average precision, which chooses; of F1 at a probability of 0.5; the share of
    images whose labels are all right.
    """

    name = "multilabel"
    metric = Metric("mean_ap")
    judged = "a label"

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy, mean over images and labels."""
        return functional.binary_cross_entropy_with_logits(row(output, target, self.name), rows(target))

    def metrics(self, output: Any, target: torch.Tensor) -> Mapping[str, float]:
        """``mean_ap``, ``f1``, ``exact_match``; labels that no image has count in none of the means."""
        scores, wanted = row(output, target, self.name).float(), rows(target) > 0.5
        there = wanted.any(dim=0)
        said = scores > 0
        both, either = (said & wanted).sum(dim=0)[there], (said.sum(dim=0) + wanted.sum(dim=0))[there]
        precisions = [average_precision(scores[:, at], wanted[:, at]) for at in there.nonzero().flatten().tolist()]
        return {
            "mean_ap": sum(precisions) / len(precisions) if precisions else float("nan"),
            "f1": float((2 * both / either).mean()) if precisions else float("nan"),
            "exact_match": float((said == wanted).all(dim=1).float().mean()),
        }

    def can_judge(self, target: torch.Tensor) -> bool:
        """Whether any image has a label."""
        return bool((rows(target) > 0.5).any())

    def augmentation(self, how: Augmentation) -> Augmentation:
        """All of it: labels are those of the whole image."""
        return how

    def baseline(self, data: DataSet) -> Baseline | None:
        """Scores without sense: the average precision is the share of images that have the label."""
        shares = rows(_held(data.validation.targets)).mean(dim=0)
        there = shares[shares > 0]
        return Baseline(float(there.mean()), "random scores") if len(there) else None

    def answer(self, outputs: torch.Tensor, names: Sequence[str], top: int) -> list[list[dict[str, Any]]]:
        """The likeliest labels with their probabilities."""
        found = [_named(values, names, "probability", "class") for values in outputs.sigmoid().tolist()]
        return [sorted(entries, key=lambda entry: -entry["probability"])[:top] for entries in found]


def average_precision(scores: torch.Tensor, wanted: torch.Tensor) -> float:
    """Precision summed over the recall steps, by falling score (as scikit-learn and torchmetrics have it).

    Args:
        scores: N, of one label.
        wanted: N, bool; at least one is true.

    >>> average_precision(torch.tensor([0.9, 0.8, 0.1]), torch.tensor([True, False, True]))
    0.8333333333333333
    """
    order = scores.argsort(descending=True, stable=True)
    ranked, hits = scores[order], wanted[order].double().cumsum(0)
    ends = torch.cat([ranked[1:] != ranked[:-1], torch.tensor([True])])  # images of one score are ranked together
    precision = (hits / torch.arange(1, len(hits) + 1))[ends]
    gained = torch.diff(hits[ends], prepend=torch.zeros(1, dtype=torch.float64))
    return float((precision * gained).sum() / hits[-1])


def _named(values: Sequence[float], names: Sequence[str], what: str, key: str = "output") -> list[dict[str, Any]]:
    known = names if len(names) == len(values) else [str(number) for number in range(len(values))]
    return [{key: name, what: value} for name, value in zip(known, values, strict=True)]


def _held(targets: Any) -> torch.Tensor:
    """All targets as one tensor."""
    found: torch.Tensor = targets if isinstance(targets, torch.Tensor) else targets[:]
    return found

"""What a user should know of a training before believing its accuracy, in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pretrim.data import DataSet

from .metric import ACCURACY, Baseline, Metric
from .recipe import Recipe
from .state import EpochRecord
from .uncertainty import wilson

IMBALANCE = 5.0
"""Images of the largest class over those of the smallest, from which on it is said"""
CLIMB = 0.01
"""of validation accuracy, from the epochs before to the last tenth of the epochs, that says a training was too short"""
LAST = 0.1
"""Share of the epochs that are the last ones: with a cosine schedule, the rate is below 3 % of its largest there"""
FEW = 0.2
"""Width of an accuracy's interval (about that of 100 images), from which on more images are asked for, not epochs"""
FITTED = 0.98
"""Training accuracy above which more epochs would teach little that is new"""


def majority_share(labels: torch.Tensor) -> float:
    """The accuracy of always saying the most common class; 0 without images.

    >>> majority_share(torch.tensor([0, 1, 1, 2]))
    0.5
    """
    return int(torch.bincount(labels).max()) / len(labels) if len(labels) else 0.0


def diagnose(records: Sequence[EpochRecord], data: DataSet, recipe: Recipe) -> tuple[str, ...]:
    """Warnings about a finished training, each a sentence with what to do; none where nothing is seen to be wrong.

    Args:
        records: of its epochs.
        data: what it was trained on.
        recipe: what it did.
    """
    findings = (at_chance(records, data), still_climbing(records, recipe), imbalanced(data, recipe))
    return tuple(finding for finding in findings if finding is not None)


def at_chance(records: Sequence[EpochRecord], data: DataSet) -> str | None:
    """Whether the validation accuracy cannot be told from that of always saying one class (95 %, Wilson)."""
    if not records or (accuracy := records[-1].validation_score) is None:
        return None
    images, base = len(data.validation), max(majority_share(data.validation.labels), 1 / len(data.classes))
    ends = wilson(round(accuracy * images), images)
    if ends.low > base:
        return None
    learnt, seen = _is_learning(records, data), f"{100 * (records[-1].train_score or 0.0):.1f} %"
    said, always = f"validation accuracy {100 * accuracy:.1f} % of {images:,} images", f"{100 * base:.1f} %"
    if accuracy > base:  # the figures alone would say that it is better
        said += f" (95 %: {100 * ends.low:.1f} to {100 * ends.high:.1f} %)"
        if learnt or ends.high - ends.low > FEW:
            beside = (
                f"while training accuracy climbed to {seen}" if learnt else f"and so may training accuracy ({seen})"
            )
            return (
                f"{said} may be no better than always one class ({always}), {beside}: these images are too few to "
                f"tell. Hold out more."
            )
        return (
            f"{said} cannot be told from always one class ({always}), nor can training accuracy ({seen}): train "
            f"longer, or change --lr."
        )
    said += f" is no better than always one class ({always})"
    if learnt:
        return (
            f"{said}, while training accuracy climbed to {seen}: the network learns its training images and nothing "
            f"else. Check that the labels of both parts agree; give more images, or more augmentation."
        )
    return f"{said}, and so is training accuracy ({seen}): train longer, or change --lr."


def _is_learning(records: Sequence[EpochRecord], data: DataSet) -> bool:
    """Whether training accuracy is above that of one class, and above where it began."""
    images, first, last = len(data.train), records[0].train_score or 0.0, records[-1].train_score or 0.0
    base = max(majority_share(data.train.labels), 1 / len(data.classes))
    return wilson(round(last * images), images).low > base and (len(records) == 1 or last > first)


def no_better(records: Sequence[EpochRecord], metric: Metric, baseline: Baseline | None) -> str | None:
    """Whether the last validation is no better than an answer without looking.

    Args:
        records: of all epochs.
        metric: that networks are chosen by.
        baseline: of an answer without looking.
    """
    if not records or baseline is None or (score := records[-1].validation_score) is None:
        return None
    if metric.worth(score) > metric.worth(baseline.score):
        return None
    return (
        f"validation {metric.title} {metric.show(score)} is no better than {baseline.words} "
        f"({metric.show(baseline.score)}): train longer, or change --lr."
    )


def still_climbing(records: Sequence[EpochRecord], recipe: Recipe, metric: Metric = ACCURACY) -> str | None:
    """Whether the score still rose in the last tenth of the epochs, and the training images are not learnt by heart.

    Shares count from a point on, other metrics from a hundredth of their value.

    Args:
        records: of all epochs.
        recipe: of the training.
        metric: that networks are chosen by.
    """
    window = max(1, round(LAST * len(records)))
    if len(records) < 2 * window or (records[-1].train_score or 0.0) > FITTED:
        return None
    name, curve = _curve(records)
    before, now = _mean(curve[-2 * window : -window]), _mean(curve[-window:])
    gain = metric.worth(now) - metric.worth(before)
    if gain <= (CLIMB if metric.is_share else CLIMB * abs(before)):
        return None
    by = f"{100 * gain:.1f} points" if metric.is_share else f"{gain:.2g}"
    said = f"climbed in {{}} (+{by})" if metric.higher_is_better else f"fell in {{}} (-{by})"
    epochs = f"the last {window} epochs" if window > 1 else "the last epoch"
    return f"{name} {metric.title} still {said.format(epochs)}: train longer, e.g. --epochs {2 * recipe.epochs}."


def _curve(records: Sequence[EpochRecord]) -> tuple[str, list[float]]:
    held_out = [record.validation_score for record in records if record.validation_score is not None]
    if len(held_out) == len(records):
        return "validation", held_out
    return "training", [record.train_score or 0.0 for record in records]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def imbalanced(data: DataSet, recipe: Recipe) -> str | None:
    """Whether one class has so many more training images than another that accuracy hides the small one."""
    counts = torch.bincount(data.train.labels, minlength=len(data.classes))
    most, least = int(counts.argmax()), int(counts.argmin())
    if recipe.balance != "none" or counts[most] < IMBALANCE * counts[least]:
        return None
    few = f"{int(counts[least]):,} of {data.classes[least]!r}"
    return (
        f"classes are imbalanced: {int(counts[most]):,} training images of {data.classes[most]!r}, {few}. Look at the "
        f"accuracy of each class; --set balance=loss or balance=sampling weighs the classes alike."
    )

"""Warnings about a training that a user should read before trusting its accuracy, as plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pretrim.data import DataSet

from .metric import ACCURACY, Baseline, Metric
from .recipe import Recipe
from .state import EpochRecord
from .uncertainty import wilson

IMBALANCE = 5.0
"""Ratio of the images of the largest class to those of the smallest from which on classes count as imbalanced."""
MIN_CLIMB = 0.01
"""Gain of accuracy from the last but one tenth of the epochs to the last one, above which a training was too short."""
LAST_EPOCHS_SHARE = 0.1
"""Share of the epochs that count as the last ones: a cosine schedule's rate is then below 3 % of its largest value."""
WIDE_INTERVAL = 0.2
"""Width of an accuracy's interval (about that of 100 images) above which the advice is more images, not epochs."""
FITTED_ACCURACY = 0.98
"""Training accuracy above which more epochs would teach the network little more."""


def majority_share(labels: torch.Tensor) -> float:
    """The accuracy of always predicting the most common class; 0 without images.

    >>> majority_share(torch.tensor([0, 1, 1, 2]))
    0.5
    """
    return int(torch.bincount(labels).max()) / len(labels) if len(labels) else 0.0


def diagnose(records: Sequence[EpochRecord], data: DataSet, recipe: Recipe) -> tuple[str, ...]:
    """Return warnings about a finished training, each a sentence with a remedy; empty if nothing looks wrong.

    Args:
        records: the records of its epochs.
        data: the data set that it was trained on.
        recipe: the recipe of the training.
    """
    findings = (at_chance(records, data), still_climbing(records, recipe), imbalanced(data, recipe))
    return tuple(finding for finding in findings if finding is not None)


def at_chance(records: Sequence[EpochRecord], data: DataSet) -> str | None:
    """Warn if the validation accuracy cannot be told from that of predicting one class (95 %, Wilson)."""
    if not records or (accuracy := records[-1].validation_score) is None:
        return None
    images, base_accuracy = len(data.validation), max(majority_share(data.validation.labels), 1 / len(data.classes))
    interval = wilson(round(accuracy * images), images)
    if interval.low > base_accuracy:
        return None
    is_learning, trained = _is_learning(records, data), f"{100 * (records[-1].train_score or 0.0):.1f} %"
    message, base = f"validation accuracy {100 * accuracy:.1f} % of {images:,} images", f"{100 * base_accuracy:.1f} %"
    if accuracy > base_accuracy:  # the numbers alone would suggest that it is better
        message += f" (95 %: {100 * interval.low:.1f} to {100 * interval.high:.1f} %)"
        if is_learning or interval.high - interval.low > WIDE_INTERVAL:
            contrast = (
                f"while training accuracy climbed to {trained}"
                if is_learning
                else f"and so may training accuracy ({trained})"
            )
            return (
                f"{message} may be no better than predicting one class ({base}), {contrast}: these images are too "
                f"few to tell. Hold out more."
            )
        return (
            f"{message} is not significantly better than predicting one class ({base}), nor is training accuracy "
            f"({trained}): train longer, or change --lr."
        )
    message += f" is no better than predicting one class ({base})"
    if is_learning:
        return (
            f"{message}, while training accuracy climbed to {trained}: the network learns its training images and "
            f"nothing else. Check that the labels of both splits agree; give more images, or more augmentation."
        )
    return f"{message}, and so is training accuracy ({trained}): train longer, or change --lr."


def _is_learning(records: Sequence[EpochRecord], data: DataSet) -> bool:
    """Whether training accuracy is significantly above that of one class, and above its value in the first epoch."""
    images, first, last = len(data.train), records[0].train_score or 0.0, records[-1].train_score or 0.0
    base_accuracy = max(majority_share(data.train.labels), 1 / len(data.classes))
    return wilson(round(last * images), images).low > base_accuracy and (len(records) == 1 or last > first)


def no_better(records: Sequence[EpochRecord], metric: Metric, baseline: Baseline | None) -> str | None:
    """Warn if the last validation score is no better than that of an answer that ignores the image.

    Args:
        records: the records of all epochs.
        metric: the metric that networks are selected by.
        baseline: the score of an answer that ignores the image.
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
    """Warn if the score still improved in the last tenth of the epochs while the training images are not memorised.

    Gains of more than one percentage point count, or of more than 1 % of the value for metrics that are not shares.

    Args:
        records: the records of all epochs.
        recipe: the recipe of the training.
        metric: the metric that networks are selected by.
    """
    window = max(1, round(LAST_EPOCHS_SHARE * len(records)))
    if len(records) < 2 * window or (records[-1].train_score or 0.0) > FITTED_ACCURACY:
        return None
    name, curve = _curve(records)
    previous, latest = _mean(curve[-2 * window : -window]), _mean(curve[-window:])
    gain = metric.worth(latest) - metric.worth(previous)
    if gain <= (MIN_CLIMB if metric.is_share else MIN_CLIMB * abs(previous)):
        return None
    gain_text = f"{100 * gain:.1f} points" if metric.is_share else f"{gain:.2g}"
    change = f"climbed in {{}} (+{gain_text})" if metric.higher_is_better else f"fell in {{}} (-{gain_text})"
    epochs = f"the last {window} epochs" if window > 1 else "the last epoch"
    return f"{name} {metric.title} still {change.format(epochs)}: train longer, e.g. --epochs {2 * recipe.epochs}."


def _curve(records: Sequence[EpochRecord]) -> tuple[str, list[float]]:
    validation_scores = [record.validation_score for record in records if record.validation_score is not None]
    if len(validation_scores) == len(records):
        return "validation", validation_scores
    return "training", [record.train_score or 0.0 for record in records]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def imbalanced(data: DataSet, recipe: Recipe) -> str | None:
    """Warn if one class has so many more training images than another that accuracy hides the smaller one."""
    counts = torch.bincount(data.train.labels, minlength=len(data.classes))
    largest, smallest = int(counts.argmax()), int(counts.argmin())
    if recipe.balance != "none" or counts[largest] < IMBALANCE * counts[smallest]:
        return None
    rare = f"{int(counts[smallest]):,} of {data.classes[smallest]!r}"
    return (
        f"classes are imbalanced: {int(counts[largest]):,} training images of {data.classes[largest]!r}, {rare}. "
        f"Look at the accuracy of each class; --set balance=loss or balance=sampling weights the classes equally."
    )

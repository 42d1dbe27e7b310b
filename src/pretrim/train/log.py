"""What a training leaves to look at: a line of JSON an epoch, trackers, and a curve."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pretrim.errors import CheckpointError, UsageError, shown
from pretrim.files import write_atomically, write_text

from .lettering import lettering
from .metric import ACCURACY, Metric
from .state import EpochRecord

if TYPE_CHECKING:
    from accelerate import Accelerator
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAINING, VALIDATION, CHANCE = "#9a9a9a", "#1f6fb4", "#c44e52"
"""Colours that differ in print and for the colour-blind."""
NEAR, LIFT = 0.08, 6.0
"""Ends within this share of a picture's height are too near for their names, which are moved by so many points."""


def write_log(records: Sequence[EpochRecord], path: Path) -> None:
    """All epochs, one JSON object a line, whole or not at all. Raises CheckpointError if it cannot be written."""
    lines = "".join(json.dumps(record.to_json()) + "\n" for record in records)
    try:
        write_text(path, lines)
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror or error}. Make room.") from error


def check_trackers(names: Sequence[str]) -> None:
    """Raises UsageError for a tracker that Accelerate does not know, or whose package is missing."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    installed = {str(getattr(name, "value", name)) for name in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise UsageError(f"Expected a tracker of {known}, but got {shown(name)}.")
        if name not in installed:
            raise UsageError(f"The tracker {name} is not installed: pip install {name}.")


def track(accelerator: Accelerator, network: str, record: EpochRecord) -> None:
    """Hand an epoch to the trackers that were asked for.

    Args:
        accelerator: has the trackers.
        network: slim or dense.
        record: the epoch.
    """
    entries = {key: value for key, value in record.to_json().items() if key != "epoch" and value is not None}
    accelerator.log({f"{network}/{key}": value for key, value in entries.items()}, step=record.epoch)


# ---------------------------------------------------------------------------------------- the curve


class Curve(NamedTuple):
    """One line of a picture."""

    label: str
    colour: str
    epochs: list[int]
    values: list[float]


def curves(records: Sequence[EpochRecord], metric: Metric = ACCURACY) -> tuple[list[Curve], list[Curve]]:
    """The lines of the upper picture (loss) and of the lower one (scores; shares in percent)."""
    scale = 100.0 if metric.is_share else 1.0
    epochs = [record.epoch for record in records]
    loss = Curve("training", TRAINING, epochs, [record.train_loss for record in records])
    lost = _known("validation", VALIDATION, records, lambda record: record.validation_loss)
    train = _known("training", TRAINING, records, lambda record: record.train_score, scale)
    validation = _known("validation", VALIDATION, records, lambda record: record.validation_score, scale)
    return [loss, *lost], [*train, *validation]


def _known(
    label: str,
    colour: str,
    records: Sequence[EpochRecord],
    value_of: Callable[[EpochRecord], float | None],
    scale: float = 1.0,
) -> list[Curve]:
    """The line of a value of the epochs in which it is known, if there are any."""
    known = [(record.epoch, scale * value) for record in records if (value := value_of(record)) is not None]
    if not known:
        return []
    return [Curve(label, colour, [epoch for epoch, _ in known], [value for _, value in known])]


def draw_curve(
    records: Sequence[EpochRecord],
    title: str,
    path: Path,
    chance: float | None = None,
    metric: Metric = ACCURACY,
    chance_words: str = "most common class",
) -> None:
    """Loss and score by epoch, as a PNG.

    Args:
        records: of the epochs.
        title: of the picture.
        path: of the file.
        chance: score of an answer without looking, such as always the most common class; a dashed line.
        metric: that the scores are by.
        chance_words: which answer that is.

    Raises CheckpointError if it cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    upper, lower = curves(records, metric)
    unit, scale = (", %", 100.0) if metric.is_share else ("", 1.0)
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes: Any = figure.subplots(2, 1, sharex=True)
    for place, lines, name in zip(axes, (upper, lower), ("loss", f"{metric.title}{unit}"), strict=True):
        _draw_lines(place, lines, name)
    axes[0].set_ylim(bottom=0)
    if chance is not None:
        _draw_chance(axes[1], scale * chance, chance_words)
    axes[1].set_xlabel("epoch")
    axes[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    (head,), look = lettering(title)
    figure.suptitle(head, fontsize=11, **look)
    save_picture(figure, path)


def save_picture(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, whole or not at all. Raises CheckpointError if it cannot be written."""

    def write(temporary: Path) -> None:
        figure.savefig(temporary, format="png", dpi=144)

    try:
        write_atomically(path, write)
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror or error}. Make room.") from error


def _draw_chance(axes: Axes, value: float, words: str) -> None:
    axes.axhline(value, color=CHANCE, linewidth=1.2, linestyle="--")
    place = {"xy": (0, value), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    (said,), look = lettering(f"{words} {value:.3g}")
    axes.annotate(said, xytext=(4, 3), color=CHANCE, fontsize=8, **place, **look)  # type: ignore[arg-type]


def _draw_lines(axes: Axes, lines: Sequence[Curve], name: str) -> None:
    """One picture: lines named at their ends, where the eye is."""
    for line, lift in zip(lines, _lifts(lines), strict=True):
        axes.plot(line.epochs, line.values, color=line.colour, linewidth=1.8, marker="o", markersize=2.5)
        (said,), look = lettering(f"{line.label} {line.values[-1]:.3g}")
        axes.annotate(
            said,
            (line.epochs[-1], line.values[-1]),
            xytext=(6, lift),
            textcoords="offset points",
            color=line.colour,
            va="center",
            fontsize=9,
            **look,
        )
    (label,), look = lettering(name)
    axes.set_ylabel(label, **look)
    axes.margins(x=0.02)
    axes.grid(axis="y", linewidth=0.4, color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)


def _lifts(lines: Sequence[Curve]) -> list[float]:
    """By how many points each name is raised, so that two ends that nearly meet can both be read."""
    values = [value for line in lines for value in line.values]
    ends = [line.values[-1] for line in lines]
    close = len(ends) == 2 and abs(ends[0] - ends[1]) < NEAR * (max(values) - min(values))
    if not close:
        return [0.0] * len(ends)
    return [LIFT, -LIFT] if ends[0] >= ends[1] else [-LIFT, LIFT]

"""Logs of a training: one line of JSON per epoch, trackers, and a plot of the learning curves."""

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
"""Colours that can be told apart in print and by colour-blind readers."""
MIN_GAP_SHARE, LABEL_SHIFT = 0.08, 6.0
"""Line ends closer than this share of the value range have their labels moved apart, by this many points each."""


def write_log(records: Sequence[EpochRecord], path: Path) -> None:
    """Write all epochs atomically, one JSON object per line. Raises CheckpointError if the file cannot be written."""
    lines = "".join(json.dumps(record.to_json()) + "\n" for record in records)
    try:
        write_text(path, lines)
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror or error}. Make room.") from error


def check_trackers(names: Sequence[str]) -> None:
    """Raise UsageError for a tracker that Accelerate does not know or whose package is missing."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    installed = {str(getattr(name, "value", name)) for name in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise UsageError(f"Expected a tracker of {known}, but got {shown(name)}.")
        if name not in installed:
            raise UsageError(f"The tracker {name} is not installed: pip install {name}.")


def track(accelerator: Accelerator, network: str, record: EpochRecord) -> None:
    """Log an epoch to the accelerator's trackers.

    Args:
        accelerator: the Accelerator with the trackers.
        network: prefix of the logged names: slim or dense.
        record: the record of the epoch.
    """
    entries = {key: value for key, value in record.to_json().items() if key != "epoch" and value is not None}
    accelerator.log({f"{network}/{key}": value for key, value in entries.items()}, step=record.epoch)


# ---------------------------------------------------------------------------------------- the plot


class Curve(NamedTuple):
    """One line of a plot."""

    label: str
    colour: str
    epochs: list[int]
    values: list[float]


def curves(records: Sequence[EpochRecord], metric: Metric = ACCURACY) -> tuple[list[Curve], list[Curve]]:
    """The lines of the upper plot (loss) and of the lower one (scores; shares in percent)."""
    scale = 100.0 if metric.is_share else 1.0
    epochs = [record.epoch for record in records]
    loss = Curve("training", TRAINING, epochs, [record.train_loss for record in records])
    validation_loss = _line_of("validation", VALIDATION, records, lambda record: record.validation_loss)
    train_score = _line_of("training", TRAINING, records, lambda record: record.train_score, scale)
    validation_score = _line_of("validation", VALIDATION, records, lambda record: record.validation_score, scale)
    return [loss, *validation_loss], [*train_score, *validation_score]


def _line_of(
    label: str,
    colour: str,
    records: Sequence[EpochRecord],
    value_of: Callable[[EpochRecord], float | None],
    scale: float = 1.0,
) -> list[Curve]:
    """Return the line of a value over the epochs in which it is known; empty if there are none."""
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
    """Plot loss and score by epoch and write them as a PNG.

    Args:
        records: the records of the epochs.
        title: the title of the figure.
        path: the file to write.
        chance: score of an answer that ignores the image, such as predicting the most common class; drawn dashed.
        metric: the metric of the scores.
        chance_words: a description of that answer.

    Raises CheckpointError if it cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    upper, lower = curves(records, metric)
    unit, scale = (", %", 100.0) if metric.is_share else ("", 1.0)
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes: Any = figure.subplots(2, 1, sharex=True)
    for plot, lines, name in zip(axes, (upper, lower), ("loss", f"{metric.title}{unit}"), strict=True):
        _draw_lines(plot, lines, name)
    axes[0].set_ylim(bottom=0)
    if chance is not None:
        _draw_chance(axes[1], scale * chance, chance_words)
    axes[1].set_xlabel("epoch")
    axes[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    (title_text,), font = lettering(title)
    figure.suptitle(title_text, fontsize=11, **font)
    save_picture(figure, path)


def save_picture(figure: Figure, path: Path) -> None:
    """Write a figure atomically as a PNG. Raises CheckpointError if it cannot be written."""

    def write(temporary: Path) -> None:
        figure.savefig(temporary, format="png", dpi=144)

    try:
        write_atomically(path, write)
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror or error}. Make room.") from error


def _draw_chance(axes: Axes, value: float, words: str) -> None:
    axes.axhline(value, color=CHANCE, linewidth=1.2, linestyle="--")
    position = {"xy": (0, value), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    (label,), font = lettering(f"{words} {value:.3g}")
    axes.annotate(label, xytext=(4, 3), color=CHANCE, fontsize=8, **position, **font)  # type: ignore[arg-type]


def _draw_lines(axes: Axes, lines: Sequence[Curve], name: str) -> None:
    """Draw one plot; lines are labelled at their ends, where the reader looks."""
    for line, shift in zip(lines, _label_shifts(lines), strict=True):
        axes.plot(line.epochs, line.values, color=line.colour, linewidth=1.8, marker="o", markersize=2.5)
        (text,), font = lettering(f"{line.label} {line.values[-1]:.3g}")
        axes.annotate(
            text,
            (line.epochs[-1], line.values[-1]),
            xytext=(6, shift),
            textcoords="offset points",
            color=line.colour,
            va="center",
            fontsize=9,
            **font,
        )
    (label,), font = lettering(name)
    axes.set_ylabel(label, **font)
    axes.margins(x=0.02)
    axes.grid(axis="y", linewidth=0.4, color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)


def _label_shifts(lines: Sequence[Curve]) -> list[float]:
    """Return by how many points to raise each label, so that those of two nearly meeting ends are both readable."""
    values = [value for line in lines for value in line.values]
    ends = [line.values[-1] for line in lines]
    is_close = len(ends) == 2 and abs(ends[0] - ends[1]) < MIN_GAP_SHARE * (max(values) - min(values))
    if not is_close:
        return [0.0] * len(ends)
    return [LABEL_SHIFT, -LABEL_SHIFT] if ends[0] >= ends[1] else [-LABEL_SHIFT, LABEL_SHIFT]

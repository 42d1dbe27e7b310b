"""The mistakes of a classifier: its confusion matrix and its worst images, as JSON and as pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrim.data import DataSet, Split
from pretrim.errors import CheckpointError
from pretrim.files import write_text

from .evaluation import Evaluation
from .lettering import lettering
from .log import save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NAMED_CLASSES, MAX_COUNTED_CLASSES = 40, 20
"""Largest numbers of classes whose names, and whose counts, are drawn: more would not be readable."""
CONFUSION, CONFUSION_PICTURE, WORST, WORST_PICTURE = "confusion.json", "confusion.png", "worst.json", "worst.png"
"""Files in the folder of a run."""
COLUMNS = 8
"""Columns of a sheet of images."""


def confusion_json(evaluation: Evaluation, classes: Sequence[str]) -> dict[str, Any]:
    """Plain JSON of the accuracy per class with its 95 % interval, and of the confusion matrix.

    Rows of the matrix are classes, columns are predictions.
    """
    summary = {name: value for name, value in evaluation.to_json().items() if "per_class" not in name}
    details = evaluation.details(classes)
    classes_json = [
        {"class": entry["name"], **{k: v for k, v in entry.items() if k != "name"}} for entry in details["classes"]
    ]
    return {**summary, "classes": classes_json, "confusion": details["confusion"]}


def write_mistakes(folder: Path, test: Evaluation, data: DataSet, title: str, worst: int = 0) -> None:
    """Write the confusion matrix of the test images and, if requested, the worst of them, as JSON and PNG.

    Args:
        folder: the folder of the run.
        test: the evaluation on the test images.
        data: the data set of the test images.
        title: the title of the pictures.
        worst: number of worst images; 0 removes the files of an earlier run.

    Raises CheckpointError if they cannot be written.
    """
    write_confusion(test, data.classes, folder / CONFUSION)
    draw_confusion(test, data.classes, title, folder / CONFUSION_PICTURE)
    if worst:
        write_worst(test, data.classes, worst, folder / WORST)
        draw_worst(test, data.test, data.classes, worst, folder / WORST_PICTURE, title)
        return
    for name in (WORST, WORST_PICTURE):
        (folder / name).unlink(missing_ok=True)


def write_confusion(evaluation: Evaluation, classes: Sequence[str], path: Path) -> None:
    """Write `confusion_json` to a file. Raises CheckpointError if it cannot be written.

    Args:
        evaluation: the evaluation on the test images.
        classes: names of the classes.
        path: the file to write.
    """
    _write(confusion_json(evaluation, classes), path)


def draw_confusion(evaluation: Evaluation, classes: Sequence[str], title: str, path: Path) -> None:
    """Draw the confusion matrix as a PNG, shaded by the share of each row.

    Args:
        evaluation: an evaluation with these classes.
        classes: names of the classes.
        title: the title of the picture.
        path: the file to write.

    Raises CheckpointError if it cannot be written.
    """
    from matplotlib.figure import Figure

    counts = np.array(evaluation.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 3.0 + 0.34 * min(len(classes), MAX_NAMED_CLASSES)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _name_axes(axes, classes)
    if len(classes) <= MAX_COUNTED_CLASSES:
        _write_counts(axes, counts, shares)
    interval = evaluation.interval
    interval_text = f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %, n = {evaluation.n:,}"
    (title_text,), font = lettering(f"{title}\n{100 * evaluation.accuracy:.1f} % ({interval_text})")
    figure.suptitle(title_text, fontsize=10, **font)
    save_picture(figure, path)


def _name_axes(axes: Axes, classes: Sequence[str]) -> None:
    axes.set_xlabel("predicted")
    axes.set_ylabel("class")
    if len(classes) <= MAX_NAMED_CLASSES:
        names, font = lettering(*map(_shortened, classes))
        axes.set_xticks(range(len(classes)), labels=names, rotation=90, fontsize=8, **font)
        axes.set_yticks(range(len(classes)), labels=names, fontsize=8, **font)


def _write_counts(axes: Axes, counts: np.ndarray[Any, Any], shares: np.ndarray[Any, Any]) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=colour)


def write_worst(evaluation: Evaluation, classes: Sequence[str], count: int, path: Path) -> None:
    """Write the images with the largest loss as JSON, the worst first: index in the split, class, prediction, loss.

    Args:
        evaluation: the evaluation on a split.
        classes: names of the classes.
        count: largest number of images.
        path: the file to write.

    Raises CheckpointError if it cannot be written.
    """
    images = [
        {
            "place": index,
            "class": classes[int(evaluation.labels[index])],
            "predicted": classes[int(evaluation.predicted[index])],
            "loss": _finite(float(evaluation.losses[index])),
        }
        for index in evaluation.worst(count)
    ]
    _write({"images": images}, path)


def draw_worst(
    evaluation: Evaluation, split: Split, classes: Sequence[str], count: int, path: Path, title: str = ""
) -> None:
    """Draw the images with the largest loss as one PNG, each under its class and its prediction.

    Args:
        evaluation: the evaluation on this split.
        split: images and labels.
        classes: names of the classes.
        count: largest number of images.
        path: the file to write.
        title: the title of the picture.

    Raises CheckpointError if it cannot be written.
    """
    from matplotlib.figure import Figure

    indices = evaluation.worst(count)
    images = split.take(np.array(indices, dtype=np.int64)).images[:].permute(0, 2, 3, 1).numpy()
    rows = math.ceil(len(indices) / COLUMNS)
    figure = Figure(figsize=(1.5 * COLUMNS, 1.8 * rows + 0.4), layout="constrained")
    grid: Any = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, index, image in zip(grid, indices, images, strict=False):
        axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
        class_index, predicted = int(evaluation.labels[index]), int(evaluation.predicted[index])
        (caption,), font = lettering(f"{_shortened(classes[class_index])}\npredicted: {_shortened(classes[predicted])}")
        axes.set_title(caption, fontsize=8, **font)
    (title_text,), font = lettering(title)
    figure.suptitle(title_text, fontsize=10, **font)
    save_picture(figure, path)


def _shortened(name: str, max_length: int = 16) -> str:
    return name if len(name) <= max_length else name[: max_length - 1] + "…"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write(content: dict[str, Any], path: Path) -> None:
    try:
        write_text(path, json.dumps(content, allow_nan=False) + "\n")
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror or error}. Make room.") from error

"""Where a network errs: its confusion matrix and its worst images, as JSON and as pictures."""

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

NAMED, COUNTED = 40, 20
"""The most classes whose names, and whose counts, are written into the picture: more could not be read"""
CONFUSION, CONFUSION_PICTURE, WORST, WORST_PICTURE = "confusion.json", "confusion.png", "worst.json", "worst.png"
"""Files in the folder of a run"""
COLUMNS = 8
"""of a sheet of images"""


def confusion_json(evaluation: Evaluation, classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy by class with its 95 % interval, and the matrix; plain JSON. Rows are classes, columns what is said."""
    whole = {name: value for name, value in evaluation.to_json().items() if "per_class" not in name}
    found = evaluation.details(classes)
    named = [{"class": entry["name"], **{k: v for k, v in entry.items() if k != "name"}} for entry in found["classes"]]
    return {**whole, "classes": named, "confusion": found["confusion"]}


def write_mistakes(folder: Path, test: Evaluation, data: DataSet, title: str, worst: int = 0) -> None:
    """The confusion matrix of the test images and, if asked for, the worst of them; as JSON and PNG.

    Args:
        folder: of the run.
        test: of the test images.
        data: they are its.
        title: of the pictures.
        worst: how many of the worst images; 0 removes those of an earlier run.

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
    """`confusion_json` as a file. Raises CheckpointError if it cannot be written.

    Args:
        evaluation: on the test images.
        classes: their names.
        path: the file to write.
    """
    _write(confusion_json(evaluation, classes), path)


def draw_confusion(evaluation: Evaluation, classes: Sequence[str], title: str, path: Path) -> None:
    """The confusion matrix as a PNG, shaded by the share of each row.

    Args:
        evaluation: of as many classes.
        classes: their names.
        title: of the picture.
        path: of the file.

    Raises CheckpointError if it cannot be written.
    """
    from matplotlib.figure import Figure

    counts = np.array(evaluation.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 3.0 + 0.34 * min(len(classes), NAMED)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _name_axes(axes, classes)
    if len(classes) <= COUNTED:
        _write_counts(axes, counts, shares)
    interval = evaluation.interval
    sure = f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %, n = {evaluation.n:,}"
    (head,), look = lettering(f"{title}\n{100 * evaluation.accuracy:.1f} % ({sure})")
    figure.suptitle(head, fontsize=10, **look)
    save_picture(figure, path)


def _name_axes(axes: Axes, classes: Sequence[str]) -> None:
    axes.set_xlabel("predicted")
    axes.set_ylabel("class")
    if len(classes) <= NAMED:
        names, look = lettering(*map(_short, classes))
        axes.set_xticks(range(len(classes)), labels=names, rotation=90, fontsize=8, **look)
        axes.set_yticks(range(len(classes)), labels=names, fontsize=8, **look)


def _write_counts(axes: Axes, counts: np.ndarray[Any, Any], shares: np.ndarray[Any, Any]) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=colour)


def write_worst(evaluation: Evaluation, classes: Sequence[str], count: int, path: Path) -> None:
    """The images with the largest loss, the worst first: place in the split, class, what is said, loss; as JSON.

    Args:
        evaluation: of a split.
        classes: names.
        count: of images, at most.
        path: of the file.

    Raises CheckpointError if it cannot be written.
    """
    found = [
        {
            "place": place,
            "class": classes[int(evaluation.labels[place])],
            "predicted": classes[int(evaluation.predicted[place])],
            "loss": _finite(float(evaluation.losses[place])),
        }
        for place in evaluation.worst(count)
    ]
    _write({"images": found}, path)


def draw_worst(
    evaluation: Evaluation, split: Split, classes: Sequence[str], count: int, path: Path, title: str = ""
) -> None:
    """The same images as one PNG, each under its class and what is said of it.

    Args:
        evaluation: of this split.
        split: images and labels.
        classes: names.
        count: of images, at most.
        path: of the file.
        title: of the picture.

    Raises CheckpointError if it cannot be written.
    """
    from matplotlib.figure import Figure

    places = evaluation.worst(count)
    images = split.take(np.array(places, dtype=np.int64)).images[:].permute(0, 2, 3, 1).numpy()
    rows = math.ceil(len(places) / COLUMNS)
    figure = Figure(figsize=(1.5 * COLUMNS, 1.8 * rows + 0.4), layout="constrained")
    grid: Any = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, place, image in zip(grid, places, images, strict=False):
        axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
        label, said = int(evaluation.labels[place]), int(evaluation.predicted[place])
        (names,), look = lettering(f"{_short(classes[label])}\npredicted: {_short(classes[said])}")
        axes.set_title(names, fontsize=8, **look)
    (head,), look = lettering(title)
    figure.suptitle(head, fontsize=10, **look)
    save_picture(figure, path)


def _short(name: str, most: int = 16) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write(content: dict[str, Any], path: Path) -> None:
    try:
        write_text(path, json.dumps(content, allow_nan=False) + "\n")
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror or error}. Make room.") from error

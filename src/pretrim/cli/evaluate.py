"""`pretrim evaluate`: the accuracy of a saved network on a test set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from pretrim.errors import CheckpointError, DataError

from . import options, render

if TYPE_CHECKING:
    from pretrim.data import DataSet
    from pretrim.runs.record import RunRecord


def evaluate(run: options.Run, data: options.Data, model: options.RunModel = None, json: options.Json = False) -> None:
    """Evaluate a saved network on the test images of a data set."""
    from pretrim.train import evaluate as evaluate_split

    from .opened import open_run

    opened = open_run(run, model)
    dataset = load_like_run(data, opened.record)
    typer.echo(f"data: {dataset.source} ({dataset.split_note})", err=True)
    found = evaluate_split(opened.network, dataset.test, *opened.normalisation)
    if len(found.per_class) != len(opened.classes):
        raise CheckpointError(
            f"Expected a network with {len(opened.classes)} outputs, one a class, but got {len(found.per_class)}: "
            f"the run is edited, or was saved with other classes."
        )
    record: dict[str, Any] = {
        "run": str(run),
        "data": dataset.to_json(),
        "accuracy": found.accuracy,
        "loss": found.plain_loss,
        "images": found.n,
        "classes": [
            {"name": name, "images": images, "accuracy": accuracy}
            for name, images, accuracy in zip(opened.classes, found.images_per_class, found.per_class, strict=True)
        ],
    }
    if json:
        render.print_json(record)
    else:
        render.show_evaluation(render.output(), record)


def load_like_run(spec: str, record: RunRecord) -> DataSet:
    """A data set in the run's input shape, split by the run's seed, so that no training image gets into the test.

    Raises:
        DataError: its classes or its input are not the run's.
    """
    from pretrim.data import load

    shape, seed = record.input_shape, (record.data or {}).get("split_seed", 0)
    channels, size = (shape[0], shape[1]) if shape is not None else (None, None)
    data = load(spec, seed=seed, image_size=size, channels=channels, announce=lambda line: typer.echo(line, err=True))
    if data.classes != record.classes:
        raise DataError(
            f"Expected the run's classes ({_shown(record.classes or ())}), but {spec} has {_shown(data.classes)}: "
            f"give data with the same classes."
        )
    if data.input_shape != shape:
        wanted, got = ("x".join(map(str, part or ())) for part in (shape, data.input_shape))
        raise DataError(f"Expected images of {wanted}, as the run has them, but {spec} has {got}: give other data.")
    return data


def _shown(classes: tuple[str, ...], most: int = 5) -> str:
    rest = f", ... {len(classes)} in all" if len(classes) > most else ""
    return ", ".join(classes[:most]) + rest

"""`pretrim predict`: the likeliest classes of image files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretrim.errors import ModelError

from . import options, render

if TYPE_CHECKING:
    from .opened import Opened


BATCH = 64


def predict(
    run: options.Run,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    model: options.RunModel = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Classes to show for each image.")] = 3,
    json: options.Json = False,
) -> None:
    """Classify image files with a saved network."""
    from .opened import open_run

    record = predictions(open_run(run, model), images, top)
    if json:
        render.print_json(record)
    else:
        render.show_predictions(render.output(), record)


def predictions(opened: Opened, images: list[Path], top: int) -> list[dict[str, Any]]:
    """For each image file its likeliest classes with their probabilities, as plain JSON."""
    import torch

    from pretrim.data import decode_image
    from pretrim.train import check_logits, scores

    decoded = [decode_image(path, opened.input_shape, opened.padding) for path in images]
    parts = [torch.stack(decoded[start : start + BATCH]) for start in range(0, len(decoded), BATCH)]
    logits = torch.cat([scores(opened.network, part, *opened.normalisation) for part in parts])
    check_logits(logits, len(opened.classes))
    for path, some in zip(images, logits, strict=True):
        if not some.isfinite().all():
            raise ModelError(f"Expected finite scores for {path}, but the network gives others: train it again.")
    likeliest = logits.softmax(dim=1).topk(min(top, len(opened.classes)), dim=1)
    return [
        {
            "image": str(path),
            "predictions": [
                {"class": opened.classes[place], "probability": probability}
                for probability, place in zip(values, places, strict=True)
            ],
        }
        for path, values, places in zip(images, likeliest.values.tolist(), likeliest.indices.tolist(), strict=True)
    ]

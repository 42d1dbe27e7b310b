"""`pretrim predict`: the likeliest classes of image files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from pretrim.present.run import show_predictions

from . import render
from .arguments import Json, Run, RunModel, RunTask
from .progress import Bars


def predict(
    run: Run,
    /,
    *images: Annotated[Path, Parameter(metavar="IMAGE", help="Image files.")],
    model: RunModel = None,
    task: RunTask = None,
    top: Annotated[int, Parameter(validator=Number(gte=1), help="Number of classes to show per image.")] = 3,
    json: Json = False,
) -> None:
    """Classify image files with a saved network."""
    from pretrim.errors import UsageError
    from pretrim.jobs.run import open_run

    if not images:
        raise UsageError("No image given: name one or more files.")
    record = open_run(run, model, task, Bars()).predict(images, top)
    if json:
        render.print_json(record)
    else:
        show_predictions(render.output(), record)

"""`pretrim slim`: remove the unused parts of a trained network without changing its outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pretrim.jobs.options import DataOptions
from pretrim.jobs.slim import SlimOptions
from pretrim.present.slim import show_slimmed

from . import render
from .arguments import Data, Json, RunModel
from .progress import Bars


def slim(
    source: Annotated[str, Parameter(metavar="MODEL|RUN", help="A network by its name, or a trained run.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], metavar="RUN", help="New folder to save in.")],
    data: Data = None,
    model: RunModel = None,
    json: Json = False,
    how: SlimOptions | None = None,
    images: DataOptions | None = None,
) -> None:
    """Remove the dead filters of a trained network, without loss.

    Both networks are compared on random images before anything is written.
    """
    from pretrim.jobs.slim import slim as run_job

    result = run_job(source, output, how or SlimOptions(), data=data, images=images, model=model, reporter=Bars())
    if json:
        render.print_json(result.to_json())
    else:
        show_slimmed(render.output(), result.to_json())

"""`pretrim measure`: how fast an artifact runs, here or on the board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pretrim.jobs.measure import MeasureOptions
from pretrim.present.artifact import show_measurements

from . import render
from .arguments import Json
from .progress import Bars


def measure(
    artifact: Annotated[Path, Parameter(metavar="RUN|ARTIFACT", help="File of `pretrim export`, or its run.")],
    /,
    *,
    against: Annotated[
        Path | None,
        Parameter(metavar="RUN|ARTIFACT", help="Measure in turns with it, for a reliable ratio: often RUN/dense."),
    ] = None,
    json: Json = False,
    how: Annotated[MeasureOptions | None, Parameter(name="*")] = None,
) -> None:
    """Measure latency, memory and energy of an exported network."""
    from pretrim.jobs.measure import measure as measure_job

    records = [found.to_json() for found in measure_job(artifact, how, against, Bars())]
    if json:
        render.print_json(records)
    else:
        show_measurements(render.output(), records)

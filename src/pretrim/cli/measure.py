"""`pretrim measure`: how fast an artifact runs, on this machine or on the board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pretrim.errors import UsageError
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
        Parameter(metavar="RUN|ARTIFACT", help="Measure in turns with it, for a reliable ratio."),
    ] = None,
    model: Annotated[
        str | None,
        Parameter(
            metavar="MODEL", help="As of evaluate and export; not needed, an exported file is measured as it is."
        ),
    ] = None,
    dense: Annotated[bool, Parameter(help="Compare with the run's dense network (RUN/dense).")] = False,
    json: Json = False,
    how: Annotated[MeasureOptions | None, Parameter(name="*")] = None,
) -> None:
    """Measure latency, memory and energy of an exported network."""
    from pretrim.jobs.measure import dense_of
    from pretrim.jobs.measure import measure as measure_job

    if dense and against is not None:
        raise UsageError(f"--dense is --against {dense_of(artifact)}: give one of them.")
    against = dense_of(artifact) if dense else against
    records = [measurement.to_json() for measurement in measure_job(artifact, how, against, Bars())]
    if json:
        render.print_json(records)
    else:
        show_measurements(render.output(), records)

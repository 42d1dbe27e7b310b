"""`pretrim report`: a page on a study or a run that opens offline, and figures of a study for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from . import render
from .arguments import Storage
from .progress import Bars


def report(
    path: Annotated[Path, Parameter(metavar="STUDY|RUN", help="Folder of `pretrim sweep` or `pretrim compress`.")],
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], metavar="FILE", help="Page to write.")] = Path(
        "report.html"
    ),
    figures: Annotated[
        Path | None, Parameter(metavar="FOLDER", help="Write a study's PNG and SVG figures as well.")
    ] = None,
    watch: Annotated[bool, Parameter(help="Rewrite it whenever a trial ends, until all have.")] = False,
    storage: Storage = None,
) -> None:
    """Write an interactive HTML report of a study or of one run.

    Before and after, limits to move, fronts, widths, curves, a table; it opens offline.
    """
    from pretrim.jobs.report import report as write

    page = write(path, output, figures, watch=watch, storage=storage, reporter=Bars())
    print(page, file=render.stdout())

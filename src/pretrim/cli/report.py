"""`pretrim report`: a study as one page that opens offline, and as figures for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from . import render
from .arguments import Storage, Study
from .progress import Bars


def report(
    study: Study,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], metavar="FILE", help="Page to write.")] = Path(
        "report.html"
    ),
    figures: Annotated[Path | None, Parameter(metavar="FOLDER", help="Write PNG and SVG figures as well.")] = None,
    watch: Annotated[bool, Parameter(help="Rewrite it whenever a trial ends, until all have.")] = False,
    storage: Storage = None,
) -> None:
    """Write an interactive HTML report.

    Limits to move, fronts, widths, curves, a table; it opens offline.
    """
    from pretrim.jobs.study import check_page, open_study, write_report

    check_page(output)
    page = write_report(open_study(study, storage), output, figures, watch=watch, reporter=Bars())
    print(page, file=render.stdout())

"""`pretrim report`: a study as one page that opens offline, and as figures for papers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pretrim.errors import StudyError, UsageError

from . import render
from .progress import say
from .recommend import StorageOption, StudyFolder

WATCH_EVERY_S = 3.0


def report(
    study: StudyFolder,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The page to write.")] = Path(
        "report.html"
    ),
    figures: Annotated[
        Path | None,
        typer.Option("--figures", metavar="FOLDER", help="PNG and SVG figures as well.", show_default=False),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it again whenever a trial ends, until all have.")
    ] = False,
    storage: StorageOption = None,
) -> None:
    """Write the trade-off of a study as one page to explore.

    Limits to move, fronts, widths, curves, a table; it opens offline.
    """
    from pretrim.report import write_figures, write_page
    from pretrim.study.network import read_network
    from pretrim.study.sweep import open_study

    if output.suffix != ".html":
        raise UsageError(f"Expected a report to end in .html, but got {output}.")
    if not output.parent.is_dir():
        raise UsageError(f"Expected a folder for the report, but {output.parent} is none: make it first.")
    store = open_study(study, storage)
    store.settings()
    network = read_network(study)
    known = None
    while True:
        counts = store.counts()
        left = counts["waiting"] + counts["running"]
        if counts != known:
            known = counts
            trials = store.trials()
            try:
                write_page(output, store.name, trials, network, refresh=watch and left > 0)
                if figures is not None:
                    write_figures(figures, trials)
            except OSError as error:
                raise StudyError(f"Expected to write the report, but got: {error.strerror}.") from error
            say(f"{output}: {counts['done']} trials, {output.stat().st_size / 2**20:.1f} MiB")
        if not watch or not left:
            typer.echo(output, file=render.stdout())
            return
        time.sleep(WATCH_EVERY_S)

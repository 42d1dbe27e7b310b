"""`pretrim devices`: the boards and their budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from . import render
from .arguments import Json
from .check import check


def devices(
    name: Annotated[str | None, Parameter(metavar="NAME", help="One board, with the sources of its figures.")] = None,
    /,
    *,
    for_: Annotated[
        Path | None, Parameter(name="--for", metavar="RUN|FILE", help="Which boards an exported run or a file fits.")
    ] = None,
    json: Json = False,
) -> None:
    """List the boards that --device knows."""
    if for_ is not None:
        check(for_, device=name or "all", json=json)
        return
    from pretrim.jobs.devices import board_records
    from pretrim.present.boards import show_boards

    records = board_records(name)
    if json:
        render.print_json(records)
    else:
        show_boards(render.output(), records, sources=name is not None)

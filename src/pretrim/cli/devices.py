"""`pretrim devices`: the boards, and the budget that each makes."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from . import render
from .arguments import Json


def devices(
    name: Annotated[str | None, Parameter(metavar="NAME", help="One board, with the sources of its figures.")] = None,
    /,
    *,
    json: Json = False,
) -> None:
    """List the boards that --device knows."""
    from pretrim.jobs.devices import board_records

    from .tables import show_boards

    records = board_records(name)
    if json:
        render.print_json(records)
    else:
        show_boards(render.output(), records, sources=name is not None)

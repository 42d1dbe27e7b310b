"""`pretrim devices`: the boards, and the budget that each makes."""

from __future__ import annotations

from dataclasses import asdict
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
    from pretrim.devices import board, boards

    chosen = boards() if name is None else (board(name),)
    records = [{**asdict(entry), "limits": entry.limits()} for entry in chosen]
    if json:
        render.print_json(records)
    else:
        render.show_boards(render.output(), records, sources=name is not None)

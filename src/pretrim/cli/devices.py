"""`pretrim devices`: the boards, and the budget that each makes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pretrim.devices import board, boards

from . import options, render


def devices(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One board, with the sources of its figures.")
    ] = None,
    json: options.Json = False,
) -> None:
    """List the boards that --device knows."""
    chosen = boards() if name is None else (board(name),)
    records = [{**asdict(entry), "limits": entry.limits()} for entry in chosen]
    if json:
        render.print_json(records)
    else:
        render.show_boards(render.output(), records, sources=name is not None)

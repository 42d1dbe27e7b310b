"""`pretrim check`: whether a file fits a board, or which boards it fits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pretrim.errors import PretrimError
from pretrim.jobs.options import SHARE
from pretrim.present.boards import show_check

from . import render
from .arguments import Json


def check(
    file: Annotated[Path, Parameter(metavar="FILE|RUN", help="Any .tflite or .onnx file, or an exported run.")],
    /,
    *,
    device: Annotated[str, Parameter(metavar="NAME", help="Board, or all.")],
    runtime: Annotated[
        str | None, Parameter(help="Runtime to predict the time of: st-edge-ai, tflm, ... (default: all known).")
    ] = None,
    application: Annotated[float | None, SHARE] = None,
    json: Json = False,
) -> None:
    """Tell whether a file fits a board, and how fast it would be.

    The exit code is 1 where it does not fit the board; with --device all, where it fits no
    microcontroller.
    """
    from pretrim.jobs.check import ALL
    from pretrim.jobs.check import check as check_file

    result = check_file(file, device, runtime, application)
    if json:
        render.print_json(result.to_json())
    else:
        show_check(render.output(), result.to_json())
    if not result.fits:
        where = "any microcontroller" if device == ALL else device
        why = "" if device == ALL else f": {'; '.join(result.boards[0].problems)}"
        raise PretrimError(f"{result.path} does not fit {where}{why}.")

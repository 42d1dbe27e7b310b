"""`pretrim plan`: how many filters each layer keeps under a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pretrim.errors import PretrimError, UsageError
from pretrim.files import check_writable
from pretrim.jobs.options import Limits, Search, TargetOptions
from pretrim.jobs.target import is_on_board
from pretrim.present.plan import show_plan

from . import render
from .arguments import Classes, Input, Json, Model
from .progress import Bars

if TYPE_CHECKING:
    from pretrim.planning.plan import Plan


def plan(
    model: Model,
    /,
    *,
    input: Input = None,
    classes: Classes = None,
    output: Annotated[
        Path | None,
        Parameter(
            name=["--output", "-o"],
            metavar="FILE",
            allow_leading_hyphen=True,
            help="Write the plan to a file; - is stdout.",
        ),
    ] = None,
    json: Json = False,
    limits: Limits | None = None,
    target: TargetOptions | None = None,
    search: Search | None = None,
) -> None:
    """Find how many filters each layer keeps to meet every limit."""
    from pretrim.jobs.data import input_shape
    from pretrim.jobs.plan import plan_model

    limits, target, search = limits or Limits(), target or TargetOptions(), search or Search()
    shape = input_shape(model, input)
    to_stdout = output is not None and str(output) == "-"
    if output is not None and not to_stdout:
        check_output(output)
    is_untimed = limits.latency is None and search.mode != "latency"
    if target.runtime is not None and is_untimed and not is_on_board(target):
        raise UsageError("--runtime says whose latency counts: add --latency LIMIT or --mode latency.")
    result = plan_model(model, shape, classes, limits, target, search, Bars())
    if output is not None and not to_stdout:
        write_plan(result, output)
    if json or to_stdout:
        render.print_json(result.to_json())
    if not json:
        show_plan(render.status() if to_stdout else render.output(), result)


def check_output(path: Path) -> None:
    """Raise PretrimError, before long work, if a plan cannot be written."""
    try:
        check_writable(path)
    except OSError as error:
        raise _not_written(path, error) from error


def write_plan(made: Plan, path: Path) -> None:
    """Write a plan atomically. Raises PretrimError if it cannot be written."""
    try:
        made.save(path)
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> PretrimError:
    return PretrimError(f"Cannot write {path}: {error.strerror or type(error).__name__}. Choose another file.")

"""`pretrim export`: write a saved network as a file for the device's runtime, verified to compute the same."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from pretrim.jobs.export import ExportOptions
from pretrim.jobs.options import TargetOptions
from pretrim.present.artifact import check_board, show_artifact

from . import render
from .arguments import Json, Run, RunModel, RunTask
from .progress import Bars


def export(
    run: Run,
    /,
    *,
    calibrate: Annotated[
        str | None,
        Parameter(
            name=["--calibrate", "--data"],
            metavar="DATA",
            help="Data whose training images calibrate int8 and whose test images verify the file (default: those "
            "that --task brings; else random pixels verify it).",
        ),
    ] = None,
    model: RunModel = None,
    task: RunTask = None,
    json: Json = False,
    target: TargetOptions | None = None,
    how: Annotated[ExportOptions | None, Parameter(name="*")] = None,
) -> None:
    """Export a saved network to a device's runtime, and verify it.

    The file is run there at once and compared with PyTorch: what does not compute the same is not written.
    """
    from pretrim.jobs.export import check_options
    from pretrim.jobs.export import export as export_job
    from pretrim.jobs.run import open_run

    target, how = target or TargetOptions(), how or ExportOptions()
    # Whether the task really brings data is checked by the job.
    check_options(target, how, has_data=calibrate is not None or task is not None)
    record = export_job(open_run(run, model, task, Bars()), target, how, calibrate, Bars()).to_json()
    if json:
        render.print_json(record)
    else:
        show_artifact(render.output(), record)
    check_board(record)

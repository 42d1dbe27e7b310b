"""`pretrim compress`, the main job: plan, build, train, evaluate, save and export a slim network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pretrim.jobs.options import (
    CompressOptions,
    DataOptions,
    GoalOptions,
    JobOptions,
    Limits,
    MachineOptions,
    Search,
    TargetOptions,
    TrainingOptions,
)
from pretrim.present.artifact import check_board
from pretrim.present.run import show_comparison

from . import render
from .arguments import Data, Json, Model
from .progress import Bars


def compress(
    model: Model,
    /,
    *,
    data: Data = None,
    output: Annotated[Path, Parameter(name=["--output", "-o"], metavar="RUN", help="New folder to save in.")],
    json: Json = False,
    limits: Limits | None = None,
    goal: GoalOptions | None = None,
    target: TargetOptions | None = None,
    search: Search | None = None,
    images: DataOptions | None = None,
    training: TrainingOptions | None = None,
    machine: MachineOptions | None = None,
    job: JobOptions | None = None,
) -> None:
    """Trim a network to its limits, train it, save and export it."""
    from pretrim.jobs.compress import compress as run_job
    from pretrim.train import is_main

    options = options_of(
        limits=limits,
        goal=goal,
        target=target,
        search=search,
        images=images,
        training=training,
        machine=machine,
        job=job,
    )
    run = run_job(model, data, output, options, Bars())
    if not is_main():
        return
    if json:
        render.print_json(run.to_json())
    else:
        show_comparison(render.output(), run.to_json())
    check_board(run.to_json().get("artifact") or {})


def options_of(*, images: DataOptions | None = None, **parts: Any) -> CompressOptions:
    """Collect the options from the parameters of `compress`; None selects the defaults."""
    return CompressOptions(**{name: part for name, part in {**parts, "data": images}.items() if part is not None})

"""`pretrim sweep`: train many plans of one network and keep the results in a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pretrim.jobs.options import Limits, MachineOptions, TrainingOptions
from pretrim.jobs.sweep import GridOptions, StudyOptions, SweepOptions

from . import render
from .arguments import Data, Json, Model
from .progress import Bars


def sweep(
    model: Model,
    /,
    *,
    data: Data = None,
    output: Annotated[Path, Parameter(name=["--output", "-o"], metavar="STUDY", help="Folder of the study.")],
    json: Json = False,
    tried: GridOptions | None = None,
    limits: Limits | None = None,
    how: SweepOptions | None = None,
    training: TrainingOptions | None = None,
    machine: MachineOptions | None = None,
) -> None:
    """Train many plans of one network. Rerun to resume."""
    from pretrim.jobs.sweep import sweep as run_job
    from pretrim.present.study import show_trials

    options = StudyOptions(
        grid=tried or GridOptions(),
        limits=limits or Limits(),
        sweep=how or SweepOptions(),
        training=training or TrainingOptions(),
        machine=machine or MachineOptions(),
    )
    study = run_job(model, data, output, options, Bars())
    trials = study.trials
    if json:
        render.print_json([trial_json(trial) for trial in trials])
    else:
        show_trials(render.output(), trials)
    study.check_any_done()


def trial_json(trial: Any) -> dict[str, Any]:
    """Convert a trial to plain JSON."""
    hidden = ("optuna", "published", "spec")
    plain = {name: value for name, value in vars(trial).items() if name not in hidden}
    return {**plain, "asked": trial.spec.to_json(), "name": trial.spec.name}

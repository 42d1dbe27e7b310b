"""`pretrim evaluate`: the score of a saved network on a test set."""

from __future__ import annotations

from pretrim.present.run import show_evaluation

from . import render
from .arguments import Data, Json, Run, RunModel, RunTask
from .progress import Bars


def evaluate(
    run: Run, /, *, data: Data = None, model: RunModel = None, task: RunTask = None, json: Json = False
) -> None:
    """Evaluate a saved network on its test images, or on new data."""
    from pretrim.jobs.run import open_run

    record = open_run(run, model, task, Bars()).evaluate(data, Bars()).to_json()
    if json:
        render.print_json(record)
    else:
        show_evaluation(render.output(), record)

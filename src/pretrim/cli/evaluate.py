"""`pretrim evaluate`: the accuracy of a saved network on a test set."""

from __future__ import annotations

from . import render
from .arguments import Data, Json, Run, RunModel
from .progress import Bars


def evaluate(run: Run, /, *, data: Data, model: RunModel = None, json: Json = False) -> None:
    """Evaluate a saved network on the test images of a data set."""
    from pretrim.jobs.run import open_run

    record = open_run(run, model, Bars()).evaluate(data, Bars()).to_json()
    if json:
        render.print_json(record)
    else:
        render.show_evaluation(render.output(), record)

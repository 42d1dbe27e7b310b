"""Finds the smallest network that is good enough by a short bisection over budgets; each step is a trial of a study."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrim.errors import UsageError
from pretrim.files import write_text

from .asked import Asked, asked_of
from .data import DataSource, open_data
from .options import CompressOptions, DataOptions, JobOptions
from .reporter import Reporter
from .run import Run
from .study import Study
from .sweep import GridOptions, StudyOptions, SweepOptions
from .sweep import sweep as run_sweep
from .target import Target, data_type_of, find_target

if TYPE_CHECKING:
    from pretrim.models.dense import ModelSource
    from pretrim.study.goal import Goal
    from pretrim.study.recommend import Candidate

BISECTION_STEPS = 5
"""Number of bisection steps: the budget is found to within 1/32 of the dense network's cost"""


def compress_within(
    model: ModelSource, data: DataSource | None, output: Path, options: CompressOptions, goal: Goal, reporter: Reporter
) -> Run:
    """Find the smallest network that is good enough, and make its trial the run.

    The study is kept beside the run, in ``OUTPUT-study``; another call continues with its trials.

    Args:
        model: name, module, or function that builds one.
        data: name, folder, or data sets; None: the task's own data.
        output: the new run folder.
        options: all options except limits.
        goal: what is good enough.
        reporter: told of each step.

    Raises:
        UsageError: options that do not apply to the search.
        InfeasibleBudget: not even the dense network is good enough.
    """
    from pretrim.runs.folder import prepare_output

    _check(options)
    target = find_target(options.target, {"params": "1x"}, options.search)
    if goal.score is not None and not 0 <= goal.score <= 1:  # 95 for 95 %? Check before the long training
        goal.check(open_data(data, options.data, model=model, reporter=reporter)[1].metric)
    prepare_output(output, options.job.overwrite, options.job.resume)
    folder = output.with_name(f"{output.name}-study")
    best, study = _bisect(model, data, folder, options, goal, reporter)
    _copy_trial(study, best, output, asked_of(model, data, options))
    return _finished(model, data, output, options, target, reporter)


def _check(options: CompressOptions) -> None:
    """Raise UsageError for limits, which the search itself finds, and for options that trials do not have."""
    if options.limits.given():
        name = next(iter(options.limits.given()))
        raise UsageError(
            f"--drop and --accuracy find the limit: leave out --{name}, or name its cost, --limit-of {name}."
        )
    defaults = JobOptions(resume=options.job.resume, overwrite=options.job.overwrite, dense=options.job.dense)
    for record, default in ((options.job, defaults), (options.data, DataOptions())):
        for field in fields(record):
            is_allowed = field.name in ("input", "fit", "task", "max_images")
            if not is_allowed and getattr(record, field.name) != getattr(default, field.name):
                name = field.name.removesuffix("_").replace("_", "-")
                raise UsageError(f"--{name} applies to a single training: do not combine it with --drop or --accuracy.")


def _bisect(
    model: ModelSource, data: DataSource | None, folder: Path, options: CompressOptions, goal: Goal, reporter: Reporter
) -> tuple[Candidate, Study]:
    """Bisect the budget; return the smallest network that is good enough among all trials, and the study."""
    from pretrim.study.goal import dense_score, good_enough, unreached
    from pretrim.study.recommend import candidates

    cost = options.goal.limit_of
    study = _with_trial(model, data, folder, options, None, reporter)
    tried = candidates(study.trials)
    if not tried:
        study.check_any_done()
        raise UsageError(f"The dense network was not trained: see the trials of {folder}.")
    metric = tried[0].metric
    threshold = goal.threshold(metric, dense_score(tried))
    reporter.say(f"wanted: {metric.show(threshold)} ({goal.words(metric)}); each step is a trial of {folder}")
    if not good_enough(tried, threshold, cost):
        raise unreached(tried, goal, threshold)
    low, high = 0.0, 1.0
    for step in range(1, BISECTION_STEPS + 1):
        middle = (low + high) / 2
        study = _with_trial(model, data, folder, options, middle, reporter)
        is_enough = _is_good_enough(study, middle, threshold)
        low, high = (low, middle) if is_enough else (middle, high)
        verdict = "good enough" if is_enough else "not good enough"
        reporter.say(f"step {step}/{BISECTION_STEPS}: {middle:.4g}x of {cost}: {verdict}")
    return good_enough(candidates(study.trials), threshold, cost)[0], study


def _is_good_enough(study: Study, fraction: float, threshold: float) -> bool:
    """Whether a budget's trial is good enough; False if no network meets the budget."""
    from pretrim.study.recommend import candidates

    keys = {trial.key for trial in study.trials if trial.spec.budget_fraction == fraction and trial.state == "done"}
    return any(entry.worth >= entry.metric.worth(threshold) for entry in candidates(study.trials) if entry.key in keys)


def _with_trial(
    model: ModelSource,
    data: DataSource | None,
    folder: Path,
    options: CompressOptions,
    fraction: float | None,
    reporter: Reporter,
) -> Study:
    """Run the study on the dense network and one more budget; `fraction` None means the first budget, 0.5."""
    search, images = options.search, options.data
    trial_options = {name: value for name, value in search.changes().items() if name in ("step", "round_to")}
    extra = sorted(set(search.changes()) - {*trial_options, "mode"})
    if extra:
        raise UsageError(f"--{extra[0].replace('_', '-')} is not an option of trials: do not combine it with --drop.")
    grid = GridOptions(
        modes=search.options().mode,
        budget_fraction=(0.5 if fraction is None else fraction,),
        limit_of=options.goal.limit_of,
    )
    trial_options["dtype"] = data_type_of(options.target)  # the study counts bytes as the exported file has them
    sweep = SweepOptions(
        input=images.input, fit=images.fit, task=images.task, max_images=images.max_images, **trial_options
    )
    study_options = StudyOptions(grid=grid, sweep=sweep, training=options.training, machine=options.machine)
    return run_sweep(model, data, folder, study_options, reporter)


def _copy_trial(study: Study, best: Candidate, output: Path, asked: Asked) -> None:
    """Copy a trial's run to the output folder; record the dense network's results and the user's settings in it."""
    from pretrim.runs.folder import output_folder
    from pretrim.runs.load import read
    from pretrim.runs.record import OWN, RECORD
    from pretrim.study.settings import DENSE

    trials = study.path / "trials"
    dense = next((trial for trial in study.trials if trial.spec.mode == DENSE and trial.state == "done"), None)
    record = read(trials / best.key)
    results: dict[str, Any] = {**(record.results or {}), "study": str(study.path), "trial": best.key, "asked": asked}
    if dense is not None:
        results["dense"] = dict(read(trials / dense.key).results or {})
    with output_folder(output):
        for file in sorted((trials / best.key).iterdir()):
            if file.is_file() and file.name in OWN and file.name != RECORD:
                shutil.copy2(file, output / file.name)
        write_text(output / RECORD, json.dumps(replace(record, results=results).to_json(), indent=2) + "\n")


def _finished(
    model: ModelSource,
    data: DataSource | None,
    output: Path,
    options: CompressOptions,
    target: Target,
    reporter: Reporter,
) -> Run:
    """Return the run, exported if a runtime was named."""
    from pretrim.runs.load import load
    from pretrim.runs.load import read as read_run

    from .export import deliver

    record = read_run(output)
    is_own = not isinstance(model, str) or ".py" in model
    data_set, task = open_data(data, options.data, model=model, plan=record.plan, reporter=reporter)
    run = Run.opened(output, load(output, model=model if is_own else None), data_set, task)
    return run if target.runtime is None else replace(run, artifact=deliver(run, target, reporter))

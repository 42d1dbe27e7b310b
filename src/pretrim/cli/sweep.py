"""`pretrim sweep`: many plans of one network, each trained once, kept in a study."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretrim.errors import StudyError, UsageError

from . import options, render
from .compress import _execution, _recipe, _wanted_shape
from .progress import say
from .subject import Subject
from .target import Target
from .timing import Timing, measured, table_of

if TYPE_CHECKING:
    from pretrim.study.settings import StudyConfig, TrialSpec
    from pretrim.study.store import Store
    from pretrim.study.trial import Subject as StudySubject

TRIED, WHERE = "What is tried", "Where it runs"
StudyFolder = Annotated[Path, typer.Option("-o", "--output", metavar="STUDY", help="The study's folder.")]
Modes = Annotated[
    str,
    typer.Option(
        "--modes",
        help="Modes, with commas: params, macs, memory, latency, joint, uniform, ...",
        rich_help_panel=TRIED,
    ),
]
Keep = Annotated[
    str,
    typer.Option("--keep", help="Shares to keep, with commas, of what --limit-of names.", rich_help_panel=TRIED),
]
Seeds = Annotated[int, typer.Option("--seeds", help="Seeds of plan and training, from 0.", rich_help_panel=TRIED)]
LimitOf = Annotated[
    str | None,
    typer.Option(
        "--limit-of",
        metavar="COST",
        help="Keep all modes to a share of this: params, macs, activation, ram, flash, latency. By default each "
        "mode to what it is named after, and the controls to MACs.",
        rich_help_panel=TRIED,
    ),
]
Dense = Annotated[
    bool, typer.Option("--dense/--no-dense", help="Train the dense network as well.", rich_help_panel=TRIED)
]
SearchTrials = Annotated[
    int,
    typer.Option(
        "--search",
        metavar="N",
        help="So many trials beside, chosen by a multi-objective sampler.",
        rich_help_panel=TRIED,
    ),
]
StopHopeless = Annotated[
    bool,
    typer.Option("--stop-hopeless", help="Stop trials that cheaper ones outdo by 10 points.", rich_help_panel=TRIED),
]
ImageLimit = Annotated[
    int | None, typer.Option("--limit", help="Train on about so many images only.", show_default=False)
]
RoundTo = Annotated[
    int, typer.Option("--round-to", help="Keep filters in multiples of this.", rich_help_panel=options.SEARCH)
]
Workers = Annotated[
    int, typer.Option("--workers", help="Processes that train at the same time.", rich_help_panel=WHERE)
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="ADDRESS", help="Train on a Ray cluster: auto, HOST:PORT, or local.", rich_help_panel=WHERE
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        help="A database for a team, e.g. postgresql+psycopg://USER@HOST/NAME.",
        rich_help_panel=WHERE,
    ),
]
StudyName = Annotated[
    str | None,
    typer.Option("--name", help="Of the study in the database; by default the folder's.", rich_help_panel=WHERE),
]
Retry = Annotated[bool, typer.Option("--retry", help="Run trials that failed once more.", rich_help_panel=WHERE)]


def sweep(
    model: options.Model,
    data: options.Data,
    output: StudyFolder,
    modes: Modes = "params,macs,memory,uniform",
    keep: Keep = "0.7,0.5,0.3",
    seeds: Seeds = 1,
    limit_of: LimitOf = None,
    dense: Dense = True,
    search: SearchTrials = 0,
    stop_hopeless: StopHopeless = False,
    input: options.InputOfData = None,
    limit: ImageLimit = None,
    dtype: options.DTypeOption = None,
    step: options.Step = "fraction",
    round_to: RoundTo = 8,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    lr: options.LearningRate = None,
    qat: options.Qat = False,
    changes: options.Changes = None,
    train_on: options.TrainOn = "auto",
    precision: options.PrecisionOption = None,
    layout: options.Layout = None,
    threads: options.Threads = None,
    workers: Workers = 1,
    ray: Ray = None,
    to: options.To = None,
    int8: options.Int8 = None,
    storage: Storage = None,
    name: StudyName = None,
    retry: Retry = False,
    json: options.Json = False,
) -> None:
    """Train many plans of one network; run it again to go on."""
    from pretrim.cost.formula import item_bytes
    from pretrim.study.settings import RUNTIME, StudyConfig, grid
    from pretrim.train import check_device

    if workers < 1:
        raise UsageError(f"Expected --workers to be at least 1, but got {workers}.")
    if ray is not None and search:
        raise UsageError("Expected --search or --ray, but got both: a search runs on one machine.")
    if search < 0:
        raise UsageError(f"Expected --search to be at least 0, but got {search}.")
    asked = grid(
        _words(modes),
        _shares(keep),
        seeds,
        limit=limit_of,
        dense=dense,
        runtime="onnx" if to == "onnx" else RUNTIME,
        step=step,
        round_to=round_to,
    )
    _check_limits(asked)
    item_bytes(dtype or "float32")  # type: ignore[arg-type]  # it checks the name
    if ray is None:  # a cluster's nodes have devices of their own
        check_device(train_on)
    given = {"epochs": epochs, "batch_size": batch_size, "learning_rate": lr}
    recipe = _recipe(
        data, {k: v for k, v in given.items() if v is not None}, changes or [], 0, fine_tune=False, qat=qat
    )
    from .delivery import find_delivery

    delivery = find_delivery(None, to, int8)
    cores = os.cpu_count() or 1
    execution = _execution(
        train_on, precision or "float32", layout, max(1, cores // workers) if threads is None else threads, False
    )
    if execution.channels_last is None:
        execution = replace(execution, channels_last=True)
    shape = _wanted_shape(input, None)
    settings = StudyConfig(
        model=model,
        data=data,
        image=shape,
        limit=limit,
        recipe=recipe,
        execution=execution,
        dtype=dtype or "float32",
        hopeless=stop_hopeless,
    )
    if any(one.is_timed for one in asked):
        timing = Timing(needed=True, runtime=table_of(to or RUNTIME))
    else:
        timing = Timing(needed=False)
    store, subject = _prepared(output, settings, timing, round_to, storage, name, threads is not None)
    store.add(asked)
    if retry:
        again = store.retry([trial.key for trial in store.trials() if trial.state == "failed"])
        say(f"{again} trials that failed are run again")
    _run(output, store, workers, search, ray)
    if delivery is not None:
        from .study_measuring import measure_all

        measure_all(output, store, model, subject.data, delivery)
    _report(store, json)


def _words(text: str) -> list[str]:
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise UsageError("Expected names with commas between them, but got none.")
    return found


def _shares(text: str) -> list[float]:
    try:
        return [float(word.removesuffix("x")) for word in _words(text)]
    except ValueError:
        raise UsageError(f"Expected --keep with shares such as 0.7,0.5, but got {text!r}.") from None


def _check_limits(asked: list[TrialSpec]) -> None:
    """Raises UsageError for a cost that is none."""
    from pretrim.planning.budget import Limit

    for one in asked:
        Limit.parse(one.limit, f"{one.keep}x")


def _prepared(
    folder: Path,
    settings: StudyConfig,
    timing: Timing,
    round_to: int,
    storage: str | None,
    name: str | None,
    pinned: bool,
) -> tuple[Store, StudySubject]:
    """The study, and its network and data: what cannot work is said before anything is trained."""
    from pretrim.study.network import write_network
    from pretrim.study.subjects import subject_of
    from pretrim.study.sweep import RECORD, make_study, open_study

    if (folder / RECORD).exists() and not pinned:  # threads follow from the number of workers, once
        there = open_study(folder, storage, name).settings().execution
        settings = replace(settings, execution=replace(settings.execution, threads=there.threads))
    subject = subject_of(settings)
    say(f"data: {subject.data.source} ({subject.data.split_note})")
    # Single layers on this machine, before workers keep it busy; they find the table.
    one = Subject(subject.reference, subject.data.input_shape, subject.module(0), subject.network)
    measured(timing, one, Target(None, {}, settings.dtype, round_to))
    store = make_study(folder, settings, storage, name)
    write_network(folder, subject)
    return store, subject


def _run(folder: Path, store: Store, workers: int, search: int, ray: str | None) -> None:
    """Sweep, with a live view on a terminal and a line a trial in a pipe."""
    from pretrim.study.sweep import Search
    from pretrim.study.sweep import sweep as run

    from .study_view import live

    before = sum(store.counts()[state] for state in ("done", "failed", "stopped"))
    if before:
        say(f"{before} trials are there already")
    wanted = Search(search) if search else None
    with live(store) as on_status:
        if ray is None:
            run(folder, store, workers=workers, search=wanted, on_status=on_status)
        else:
            from pretrim.study.cluster import sweep_on_ray

            sweep_on_ray(folder, store, ray, on_status=on_status)


def _report(store: Store, json: bool) -> None:
    trials = store.trials()
    if json:
        render.print_json([trial_json(trial) for trial in trials])
    else:
        from .study_view import show_trials

        show_trials(render.output(), trials)
    if trials and all(trial.state == "failed" for trial in trials):
        raise StudyError(
            f"Expected a trial that is done, but each of {len(trials)} failed: mend what their errors name, and add "
            f"--retry."
        )


def trial_json(trial: Any) -> dict[str, Any]:
    """A row, as plain JSON."""
    from dataclasses import asdict

    plain = asdict(trial)
    return {key: value for key, value in plain.items() if key not in ("optuna", "published")}

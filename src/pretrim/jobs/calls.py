"""The public Python API: every option is a keyword, checked as on the command line.

The keywords are the fields of the option records (`jobs.options`, `jobs.sweep`). The `TypedDict`s here declare their
types for editors; a test keeps both in sync.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from pretrim.errors import UsageError, check_is
from pretrim.planning.options import Coupling, Method, ShareUpdate, Step
from pretrim.wording import in_words_of_python

from .chance import keeps_chance
from .compress import CompressOptions
from .compress import compress as run_compress
from .data import DataSource
from .delivered import Delivered
from .export import ExportOptions, export_run
from .measure import MeasureOptions, measure_file
from .options import (
    Amount,
    DataOptions,
    GoalOptions,
    JobOptions,
    Limits,
    MachineOptions,
    PerChannel,
    Search,
    TargetOptions,
    TrainingOptions,
    gather,
)
from .plan import plan_network
from .reporter import Reporter, Silent
from .run import Run, open_run
from .slim import Slimmed, SlimOptions
from .slim import slim as run_slim
from .study import Study, open_study
from .sweep import GridOptions, StudyOptions, SweepOptions, listed
from .sweep import sweep as run_sweep
from .target import DTYPE, find_target

__all__ = ["Run", "Study", "compress", "open_run", "open_study", "plan", "slim", "sweep"]

if TYPE_CHECKING:
    from pretrim.analysis.network import Network
    from pretrim.cost.formula import Cost
    from pretrim.models.dense import ModelSource
    from pretrim.planning.plan import Plan


class LimitKeywords(TypedDict, total=False):
    """Limits: amounts (``"250k"``, ``"512KiB"``, ``"5ms"``) or shares of the dense network (``"0.5x"``)."""

    params: Amount | None
    macs: Amount | None
    flash: Amount | None
    ram: Amount | None
    activation: Amount | None
    latency: Amount | None
    at_most: tuple[str, ...]


class TrainingKeywords(TypedDict, total=False):
    """The training recipe, and how it is executed."""

    epochs: int | None
    batch_size: int | None
    lr: float | None
    qat: bool
    set: Mapping[str, Any] | tuple[str, ...]
    train_on: str | None
    precision: Literal["float32", "bfloat16", "float16"] | None
    layout: Literal["channels_last", "contiguous"] | None
    threads: int | None
    compile: bool | None
    tracker: tuple[str, ...]


class CompressKeywords(LimitKeywords, TrainingKeywords, total=False):
    """The options of :func:`compress`; see `pretrim compress --help`."""

    drop: float | None
    accuracy: str | float | None
    limit_of: str
    device: str | None
    runtime: str | None
    int8: bool | None
    dtype: Literal["float32", "float16", "int8"] | None
    application: float | str | None
    ssh: str | None
    remote_python: str | None
    ssh_config: str | Path | None
    estimate: bool
    mode: Method | None
    round_to: int | None
    min_width: int | Mapping[str, int] | None
    freeze: Sequence[str]
    min_features: int | None
    seed: int | None
    step: Step | None
    fraction: float | None
    share_update: ShareUpdate | None
    coupling: Coupling | None
    draws: int | None
    input: str | None
    fit: Literal["crop", "pad", "stretch"] | None
    max_images: int | None
    task: Any
    mean: PerChannel | None
    std: PerChannel | None
    plan: str | Path | None
    teacher: str | Path | None
    dense: bool
    worst: int
    resume: bool
    overwrite: bool


class SweepKeywords(LimitKeywords, TrainingKeywords, total=False):
    """The options of :func:`sweep`; see `pretrim sweep --help`."""

    modes: str | Iterable[str]
    budget_fraction: str | float | Iterable[float]
    seeds: int
    limit_of: str | None
    device: str | Iterable[str]
    dense: bool
    search: int
    stop_hopeless: bool
    input: str | None
    fit: Literal["crop", "pad", "stretch"] | None
    task: Any
    max_images: int | None
    step: Literal["fraction", "filter"] | None
    round_to: int | None
    min_width: int | Mapping[str, int] | None
    freeze: Sequence[str]
    dtype: Literal["float32", "float16", "int8"] | None
    runtime: str | None
    int8: bool | None
    workers: int
    ray: str | None
    storage: str | None
    name: str | None
    retry: bool


def _fields(*records: type[Any]) -> set[str]:
    return {field.name for record in records for field in fields(record)}


KEYWORDS = {
    "plan": {*_fields(Limits, Search, TargetOptions), "costs"},
    "compress": {*CompressKeywords.__annotations__, "data", "output", "weights"},
    "slim": {"data", "output", "input", "weights", "model", "overwrite"},
    "sweep": {*SweepKeywords.__annotations__, "data", "output", "keep"},
    "export": {*_fields(TargetOptions, ExportOptions), "data"},
    "measure": {*_fields(MeasureOptions), "against"},
}
"""Keywords of each call; error messages use them instead of command-line options"""


@in_words_of_python(KEYWORDS["plan"])
def plan(
    network: Network,
    *,
    device: str | None = None,
    runtime: str | None = None,
    application: float | str | None = None,
    dtype: str | None = None,
    costs: Mapping[str, Cost] | None = None,
    **asked: Any,
) -> Plan:
    """Plan how many filters each layer keeps so that every limit is met, including those of a board.

    Limits are absolute (``250_000``, ``"20M"``, ``"512KiB"``, ``"5ms"``) or shares of the dense network (``"0.5x"``).

    Args:
        network: the analysis from :func:`pretrim.analyze`.
        device: a board (`pretrim devices`); its flash and RAM become limits, and public measurements predict its times.
        runtime: the runtime on the board: ``"st-edge-ai"``, ``"tflm-cmsis-nn"`` ...
        application: share of flash and RAM reserved for the application.
        dtype: data type in which bytes are counted; by default int8 on a microcontroller, float32 elsewhere.
        costs: cost functions measured or predicted elsewhere, by quantity.
        asked: limits (``params=``, ``macs=``, ``flash=``, ``ram=``, ``activation=``, ``latency=``) and options on how
            widths are chosen (``mode=``, ``round_to=``, ``seed=`` ...), as in :func:`pretrim.core.plan`.

    Raises:
        BudgetError: a limit is invalid, or the dense network already meets it.
        InfeasibleBudget: no network meets a limit; the message gives the smallest reachable value.
        UsageError: an unknown option, board or runtime, or a time that nobody measured.
    """
    from pretrim.core import plan as plan_without_device
    from pretrim.planning.search import check_planned

    if device is None:
        if runtime is not None or application is not None:
            name = "runtime" if runtime is not None else "application"
            raise UsageError(f"{name} needs a device: name the board.")
        return plan_without_device(network, costs=costs, dtype=DTYPE if dtype is None else dtype, **asked)
    check_planned(network, costs)
    board = {"device": device, "runtime": runtime, "application": application, "dtype": dtype}
    limits, search, options = gather({**asked, **board}, Limits, Search, TargetOptions)
    target = find_target(options, limits.given(), search, exports=False)
    if target.timed_by is not None and "latency_ns" not in (costs or {}):
        raise UsageError(f"A latency of {device} is measured, and none was given: see pretrim.latency.measured_cost.")
    return plan_network(network, target, search, {**target.costs_on_board(network), **(costs or {})}, Silent())


def _output_path(output: str | Path) -> Path:
    check_is(output, str | Path, "output to be the name of a folder")
    return Path(output)


def _weights_path(weights: str | Path | None) -> Path | None:
    check_is(weights, str | Path | None, "weights to be the name of a file")
    return None if weights is None else Path(weights)


def _checked_reporter(reporter: Reporter | None) -> Reporter:
    """Return the reporter, or a silent one for None. Raises UsageError for an object without a reporter's methods."""
    is_right = all(callable(getattr(reporter, name, None)) for name in vars(Silent) if not name.startswith("_"))
    check_is(reporter, object if is_right else NoneType, "reporter to be like pretrim.jobs.reporter.Silent, or None")
    return reporter or Silent()


@keeps_chance
@in_words_of_python(KEYWORDS["compress"])
def compress(
    model: ModelSource,
    data: DataSource | None = None,
    *,
    output: str | Path,
    weights: str | Path | None = None,
    reporter: Reporter | None = None,
    **options: Unpack[CompressKeywords],
) -> Run:
    """Trim a network to its limits, train it once, save it, and export it if a runtime or board is named.

    Args:
        model: a name (``"resnet20"``, ``"my_net.py:build"``), a module, or a function that builds one.
        data: a name or folder as on the command line, or your own torch data sets or loaders: (train, test) or
            (train, validation, test). A loader stands for the images it yields in an epoch, including those chosen by a
            ``SubsetRandomSampler`` or a list of indices; other samplers and a ``collate_fn`` are refused. Float images
            are used unchanged, others are normalised. None: the task's own data.
        output: the new run folder.
        weights: a file of trained weights to start from; the filters with the largest L1 norm are kept.
        reporter: receives remarks and progress; without one, nothing is printed.
        options: as on the command line: ``macs="0.5x"``, ``device="stm32h743"``, ``epochs=20``, ``mode="uniform"`` ...;
            ``task=`` may be a name, or a task object of your own (`tasks.own`).

    The caller's random number generators are left as they were before the call.

    Returns:
        The run, with its ``model``, ``accuracy`` and ``plan``; continue with `Run.export`, `Run.evaluate` and
        `Run.predict`.

    Raises:
        UsageError: options that contradict each other or the model, or a loader that is refused; nothing was written.
        InfeasibleBudget: no network meets a limit; the message gives the smallest reachable value.
        PretrimError: the training failed; its state stays in the folder, for ``resume=True``.
    """
    keywords: dict[str, Any] = {**options, "from": _weights_path(weights)}
    kinds = (Limits, GoalOptions, TargetOptions, Search, DataOptions, TrainingOptions, MachineOptions, JobOptions)
    limits, goal, target, search, data_options, training, machine, job = gather(keywords, *kinds)
    compress_options = CompressOptions(
        limits=limits,
        goal=goal,
        target=target,
        search=search,
        data=data_options,
        training=training,
        machine=machine,
        job=job,
    )
    return run_compress(model, data, _output_path(output), compress_options, _checked_reporter(reporter))


@keeps_chance
@in_words_of_python(KEYWORDS["slim"])
def slim(
    source: ModelSource | Path,
    *,
    output: str | Path,
    data: DataSource | None = None,
    input: str | None = None,
    weights: str | Path | None = None,
    model: ModelSource | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Slimmed:
    """Remove the dead filters of a trained network without changing its outputs, and save it as a run.

    Args:
        source: a run folder, or a dense network: its name, a trained module, or a function that builds one.
        output: the new run folder; nothing is written if no filter is dead.
        data: data of a dense network, so that the run has classes, normalisation and an evaluation.
        input: shape of one image, ``"3x32x32"``, if neither the data nor the model's name imply it.
        weights: a file of trained weights of a dense network.
        model: how to rebuild the network of a run that pretrim cannot rebuild by itself.
        overwrite: replace an existing run.
        reporter: receives remarks.

    Returns:
        What was removed, and the new `run`.

    Raises:
        UsageError: options that do not fit the source.
        ModelError: a network that cannot be analysed, or whose outputs would change; nothing is written.
    """
    data_options, options = gather({"input": input, "dead": True, "overwrite": overwrite}, DataOptions, SlimOptions)
    options = replace(options, from_=_weights_path(weights))
    return run_slim(
        source,
        _output_path(output),
        options,
        data=data,
        images=data_options,
        model=model,
        reporter=_checked_reporter(reporter),
    )


@keeps_chance
@in_words_of_python(KEYWORDS["sweep"])
def sweep(
    model: ModelSource,
    data: DataSource | None = None,
    *,
    output: str | Path,
    keep: float | Iterable[float] | None = None,
    reporter: Reporter | None = None,
    **options: Unpack[SweepKeywords],
) -> Study:
    """Train many plans of one network, each once, and keep them in a study; another call continues it.

    Args:
        model: a name, a module, or a function that builds one.
        data: a name or folder, or your own torch data sets or loaders; None: the task's own data.
        output: the study's folder.
        keep: one or more fractions of the limited cost to try; the same as ``budget_fraction``.
        reporter: receives remarks and progress.
        options: as on the command line: ``modes="balanced,uniform"``, ``seeds=3``, ``epochs=20`` ...

    Returns:
        The study, with its ``trials``; continue with `Study.recommend` and `Study.report`.

    Raises:
        UsageError: options that contradict each other.
        StudyError: the folder holds something else, or another study.
    """
    keywords: dict[str, Any] = dict(options)
    if keep is not None:
        if "budget_fraction" in keywords:
            raise UsageError("keep and budget_fraction are the same: give one of them.")
        keywords["budget_fraction"] = listed("keep", keep)
    kinds = (GridOptions, Limits, SweepOptions, TrainingOptions, MachineOptions)
    grid, limits, sweep_options, training, machine = gather(keywords, *kinds)
    study_options = StudyOptions(grid=grid, limits=limits, sweep=sweep_options, training=training, machine=machine)
    study = run_sweep(model, data, _output_path(output), study_options, _checked_reporter(reporter))
    study.check_any_done()
    return study


Run.export = in_words_of_python(KEYWORDS["export"])(export_run)
Delivered.measure = in_words_of_python(KEYWORDS["measure"])(measure_file)

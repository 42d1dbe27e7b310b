"""Trains many plans of one network, each once, and keeps them in a study."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from pretrim.devices import board
from pretrim.errors import BudgetError, PretrimError, UsageError, shown
from pretrim.latency.board_systems import SAME_FILES

from .data import DataSource, open_data, wanted_shape
from .export import default_path, deliver
from .fit import converted
from .options import (
    DATA,
    LISTED,
    SEARCH,
    WIDTHS,  # noqa: F401  # annotations inherited from `Keeping` are resolved in this module, for `SweepOptions`
    Amount,
    Fit,
    Keeping,
    Limits,
    MachineOptions,
    MinWidth,  # noqa: F401
    Search,
    TargetOptions,
    TaskName,
    TrainingOptions,
    _default,  # noqa: F401
)
from .recipe import execution_of, note_threads, recipe_of
from .reporter import Reporter, Silent
from .run import Run
from .study import Study
from .target import DTYPE, TIMED_BY, Target, find_target, one_data_type

if TYPE_CHECKING:
    from pretrim.cost.formula import DType
    from pretrim.models.dense import DenseModel, ModelSource
    from pretrim.study.inputs import TrialInputs
    from pretrim.study.rows import Trial
    from pretrim.study.settings import Budget, StudyConfig, TrialSpec
    from pretrim.study.store import Store
    from pretrim.train import Execution

TRIALS = Group("What is tried", sort_key=0)
MAX_WORKERS, MAX_TRIALS = 1024, 1_000_000
WHERE = Group("Where it runs", sort_key=8)


@Parameter(name="*", group=TRIALS)
@dataclass(frozen=True, kw_only=True)
class GridOptions:
    """What a study tries."""

    modes: Annotated[str | Sequence[str], LISTED] = "balanced,params,macs,memory,uniform"
    """Modes, separated by commas."""
    budget_fraction: Annotated[str | Sequence[float], LISTED] = "0.7,0.5,0.3"
    """Fractions of the limited cost to keep, separated by commas; they scale --macs, --params, ... and boards alike."""
    seeds: int = 1
    """Number of seeds of plan and training, from 0."""
    limit_of: str | None = None
    """Cost that all modes are limited on (default: the one a mode is named after; MACs for the controls)."""
    device: Annotated[str | Sequence[str], LISTED] = ()
    """Boards whose limits are tried, separated by commas."""
    dense: Annotated[bool, Parameter(negative="--no-dense")] = True
    """Train the dense network as well."""
    search: Annotated[int, Parameter(metavar="N")] = 0
    """Run N extra trials suggested by NSGA-II."""
    stop_hopeless: bool = False
    """Stop a trial once a cheaper one leads by 10 points."""

    def __post_init__(self) -> None:
        for name in ("modes", "budget_fraction", "device"):
            object.__setattr__(self, name, listed(name, getattr(self, name)))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SweepOptions(Keeping):
    """How a study's trials are trained and run."""

    input: Annotated[str | None, Parameter(group=DATA)] = None
    """Shape of one image, CxHxW (default: the data's)."""
    fit: Annotated[Fit | None, Parameter(group=DATA)] = None
    """How images of other proportions get that shape: crop (default), pad with zeros, or stretch."""
    task: Annotated[TaskName, Parameter(group=DATA)] = None
    """What the network is for, by name, or FILE.py:CLASS (default: the data's)."""
    max_images: Annotated[int | None, Parameter(group=DATA)] = None
    """Train on at most this many images, for a quick trial."""
    step: Annotated[Literal["fraction", "filter"] | None, Parameter(group=SEARCH)] = None
    """What one draw removes: a share of the layer's filters, or one rounding step of them (the paper)."""
    round_to: Annotated[int | None, Parameter(group=SEARCH)] = None
    """Keep filters in multiples of this (default: 8, or the board's)."""
    dtype: Annotated[Literal["float32", "float16", "int8"] | None, Parameter(group=SEARCH)] = None
    """Data type of limits and of exported files (default: int8 with --int8 or a microcontroller, else float32)."""
    runtime: Annotated[str | None, Parameter(group=WHERE)] = None
    """Export to it and measure every network: onnx, litert, executorch; with --device, the runtime to time."""
    int8: Annotated[bool | None, Parameter(negative="--no-int8", group=WHERE)] = None
    """Export in int8, and count limits in it (default: for a microcontroller)."""
    workers: Annotated[int, Parameter(group=WHERE)] = 1
    """Number of processes that train at the same time."""
    ray: Annotated[str | None, Parameter(metavar="ADDRESS", group=WHERE)] = None
    """Train on a Ray cluster: auto, HOST:PORT, or local."""
    storage: Annotated[str | None, Parameter(metavar="URL", group=WHERE)] = None
    """Database for a team, e.g. postgresql+psycopg://USER@HOST/NAME."""
    name: Annotated[str | None, Parameter(group=WHERE)] = None
    """Name of the study in the database (default: the folder's)."""
    retry: Annotated[bool, Parameter(group=WHERE)] = False
    """Run failed trials once more."""


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """All options of `sweep`, grouped by concept."""

    grid: GridOptions = field(default_factory=GridOptions)
    limits: Limits = field(default_factory=Limits)
    sweep: SweepOptions = field(default_factory=SweepOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)


def sweep(
    model: ModelSource,
    data: DataSource | None,
    output: str | Path,
    options: StudyOptions | None = None,
    reporter: Reporter | None = None,
) -> Study:
    """Train many plans of one network; another call continues the study.

    Networks and data given by name are trained in worker processes; the caller's own modules or data sets in this one.

    Args:
        model: name, module, or function that builds one.
        data: name, folder, or data sets; None: the task's own data.
        output: the study's folder.
        options: what is tried, and how.
        reporter: receives remarks and progress.

    Raises:
        UsageError: options that contradict each other; nothing was written.
        StudyError: the folder holds something else, or another study.
        PretrimError: a failure of the machine, such as a full disk; running trials are queued again, nothing is lost.
    """
    from pretrim.models.dense import check_name
    from pretrim.study.description import write_network
    from pretrim.study.sweep import check_study_folder, make_study

    options, reporter, output = options or StudyOptions(), reporter or Silent(), Path(output)
    specs = _specs(options)
    _check(options, model, data)
    note_threads(options.machine.threads, reporter)
    check_name(model)
    check_study_folder(output)
    _check_times_on_boards(options, specs)
    config = _config(model, data, options)
    target = _target(options, specs)
    config, inputs = _loaded(output, config, model, data, target, options, reporter)
    specs = _to_trim(specs, config, inputs, reporter, is_searching=options.grid.search > 0)
    store = make_study(output, config, options.sweep.storage, options.sweep.name)
    write_network(output, inputs)
    store.add(specs)
    if options.sweep.retry:
        retried = store.retry([trial.key for trial in store.trials() if trial.state == "failed"])
        reporter.say(f"{retried} failed trials are run again")
    _run(output, store, inputs, options, reporter, by_name=_is_by_name(model, data, options.sweep.task))
    if target.runtime is not None:
        _measure_all(output, store, inputs, target, reporter)
    return Study(output, store)


def _specs(options: StudyOptions) -> list[TrialSpec]:
    """List the requested trials. Raises UsageError for an invalid mode, fraction or limit."""
    from pretrim.planning.budget import Limit
    from pretrim.study.settings import grid

    grid_options = options.grid
    trial_options: dict[str, Any] = {"step": options.sweep.step, "round_to": options.sweep.round_to}
    trial_options |= asked_of_layers(options.sweep)
    budgets = _budgets(options)
    if budgets and grid_options.limit_of is not None:
        raise UsageError("--limit-of names the cost of one limit: do not combine it with --device or limits.")
    if grid_options.limit_of is not None:
        Limit.parse(grid_options.limit_of, "0.5x")
    fractions = _fractions(grid_options.budget_fraction)
    if budgets and grid_options.budget_fraction == GridOptions.budget_fraction:
        fractions = [1.0]  # the limits as they were given
    if grid_options.seeds * len(fractions) > MAX_TRIALS:
        raise UsageError(f"Expected --seeds for at most {MAX_TRIALS} trials, but got {grid_options.seeds}.")
    return grid(
        _split_names(grid_options.modes),
        fractions,
        grid_options.seeds,
        limit=grid_options.limit_of,
        budgets=budgets,
        dense=grid_options.dense,
        runtime=_timed_runtime(options),
        **{name: value for name, value in trial_options.items() if value is not None},
    )


def asked_of_layers(keeping: Keeping) -> dict[str, Any]:
    """Return frozen layers and minimum widths as keywords of a trial. Raises UsageError for invalid widths."""
    from pretrim.planning.options import Options

    options = Options(**keeping.given())
    widths = options.min_width if isinstance(options.min_width, Mapping) else {"*": options.min_width}
    min_widths = tuple((pattern, minimum) for pattern, minimum in sorted(widths.items()) if minimum > 1)
    return {"freeze": options.freeze, "min_width": min_widths}


def _board_runtime(options: StudyOptions) -> str | None:
    """Return the microcontroller runtime whose time is predicted in a study; None if none was named."""
    from pretrim.deploy.runtimes import RUNTIMES

    runtime = options.sweep.runtime
    return None if runtime is None or runtime in RUNTIMES or not options.grid.device else runtime


def _timed_runtime(options: StudyOptions) -> str:
    """Return the runtime for latencies in trials that need one; on boards, ``litert`` means its microcontroller one."""
    runtime = options.sweep.runtime
    if options.grid.device and runtime is not None:
        return SAME_FILES.get(runtime, runtime)
    return "onnx" if runtime == "onnx" else TIMED_BY


def _check_times_on_boards(options: StudyOptions, specs: Sequence[TrialSpec]) -> None:
    """Raise UsageError for unknown times on a board, before anything is trained."""
    from pretrim.latency.board_systems import find_system

    for name in {spec.device: None for spec in specs if spec.device}:
        is_timed = any(spec.is_timed for spec in specs if spec.device == name)
        runtime = options.sweep.runtime if is_timed else _board_runtime(options)
        target_options = TargetOptions(device=name, runtime=runtime)
        if board(name).kind == "microcontroller":
            find_target(target_options, {"latency": "1x"} if is_timed else {}, Search(), exports=False)
        elif is_timed:
            raise UsageError(f"A study has no latencies of {name}: leave out --device {name}, or the limit on latency.")
        elif runtime is not None:
            find_system(board(name), runtime, board(name).data_type)


def _budgets(options: StudyOptions) -> list[Budget]:
    """Combine the user's limits with those of each board: one budget per board, or one without boards."""
    from pretrim.planning.budget import Limit
    from pretrim.study.settings import Budget

    limits: dict[str, Amount] = options.limits.given()
    user_limits = tuple((name, Limit.parse(name, amount).text) for name, amount in limits.items())
    names = _boards_of(options)
    if not names:
        return [Budget(user_limits)] if user_limits else []
    budgets = []
    for name in names:
        device = board(name)
        own_limits = tuple((cost, str(value)) for cost, value in device.limits().items() if cost not in limits)
        if not own_limits and not user_limits:
            raise UsageError(f"{name} has ample RAM: add a limit such as --macs 0.5x.")
        budgets.append(
            Budget(
                (*own_limits, *user_limits),
                name,
                device.round_to if options.sweep.round_to is None else options.sweep.round_to,
            )
        )
    return budgets


def listed(name: str, given: Any) -> Any:
    """Normalise a list option of the grid: comma-separated text is unchanged, anything else becomes a tuple.

    Python callers may pass a single value, a list, an array or a generator.

    Args:
        name: name of the option, for errors.
        given: names, fractions or boards; an empty list of boards means none.

    Raises UsageError for anything else, or an empty list.

    >>> listed("keep", 0.5), listed("keep", (n / 10 for n in (7, 5))), listed("modes", "balanced,uniform")
    ((0.5,), (0.7, 0.5), 'balanced,uniform')
    """
    if isinstance(given, str):
        return given
    if hasattr(given, "tolist"):  # an array or tensor
        given = given.tolist()
    values = tuple(given) if isinstance(given, Iterable) and not isinstance(given, Mapping) else (given,)
    is_right = all(isinstance(value, str | int | float) and not isinstance(value, bool) for value in values)
    if not is_right or (not values and name != "device"):
        example = "fractions such as [0.7, 0.5]" if name in ("keep", "budget_fraction") else "a list of names"
        raise UsageError(f"Expected {name} to be {example}, but got {shown(given)}.")
    return values


def _split_names(given: str | Sequence[str]) -> list[str]:
    words = given.split(",") if isinstance(given, str) else map(str, given)
    names = [stripped for word in words if (stripped := word.strip())]
    if not names:
        raise UsageError("Expected names separated by commas, but got none.")
    return names


def _fractions(given: str | Sequence[float]) -> list[float]:
    try:
        return [float(word.removesuffix("x")) for word in _split_names(given)]  # type: ignore[arg-type]  # numbers are written
    except ValueError:
        raise UsageError(
            f"Expected --budget-fraction with fractions such as 0.7,0.5, but got {shown(given)}."
        ) from None


def _is_by_name(model: ModelSource, data: DataSource | None, task: Any) -> bool:
    """Whether other processes can open model, data and task."""
    return isinstance(model, str) and isinstance(data, str | Path | None) and isinstance(task, str | None)


def _check(options: StudyOptions, model: ModelSource, data: DataSource | None) -> None:
    settings, grid = options.sweep, options.grid
    if not 1 <= settings.workers <= MAX_WORKERS:
        raise UsageError(f"Expected --workers to be from 1 to {MAX_WORKERS}, but got {settings.workers}.")
    if settings.ray is not None and grid.search:
        raise UsageError("--search runs on one machine: leave out --search or --ray.")
    if grid.search and settings.given():
        raise UsageError("--search chooses among all widths: leave out --search, or --freeze and --min-width.")
    if not 0 <= grid.search <= MAX_TRIALS:
        raise UsageError(f"Expected --search to be from 0 to {MAX_TRIALS}, but got {grid.search}.")
    if not _is_by_name(model, data, settings.task) and (
        settings.workers > 1 or settings.ray is not None or grid.search
    ):
        raise UsageError(
            "A module or data sets of your own are trained in this process: name model and data, as on the command "
            "line, for several workers, Ray or a search."
        )


def _config(model: ModelSource, data: DataSource | None, options: StudyOptions) -> StudyConfig:
    """Make the settings shared by all trials; threads and layout are pinned, since they change results and times."""
    from pretrim.cost.formula import item_bytes
    from pretrim.study.settings import StudyConfig

    settings, task = options.sweep, options.sweep.task
    name = str(data) if isinstance(data, str | Path) else ""
    dtype = _data_type(options)
    item_bytes(dtype)
    return StudyConfig(
        model=model if isinstance(model, str) else "",
        data=name,
        image=wanted_shape(settings.input, None),
        fit=settings.fit or "crop",
        task=task if isinstance(task, str) else "" if task is None else type(task).__name__,
        max_images=settings.max_images,
        recipe=recipe_of(name, options.training, 0),
        execution=_execution(options),
        dtype=dtype,
        stop_hopeless=options.grid.stop_hopeless,
    )


def _data_type(options: StudyOptions) -> DType:
    """Return the single data type of a study, in which bytes are counted and networks are exported.

    Raises UsageError for types that contradict each other, or that a microcontroller's kernels do not support.
    """
    micro = next((device for device in map(board, _boards_of(options)) if device.kind == "microcontroller"), None)
    default: DType = DTYPE if micro is None else micro.data_type  # type: ignore[assignment]  # it is one
    dtype = one_data_type(options.sweep.dtype, options.sweep.int8, default)
    if micro is not None and dtype != default:
        raise UsageError(
            f"Expected a study for {micro.name} in {default}, but got {dtype}: leave out --dtype and --no-int8."
        )
    if dtype == "float16" and options.sweep.runtime is not None:
        raise UsageError(
            "Expected --dtype float32 or int8 with --runtime, but got 'float16': no file is exported in it."
        )
    return dtype


def _boards_of(options: StudyOptions) -> list[str]:
    return _split_names(options.grid.device) if options.grid.device else []


def _execution(options: StudyOptions) -> Execution:
    machine, settings = options.machine, options.sweep
    if settings.ray is not None:  # a cluster's nodes have devices of their own
        machine = replace(machine, train_on="auto")
    threads = threads_of_each(settings.workers) if machine.threads is None else machine.threads
    pinned = replace(machine, precision=machine.precision or "float32", threads=threads, compile=False)
    execution = execution_of(replace(pinned, layout=machine.layout or "channels_last"))
    return replace(execution, device=options.machine.train_on or execution.device)


def threads_of_each(workers: int) -> int:
    """Divide torch's default number of threads (one per core, or OMP_NUM_THREADS) among workers, at least one each."""
    import torch

    return max(1, torch.get_num_threads() // workers)


def _target(options: StudyOptions, specs: Sequence[TrialSpec]) -> Target:
    """Return the target with the runtime that networks are exported to and whose latency is measured."""
    runtime = options.sweep.runtime if _board_runtime(options) is None else None
    dtype = _data_type(options)
    target_options = TargetOptions(runtime=runtime, int8=options.sweep.int8, dtype=dtype)
    is_timed = any(spec.is_timed for spec in specs if not spec.device)
    return find_target(target_options, {"params": "1x"}, Search(mode="latency" if is_timed else None))


def _loaded(
    folder: Path,
    config: StudyConfig,
    model: ModelSource,
    data: DataSource | None,
    target: Target,
    options: StudyOptions,
    reporter: Reporter,
) -> tuple[StudyConfig, TrialInputs]:
    """Load the network and the data, and complete the settings by them; nothing is written yet."""
    from pretrim.models.dense import open_model
    from pretrim.study.inputs import TrialInputs, known_latencies
    from pretrim.study.sweep import RECORD, open_study
    from pretrim.train import takes_channels_last

    settings = options.sweep
    if (folder / RECORD).exists() and options.machine.threads is None:  # the default is set once, by the first call
        stored = open_study(folder, settings.storage, settings.name).config().execution
        config = replace(config, execution=replace(config.execution, threads=stored.threads))
    from .options import DataOptions

    images = DataOptions(input=settings.input, fit=settings.fit, max_images=settings.max_images, task=settings.task)
    dataset, task = open_data(data, images, model=model, seed=config.split_seed, reporter=reporter)
    dense = open_model(model, dataset.input_shape, len(dataset.classes) or None)
    task.check(dense.module, dataset)
    if options.grid.stop_hopeless and not (task.metric.is_share and task.metric.higher_is_better):
        raise UsageError(f"--stop-hopeless compares by points of accuracy, which {task.metric.title} is not.")
    recipe = recipe_of(config.data, options.training, 0, images=len(dataset.train))
    config = replace(config, recipe=recipe, metric=task.metric)
    if not _is_by_name(model, data, settings.task):
        config = replace(config, model=config.model or _module_identity(dense), data=config.data or dataset.source)
    config = replace(config, forward=dense.forward or {})
    if options.machine.layout is None and not takes_channels_last(dense.module, dataset.input_shape):
        config = replace(config, execution=replace(config.execution, channels_last=False))
    _check_operators(dense, _boards_of(options))
    target.costs(dense, reporter)  # fill the latency table before workers keep this machine busy; they reuse it
    if settings.ray is not None:
        from pretrim.study.cluster import connected

        connected(settings.ray)  # if the cluster is unreachable, no folder is created
    return config, TrialInputs(dense, dataset, known_latencies(config, dense), task)


def _to_trim(
    specs: Sequence[TrialSpec], config: StudyConfig, inputs: TrialInputs, reporter: Reporter, *, is_searching: bool
) -> list[TrialSpec]:
    """Leave out the trials whose limits the dense network meets as it is, with a note.

    Raises BudgetError if that leaves no trial but the dense network's, unless a search adds others.
    """
    from pretrim.study.settings import DENSE
    from pretrim.study.trial import dense_fits

    one_of = {spec.budget: spec for spec in specs}  # modes and seeds share their limits
    met = {budget for budget, spec in one_of.items() if dense_fits(config, inputs, spec)}
    kept = [spec for spec in specs if spec.budget not in met]
    left_out = Counter(spec.budget for spec in specs if spec.budget in met)
    if left_out and not is_searching and all(spec.mode == DENSE for spec in kept):
        raise BudgetError(
            f"Nothing to trim {', '.join(left_out)}: the dense network fits as it is. Lower the limits, e.g. "
            f"--budget-fraction 0.5, or add one such as --macs 0.5x."
        )
    for budget, count in left_out.items():
        trials = "1 trial is" if count == 1 else f"{count} trials are"
        reporter.say(f"note: nothing to trim {budget}, the dense network fits as it is: {trials} left out")
    return kept


def _check_operators(dense: DenseModel, names: Sequence[str]) -> None:
    """Raise ExportError for operators that no microcontroller runs; a predicted refusal is confirmed by converting."""
    from pretrim.cost.microcontroller import refused_by_micro
    from pretrim.planning.search import plan_of_widths

    micro = next((name for name in names if board(name).kind == "microcontroller"), None)
    if micro is not None and refused_by_micro(dense.network) is not None:
        dense_plan = plan_of_widths(dense.network, dense.network.dense, "int8")
        converted(dense_plan, dense, find_target(TargetOptions(device=micro), {}, Search()))


def _module_identity(dense: DenseModel) -> str:
    """Identify the caller's module in a study's configuration by its class and its parameters' names and shapes."""
    return f"{dense.name}, {hashlib.sha256(dense.network.fingerprint.encode()).hexdigest()[:12]}"


def _run(
    folder: Path, store: Store, inputs: TrialInputs, options: StudyOptions, reporter: Reporter, *, by_name: bool
) -> None:
    """Train the waiting trials."""
    from pretrim.study.sweep import Search as Suggestions
    from pretrim.study.sweep import sweep as run
    from pretrim.study.sweep import sweep_here

    finished = sum(store.counts()[state] for state in ("done", "failed", "stopped"))
    if finished:
        reporter.say(f"{finished} trials are there already")
    count = options.grid.search
    with reporter.watching(store.name) as on_status:
        if not by_name:
            sweep_here(folder, store, inputs, on_status=on_status)
        elif options.sweep.ray is None:
            suggestions = Suggestions(count) if count else None
            run(folder, store, workers=options.sweep.workers, search=suggestions, on_status=on_status)
        else:
            from pretrim.study.cluster import sweep_on_ray

            sweep_on_ray(folder, store, options.sweep.ray, on_status=on_status)


def _measure_all(folder: Path, store: Store, inputs: TrialInputs, target: Target, reporter: Reporter) -> None:
    """Export and measure every finished trial that was not measured yet. Failures are reported, and skipped."""
    from pretrim.study.recommend import machine_of

    trials = [trial for trial in store.trials() if trial.state == "done" and trial.measured is None]
    for number, trial in enumerate(trials, start=1):
        name = f"[{number}/{len(trials)}] {trial.spec.name}, seed {trial.spec.seed}"
        try:
            record = _measure(folder, store, inputs, trial, target, reporter)
        except PretrimError as error:
            reporter.say(f"{name}: not measured: {error}")
            continue
        reporter.say(f"{name}: {1e3 * record['latency_s']:.2f} ms on {machine_of(record)}")


def _measure(
    folder: Path, store: Store, inputs: TrialInputs, trial: Trial, target: Target, reporter: Reporter
) -> dict[str, Any]:
    """Export and measure one trial, and store the result: times and their conditions, as plain JSON."""
    from pretrim.deploy.artifact import read
    from pretrim.measure import measure
    from pretrim.runs.load import load
    from pretrim.study.folders import trial_folder

    run = trial_folder(folder, trial.key)
    assert target.runtime is not None  # only called with a runtime
    path = default_path(run, target.runtime, target.int8)
    if not path.exists():
        source: ModelSource | None = inputs.dense.source
        network = load(run, model=source if not isinstance(source, str) or ".py" in source else None)
        deliver(Run.opened(run, network, inputs.data, inputs.task), target, reporter)
    artifact = read(path)
    measurement = measure([artifact])[0]
    record = {
        "latency_s": measurement.latency.median_s,
        "p90_s": measurement.latency.p90_s,
        "runtime": measurement.runtime,
        "data_type": measurement.data_type,
        "provider": measurement.provider,
        "threads": measurement.threads,
        "file_bytes": measurement.file_bytes,
        "energy_j": measurement.energy_j,
        "proof": dict(artifact.proof),
        "machine": dict(measurement.machine),
    }
    store.measured(trial.key, record)
    return record

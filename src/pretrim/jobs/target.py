"""The target of a network: board and runtime, and what they imply for limits, rounding, data type and latency."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrim.devices import APPLICATION_SHARE, Board, board
from pretrim.errors import BudgetError, UsageError, first_of, shown

from .options import Amount, Search, TargetOptions
from .reporter import Reporter, Silent

if TYPE_CHECKING:
    from pretrim.analysis.network import IntArray, Network
    from pretrim.cost.formula import Cost, DType
    from pretrim.deploy import RuntimeName
    from pretrim.latency import LatencyCost, LatencyKey
    from pretrim.latency.board_systems import System
    from pretrim.measure.run import Runner
    from pretrim.measure.ssh import Host
    from pretrim.models.dense import DenseModel

DTYPE: DType = "float32"
ROUND_TO = 8
TIMED_BY: RuntimeName = "litert"
"""Default runtime for measuring latencies"""
THREADS = 1


@dataclass(frozen=True)
class Target:
    """Where a network is to run.

    Attributes:
        board: the device; None if none was named.
        limits: limits by quantity, the user's and the board's.
        dtype: data type in which bytes are counted, and of exported artifacts.
        round_to: rounding step: filters are kept in multiples of it.
        runtime: the requested runtime, or the board's; None if neither was named.
        timed_by: the runtime whose latency is measured; None if no latency is measured.
        host: the machine to measure latencies on; None: this one.
        estimate: whether this machine's latency is used as an estimate of the board's.
        predicted: whether a latency is needed that is predicted from public measurements, as for microcontrollers.
        on_board: the runtime on the board, with its version, as in the public measurements; None if none was named.
    """

    board: Board | None
    limits: Mapping[str, Amount]
    dtype: DType
    round_to: int
    runtime: RuntimeName | None
    timed_by: RuntimeName | None = None
    host: Host | None = None
    estimate: bool = False
    predicted: bool = False
    on_board: str | None = None

    @property
    def is_microcontroller(self) -> bool:
        """Whether the board runs networks from flash, without an operating system."""
        return self.board is not None and self.board.kind == "microcontroller"

    @property
    def int8(self) -> bool:
        """Whether artifacts are int8: they have the data type in which limits are counted."""
        return self.dtype == "int8"

    @property
    def signed(self) -> bool:
        """Whether int8 ONNX files use the types of ARM's kernels: all boards are ARM computers or microcontrollers."""
        return self.board is not None

    @property
    def label(self) -> str | None:
        """Human-readable description of what measured latencies hold for; None if none is measured."""
        if self.timed_by is None:
            return None
        from pretrim.deploy import TITLES

        place = "this machine"
        if self.host is not None:
            place = self.board.name if self.board is not None else self.host.name
        elif self.board is not None:
            place = f"{platform.machine()} estimate" if self.estimate else self.board.name
        return place if self.timed_by == TIMED_BY else f"{place}, {TITLES[self.timed_by]}"

    def costs(self, dense: DenseModel, reporter: Reporter) -> dict[str, Cost]:
        """Return the planner's extra cost functions: a microcontroller's arena, and the latency if needed."""
        costs = self.costs_on_board(dense.network)
        if self.timed_by is not None:
            cost = _measured(self, dense, reporter)
            costs[cost.name] = cost
        return costs

    def costs_on_board(self, network: Network) -> dict[str, Cost]:
        """Return the cost functions that depend on a microcontroller. Raises UsageError for a time that is unknown."""
        if self.board is None or not self.is_microcontroller:
            return {}
        from pretrim.latency.on_board import costs_on

        return costs_on(network, self.board, self.dtype, self.on_board, timed=self.predicted)

    def times(self, network: Network, widths: Mapping[str, IntArray], latencies: Mapping[str, int]) -> list[Any]:
        """Return all known times of a network on this target, as plain JSON with the conditions they hold for.

        Args:
            network: the analysed network.
            widths: the widths to time, by name: ``{"dense": ..., "slim": ...}``.
            latencies: measured nanoseconds by the same names, if this target is measured.
        """
        if self.timed_by is not None:
            return [_measured_record(self, latencies)]
        if self.board is None or not self.is_microcontroller:
            return []
        from pretrim.latency.board_time import board_time
        from pretrim.latency.on_board import systems_to_show

        systems = systems_to_show(self.board, self.dtype, self.on_board)
        times = [board_time(network, self.board, system.title, self.dtype) for system in systems]
        return [time.record({name: int(time.cost(at)) for name, at in widths.items()}) for time in times]


def find_target(
    options: TargetOptions, limits: Mapping[str, Amount], search: Search, *, exports: bool = True
) -> Target:
    """Resolve the target: what was not set comes from the board.

    Args:
        options: where the network is to run.
        limits: the user's limits, by quantity.
        search: search options; their rounding overrides the board's, and mode ``latency`` needs a latency.
        exports: whether an artifact will be exported, so that the runtime's packages must be installed.

    Raises UsageError for an unknown board or runtime, and for options that contradict each other.
    """
    device = None if options.device is None else board(options.device)
    all_limits = dict(limits)
    if device is None and options.application is not None:
        raise UsageError("--application needs --device: name the board.")
    if device is not None:
        all_limits = {**_limits_of(device, options.application, bool(all_limits)), **all_limits}
    is_micro = device is not None and device.kind == "microcontroller"
    needs_latency = "latency" in all_limits or "latency_ns" in all_limits or search.mode == "latency"
    predicted = is_micro and needs_latency and not options.estimate
    dtype = data_type_of(options)
    system = _system(options, device, dtype, predicted) if is_micro else None
    runtime = _runtime(options if system is None else replace(options, runtime=None), device, exports)
    target = Target(
        board=device,
        limits=all_limits,
        dtype=dtype,
        round_to=_round_to(search, device),
        runtime=runtime,
        timed_by=_timed_by(options, runtime, device) if needs_latency and not predicted else None,
        host=_host(options),
        estimate=options.estimate,
        predicted=predicted,
        on_board=None if system is None else system.title,
    )
    _check(target, options, needs_latency)
    return target


def one_data_type(dtype: DType | None, int8: bool | None, default: DType) -> DType:
    """Return the single data type used both for counting bytes and for exported files.

    Args:
        dtype: value of ``--dtype``; None if not set.
        int8: True for ``--int8``, False for ``--no-int8``; None if neither was set.
        default: data type if nothing was set.

    Raises UsageError if the two options contradict each other.

    >>> one_data_type(None, True, "float32"), one_data_type(None, False, "int8"), one_data_type(None, None, "int8")
    ('int8', 'float32', 'int8')
    """
    if int8 is None or dtype is None:
        implied: DType = default if int8 is None else "int8" if int8 else "float32"
        return dtype or implied
    if int8 != (dtype == "int8"):
        option = "--int8" if int8 else "--no-int8"
        raise UsageError(
            f"Expected one data type for limits and exported files, but got {option} and --dtype {dtype}: leave out "
            f"one of them."
        )
    return dtype


def data_type_of(options: TargetOptions) -> DType:
    """Return the data type of limits and files: as requested, or the microcontroller's own, or float32 elsewhere.

    Raises UsageError for contradictory types, and for float16 with a board or runtime: no file is exported in it.
    """
    device = None if options.device is None else board(options.device)
    is_micro = device is not None and device.kind == "microcontroller"
    default: DType = device.data_type if is_micro else DTYPE  # type: ignore[union-attr,assignment]  # it is one
    dtype = one_data_type(options.dtype, options.int8, default)
    if dtype == "float16" and (device is not None or options.runtime is not None):
        place = device.name if device is not None else options.runtime
        raise UsageError(
            f"Expected --dtype float32 or int8 for {place}, but got 'float16': files are exported in float32 or int8."
        )
    return dtype


def _system(options: TargetOptions, device: Board | None, dtype: str, predicted: bool) -> System | None:
    """Find the public measurements of a microcontroller for the named runtime; None if no time is needed.

    Raises UsageError if there are none for this board, runtime and data type; the message lists those that exist.
    """
    from pretrim.deploy.runtimes import RUNTIMES
    from pretrim.latency.board_systems import find_system, known_runtimes

    assert device is not None  # a microcontroller
    known = known_runtimes(device, dtype) if predicted else ()
    if options.runtime in RUNTIMES and options.runtime != "litert" and known:
        raise UsageError(
            f"{device.name} is a microcontroller, which runs litert, not {options.runtime}: use --runtime to name the "
            f"one whose time counts, one of {', '.join(known)}."
        )
    if options.runtime in RUNTIMES and not (predicted and options.runtime == "litert"):
        return None  # other errors in it are raised by `_runtime`
    if options.runtime is None and known:
        raise UsageError(
            f"{device.name} is a microcontroller, whose latency cannot be measured from here, only predicted: add "
            f"--runtime, one of {', '.join(known)}."
        )
    return find_system(device, options.runtime, dtype) if predicted or options.runtime is not None else None


def is_on_board(options: TargetOptions) -> bool:
    """Whether a microcontroller's runtime was named, so that its time is shown even without a latency limit."""
    from pretrim.deploy.runtimes import RUNTIMES

    return options.device is not None and options.runtime is not None and options.runtime not in RUNTIMES


def _round_to(search: Search, device: Board | None) -> int:
    if search.round_to is not None:
        return search.round_to
    return device.round_to if device is not None else ROUND_TO


def _limits_of(device: Board, application: float | None, has_other_limits: bool) -> dict[str, Amount]:
    """Return a board's own limits. Raises BudgetError if there are no limits at all, and UsageError if an application's
    share is given for a board without limits."""
    if application is not None and device.kind != "microcontroller":
        raise UsageError(
            f"--application is a share of a microcontroller's flash and RAM, of which {device.name} makes no limits: "
            f"leave it out."
        )
    limits = device.limits(APPLICATION_SHARE if application is None else application)
    if not limits and not has_other_limits:
        raise BudgetError(
            f"No limit given: {device.name} has ample RAM ({device.ram_bytes >> 20:,} MiB); add one, e.g. "
            f"`--macs 0.5x`."
        )
    return dict(limits)


def _runtime(options: TargetOptions, device: Board | None, exports: bool) -> RuntimeName | None:
    """Return the runtime by name. Raises UsageError if it is unknown or, when exporting, not installed."""
    from pretrim.deploy.runtimes import RUNTIMES
    from pretrim.latency.board_systems import TITLES

    name = options.runtime or (device.runtime if device is not None else None)
    if name is None:
        if exports and options.int8 is not None:
            raise UsageError("--int8 needs --runtime or --device: name the runtime or the board.")
        return None
    if name not in RUNTIMES:
        if name.partition(" ")[0] in TITLES:
            raise UsageError(f"{name} runs on microcontrollers: name the board by --device.")
        raise UsageError(f"Expected --runtime to be one of {', '.join(RUNTIMES)}, but got {shown(name)}.")
    if device is not None and device.kind == "microcontroller" and name != "litert":
        raise UsageError(
            f"{device.name} is a microcontroller, which runs litert, not {name}: leave out --runtime, or name the one "
            f"whose time counts (`pretrim devices {device.name}` lists them)."
        )
    if exports:
        from pretrim.deploy import check_installed

        check_installed(name)
    return name


def _timed_by(options: TargetOptions, runtime: RuntimeName | None, device: Board | None) -> RuntimeName:
    """Return the runtime whose latency table is used to plan: ExecuTorch has LiteRT's CPU kernels (XNNPACK)."""
    from pretrim.deploy import check_installed

    timed_by: RuntimeName = "onnx" if runtime == "onnx" else TIMED_BY
    check_installed(timed_by)
    return timed_by


def _host(options: TargetOptions) -> Host | None:
    if options.ssh is None:
        return None
    from pretrim.measure.ssh import Host

    return Host(options.ssh, options.remote_python or "python3", options.ssh_config)


def _check(target: Target, options: TargetOptions, needs_latency: bool) -> None:
    """Raise UsageError for latency options when no latency is needed, and for latencies that cannot be measured."""
    if not needs_latency:
        if target.host is not None or target.estimate:
            raise UsageError("--ssh and --estimate need a latency: add --latency LIMIT or --mode latency.")
        return
    if target.predicted and target.host is not None and target.board is not None:
        raise UsageError(
            f"{target.board.name} is a microcontroller, whose latency cannot be measured from here: leave out --ssh, "
            f"public measurements predict it."
        )
    if target.dtype not in ("float32", "int8"):
        raise UsageError(f"Expected --dtype float32 or int8 for a latency, but got {shown(target.dtype)}.")


def _measured(target: Target, dense: DenseModel, reporter: Reporter) -> LatencyCost:
    """Return the latency cost of a network on a target. A device's latency table is kept and reused once made.

    Raises:
        UsageError: there is no table for the device, and no way to make one; this machine's is never used silently.
        MeasureError: the measurement failed.
    """
    from pretrim.latency import load_table, measured_cost
    from pretrim.latency.cost import key_of
    from pretrim.latency.table import ALIGNED

    if target.runtime == "executorch":
        reporter.say("note: latency is that of LiteRT, whose kernels on a CPU are ExecuTorch's too (XNNPACK)")
    key, runner = _table_and_runner(target, reporter)
    table = load_table(key)
    is_known = table is not None and key_of(dense.network) in table.corrections
    if target.board is not None and target.host is None and not target.estimate and not is_known:
        raise UsageError(
            f"No latencies of {target.board.name} are known for this network: add --ssh USER@HOST to measure there, or "
            f"--estimate to use this machine's, labelled so."
        )
    title = f"latency of {dense.name} on {target.label}"
    with reporter.counting(title) if not is_known else _no_progress() as progress:
        cost = measured_cost(dense.network, dense.module, key, label=target.label, ask=runner, progress=progress)
    if cost.left_out:
        reporter.say(f"note: layers without a latency of their own: {first_of(cost.left_out)}")
    if cost.aligned > max(target.round_to, ALIGNED):
        step = cost.aligned
        reporter.say(f"note: kernels pad widths to multiples of {step}: --round-to {step} wastes none")
    return cost


def _measured_record(target: Target, latencies: Mapping[str, int]) -> dict[str, Any]:
    """Return a measured time as plain JSON, with the conditions it holds for."""
    from pretrim.deploy import TITLES

    key = _table_and_runner(target, Silent())[0]
    threads = f"{key.threads} thread{'s' if key.threads > 1 else ''}"
    label = f"{key.device}, {TITLES[key.runtime]}, {key.data_type}, {threads}: layers measured one by one"
    if target.estimate and target.board is not None:
        label += f"; an estimate, not of {target.board.name}"
    record: dict[str, Any] = {
        "source": "measured layers",
        "machine": key.device,
        "runtime": key.runtime,
        "data_type": key.data_type,
        "threads": key.threads,
        "label": label,
    }
    return record | {f"{name}_ns": int(ns) for name, ns in latencies.items()}


def _table_and_runner(target: Target, reporter: Reporter) -> tuple[LatencyKey, Runner]:
    """Return the key of the target's latency table, and the runner that measures missing entries."""
    from pretrim.latency import PROVIDERS, LatencyKey
    from pretrim.measure.run import here
    from pretrim.measure.worker import cpu_name

    assert target.timed_by is not None  # only called if a latency is measured
    device: str = cpu_name()
    runner: Runner = here
    if target.host is not None:
        device, runner = target.board.name if target.board is not None else target.host.name, target.host
    elif target.board is not None and not target.estimate:
        device, runner = target.board.name, _refuse  # entries missing in its table are never measured here
    elif target.board is not None:
        reporter.say(f"note: latency is an estimate: this machine's ({device}), not that of {target.board.name}")
    on_board = target.board is not None and not target.estimate
    signed = on_board and target.timed_by == "onnx" and target.dtype == "int8"
    return LatencyKey(device, target.timed_by, target.dtype, PROVIDERS[target.timed_by], THREADS, signed), runner


def _refuse(request: dict[str, Any], files: Sequence[Path]) -> str:
    raise UsageError("Some layers are missing in the device's table of latencies: add --ssh USER@HOST to measure them.")


def _no_progress() -> Any:
    from contextlib import nullcontext

    return nullcontext(lambda done, of: None)

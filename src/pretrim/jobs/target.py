"""Where a network is to run: the board, the runtime, and what they mean for limits, rounding, data type and latency."""

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
"""The runtime whose latency counts, where nobody names one"""
THREADS = 1


@dataclass(frozen=True)
class Target:
    """Where a network is to run.

    Attributes:
        board: the device; None where none was named.
        limits: by quantity, the user's and the board's.
        dtype: that bytes are counted in, and that artifacts have.
        round_to: filters are kept in multiples of it.
        runtime: that was asked for, or the board's; None where neither was named.
        timed_by: the runtime whose latency is measured; None where none is.
        host: the machine that latencies are measured on; None: this one.
        estimate: whether this machine's latency stands for the board's.
        predicted: whether a latency is needed that public measurements predict: that of a microcontroller.
        on_board: the runtime there, with its version, as public measurements name it; None where none was named.
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
        """Whether artifacts are int8: they have the data type that their limits are counted in."""
        return self.dtype == "int8"

    @property
    def signed(self) -> bool:
        """Whether int8 ONNX is to have the types of ARM's kernels: every board is ARM's or a microcontroller."""
        return self.board is not None

    @property
    def label(self) -> str | None:
        """What measured latencies are of, for people; None where none is measured."""
        if self.timed_by is None:
            return None
        from pretrim.deploy import TITLES

        where = "this machine"
        if self.host is not None:
            where = self.board.name if self.board is not None else self.host.name
        elif self.board is not None:
            where = f"{platform.machine()} estimate" if self.estimate else self.board.name
        return where if self.timed_by == TIMED_BY else f"{where}, {TITLES[self.timed_by]}"

    def costs(self, dense: DenseModel, reporter: Reporter) -> dict[str, Cost]:
        """What the planner is handed beside its formulas: a microcontroller's arena, and the latency where needed."""
        found = self.costs_on_board(dense.network)
        if self.timed_by is not None:
            cost = _measured(self, dense, reporter)
            found[cost.name] = cost
        return found

    def costs_on_board(self, network: Network) -> dict[str, Cost]:
        """What a microcontroller's own chip and runtime decide. Raises UsageError where a time is not known."""
        if self.board is None or not self.is_microcontroller:
            return {}
        from pretrim.latency.on_board import costs_on

        return costs_on(network, self.board, self.dtype, self.on_board, timed=self.predicted)

    def times(self, network: Network, widths: Mapping[str, IntArray], latencies: Mapping[str, int]) -> list[Any]:
        """Every time that is known of a network on this target, as plain JSON with what it holds for.

        Args:
            network: analysed.
            widths: of what is asked about, by name: ``{"dense": ..., "slim": ...}``.
            latencies: measured nanoseconds of the same, where the target is measured.
        """
        if self.timed_by is not None:
            return [_measured_record(self, latencies)]
        if self.board is None or not self.is_microcontroller:
            return []
        from pretrim.latency.board_time import board_time
        from pretrim.latency.on_board import systems_to_show

        systems = systems_to_show(self.board, self.dtype, self.on_board)
        found = [board_time(network, self.board, system.title, self.dtype) for system in systems]
        return [time.record({name: int(time.cost(at)) for name, at in widths.items()}) for time in found]


def find_target(
    options: TargetOptions, limits: Mapping[str, Amount], search: Search, *, exports: bool = True
) -> Target:
    """Put the board's figures in the place of what was not given.

    Args:
        options: where the network is to run.
        limits: what was asked for, by quantity.
        search: its rounding comes before the board's, and the mode latency needs a latency.
        exports: whether an artifact is made: then the runtime's packages have to be there.

    Raises UsageError for a board or runtime that is not known, and for options that contradict each other.
    """
    found = None if options.device is None else board(options.device)
    wanted = dict(limits)
    if found is None and options.application is not None:
        raise UsageError("--application needs --device: name the board.")
    if found is not None:
        wanted = {**_limits_of(found, options.application, bool(wanted)), **wanted}
    micro = found is not None and found.kind == "microcontroller"
    timed = "latency" in wanted or "latency_ns" in wanted or search.mode == "latency"
    predicted = micro and timed and not options.estimate
    dtype = data_type_of(options)
    system = _system(options, found, dtype, predicted) if micro else None
    runtime = _runtime(options if system is None else replace(options, runtime=None), found, exports)
    target = Target(
        board=found,
        limits=wanted,
        dtype=dtype,
        round_to=_round_to(search, found),
        runtime=runtime,
        timed_by=_timed_by(options, runtime, found) if timed and not predicted else None,
        host=_host(options),
        estimate=options.estimate,
        predicted=predicted,
        on_board=None if system is None else system.title,
    )
    _check(target, options, timed)
    return target


def one_data_type(dtype: DType | None, int8: bool | None, default: DType) -> DType:
    """The one data type that bytes are counted in and files are exported in.

    Args:
        dtype: of ``--dtype``; None where it was not given.
        int8: of ``--int8`` or ``--no-int8``; None where neither was given.
        default: where nothing was given.

    Raises UsageError for two that contradict each other.

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
    """Of limits and files on a target: a microcontroller's own, and float32 elsewhere, unless another is asked for.

    Raises UsageError for types that contradict each other, and for float16 where a file would be exported: none is.
    """
    found = None if options.device is None else board(options.device)
    is_micro = found is not None and found.kind == "microcontroller"
    default: DType = found.data_type if is_micro else DTYPE  # type: ignore[union-attr,assignment]  # it is one
    dtype = one_data_type(options.dtype, options.int8, default)
    if dtype == "float16" and (found is not None or options.runtime is not None):
        where = found.name if found is not None else options.runtime
        raise UsageError(
            f"Expected --dtype float32 or int8 for {where}, but got 'float16': files are exported in float32 or int8."
        )
    return dtype


def _system(options: TargetOptions, found: Board | None, dtype: str, predicted: bool) -> System | None:
    """The public measurements of a microcontroller that a runtime's name means; None where no time is asked for.

    Raises UsageError where nothing is known of this board with this runtime and data type; it lists what is known.
    """
    from pretrim.deploy.runtimes import RUNTIMES
    from pretrim.latency.board_systems import find_system, known_runtimes

    assert found is not None  # a microcontroller
    known = known_runtimes(found, dtype) if predicted else ()
    if options.runtime in RUNTIMES and options.runtime != "litert" and known:
        raise UsageError(
            f"{found.name} is a microcontroller, which runs litert, not {options.runtime}: name by --runtime the one "
            f"whose time is meant, of {', '.join(known)}."
        )
    if options.runtime in RUNTIMES and not (predicted and options.runtime == "litert"):
        return None  # what else it is wrong for, `_runtime` says
    if options.runtime is None and known:
        raise UsageError(
            f"{found.name} is a microcontroller, whose latency cannot be measured from here, only predicted: add "
            f"--runtime, one of {', '.join(known)}."
        )
    return find_system(found, options.runtime, dtype) if predicted or options.runtime is not None else None


def is_on_board(options: TargetOptions) -> bool:
    """Whether a runtime of a microcontroller was named, whose time is told without a limit on it too."""
    from pretrim.deploy.runtimes import RUNTIMES

    return options.device is not None and options.runtime is not None and options.runtime not in RUNTIMES


def _round_to(search: Search, found: Board | None) -> int:
    if search.round_to is not None:
        return search.round_to
    return found.round_to if found is not None else ROUND_TO


def _limits_of(found: Board, application: float | None, others: bool) -> dict[str, Amount]:
    """A board's own limits. Raises BudgetError where it has none and nothing else is asked for, and UsageError for a
    share of what is no limit."""
    if application is not None and found.kind != "microcontroller":
        raise UsageError(
            f"--application is a share of a microcontroller's flash and RAM, of which {found.name} makes no limits: "
            f"leave it out."
        )
    own = found.limits(APPLICATION_SHARE if application is None else application)
    if not own and not others:
        raise BudgetError(
            f"No limit given: {found.name} has ample RAM ({found.ram_bytes >> 20:,} MiB); add one, e.g. `--macs 0.5x`."
        )
    return dict(own)


def _runtime(options: TargetOptions, found: Board | None, exports: bool) -> RuntimeName | None:
    """The runtime by name. Raises UsageError for one that is not known or, if it exports, not installed."""
    from pretrim.deploy.runtimes import RUNTIMES
    from pretrim.latency.board_systems import TITLES

    name = options.runtime or (found.runtime if found is not None else None)
    if name is None:
        if exports and options.int8 is not None:
            raise UsageError("--int8 needs --runtime or --device: name the runtime or the board.")
        return None
    if name not in RUNTIMES:
        if name.partition(" ")[0] in TITLES:
            raise UsageError(f"{name} runs on microcontrollers: name the board by --device.")
        raise UsageError(f"Expected --runtime to be one of {', '.join(RUNTIMES)}, but got {shown(name)}.")
    if found is not None and found.kind == "microcontroller" and name != "litert":
        raise UsageError(
            f"{found.name} is a microcontroller, which runs litert, not {name}: leave out --runtime, or name the one "
            f"whose time is meant (`pretrim devices {found.name}` lists them)."
        )
    if exports:
        from pretrim.deploy import check_installed

        check_installed(name)
    return name


def _timed_by(options: TargetOptions, runtime: RuntimeName | None, found: Board | None) -> RuntimeName:
    """The runtime whose table of latencies a plan is made by: ExecuTorch's kernels on a CPU are LiteRT's (XNNPACK)."""
    from pretrim.deploy import check_installed

    timed_by: RuntimeName = "onnx" if runtime == "onnx" else TIMED_BY
    check_installed(timed_by)
    return timed_by


def _host(options: TargetOptions) -> Host | None:
    if options.ssh is None:
        return None
    from pretrim.measure.ssh import Host

    return Host(options.ssh, options.remote_python or "python3", options.ssh_config)


def _check(target: Target, options: TargetOptions, timed: bool) -> None:
    """Raises UsageError for options about a latency that nobody asked for, or that cannot be had."""
    if not timed:
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
    """The latency of a network on a target. A device's own table, once made, is kept and taken again.

    Raises:
        UsageError: there is no table of the device, and no way to make one: never this machine's in silence.
        MeasureError: it cannot be measured.
    """
    from pretrim.latency import load_table, measured_cost
    from pretrim.latency.cost import key_of
    from pretrim.latency.table import ALIGNED

    if target.runtime == "executorch":
        reporter.say("note: latency is that of LiteRT, whose kernels on a CPU are ExecuTorch's too (XNNPACK)")
    key, runner = _where(target, reporter)
    known = load_table(key)
    is_known = known is not None and key_of(dense.network) in known.corrections
    if target.board is not None and target.host is None and not target.estimate and not is_known:
        raise UsageError(
            f"No latencies of {target.board.name} are known for this network: add --ssh USER@HOST to measure there, or "
            f"--estimate to use this machine's, labelled so."
        )
    what = f"latency of {dense.name} on {target.label}"
    with reporter.counting(what) if not is_known else _nothing() as progress:
        found = measured_cost(dense.network, dense.module, key, label=target.label, ask=runner, progress=progress)
    if found.left_out:
        reporter.say(f"note: layers without a latency of their own: {first_of(found.left_out)}")
    if found.aligned > max(target.round_to, ALIGNED):
        step = found.aligned
        reporter.say(f"note: kernels pad widths to multiples of {step}: --round-to {step} wastes none")
    return found


def _measured_record(target: Target, latencies: Mapping[str, int]) -> dict[str, Any]:
    """A measured time as plain JSON, with all that it holds for."""
    from pretrim.deploy import TITLES

    key = _where(target, Silent())[0]
    threads = f"{key.threads} thread{'s' if key.threads > 1 else ''}"
    said = f"{key.device}, {TITLES[key.runtime]}, {key.data_type}, {threads}: layers measured one by one"
    if target.estimate and target.board is not None:
        said += f"; an estimate, not of {target.board.name}"
    record: dict[str, Any] = {
        "source": "measured layers",
        "machine": key.device,
        "runtime": key.runtime,
        "data_type": key.data_type,
        "threads": key.threads,
        "label": said,
    }
    return record | {f"{name}_ns": int(ns) for name, ns in latencies.items()}


def _where(target: Target, reporter: Reporter) -> tuple[LatencyKey, Runner]:
    """Which table a target's latencies are in, and what measures what is missing in it."""
    from pretrim.latency import PROVIDERS, LatencyKey
    from pretrim.measure.run import here
    from pretrim.measure.worker import cpu_name

    assert target.timed_by is not None  # it is asked for where a latency is needed
    device: str = cpu_name()
    runner: Runner = here
    if target.host is not None:
        device, runner = target.board.name if target.board is not None else target.host.name, target.host
    elif target.board is not None and not target.estimate:
        device, runner = target.board.name, _refuse  # what is not in its table is never measured here
    elif target.board is not None:
        reporter.say(f"note: latency is an estimate: this machine's ({device}), not that of {target.board.name}")
    on_board = target.board is not None and not target.estimate
    signed = on_board and target.timed_by == "onnx" and target.dtype == "int8"
    return LatencyKey(device, target.timed_by, target.dtype, PROVIDERS[target.timed_by], THREADS, signed), runner


def _refuse(request: dict[str, Any], files: Sequence[Path]) -> str:
    raise UsageError("Some layers are missing in the device's table of latencies: add --ssh USER@HOST to measure them.")


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext(lambda done, of: None)

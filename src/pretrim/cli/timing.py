"""The latency that a plan is made by: of the device, measured there, or of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrim.errors import UsageError

from .options import RUNTIMES, one_of
from .progress import say

if TYPE_CHECKING:
    from pretrim.deploy import RuntimeName
    from pretrim.latency import LatencyCost
    from pretrim.measure.run import Runner

    from .subject import Subject
    from .target import Target

RUNTIME: RuntimeName = "litert"
THREADS = 1


@dataclass(frozen=True)
class Timing:
    """How latencies are found.

    Attributes:
        needed: whether a limit or the mode asks for them.
        runtime: whose: that which the network is for, or LiteRT.
        ssh: the machine to measure on; None: this one.
        python: the interpreter there.
        config: of ssh.
        estimate: take this machine's for the device's.
    """

    needed: bool
    runtime: RuntimeName = RUNTIME
    ssh: str | None = None
    python: str = "python3"
    config: Path | None = None
    estimate: bool = False


def find_timing(
    latency: str | None,
    mode: str,
    to: str | None,
    ssh: str | None,
    python: str,
    config: Path | None,
    estimate: bool,
    target: Target,
) -> Timing:
    """What the options ask for.

    Raises UsageError where they contradict each other, and for a microcontroller, which nothing here can time.
    """
    if to is not None:
        one_of("--to", to, RUNTIMES)
    needed = latency is not None or mode == "latency"
    if not needed:
        if ssh is not None or estimate:
            raise UsageError("Expected --latency or --mode latency with --ssh and --estimate, but got neither.")
        return Timing(needed=False)
    from pretrim.deploy import check_installed
    from pretrim.measure.ssh import Host

    board = target.board
    if board is not None and board.kind == "microcontroller" and not estimate:
        raise UsageError(
            f"Expected a device that Python can time, but {board.name} is a microcontroller: leave out the latency, or "
            f"take this machine's with --estimate."
        )
    if target.dtype not in ("float32", "int8"):
        raise UsageError(f"Expected --dtype float32 or int8 for a latency, but got {target.dtype!r}.")
    if ssh is not None:
        Host(ssh, python, config)  # it checks them
    wanted = to or (target.board.runtime if target.board is not None else RUNTIME)
    runtime = table_of(wanted)
    check_installed(runtime)
    return Timing(needed, runtime, ssh, python, config, estimate)


def table_of(wanted: str) -> RuntimeName:
    """The runtime whose table of latencies a network for a runtime is planned by; said where it is another's."""
    if wanted == "executorch":
        say("note: latency is that of LiteRT, whose kernels on a CPU are ExecuTorch's too (XNNPACK)")
    return "onnx" if wanted == "onnx" else RUNTIME


def measured(timing: Timing, subject: Subject, target: Target) -> LatencyCost | None:
    """The latency of the subject as a cost. A device's own table, once made, is kept and taken again.

    Raises:
        UsageError: there is no table of the device, and no way to make one: never this machine's in silence.
        MeasureError: it cannot be measured.
    """
    if not timing.needed:
        return None
    from pretrim.deploy import TITLES
    from pretrim.latency import PROVIDERS, LatencyKey, load_table, measured_cost
    from pretrim.latency.cost import key_of
    from pretrim.latency.table import ALIGNED
    from pretrim.measure.run import here
    from pretrim.measure.ssh import Host
    from pretrim.measure.worker import cpu_name

    from .progress import count_bar

    ask: Runner = here
    device, label = cpu_name(), "this machine"
    if timing.ssh is not None:
        device = target.board.name if target.board is not None else timing.ssh
        label, ask = device, Host(timing.ssh, timing.python, timing.config)
    elif target.board is not None and not timing.estimate:
        device = label = target.board.name
        ask = _refuse  # what is not in its table is never measured here
    elif target.board is not None:
        import platform

        label = f"{platform.machine()} estimate"
        say(f"note: latency is an estimate: this machine's ({device}), not that of {target.board.name}")
    # As `deliver` exports for a board, which is ARM's.
    on_board = target.board is not None and not timing.estimate
    signed = on_board and timing.runtime == "onnx" and target.dtype == "int8"
    place = LatencyKey(device, timing.runtime, target.dtype, PROVIDERS[timing.runtime], THREADS, signed)
    known = load_table(place)
    is_known = known is not None and key_of(subject.network) in known.corrections
    if target.board is not None and timing.ssh is None and not timing.estimate and not is_known:
        raise UsageError(
            f"Expected latencies of {target.board.name} for this network, but none were measured: add --ssh "
            f"USER@HOST of the board, or --estimate to take this machine's, labelled so."
        )
    what = f"latency of {subject.reference.name} on {label}, {TITLES[timing.runtime]}"
    label = label if timing.runtime == RUNTIME else f"{label}, {TITLES[timing.runtime]}"
    with nullcontext(lambda done, of: None) if is_known else count_bar(what) as progress:
        found = measured_cost(subject.network, subject.module, place, label=label, ask=ask, progress=progress)
    if found.left_out:
        rest = f" and {len(found.left_out) - 3} more" if len(found.left_out) > 3 else ""
        say(f"note: layers without a latency of their own: {', '.join(found.left_out[:3])}{rest}")
    if found.aligned > max(target.round_to, ALIGNED):
        say(f"note: kernels there pad widths to multiples of {found.aligned}: --round-to {found.aligned} wastes none")
    return found


def _refuse(request: dict[str, Any], files: Sequence[Path]) -> str:
    raise UsageError(
        "Expected a complete table of latencies of the device, but layers are missing: add --ssh USER@HOST."
    )


def with_label(device: Mapping[str, Any] | None, cost: LatencyCost | None) -> dict[str, Any] | None:
    """What a plan says of its device, with what its latency was measured on."""
    if cost is None:
        return None if device is None else dict(device)
    return {**(device or {}), "latency_on": cost.label}

"""What a network takes on a microcontroller: the arena of its 32-bit interpreter, and its time, as records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pretrim.analysis.network import IntArray, Network
from pretrim.cost.formula import Cost, DType
from pretrim.cost.microcontroller import ArenaCost, Kernels, arena_cost
from pretrim.devices import Board

from .board_systems import Prediction, System, Work, find_system, known_runtimes
from .board_time import board_time, parts_of, work_of

MOST_SHOWN = 3
"""runtimes whose times are shown where none was named"""
TFLITE_LOADERS = ("st-edge-ai", "tflm")
"""Runtimes that anybody can run an exported ``.tflite`` with: shown first"""


def kernels_of(board: Board, runtime: str | None = None) -> Kernels:
    """Which kernels an interpreter for microcontrollers is taken to have on a board: CMSIS-NN's on a Cortex-M.

    Args:
        board: a microcontroller.
        runtime: as its user named it; ``tflm-reference`` has reference kernels everywhere.
    """
    return "cmsis-nn" if board.has_cmsis_nn and not (runtime or "").startswith("tflm-reference") else "reference"


def arena_text(board: Board, runtime: str | None = None) -> str:
    """What the figure of the arena counts, and what it does not, in a sentence."""
    what = "RAM is the arena of TensorFlow Lite for Microcontrollers with 32-bit pointers"
    if kernels_of(board, runtime) == "cmsis-nn":
        what += ", with the memory that CMSIS-NN's kernels work in"
    elif board.has_helium:
        what += ", without the memory that CMSIS-NN's kernels for Helium work in"
    elif board.core_name.startswith("Xtensa") or "RISC-V" in board.core_name:
        what += ", without the memory that ESP-NN's kernels work in"
    if runtime is not None and not runtime.startswith(("tflm", "litert")):
        what += f"; {runtime} plans its memory otherwise"
    return f"{what}."


def arena_on(network: Network, board: Board, dtype: DType, runtime: str | None = None) -> ArenaCost:
    """The tensor arena on a board, as a function of widths.

    Args:
        network: analysed.
        board: a microcontroller.
        dtype: of the activations.
        runtime: as its user named it (`kernels_of`).
    """
    return arena_cost(network, dtype, pointer_bytes=4, kernels=kernels_of(board, runtime))


def runtimes_to_show(board: Board, dtype: str) -> list[str]:
    """Runtimes with a known time on a board, where none was named: those that load a ``.tflite``, a version of each."""
    by_name: dict[str, str] = {}
    for title in known_runtimes(board, dtype):
        by_name.setdefault(title.partition(" ")[0], title)
    first = sorted(by_name, key=lambda name: not name.startswith(TFLITE_LOADERS))
    return [by_name[name] for name in first[:MOST_SHOWN]]


def systems_to_show(board: Board, dtype: str, runtime: str | None = None) -> list[System]:
    """The runtime that was named, or those that are known; none if none is.

    Raises UsageError for a runtime of which nothing is known on this board.

    Args:
        board: the board.
        dtype: of the network.
        runtime: its name; None: all that are known.
    """
    if runtime is not None:
        return [find_system(board, runtime, dtype)]
    return [find_system(board, title, dtype) for title in runtimes_to_show(board, dtype)]


def costs_on(
    network: Network, board: Board, dtype: DType, runtime: str | None = None, *, timed: bool = False
) -> dict[str, Cost]:
    """What a microcontroller's own chip and runtime decide, for the planner.

    Args:
        network: analysed.
        board: a microcontroller.
        dtype: that bytes are counted in.
        runtime: as its user named it.
        timed: whether its time is needed too.

    Raises UsageError where the time is not known.
    """
    found: dict[str, Cost] = {"arena_bytes": arena_on(network, board, dtype, runtime)}
    return {**found, "latency_ns": board_time(network, board, runtime, dtype).cost} if timed else found


def sketch(network: Network, widths: IntArray) -> dict[str, Any]:
    """What any board has to know of a network in int8 to tell its RAM and its time, as plain JSON.

    ``arena_bytes`` by the kernels, ``work`` by kind of operator, ``left_out``: operators without a known time.
    """
    work = work_of(network, widths)
    arenas = {kind: arena_cost(network, "int8", pointer_bytes=4, kernels=kind) for kind in get_args(Kernels)}
    return {
        "arena_bytes": {kind: int(arena(widths)) for kind, arena in arenas.items()},
        "work": {"macs": dict(work.macs), "outputs": dict(work.outputs)},
        "left_out": list(parts_of(network)[1]),
    }


def predict(board: Board, system: System, sketched: Mapping[str, Any]) -> tuple[Prediction, int]:
    """The time of a network by its `sketch`: what it rests on, and nanoseconds.

    Args:
        board: the board.
        system: the measurements.
        sketched: the work of the network, by kind of operator.
    """
    work = Work(**sketched["work"])
    basis = Prediction.of(board, system, {*work.macs, *work.outputs}, sketched["left_out"])
    return basis, basis.ns(work)

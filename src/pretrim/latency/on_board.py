"""What a network takes on a microcontroller: the arena of its 32-bit interpreter, and its time, as records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pretrim.analysis.network import Network
from pretrim.cost.formula import DType
from pretrim.cost.microcontroller import ArenaCost, Kernels, arena_cost
from pretrim.devices import Board
from pretrim.errors import UsageError

from .board_systems import MICRO, core_of, known_runtimes
from .board_time import BoardTime, board_time

HELIUM = ("Cortex-M55", "Cortex-M85")
"""Cores whose CMSIS-NN kernels work in memory that is not counted"""
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
    core = core_of(board)
    has_cmsis = core.startswith("Cortex-M") and core not in HELIUM
    return "cmsis-nn" if has_cmsis and not (runtime or "").startswith("tflm-reference") else "reference"


def arena_text(board: Board, runtime: str | None = None) -> str:
    """What the figure of the arena counts, and what it does not, in a sentence."""
    what = "RAM is the arena of TensorFlow Lite for Microcontrollers with 32-bit pointers"
    if kernels_of(board, runtime) == "cmsis-nn":
        what += ", with the memory that CMSIS-NN's kernels work in"
    elif core_of(board) in HELIUM:
        what += ", without the memory that CMSIS-NN's kernels for Helium work in"
    elif core_of(board).startswith("Xtensa") or "RISC-V" in core_of(board):
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


def times_on(network: Network, board: Board, dtype: str, runtime: str | None = None) -> list[BoardTime]:
    """The time of a network on a board by the runtime that was named, or by those that are known; none if none is.

    Args:
        network: analysed.
        board: a microcontroller.
        dtype: int8 or float32.
        runtime: as its user named it.

    Raises UsageError for a runtime of which nothing is known on this board.
    """
    if runtime is not None:
        return [board_time(network, board, runtime, dtype)]
    try:
        return [board_time(network, board, title, dtype) for title in runtimes_to_show(board, dtype)]
    except UsageError:
        return []


def time_record(time: BoardTime, values: Mapping[str, int]) -> dict[str, Any]:
    """A predicted time as plain JSON, with all that it holds for.

    Args:
        time: the prediction.
        values: nanoseconds by what they are of: ``{"dense": 1_000_000, "slim": 500_000}``.
    """
    record: dict[str, Any] = {
        "source": "predicted",
        "machine": time.board,
        "processor": f"{time.core}, {time.clock_hz / MICRO:g} MHz",
        "runtime": time.system.title,
        "data_type": time.system.dtype,
        "threads": 1,
        "networks": time.system.networks,
        "label": time.label,
        "left_out": list(time.left_out),
    }
    for name, ns in values.items():
        record[f"{name}_ns"] = int(ns)
        record[f"{name}_range_ns"] = list(time.range_of(ns))
        record[f"{name}_uj"] = time.energy_uj(ns)
    return record

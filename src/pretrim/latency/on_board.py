"""Memory and latency of a network on a microcontroller: the arena of a 32-bit interpreter, and predicted times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pretrim.analysis.network import IntArray, Network
from pretrim.cost.formula import Cost, DType
from pretrim.cost.microcontroller import ArenaCost, Kernels, arena_cost
from pretrim.devices import Board

from .board_systems import Prediction, System, Work, find_system, known_runtimes
from .board_time import board_time, parts_of, work_of

MAX_SHOWN = 3
"""Number of runtimes whose times are shown if the user names none."""
TFLITE_LOADERS = ("st-edge-ai", "tflm")
"""Runtimes that load an exported ``.tflite`` and are open to everyone: shown first."""


def kernels_of(board: Board, runtime: str | None = None) -> Kernels:
    """The kernels that an interpreter is assumed to use on a board: CMSIS-NN's on a Cortex-M.

    Args:
        board: a microcontroller.
        runtime: name given by the user; ``tflm-reference`` has reference kernels everywhere.
    """
    return "cmsis-nn" if board.has_cmsis_nn and not (runtime or "").startswith("tflm-reference") else "reference"


def arena_text(board: Board, runtime: str | None = None) -> str:
    """A sentence on text the arena size includes and text it does not."""
    text = "RAM is the arena of TensorFlow Lite for Microcontrollers with 32-bit pointers"
    if kernels_of(board, runtime) == "cmsis-nn":
        text += ", with the memory that CMSIS-NN's kernels work in"
    elif board.has_helium:
        text += ", without the memory that CMSIS-NN's kernels for Helium work in"
    elif board.core_name.startswith("Xtensa") or "RISC-V" in board.core_name:
        text += ", without the memory that ESP-NN's kernels work in"
    if runtime is not None and not runtime.startswith(("tflm", "litert")):
        text += f"; {runtime} plans its memory differently"
    return f"{text}."


def arena_on(network: Network, board: Board, dtype: DType, runtime: str | None = None) -> ArenaCost:
    """The size of the tensor arena on a board as a function of widths.

    Args:
        network: the analysed network.
        board: a microcontroller.
        dtype: data type of the activations.
        runtime: name given by the user (`kernels_of`).
    """
    return arena_cost(network, dtype, pointer_bytes=4, kernels=kernels_of(board, runtime))


def runtimes_to_show(board: Board, dtype: str) -> list[str]:
    """Runtimes to show if the user names none, one version of each; those that load a ``.tflite`` come first."""
    by_name: dict[str, str] = {}
    for title in known_runtimes(board, dtype):
        by_name.setdefault(title.partition(" ")[0], title)
    loaders_first = sorted(by_name, key=lambda name: not name.startswith(TFLITE_LOADERS))
    return [by_name[name] for name in loaders_first[:MAX_SHOWN]]


def systems_to_show(board: Board, dtype: str, runtime: str | None = None) -> list[System]:
    """The system of the named runtime, or those of `runtimes_to_show`, which may be empty.

    Raises UsageError for a named runtime without measurements on this board.

    Args:
        board: the board.
        dtype: data type of the network.
        runtime: name of the runtime; None for those to show by default.
    """
    if runtime is not None:
        return [find_system(board, runtime, dtype)]
    return [find_system(board, title, dtype) for title in runtimes_to_show(board, dtype)]


def costs_on(
    network: Network, board: Board, dtype: DType, runtime: str | None = None, *, timed: bool = False
) -> dict[str, Cost]:
    """The costs that depend on a microcontroller's chip and runtime, for the planner.

    Args:
        network: the analysed network.
        board: a microcontroller.
        dtype: data type that bytes are counted in.
        runtime: name given by the user.
        timed: whether to include the latency.

    Raises UsageError if the latency is not known.
    """
    costs: dict[str, Cost] = {"arena_bytes": arena_on(network, board, dtype, runtime)}
    return {**costs, "latency_ns": board_time(network, board, runtime, dtype).cost} if timed else costs


def sketch(network: Network, widths: IntArray) -> dict[str, Any]:
    """Summary of an int8 network from which the RAM and latency on any board follow, as plain JSON.

    ``arena_bytes`` by type of kernels, ``work`` by kind of operator, and ``left_out``: operators without a known time.
    """
    work = work_of(network, widths)
    arenas = {kernels: arena_cost(network, "int8", pointer_bytes=4, kernels=kernels) for kernels in get_args(Kernels)}
    return {
        "arena_bytes": {kernels: int(arena(widths)) for kernels, arena in arenas.items()},
        "work": {"macs": dict(work.macs), "outputs": dict(work.outputs)},
        "left_out": list(parts_of(network)[1]),
    }


def predict(board: Board, system: System, sketched: Mapping[str, Any]) -> tuple[Prediction, int]:
    """Predict the latency of a network from its `sketch`: the basis of the prediction, and nanoseconds.

    Args:
        board: the board.
        system: the fitted measurements.
        sketched: the sketch, with the work of the network by kind of operator.
    """
    work = Work(**sketched["work"])
    basis = Prediction.of(board, system, {*work.macs, *work.outputs}, sketched["left_out"])
    return basis, basis.ns(work)

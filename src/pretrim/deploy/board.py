"""Check an artifact for a microcontroller: does it fit, does the interpreter run it, and are the outputs the same?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrim.compat.optional import is_installed
from pretrim.cost.microcontroller import Kernels
from pretrim.devices import RUNTIME_FLASH_BYTES, Board
from pretrim.errors import UsageError

from . import litert, micro, vela
from .artifact import Artifact
from .graph import FileGraph, graph_of

IMAGES = 8
LARGEST_DIFFERENCE = 1
"""Largest difference of int8 outputs, in steps, from LiteRT's reference kernels, whose arithmetic TFLM shares. LiteRT's
XNNPACK kernels round differently: by 8 steps after the 20 layers of a ResNet."""


@dataclass(frozen=True)
class BoardArena:
    """The tensor arena of a file on a board.

    Attributes:
        total_bytes: size of the arena with 32-bit pointers, including the scratch buffers of the board's kernels.
        verified: whether the interpreter for microcontrollers ran the file here. If so, the activations take at least
            what it allocated, and its structures are scaled from those on this 64-bit host.
        host_bytes: size of the arena on this host; None if the interpreter was not run.
    """

    total_bytes: int
    verified: bool
    host_bytes: int | None


def arena_on(content: bytes, board: Board) -> BoardArena:
    """The tensor arena of a ``.tflite``'s bytes on a board.

    Raises:
        UsageError: LiteRT is not installed.
        ExportError: an operator is missing in the interpreter for microcontrollers.
    """
    return arena_on_each(content, [board])[board.name]


def arena_on_each(content: bytes, boards: Sequence[Board]) -> dict[str, BoardArena]:
    """Like `arena_on`, for several boards, by board name; the file is run once."""
    graph = graph_of(content)
    if (measured := micro.arena(content) if is_installed("tflite_micro") else None) is None:
        micro.check_operators(content)
    return {board.name: _arena(graph, measured, board) for board in boards}


def _arena(graph: FileGraph, measured: micro.Arena | None, board: Board) -> BoardArena:
    kernels: Kernels = "cmsis-nn" if board.has_cmsis_nn else "reference"
    if measured is None:
        return BoardArena(graph.arena(kernels), False, None)
    head = max(graph.head(kernels), measured.head_bytes)
    tail = math.ceil(graph.tail(4) * max(measured.tail_bytes / graph.tail(8), 1.0))
    return BoardArena(head + tail + graph.kept(kernels), True, measured.total_bytes)


def check(artifact: Artifact, board: Board, limits: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Check what an artifact needs on a board against limits and the whole board; the result is plain JSON.

    ``verified`` says whether TensorFlow Lite for Microcontrollers (TFLM) was installed here and ran the artifact; if
    not, ``largest_difference`` is None; ``tflm`` gives the result in words. ``arena_bytes`` is the arena on the board
    (`arena_on`), ``host_arena_bytes`` the one that TFLM took here. ``ethos_u`` is vela's estimate for a board with an
    Ethos-U. ``problems`` describes what does not fit.

    Args:
        artifact: a ``.tflite``.
        board: a microcontroller.
        limits: ``artifact_bytes`` and ``arena_bytes`` that the plan was made for; None: only those of the whole board.

    Raises:
        UsageError: the artifact is not a ``.tflite``.
        ExportError: the interpreter for microcontrollers lacks an operator.
    """
    if artifact.runtime != "litert" or board.flash_bytes is None:
        raise UsageError(
            f"Expected a .tflite for the microcontroller {board.name}, but got one for {artifact.runtime}."
        )
    content = artifact.path.read_bytes()
    arena = arena_on(content, board)
    usage = {"artifact_bytes": artifact.file_bytes, "arena_bytes": arena.total_bytes}
    plan_limits = limits or {}
    problems = [*_beyond_board(usage, board), *_beyond_limits(usage, plan_limits)]
    difference = _difference(artifact, content) if arena.verified else None
    if difference is not None and difference > LARGEST_DIFFERENCE:
        actual, allowed = (_steps_text(steps, artifact.data_type) for steps in (difference, LARGEST_DIFFERENCE))
        problems.append(f"TFLM: failed (max difference {actual}, {allowed} allowed)")
    npu = None
    if board.ethos_u is not None and vela.is_installed():
        npu = {"configuration": board.ethos_u, **asdict(vela.estimate(artifact.path, board.ethos_u, board.clock_hz))}
    return {
        "name": board.name,
        "verified": arena.verified,
        "flash_bytes": artifact.file_bytes + RUNTIME_FLASH_BYTES,
        "runtime_flash_bytes": RUNTIME_FLASH_BYTES,
        "flash_of": board.flash_bytes,
        "arena_bytes": arena.total_bytes,
        "host_arena_bytes": arena.host_bytes,
        "ram_of": board.ram_bytes,
        "limits": {name: plan_limits[name] for name in usage if name in plan_limits},
        "largest_difference": difference,
        "tflm": _verdict(difference, artifact.data_type),
        "ethos_u": npu,
        "problems": problems,
    }


def _beyond_board(usage: Mapping[str, int], board: Board) -> list[str]:
    """Messages for flash or RAM beyond what the whole board has."""
    problems = []
    flash_bytes = usage["artifact_bytes"] + RUNTIME_FLASH_BYTES
    if board.flash_bytes is not None and flash_bytes > board.flash_bytes:
        problems.append(f"it takes {flash_bytes:,} bytes of flash, of {board.flash_bytes:,}")
    if usage["arena_bytes"] > board.ram_bytes:
        problems.append(f"its arena takes {usage['arena_bytes']:,} bytes of RAM, of {board.ram_bytes:,}")
    return problems


def _beyond_limits(usage: Mapping[str, int], limits: Mapping[str, int]) -> list[str]:
    """Messages for sizes beyond the plan's limits."""
    subjects = {"artifact_bytes": "its file", "arena_bytes": "its arena"}
    return [
        f"{subjects[name]} takes {used:,} bytes, more than the limit of {limits[name]:,}"
        for name, used in usage.items()
        if name in limits and used > limits[name]
    ]


def _verdict(difference: int | None, data_type: str) -> str:
    """The result of the run on TensorFlow Lite for Microcontrollers, in words.

    >>> _verdict(1, "int8"), _verdict(0, "float32")
    ('TFLM: passed (max difference 1 int8 step)', 'TFLM: passed (max difference below 0.0005)')
    """
    if difference is None:
        return "TFLM: not run (pip install 'pretrim[mcu]')"
    outcome = "passed" if difference <= LARGEST_DIFFERENCE else "failed"
    return f"TFLM: {outcome} (max difference {_steps_text(difference, data_type)})"


def _steps_text(steps: int, data_type: str) -> str:
    """A difference of outputs in words, counted in int8 steps, or in thousandths for float32.

    >>> _steps_text(2, "int8"), _steps_text(2, "float32")
    ('2 int8 steps', '0.002')
    """
    if data_type == "int8":
        return f"{steps} int8 step{'' if steps == 1 else 's'}"
    return f"{steps / 1000:.3f}" if steps else "below 0.0005"


def _difference(artifact: Artifact, content: bytes) -> int:
    """The largest difference of any output between TFLM and LiteRT, in int8 steps, or in thousandths for float32."""
    random = np.random.default_rng(0)
    session = litert.Session(artifact.path, reference=True)
    inputs = [
        random.normal(size=(IMAGES, entry["shape"][-1], *entry["shape"][1:-1])).astype(np.float32)
        for entry in artifact.inputs
    ]
    reference_outputs = session(*inputs)
    quantised_inputs = [
        np.concatenate([litert.quantised(image[None], tensor) for image in np.moveaxis(value, 1, -1)])
        for value, tensor in zip(inputs, session.inputs, strict=True)
    ]
    tflm_outputs = micro.run_all(content, quantised_inputs, outputs=len(session.outputs))
    return max(
        _steps(litert.restored(values, tensor), reference, tensor)
        for values, reference, tensor in zip(tflm_outputs, reference_outputs, session.outputs, strict=True)
    )


def _steps(values: NDArray[Any], reference: NDArray[Any], tensor: Mapping[str, Any]) -> int:
    """The largest difference from the reference, in quantisation steps of the output tensor, or in thousandths."""
    scale = tensor["quantization"][0] or 1e-3
    return round(float(np.abs(values - reference).max()) / scale)

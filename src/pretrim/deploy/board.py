"""An artifact on a microcontroller: does it fit, does its interpreter run it, and does it answer the same?"""

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
"""of int8 outputs, in their smallest step, from LiteRT's reference kernels, whose arithmetic TFLM shares. Its XNNPACK
kernels round differently: by 8 steps after the 20 layers of a ResNet."""


@dataclass(frozen=True)
class BoardArena:
    """The tensor arena of a file on a board.

    Attributes:
        total_bytes: with 32-bit pointers, and what the board's kernels work in.
        verified: whether the interpreter for microcontrollers ran the file here: then its activations are placed as it
            placed them, and its structures scaled from those it made on this 64-bit host.
        host_bytes: what it took on this host; None where it was not run.
    """

    total_bytes: int
    verified: bool
    host_bytes: int | None


def arena_on(content: bytes, board: Board) -> BoardArena:
    """The arena of a ``.tflite`` on a board.

    Raises:
        UsageError: LiteRT is not installed.
        ExportError: an operator is missing in the interpreter for microcontrollers.
    """
    return arena_on_each(content, [board])[board.name]


def arena_on_each(content: bytes, boards: Sequence[Board]) -> dict[str, BoardArena]:
    """The same on several boards, by name; the file is run once."""
    graph = graph_of(content)
    if (real := micro.arena(content) if is_installed("tflite_micro") else None) is None:
        micro.check_operators(content)
    return {board.name: _arena(graph, real, board) for board in boards}


def _arena(graph: FileGraph, real: micro.Arena | None, board: Board) -> BoardArena:
    kernels: Kernels = "cmsis-nn" if board.has_cmsis_nn else "reference"
    if real is None:
        return BoardArena(graph.arena(kernels), False, None)
    head = max(graph.head(kernels), real.head_bytes)
    tail = math.ceil(graph.tail(4) * max(real.tail_bytes / graph.tail(8), 1.0))
    return BoardArena(head + tail + graph.kept(kernels), True, real.total_bytes)


def check(artifact: Artifact, board: Board, limits: Mapping[str, int] | None = None) -> dict[str, Any]:
    """What an artifact takes on a board, as plain JSON, compared with limits and with the whole board.

    ``verified`` tells whether TensorFlow Lite for Microcontrollers (TFLM) was installed here and ran it; without it
    ``largest_difference`` is None; ``tflm`` says the result in words. ``arena_bytes`` is the board's (`arena_on`),
    ``host_arena_bytes`` what TFLM took here. ``ethos_u`` is vela's estimate for a board that has one.
    ``problems`` says in words what does not fit.

    Args:
        artifact: a ``.tflite``.
        board: a microcontroller.
        limits: ``artifact_bytes`` and ``arena_bytes`` that the plan was made for; None: the whole board alone.

    Raises:
        UsageError: the artifact is not a ``.tflite``.
        ExportError: an operator is missing there.
    """
    if artifact.runtime != "litert" or board.flash_bytes is None:
        raise UsageError(
            f"Expected a .tflite for the microcontroller {board.name}, but got one for {artifact.runtime}."
        )
    content = artifact.path.read_bytes()
    arena = arena_on(content, board)
    takes = {"artifact_bytes": artifact.file_bytes, "arena_bytes": arena.total_bytes}
    allowed = limits or {}
    problems = [*_beyond_board(takes, board), *_beyond_limits(takes, allowed)]
    difference = _difference(artifact, content) if arena.verified else None
    if difference is not None and difference > LARGEST_DIFFERENCE:
        found, most = (_steps_text(steps, artifact.data_type) for steps in (difference, LARGEST_DIFFERENCE))
        problems.append(f"TFLM: failed (max difference {found}, {most} allowed)")
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
        "limits": {name: allowed[name] for name in takes if name in allowed},
        "largest_difference": difference,
        "tflm": _verdict(difference, artifact.data_type),
        "ethos_u": npu,
        "problems": problems,
    }


def _beyond_board(takes: Mapping[str, int], board: Board) -> list[str]:
    """What is more than the whole board has."""
    problems = []
    flash = takes["artifact_bytes"] + RUNTIME_FLASH_BYTES
    if board.flash_bytes is not None and flash > board.flash_bytes:
        problems.append(f"it takes {flash:,} bytes of flash, of {board.flash_bytes:,}")
    if takes["arena_bytes"] > board.ram_bytes:
        problems.append(f"its arena takes {takes['arena_bytes']:,} bytes of RAM, of {board.ram_bytes:,}")
    return problems


def _beyond_limits(takes: Mapping[str, int], limits: Mapping[str, int]) -> list[str]:
    """What is more than the limits of the plan."""
    titles = {"artifact_bytes": "its file", "arena_bytes": "its arena"}
    return [
        f"{titles[name]} takes {taken:,} bytes, more than the limit of {limits[name]:,}"
        for name, taken in takes.items()
        if name in limits and taken > limits[name]
    ]


def _verdict(difference: int | None, data_type: str) -> str:
    """What the run on TensorFlow Lite for Microcontrollers showed.

    >>> _verdict(1, "int8"), _verdict(0, "float32")
    ('TFLM: passed (max difference 1 int8 step)', 'TFLM: passed (max difference below 0.0005)')
    """
    if difference is None:
        return "TFLM: not run (pip install 'pretrim[mcu]')"
    result = "passed" if difference <= LARGEST_DIFFERENCE else "failed"
    return f"TFLM: {result} (max difference {_steps_text(difference, data_type)})"


def _steps_text(steps: int, data_type: str) -> str:
    """A difference of outputs in words: in steps of int8, or of thousandths in float32.

    >>> _steps_text(2, "int8"), _steps_text(2, "float32")
    ('2 int8 steps', '0.002')
    """
    if data_type == "int8":
        return f"{steps} int8 step{'' if steps == 1 else 's'}"
    return f"{steps / 1000:.3f}" if steps else "below 0.0005"


def _difference(artifact: Artifact, content: bytes) -> int:
    """The largest of any output between the two interpreters, in steps of int8; float32 outputs in thousandths."""
    random = np.random.default_rng(0)
    session = litert.Session(artifact.path, reference=True)
    inputs = [
        random.normal(size=(IMAGES, entry["shape"][-1], *entry["shape"][1:-1])).astype(np.float32)
        for entry in artifact.inputs
    ]
    theirs = session(*inputs)
    ready = [
        np.concatenate([litert.quantised(image[None], tensor) for image in np.moveaxis(value, 1, -1)])
        for value, tensor in zip(inputs, session.inputs, strict=True)
    ]
    ours = micro.run_all(content, ready, outputs=len(session.outputs))
    return max(
        _steps(litert.restored(values, tensor), reference, tensor)
        for values, reference, tensor in zip(ours, theirs, session.outputs, strict=True)
    )


def _steps(ours: NDArray[Any], theirs: NDArray[Any], tensor: Mapping[str, Any]) -> int:
    """The largest difference in the smallest step of an output."""
    scale = tensor["quantization"][0] or 1e-3
    return round(float(np.abs(ours - theirs).max()) / scale)

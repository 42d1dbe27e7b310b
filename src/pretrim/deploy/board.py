"""An artifact on a microcontroller: does it fit, does its interpreter run it, and does it answer the same?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrim.compat.optional import is_installed
from pretrim.devices import RUNTIME_FLASH_BYTES, Board
from pretrim.errors import UsageError

from . import litert, micro, vela
from .artifact import Artifact

IMAGES = 8
LARGEST_DIFFERENCE = 1
"""of int8 outputs, in their smallest step, from LiteRT's reference kernels, whose arithmetic TFLM shares. Its XNNPACK
kernels round differently: by 8 steps after the 20 layers of a ResNet."""


def check(artifact: Artifact, board: Board) -> dict[str, Any]:
    """What an artifact takes on a board, as plain JSON.

    ``verified`` tells whether TensorFlow Lite for Microcontrollers (TFLM) was installed here and ran it; without it
    ``arena_bytes`` and ``largest_difference`` are None; ``tflm`` says the result in words. ``ethos_u`` is vela's
    estimate for a board that has one.
    ``problems`` says in words what does not fit.

    Raises:
        UsageError: the artifact is not a ``.tflite``.
        ExportError: an operator is missing there.
    """
    if artifact.runtime != "litert" or board.flash_bytes is None:
        raise UsageError(
            f"Expected a .tflite for the microcontroller {board.name}, but got one for {artifact.runtime}."
        )
    content = artifact.path.read_bytes()
    flash = artifact.file_bytes + RUNTIME_FLASH_BYTES
    problems = [f"it takes {flash:,} bytes of flash, of {board.flash_bytes:,}"] if flash > board.flash_bytes else []
    arena, difference = None, None
    verified = is_installed("tflite_micro")
    if verified:
        arena = micro.arena(content).total_bytes
        if arena > board.ram_bytes:
            problems.append(f"its arena takes {arena:,} bytes of RAM, of {board.ram_bytes:,}")
        difference = _difference(artifact, content)
        if difference > LARGEST_DIFFERENCE:
            problems.append(f"TFLM: failed (max difference {difference} int8 steps, {LARGEST_DIFFERENCE} allowed)")
    npu = None
    if board.ethos_u is not None and vela.is_installed():
        npu = {"configuration": board.ethos_u, **asdict(vela.estimate(artifact.path, board.ethos_u, board.clock_hz))}
    return {
        "name": board.name,
        "verified": verified,
        "flash_bytes": flash,
        "runtime_flash_bytes": RUNTIME_FLASH_BYTES,
        "flash_of": board.flash_bytes,
        "arena_bytes": arena,
        "ram_of": board.ram_bytes,
        "largest_difference": difference,
        "tflm": _verdict(difference, artifact.data_type),
        "ethos_u": npu,
        "problems": problems,
    }


def _verdict(difference: int | None, data_type: str) -> str:
    """What the run on TensorFlow Lite for Microcontrollers showed.

    >>> _verdict(1, "int8")
    'TFLM: passed (max difference 1 int8 step)'
    """
    if difference is None:
        return "TFLM: not run (pip install 'pretrim[mcu]')"
    result = "passed" if difference <= LARGEST_DIFFERENCE else "failed"
    unit = "int8 step" if data_type == "int8" else "thousandth"
    return f"TFLM: {result} (max difference {difference} {unit}{'' if difference == 1 else 's'})"


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

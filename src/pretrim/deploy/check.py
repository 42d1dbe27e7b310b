"""An artifact on a microcontroller: does it fit, does its interpreter run it, and does it answer the same?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from pretrim.compat.optional import is_installed
from pretrim.devices import RUNTIME_FLASH_BYTES, Board
from pretrim.errors import UsageError

from . import litert, micro, vela
from .artifact import Artifact

IMAGES = 8
LARGEST_DIFFERENCE = 4
"""of int8 outputs, in their smallest step: the kernels of the two runtimes round differently"""


def check(artifact: Artifact, board: Board) -> dict[str, Any]:
    """What an artifact takes on a board, as plain JSON.

    ``verified`` tells whether TensorFlow Lite for Microcontrollers was installed here and ran it; without it
    ``arena_bytes`` and ``largest_difference`` are None. ``ethos_u`` is vela's estimate for a board that has one.
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
            problems.append(f"its outputs differ from LiteRT's by {difference} steps")
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
        "ethos_u": npu,
        "problems": problems,
    }


def _difference(artifact: Artifact, content: bytes) -> int:
    """Of the first output between the two interpreters, in steps of int8; float32 outputs in thousandths."""
    random = np.random.default_rng(0)
    session = litert.Session(artifact.path)
    images = random.normal(size=(IMAGES, *artifact.input["shape"][1:])).astype(np.float32)
    ready = np.concatenate([litert.quantised(image[None], session.input) for image in images])
    theirs = session(images.transpose(0, 3, 1, 2))[0]
    ours = litert.restored(micro.run(content, ready), session.outputs[0])
    scale = session.outputs[0]["quantization"][0] or 1e-3
    return round(float(np.abs(ours - theirs).max()) / scale)

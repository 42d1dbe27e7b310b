"""Known answers for the self-test of the sources: outputs of LiteRT's reference kernels for a few images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pretrim.deploy.litert import Session

BLOCKS = (1, 2, 4, 8)


def known_answers(path: Path) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Random images, one per row, and all outputs for each image, concatenated in one row.

    The noise comes in blocks of 1, 2, 4 and 8 pixels: a deep network averages fine noise away, and would give the same
    output for every image.

    Args:
        path: an int8 .tflite with one input.
    """
    session = Session(path, reference=True)
    (source,) = session.inputs
    random = np.random.default_rng(0)
    images = np.stack([_blocks(random, source["shape"], size) for size in BLOCKS])
    answers = []
    for image in images:
        session.interpreter.set_tensor(source["index"], image)
        session.interpreter.invoke()
        outputs = [session.interpreter.get_tensor(output["index"]).ravel() for output in session.outputs]
        answers.append(np.concatenate(outputs))
    return images.reshape(len(images), -1), np.array(answers)


def _blocks(random: np.random.Generator, shape: Sequence[int], size: int) -> NDArray[np.int8]:
    """Uniform int8 noise, constant within blocks of `size` along all axes but those of the batch and the channels."""
    noise = random.integers(-128, 128, shape, dtype=np.int8)
    for axis in range(1, len(shape) - 1):
        noise = noise.take(np.arange(shape[axis]) // size * size, axis)
    return noise

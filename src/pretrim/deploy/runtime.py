"""What the three runtimes have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

RuntimeName: TypeAlias = Literal["onnx", "litert", "executorch"]
RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
TITLES: dict[RuntimeName, str] = {"onnx": "ONNX Runtime", "litert": "LiteRT", "executorch": "ExecuTorch"}
SUFFIXES: dict[RuntimeName, str] = {"onnx": ".onnx", "litert": ".tflite", "executorch": ".pte"}

Images: TypeAlias = NDArray[np.float32]
"""Images as the network takes them, normalised: N x C x H x W, in whatever layout the artifact wants them."""
Outputs: TypeAlias = list[NDArray[Any]]
"""Each output of a network in float32, N x ..., in the order of the leaves of what its `forward` returns."""


@dataclass(frozen=True)
class Converted:
    """A model in the form of a runtime.

    Attributes:
        content: the file's.
        slow: operators for which the runtime has no fast kernel.
    """

    content: bytes
    slow: tuple[str, ...] = ()


class Session(Protocol):
    """An artifact that is loaded in its runtime."""

    def __call__(self, images: Images) -> Outputs:
        """Each output for N images."""

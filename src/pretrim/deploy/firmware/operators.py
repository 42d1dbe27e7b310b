"""The operators with C kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from pretrim.cost.micro_operators import METHODS
from pretrim.errors import ExportError

from .elementwise import addition, multiplication, rescaling
from .layer import Layer
from .lookup import FUNCTIONS, look_up
from .model import OTHER_WAY, Model, Step
from .moving import concatenation, padding, reshaping, slicing, transposition
from .pooling import average_pool, max_pool, mean
from .resizing import bilinear, nearest
from .softmax import softmax
from .weighted import convolution, dense, depthwise, transposed

Build: TypeAlias = Callable[[Step, str], Layer]
BUILDERS: Mapping[str, Build] = {
    "ADD": addition,
    "AVERAGE_POOL_2D": average_pool,
    "CONCATENATION": concatenation,
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": depthwise,
    "FULLY_CONNECTED": dense,
    "MAX_POOL_2D": max_pool,
    "MEAN": mean,
    "MUL": multiplication,
    "PAD": padding,
    "PADV2": padding,
    "QUANTIZE": rescaling,
    "RELU": rescaling,
    "RELU6": rescaling,
    "RELU_N1_TO_1": rescaling,
    "RESHAPE": reshaping,
    "RESIZE_BILINEAR": bilinear,
    "RESIZE_NEAREST_NEIGHBOR": nearest,
    "SLICE": slicing,
    "SOFTMAX": softmax,
    "SUB": addition,
    "TRANSPOSE": transposition,
    "TRANSPOSE_CONV": transposed,
    **dict.fromkeys(FUNCTIONS, look_up),
}


def layers(model: Model) -> list[Layer]:
    """The layers of a model in C. Raises ExportError, which names every operator without a kernel."""
    unknown = sorted({step.operator for step in model.steps} - set(BUILDERS))
    if unknown:
        other = f", or {OTHER_WAY}" if METHODS.keys() >= set(unknown) else ""
        raise ExportError(
            f"There is no C kernel for {', '.join(unknown)}: replace {'it' if len(unknown) == 1 else 'them'} in the "
            f"network{other}."
        )
    names = [f"{step.operator.lower()}_{number}" for number, step in enumerate(model.steps, start=1)]
    return [BUILDERS[step.operator](step, name) for step, name in zip(model.steps, names, strict=True)]

"""A layer in C: its constants and its call; and what several kinds of layers share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrim.errors import ExportError

from .arithmetic import Factor, Range, padding_before
from .ctext import Value, array, structure
from .model import OTHER_WAY, Step, Tensor

WORD = 4
STRUCTURE_BYTES = {
    "nn_convolution": 56,
    "nn_depthwise": 56,
    "nn_dense": 36,
    "nn_pool": 34,
    "nn_averaging": 28,
    "nn_addition": 84,
    "nn_multiplication": 68,
    "nn_softmax_rows": 12,
    "nn_rescaling": 20,
    "nn_resizing": 16,
    "nn_padding": 26,
    "nn_permutation": 32,
}
"""Of kernels.h, with pointers of 32 bits"""
LARGEST_SIZE = 2**15 - 1
"""of what kernels.h holds in int16_t"""
SAME = 0
RANK = 4
"""Dimensions of a tensor in kernels.h, at most"""


@dataclass(frozen=True)
class Layer:
    """A layer in C.

    Attributes:
        title: what it does, for the reader.
        definitions: its constants.
        call: the statement that runs it.
        constant_bytes: of its constants, on a chip with 32-bit pointers.
    """

    title: str
    definitions: tuple[str, ...]
    call: str
    constant_bytes: int


def layer(
    kind: str,
    name: str,
    fields: Mapping[str, Value],
    step: Step,
    call: str,
    arrays: Mapping[str, NDArray[Any]],
    operands: Sequence[int] | None = None,
) -> Layer:
    """A layer that is described by one structure.

    Args:
        kind: of the structure.
        name: of the layer; its arrays have it as prefix.
        fields: of the structure, without the arrays.
        step: what it was made from.
        call: the kernel that runs it.
        arrays: constants by field.
        operands: inputs that the kernel is called with, constants too; None: the activations.
    """
    pointers: dict[str, Value] = {field: f"{name}_{field}" for field in arrays}
    given = activations(step) if operands is None else [step.reads(number) for number in operands]
    sources = [f"{name}_operand" if tensor.offset is None else place(tensor) for tensor in given]
    constants = dict(arrays)
    for tensor in given:
        if tensor.values is not None:
            constants["operand"] = tensor.values
    return Layer(
        title=title(step),
        definitions=(
            *(array(f"{name}_{field}", values) for field, values in constants.items()),
            structure(kind, name, {**fields, **pointers}),
        ),
        call=f"{call}(&{name}, {', '.join(sources)}, {place(step.output)});",
        constant_bytes=aligned(STRUCTURE_BYTES[kind], *(values.nbytes for values in constants.values())),
    )


def activations(step: Step) -> list[Tensor]:
    """What a layer reads that is computed."""
    return [tensor for tensor in step.inputs if tensor is not None and tensor.offset is not None]


def place(tensor: Tensor) -> str:
    """Where an activation lies, in C."""
    return f"arena + {tensor.offset}"


def aligned(*sizes: int) -> int:
    """Bytes of objects that each begin at a word."""
    return sum(-(-size // WORD) * WORD for size in sizes)


def title(step: Step) -> str:
    """An operator with the shapes of what it reads and writes: ``CONV_2D 16x16x3 -> 16x16x8, 3x3``."""
    sources = " and ".join(_sizes(tensor.shape) for tensor in activations(step))
    kernel = ""
    if step.operator in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"):
        _, height, width, _ = step.reads(1).shape
        kernel = f", {height}x{width}"
    elif hasattr(step.options, "filterHeight"):
        kernel = f", {step.options.filterHeight}x{step.options.filterWidth}"
    return f"{step.operator} {sources} -> {_sizes(step.output.shape)}{kernel}"


def window(step: Step, kernel: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> dict[str, Value]:
    """The fields of `nn_window`.

    Args:
        step: a convolution or pooling, whose options have strides and padding.
        kernel: height and width.
        dilation: of the kernel.
    """
    source, output = checked_image(step, step.reads(0)), checked_image(step, step.output)
    strides = (step.options.strideH, step.options.strideW)
    pads = [
        padding_before(source[axis], output[axis], strides[axis], (kernel[axis] - 1) * dilation[axis] + 1)
        for axis in (0, 1)
    ]
    return _window(step, source, kernel, dilation, pads)


def transposed_window(step: Step, kernel: tuple[int, int]) -> dict[str, Value]:
    """The same of a transposed convolution, whose padding is that of the convolution from its output to its input.

    Args:
        step: the transposed convolution.
        kernel: height and width.
    """
    output, strides = checked_image(step, step.output), (step.options.strideH, step.options.strideW)
    pads = [
        padding_before(output[axis], -(-output[axis] // strides[axis]), strides[axis], kernel[axis]) for axis in (0, 1)
    ]
    return _window(step, checked_image(step, step.reads(2)), kernel, (1, 1), pads)


def _window(
    step: Step, source: tuple[int, int, int], kernel: tuple[int, int], dilation: tuple[int, int], pads: Sequence[int]
) -> dict[str, Value]:
    """The fields of `nn_window`.

    Args:
        step: whose options have strides and padding.
        source: the image that it reads.
        kernel: height and width.
        dilation: of the kernel.
        pads: rows and columns before the image, of SAME padding.
    """
    output, strides = checked_image(step, step.output), (step.options.strideH, step.options.strideW)
    top, left = pads if step.options.padding == SAME else (0, 0)
    return {
        "input_height": source[0],
        "input_width": source[1],
        "input_channels": source[2],
        "output_height": output[0],
        "output_width": output[1],
        "output_channels": output[2],
        "kernel_height": kernel[0],
        "kernel_width": kernel[1],
        "stride_y": strides[0],
        "stride_x": strides[1],
        "dilation_y": dilation[0],
        "dilation_x": dilation[1],
        "pad_top": top,
        "pad_left": left,
    }


def checked_image(step: Step, tensor: Tensor) -> tuple[int, int, int]:
    """Height, width and channels of one image. Raises ExportError for other shapes."""
    if len(tensor.shape) != 4 or tensor.shape[0] != 1:
        raise unsupported(step, f"a tensor of {_sizes(tensor.shape)}")
    check_sizes(step, tensor.shape)
    return tensor.shape[1], tensor.shape[2], tensor.shape[3]


def check_sizes(step: Step, sizes: Iterable[int]) -> None:
    """Raises ExportError for sizes that int16_t cannot hold."""
    if max(sizes) > LARGEST_SIZE:
        raise unsupported(step, f"a size above {LARGEST_SIZE}")


def range_fields(limits: Range) -> dict[str, Value]:
    """The fields of `nn_range`."""
    return {**asdict(limits)}


def factor_fields(factor: Factor) -> dict[str, Value]:
    """The fields of `nn_factor`."""
    return {**asdict(factor)}


def factor_arrays(factors: Sequence[Factor]) -> dict[str, NDArray[Any]]:
    """Multipliers and shifts of each output channel."""
    return {
        "multiplier": np.array([factor.multiplier for factor in factors], np.int32),
        "shift": np.array([factor.shift for factor in factors], np.int8),
    }


def unsupported(step: Step, what: str) -> ExportError:
    """The error for an operator whose kernel cannot do what is asked."""
    return ExportError(f"The C kernel of {step.operator} does not take {what}: {OTHER_WAY}.")


def extended(sizes: Sequence[int], fill: int) -> list[int]:
    """Four numbers, with the missing ones before.

    >>> extended([5, 7], 1)
    [1, 1, 5, 7]
    """
    return [fill] * (RANK - len(sizes)) + [int(size) for size in sizes]


def _sizes(shape: Sequence[int]) -> str:
    """A shape without its batch, where that is one image.

    >>> _sizes((1, 16, 16, 3))
    '16x16x3'
    """
    return "x".join(map(str, shape[1:] if len(shape) > 1 and shape[0] == 1 else shape))

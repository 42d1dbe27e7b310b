"""A layer in C, with its constants and its call, and helpers that several kinds of layers share."""

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
"""Sizes of the structures in kernels.h with 32-bit pointers, in bytes."""
LARGEST_SIZE = 2**15 - 1
"""Largest size that kernels.h can store in int16_t."""
SAME = 0
RANK = 4
"""Largest number of tensor dimensions in kernels.h."""


@dataclass(frozen=True)
class Layer:
    """A layer in C.

    Attributes:
        title: description for the reader of the sources.
        definitions: definitions of its constants.
        call: statement that runs it.
        constant_bytes: bytes of its constants, on a chip with 32-bit pointers.
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
        kind: type of the structure.
        name: name of the layer, and prefix of its arrays' names.
        fields: fields of the structure, without the arrays.
        step: the operator that it implements.
        call: name of the kernel that runs it.
        arrays: constant arrays by field name.
        operands: indices of the inputs that the kernel is called with, including constants; None: all activations.
    """
    pointers: dict[str, Value] = {field: f"{name}_{field}" for field in arrays}
    operand_tensors = activations(step) if operands is None else [step.reads(number) for number in operands]
    sources = [f"{name}_operand" if tensor.offset is None else place(tensor) for tensor in operand_tensors]
    constants = dict(arrays)
    for tensor in operand_tensors:
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
    """The inputs of an operator that are activations."""
    return [tensor for tensor in step.inputs if tensor is not None and tensor.offset is not None]


def place(tensor: Tensor) -> str:
    """The C expression for an activation's address."""
    return f"arena + {tensor.offset}"


def aligned(*sizes: int) -> int:
    """Total bytes of objects that are each aligned to a word."""
    return sum(-(-size // WORD) * WORD for size in sizes)


def title(step: Step) -> str:
    """An operator with the shapes of its inputs and output: ``CONV_2D 16x16x3 -> 16x16x8, 3x3``."""
    sources = " and ".join(_sizes(tensor.shape) for tensor in activations(step))
    kernel = ""
    if step.operator in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"):
        _, height, width, _ = step.reads(1).shape
        kernel = f", {height}x{width}"
    elif hasattr(step.options, "filterHeight"):
        kernel = f", {step.options.filterHeight}x{step.options.filterWidth}"
    return f"{step.operator} {sources} -> {_sizes(step.output.shape)}{kernel}"


def window(step: Step, kernel: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> dict[str, Value]:
    """The fields of `nn_window` for a convolution or pooling.

    Args:
        step: the operator, whose options have strides and padding.
        kernel: height and width of the kernel.
        dilation: dilation of the kernel's height and width.
    """
    source, output = checked_image(step, step.reads(0)), checked_image(step, step.output)
    strides = (step.options.strideH, step.options.strideW)
    pads = [
        padding_before(source[axis], output[axis], strides[axis], (kernel[axis] - 1) * dilation[axis] + 1)
        for axis in (0, 1)
    ]
    return _window(step, source, kernel, dilation, pads)


def transposed_window(step: Step, kernel: tuple[int, int]) -> dict[str, Value]:
    """The fields of `nn_window` for a transposed convolution, padded like the convolution from its output to its input.

    Args:
        step: the transposed convolution.
        kernel: height and width of the kernel.
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
        step: the operator, whose options have strides and padding.
        source: height, width and channels of the input image.
        kernel: height and width of the kernel.
        dilation: dilation of the kernel's height and width.
        pads: rows and columns of padding before the image, for SAME padding.
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
    """Height, width and channels of a tensor of one image. Raises ExportError for other shapes."""
    if len(tensor.shape) != 4 or tensor.shape[0] != 1:
        raise unsupported(step, f"a tensor of {_sizes(tensor.shape)}")
    check_sizes(step, tensor.shape)
    return tensor.shape[1], tensor.shape[2], tensor.shape[3]


def check_sizes(step: Step, sizes: Iterable[int]) -> None:
    """Raise ExportError for sizes that int16_t cannot hold."""
    if max(sizes) > LARGEST_SIZE:
        raise unsupported(step, f"a size above {LARGEST_SIZE}")


def range_fields(limits: Range) -> dict[str, Value]:
    """The fields of `nn_range`."""
    return {**asdict(limits)}


def factor_fields(factor: Factor) -> dict[str, Value]:
    """The fields of `nn_factor`."""
    return {**asdict(factor)}


def factor_arrays(factors: Sequence[Factor]) -> dict[str, NDArray[Any]]:
    """Arrays of the multiplier and the shift of each output channel."""
    return {
        "multiplier": np.array([factor.multiplier for factor in factors], np.int32),
        "shift": np.array([factor.shift for factor in factors], np.int8),
    }


def unsupported(step: Step, what: str) -> ExportError:
    """The error for an operator that its kernel does not support in this form."""
    return ExportError(f"The C kernel of {step.operator} does not support {what}: {OTHER_WAY}.")


def extended(sizes: Sequence[int], fill: int) -> list[int]:
    """Extend sizes to four numbers, with `fill` in front.

    >>> extended([5, 7], 1)
    [1, 1, 5, 7]
    """
    return [fill] * (RANK - len(sizes)) + [int(size) for size in sizes]


def _sizes(shape: Sequence[int]) -> str:
    """A shape as text, without a batch dimension of 1.

    >>> _sizes((1, 16, 16, 3))
    '16x16x3'
    """
    return "x".join(map(str, shape[1:] if len(shape) > 1 and shape[0] == 1 else shape))

"""A ``.tflite`` on a board: its operators, their multiply-accumulates, and the tensor arena that it needs there.

Everything is computed from the file without an interpreter, so it also covers pointer sizes and kernels that this
machine does not have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pretrim.compat.optional import need
from pretrim.cost.arena import place, top
from pretrim.cost.microcontroller import CHANNEL_BYTES, STRUCTURES, Kernels, kept_by_kernels
from pretrim.errors import ArtifactError

from .tflite import IDENTIFIER, item_bytes, lives_of, planned_offsets, scratch_of

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")


@dataclass(frozen=True)
class FileOperator:
    """An operator of a file.

    Attributes:
        name: LiteRT's name of the operator.
        macs: multiply-accumulates for one image.
        reads: elements of its input activation.
        writes: elements of its outputs.
        kernel: (height, width) of a convolution; (1, 1) for other operators.
        channels: filters of a convolution, or of a fully connected layer with per-channel scales; 0 for others.
        scratch_bytes: scratch buffer of CMSIS-NN's int8 kernel.
        layer: the name of its weight tensor, or else the operator's name and index; empty for operators without
            filters.
        filters: number of filters; 0 for operators without weights.
        zero_filters: number of filters whose weights all equal the zero point.
    """

    name: str
    macs: int
    reads: int
    writes: int
    kernel: tuple[int, int]
    channels: int
    scratch_bytes: int
    layer: str = ""
    filters: int = 0
    zero_filters: int = 0


@dataclass(frozen=True)
class FileGraph:
    """The contents of a ``.tflite`` with one subgraph.

    Attributes:
        file_bytes: size of the file.
        data_type: data type of the activations: float32 if any of them is, otherwise int8.
        operators: operators in execution order.
        tensors: number of tensors in the graph, including constants.
        births, deaths: index of the first and last operator that needs each buffer, in the order of `sizes`.
        sizes: bytes of each activation, followed by the scratch buffers that kernels need on every board.
        fixed: offsets of the activations in the file's memory plan; empty without a plan.
    """

    file_bytes: int
    data_type: Literal["int8", "float32"]
    operators: tuple[FileOperator, ...]
    tensors: int
    births: tuple[int, ...]
    deaths: tuple[int, ...]
    sizes: tuple[int, ...]
    fixed: tuple[int, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Distinct operator names in alphabetical order."""
        return tuple(sorted({operator.name for operator in self.operators}))

    @property
    def filters(self) -> int:
        """Number of filters of all layers."""
        return sum(operator.filters for operator in self.operators)

    @property
    def zero_filters(self) -> dict[str, tuple[int, int]]:
        """(zero filters, all filters) by layer, for the layers with zero filters."""
        pruned = (operator for operator in self.operators if operator.zero_filters)
        return {operator.layer: (operator.zero_filters, operator.filters) for operator in pruned}

    def head(self, kernels: Kernels = "reference") -> int:
        """Bytes of the activations and scratch buffers, placed as the interpreter places them."""
        scratch = {
            number: operator.scratch_bytes for number, operator in enumerate(self.operators) if operator.scratch_bytes
        }
        kernel_scratch = scratch if kernels == "cmsis-nn" and self.data_type == "int8" else {}
        sizes = [*self.sizes, *kernel_scratch.values()]
        births, deaths = (*self.births, *kernel_scratch), (*self.deaths, *kernel_scratch)
        return top(sizes, place(sizes, births, deaths, fixed=self.fixed))

    def tail(self, pointer_bytes: Literal[4, 8] = 4) -> int:
        """Bytes of the interpreter's own structures."""
        names = (operator.name for operator in self.operators)
        structures = STRUCTURES[pointer_bytes].tail(names, self.tensors)
        return structures + CHANNEL_BYTES * sum(operator.channels for operator in self.operators)

    def arena(self, kernels: Kernels = "reference", pointer_bytes: Literal[4, 8] = 4) -> int:
        """Bytes of the tensor arena.

        Args:
            kernels: the kernel library; CMSIS-NN's kernels need scratch buffers of their own.
            pointer_bytes: 4 on a microcontroller, 8 on a 64-bit host.
        """
        return self.head(kernels) + self.tail(pointer_bytes) + (self.kept(kernels) if pointer_bytes == 4 else 0)

    def kept(self, kernels: Kernels) -> int:
        """Bytes that these kernels keep allocated on a microcontroller, in addition to the interpreter's structures."""
        names = [operator.name for operator in self.operators]
        return kept_by_kernels(names, kernels) if self.data_type == "int8" else 0


def read_graph(path: Path) -> FileGraph:
    """Read the graph of a ``.tflite`` file. Raises ArtifactError for any other file, and UsageError without LiteRT."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"Cannot read the .tflite {path} ({error.strerror}).") from error
    if content[4:8] != IDENTIFIER:
        raise ArtifactError(f"{path} is not a .tflite: its identifier is missing.")
    try:
        return graph_of(content)
    except ArtifactError:
        raise
    except Exception as error:  # a damaged flatbuffer may raise any exception
        raise ArtifactError(f"The .tflite {path} is damaged ({type(error).__name__}).") from error


def graph_of(content: bytes) -> FileGraph:
    """The graph of a ``.tflite``'s bytes. Raises ArtifactError for several subgraphs."""
    schema = need("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    if len(model.subgraphs) != 1:
        raise ArtifactError(f"Expected a .tflite with one subgraph, but it has {len(model.subgraphs)}.")
    graph = model.subgraphs[0]
    lives, scratch = lives_of(graph), scratch_of(schema, model)
    births, deaths = zip(*lives.values(), *((number, number) for number, _ in scratch), strict=True)
    types = {graph.tensors[tensor].type for tensor in lives}
    return FileGraph(
        file_bytes=len(content),
        data_type="float32" if schema.TensorType.FLOAT32 in types else "int8",
        operators=tuple(_operator(schema, model, number, content) for number in range(len(graph.operators))),
        tensors=len(graph.tensors),
        births=births,
        deaths=deaths,
        sizes=(*(item_bytes(schema, graph.tensors[tensor]) for tensor in lives), *(size for _, size in scratch)),
        fixed=planned_offsets(model, list(lives)),
    )


def _operator(schema: Any, model: Any, number: int, content: bytes) -> FileOperator:
    graph = model.subgraphs[0]
    operator = graph.operators[number]
    code = model.operatorCodes[operator.opcodeIndex]
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
    shapes = [_shape(graph.tensors[tensor]) for tensor in operator.inputs if tensor >= 0]
    outputs = [_shape(graph.tensors[tensor]) for tensor in operator.outputs]
    source = shapes[2] if name == "TRANSPOSE_CONV" else shapes[0]
    work = _WORK.get(name, _no_work)(source, shapes, outputs[0], operator.builtinOptions)
    return FileOperator(
        name=name,
        macs=work.macs,
        reads=math.prod(source),
        writes=sum(math.prod(shape) for shape in outputs),
        kernel=work.kernel,
        channels=_channels(graph, operator, name, work.filters),
        scratch_bytes=work.scratch,
        **_filters(schema, model, number, name, content),
    )


FILTER_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 0, "FULLY_CONNECTED": 0}
"""Filter dimension of the weights, by operator; the weights are its second input."""


def _filters(schema: Any, model: Any, number: int, name: str, content: bytes) -> dict[str, Any]:
    """The fields of `FileOperator` about filters; empty for an operator without constant weights."""
    graph = model.subgraphs[0]
    tensor = graph.tensors[graph.operators[number].inputs[1]] if name in FILTER_AXIS else None
    values = None if tensor is None else _constant(schema, model, tensor, content)
    if tensor is None or values is None:
        return {}
    axis = FILTER_AXIS[name]
    zero_points = np.atleast_1d(0 if tensor.quantization is None else tensor.quantization.zeroPoint)
    rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    is_zero = (rows == (zero_points if zero_points.size == len(rows) else zero_points[:1])[:, None]).all(axis=1)
    tensor_name = tensor.name.decode(errors="replace")
    layer = f"{name} {number}" if tensor_name.isdecimal() or not tensor_name else tensor_name
    return {"layer": layer, "filters": len(rows), "zero_filters": int(is_zero.sum())}


def _constant(schema: Any, model: Any, tensor: Any, content: bytes) -> NDArray[Any] | None:
    """The values of a constant; None for an activation, and for data types other than float32, float16 and 8 bits."""
    dtypes = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.FLOAT16: np.float16}
    dtypes |= {schema.TensorType.INT8: np.int8, schema.TensorType.UINT8: np.uint8}
    buffer, dtype = model.buffers[tensor.buffer], dtypes.get(tensor.type)
    if buffer.offset and buffer.offset > 1:  # stored after the flatbuffer
        data = np.frombuffer(content[buffer.offset : buffer.offset + buffer.size], np.uint8)
    else:
        data = np.asarray([] if buffer.data is None else buffer.data, np.uint8)
    if dtype is None or data.nbytes != np.dtype(dtype).itemsize * math.prod(_shape(tensor)):
        return None
    return data.view(dtype).reshape(_shape(tensor))


def _channels(graph: Any, operator: Any, name: str, filters: int) -> int:
    """Number of filters with a separate multiplier; a fully connected layer may share one multiplier among all."""
    if name != "FULLY_CONNECTED":
        return filters
    quantisation = graph.tensors[operator.inputs[1]].quantization
    scales = None if quantisation is None else quantisation.scale
    return filters if scales is not None and len(scales) > 1 else 0


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


# ---------------------------------------------------------------------------------------- work by operator


@dataclass(frozen=True)
class _Work:
    macs: int = 0
    kernel: tuple[int, int] = (1, 1)
    filters: int = 0
    scratch: int = 0


Shape: TypeAlias = tuple[int, ...]


def _no_work(source: Shape, shapes: Sequence[Shape], output: Shape, options: Any) -> _Work:
    return _Work()


def _convolution(source: Shape, shapes: Sequence[Shape], output: Shape, options: Any) -> _Work:
    """Weights are filters x height x width x inputs.

    CMSIS-NN's scratch buffer holds two im2col columns in int16; plain 1x1 convolutions need none.
    """
    filters, height, width, inputs = shapes[1]
    is_plain = height == width == options.strideH == options.strideW == 1
    scratch = 0 if is_plain else 4 * height * width * inputs
    return _Work(math.prod(output) * height * width * inputs, (height, width), filters, scratch)


def _depthwise(source: Shape, shapes: Sequence[Shape], output: Shape, options: Any) -> _Work:
    """Weights are 1 x height x width x filters; CMSIS-NN's scratch buffer holds as many values in int16."""
    _, height, width, filters = shapes[1]
    return _Work(math.prod(output) * height * width, (height, width), filters, 2 * height * width * filters)


def _transposed(source: Shape, shapes: Sequence[Shape], output: Shape, options: Any) -> _Work:
    filters, height, width, _ = shapes[1]
    return _Work(math.prod(source) * height * width * filters, (height, width), filters)


def _dense(source: Shape, shapes: Sequence[Shape], output: Shape, options: Any) -> _Work:
    filters, inputs = shapes[1]
    return _Work(math.prod(output) * inputs, filters=filters)


def _product(source: Shape, shapes: Sequence[Shape], output: Shape, options: Any) -> _Work:
    return _Work(math.prod(output) * source[-1])


_WORK: dict[str, Callable[[Shape, Sequence[Shape], Shape, Any], _Work]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _product,
}

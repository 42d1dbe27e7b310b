"""An int8 ``.tflite`` as the generator takes it: its operators in order, and the offset of each activation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrim.compat.optional import need
from pretrim.cost.arena import pack, top
from pretrim.deploy.tflite import lives_of, planned_offsets
from pretrim.errors import ExportError

OTHER_WAY = "write sources for its interpreter instead (--sources-for tflm)"


@dataclass(frozen=True)
class Tensor:
    """A tensor of the file.

    Attributes:
        shape: shape including the batch, which is 1.
        scales: one scale for all values, or one for each output channel; float32 numbers.
        zero: zero point.
        values: values of a constant, in its shape; None for an activation.
        offset: offset of an activation in the arena, in bytes; None for a constant.
    """

    shape: tuple[int, ...]
    scales: tuple[float, ...]
    zero: int
    values: NDArray[Any] | None
    offset: int | None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def scale(self) -> float:
        """The scale of a tensor with one scale for all values."""
        return self.scales[0]


@dataclass(frozen=True)
class Step:
    """An operator of the model.

    Attributes:
        operator: LiteRT's name of the operator.
        inputs: input tensors, with None for a missing optional one.
        output: its only output.
        options: options of the operator, as the file format names them; None if it has none.
        file: the unpacked model that contains it.
        number: index of the operator in that model.
    """

    operator: str
    inputs: tuple[Tensor | None, ...]
    output: Tensor
    options: Any
    file: Any
    number: int

    def reads(self, number: int) -> Tensor:
        """A required input. Raises ExportError if it is missing."""
        tensor = self.inputs[number] if number < len(self.inputs) else None
        if tensor is None:
            raise ExportError(f"Expected {self.operator} to have {number + 1} inputs, but one is missing.")
        return tensor

    def constant(self, number: int) -> NDArray[Any]:
        """The values of an input that must be constant. Raises ExportError if it is computed."""
        values = self.reads(number).values
        if values is None:
            raise ExportError(
                f"Expected {self.operator} to have constants as input {number + 1}, but they are computed: {OTHER_WAY}."
            )
        return values


@dataclass(frozen=True)
class Model:
    """A network with one input.

    Attributes:
        steps: operators in execution order.
        input: the input image.
        outputs: outputs in the order in which the network returns them.
        arena_bytes: bytes of the arena that holds all activations at their offsets.
    """

    steps: tuple[Step, ...]
    input: Tensor
    outputs: tuple[Tensor, ...]
    arena_bytes: int


def read_model(content: bytes) -> Model:
    """Read a model from the bytes of a ``.tflite``.

    Raises:
        UsageError: LiteRT is not installed.
        ExportError: several inputs or subgraphs, outputs that are not computed, or activations that are not int8.
    """
    schema = need("ai_edge_litert.schema_py_generated")
    file = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    graph = file.subgraphs[0]
    for kind, entries in {"subgraph": file.subgraphs, "input": graph.inputs}.items():
        if len(entries) != 1:
            raise ExportError(f"Expected one {kind} for C sources, but the network has {len(entries)}: {OTHER_WAY}.")
    _check_outputs(graph)
    lives = lives_of(graph)
    _check_int8(schema, graph, list(lives))
    sizes = [math.prod(_shape(graph.tensors[tensor])) for tensor in lives]
    births, deaths = zip(*lives.values(), strict=True)
    offsets = planned_offsets(file, list(lives)) or pack(sizes, births, deaths)
    offset_of = dict(zip(lives, offsets, strict=True))
    tensors = [_tensor(schema, file, tensor, offset_of.get(number)) for number, tensor in enumerate(graph.tensors)]
    return Model(
        steps=tuple(_step(schema, file, number, tensors) for number in range(len(graph.operators))),
        input=tensors[graph.inputs[0]],
        outputs=tuple(tensors[number] for number in graph.outputs),
        arena_bytes=top(sizes, offsets),
    )


def _check_outputs(graph: Any) -> None:
    computed = {tensor for operator in graph.operators for tensor in operator.outputs.tolist()}
    if uncomputed := len(set(graph.outputs.tolist()) - computed):
        raise ExportError(
            f"Expected outputs that are computed for C sources, but {uncomputed} of them are not: {OTHER_WAY}."
        )


def _check_int8(schema: Any, graph: Any, activations: Sequence[int]) -> None:
    names = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    other_types = {names[graph.tensors[tensor].type].lower() for tensor in activations} - {"int8"}
    if other_types:
        raise ExportError(
            f"Expected int8 throughout for C sources, but the file also computes in {', '.join(sorted(other_types))}: "
            f"{OTHER_WAY}."
        )


def _step(schema: Any, file: Any, number: int, tensors: Sequence[Tensor]) -> Step:
    operator = file.subgraphs[0].operators[number]
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    code = file.operatorCodes[operator.opcodeIndex]
    name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
    if len(operator.outputs) != 1:
        raise ExportError(f"Expected operators of one output, but {name} has {len(operator.outputs)}: {OTHER_WAY}.")
    inputs = tuple(None if tensor < 0 else tensors[tensor] for tensor in operator.inputs)
    return Step(name, inputs, tensors[operator.outputs[0]], operator.builtinOptions, file, number)


def _tensor(schema: Any, file: Any, tensor: Any, offset: int | None) -> Tensor:
    quantisation, shape = tensor.quantization, _shape(tensor)
    scales = None if quantisation is None else quantisation.scale
    zeros = None if quantisation is None else quantisation.zeroPoint
    return Tensor(
        shape=shape,
        scales=() if scales is None else tuple(float(scale) for scale in scales),
        zero=0 if zeros is None else int(zeros[0]),
        values=None if offset is not None else _values(_types(schema), file, tensor, shape),
        offset=offset,
    )


def _values(types: Mapping[int, str], file: Any, tensor: Any, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """The values of a constant; None for a data type that no kernel reads."""
    data = file.buffers[tensor.buffer].data
    if data is None or tensor.type not in types:
        return None
    return np.asarray(data, np.uint8).view(types[tensor.type]).reshape(shape)


def _types(schema: Any) -> dict[int, str]:
    return {schema.TensorType.INT8: "i1", schema.TensorType.INT32: "<i4", schema.TensorType.INT64: "<i8"}


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)

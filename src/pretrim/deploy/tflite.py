"""LiteRT's file format, a flatbuffer: rewriting a model to be self-contained, with a plan of its memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pretrim.compat.optional import need
from pretrim.cost.arena import pack
from pretrim.cost.litert.lowering import MEAN_BYTES

IDENTIFIER = b"TFL3"
MEMORY_PLAN = b"OfflineMemoryAllocation"


def packed(content: bytes) -> bytes:
    """Rewrite a model with every buffer inside its flatbuffer, short tensor names, and a memory plan.

    The quantiser writes weights of 256 KiB and more after the flatbuffer. LiteRT finds them there; TensorFlow Lite for
    Microcontrollers does not (github.com/tensorflow/tflite-micro/issues/3196), and silently computes with whatever is
    in memory. The converter's tensor names contain full module paths, a quarter of ResNet-20's file, which nothing
    reads at run time.
    """
    schema = need("ai_edge_litert.schema_py_generated")
    make_builder = need("flatbuffers").Builder
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    for buffer in model.buffers:
        if buffer.offset and buffer.offset > 1:
            buffer.data = np.frombuffer(content[buffer.offset : buffer.offset + buffer.size], np.uint8)
            buffer.offset = buffer.size = 0
    for graph in model.subgraphs:
        inputs_and_outputs = {*graph.inputs.tolist(), *graph.outputs.tolist()}
        for number, tensor in enumerate(graph.tensors):
            if number not in inputs_and_outputs:
                tensor.name = str(number).encode()
    _plan_memory(schema, model)
    builder = make_builder(len(content) + 1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _plan_memory(schema: Any, model: Any) -> None:
    """Write the activations' arena offsets into a model, as the metadata that TFLM's memory planner reads.

    The format: version, subgraph, number of tensors, and each tensor's offset in the arena; -1 leaves its placement to
    the planner.
    """
    if len(model.subgraphs) != 1:
        return
    graph = model.subgraphs[0]
    lives = lives_of(graph)
    sizes = [item_bytes(schema, graph.tensors[tensor]) for tensor in lives]
    if not all(sizes):  # an unknown shape or data type
        return
    scratch = scratch_of(schema, model)
    births, deaths = zip(*lives.values(), *((operator, operator) for operator, _ in scratch), strict=True)
    offsets = pack([*sizes, *(size for _, size in scratch)], births, deaths)
    planned = np.full(len(graph.tensors), -1, dtype=np.int32)
    planned[list(lives)] = offsets[: len(lives)]
    buffer, metadata = schema.BufferT(), schema.MetadataT()
    header = np.array([1, 0, len(planned)], dtype=np.int32)
    buffer.data = np.frombuffer(np.concatenate([header, planned]).tobytes(), np.uint8)
    metadata.name, metadata.buffer = MEMORY_PLAN, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [entry for entry in model.metadata or [] if entry.name not in (MEMORY_PLAN, MEMORY_PLAN.decode())]
    model.metadata.append(metadata)


def planned_offsets(model: Any, activations: Sequence[int]) -> tuple[int, ...]:
    """Offsets of the activations in a file's own memory plan; empty unless the plan places all of them.

    Args:
        model: the model unpacked by the schema.
        activations: indices of the tensors.
    """
    for entry in model.metadata or []:
        if entry.name in (MEMORY_PLAN, MEMORY_PLAN.decode()):
            data = np.asarray(model.buffers[entry.buffer].data, np.uint8).tobytes()
            offsets = np.frombuffer(data, np.int32)[3:][activations]
            return tuple(int(offset) for offset in offsets) if (offsets >= 0).all() else ()
    return ()


def lives_of(graph: Any) -> dict[int, tuple[int, int]]:
    """The first and last operator that needs each activation, by tensor index."""
    lives = {int(tensor): (0, 0) for tensor in graph.inputs}
    for number, operator in enumerate(graph.operators):
        for tensor in operator.inputs.tolist():
            if tensor in lives:
                lives[tensor] = (lives[tensor][0], number)
        lives.update(dict.fromkeys(operator.outputs.tolist(), (number, number)))
    end = len(graph.operators) - 1
    return lives | {int(tensor): (lives[int(tensor)][0], end) for tensor in graph.outputs}


def scratch_of(schema: Any, model: Any) -> list[tuple[int, int]]:
    """(operator index, bytes) of the scratch buffers of TFLM's kernels.

    int8 transposed convolutions and means accumulate in int32; means also need a buffer for indices and axes.
    """
    graph = model.subgraphs[0]
    buffers: list[tuple[int, int]] = []
    for number, operator in enumerate(graph.operators):
        code = model.operatorCodes[operator.opcodeIndex]
        output = graph.tensors[operator.outputs[0]]
        is_int8 = output.type == schema.TensorType.INT8
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)
        if is_int8 and kind in (schema.BuiltinOperator.TRANSPOSE_CONV, schema.BuiltinOperator.MEAN):
            buffers.append((number, 4 * item_bytes(schema, output)))
            buffers += [(number, MEAN_BYTES)] * (kind == schema.BuiltinOperator.MEAN)
    return buffers


def item_bytes(schema: Any, tensor: Any) -> int:
    """Bytes of an activation; 0 if its shape or data type is unknown."""
    items = {schema.TensorType.FLOAT32: 4, schema.TensorType.INT8: 1, schema.TensorType.INT32: 4}
    shape = [1] if tensor.shape is None else [int(size) for size in tensor.shape]
    return math.prod(shape) * items.get(tensor.type, 0) if min(shape, default=1) > 0 else 0


def operators(content: bytes) -> list[str]:
    """Distinct names of a model's operators, in alphabetical order."""
    return sorted({name for name, _ in _used(content)})


def int8_operators(content: bytes) -> frozenset[str]:
    """Names of a model's operators whose first input is int8."""
    return frozenset(name for name, is_int8 in _used(content) if is_int8)


def _used(content: bytes) -> set[tuple[str, bool]]:
    """Distinct pairs of an operator's name and whether its first input is int8."""
    schema = need("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    used = set()
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            first = next((tensor for tensor in operator.inputs if tensor >= 0), None)
            is_int8 = first is not None and graph.tensors[first].type == schema.TensorType.INT8
            used.add((names[max(code.builtinCode, code.deprecatedBuiltinCode)], is_int8))
    return used

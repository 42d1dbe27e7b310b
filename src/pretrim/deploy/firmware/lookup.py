"""Functions of a single value, as tables of what LiteRT's reference kernel gives for each of the 256 int8 values."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrim.compat.optional import need
from pretrim.deploy.litert import reference_interpreter
from pretrim.deploy.tflite import IDENTIFIER

from .ctext import array
from .layer import Layer, aligned, place, title
from .model import Step

FUNCTIONS = ("GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "TANH")
LEVELS = np.arange(-128, 128, dtype=np.int8)


def look_up(step: Step, name: str) -> Layer:
    """A lookup in a table with an entry for each int8 value."""
    table = array(f"{name}_table", answers(step))
    call = f"nn_look_up({name}_table, {place(step.reads(0))}, {place(step.output)}, {step.output.size});"
    return Layer(title(step), (table,), call, aligned(len(LEVELS)))


def answers(step: Step) -> NDArray[np.int8]:
    """The operator's output for each int8 value in ascending order, from running the operator alone."""
    interpreter = reference_interpreter(_alone(step.file, step.number))
    (source,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(source["index"], LEVELS)
    interpreter.invoke()
    values: NDArray[np.int8] = interpreter.get_tensor(output["index"])
    return values


def _alone(source: Any, number: int) -> bytes:
    """The bytes of a model with a single operator of a file, whose input has one value for each level."""
    schema = need("ai_edge_litert.schema_py_generated")
    model = schema.ModelT()
    model.version, model.operatorCodes, model.buffers = source.version, source.operatorCodes, [schema.BufferT()]
    graph, operator = schema.SubGraphT(), copy.copy(source.subgraphs[0].operators[number])
    graph.tensors = [
        copy.copy(source.subgraphs[0].tensors[tensor_number])
        for tensor_number in (operator.inputs[0], operator.outputs[0])
    ]
    for tensor in graph.tensors:
        tensor.shape, tensor.shapeSignature, tensor.buffer = np.array([len(LEVELS)], np.int32), None, 0
    operator.inputs, operator.outputs = np.array([0], np.int32), np.array([1], np.int32)
    graph.operators, graph.inputs, graph.outputs = [operator], operator.inputs, operator.outputs
    model.subgraphs = [graph]
    builder = need("flatbuffers").Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())

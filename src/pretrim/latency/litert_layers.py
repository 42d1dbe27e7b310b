"""One-layer ``.tflite`` models, written directly as flatbuffers: the converter would take seconds for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrim.compat.optional import need
from pretrim.deploy.tflite import IDENTIFIER

from .layers import SCALE, LayerKind, Written


def model_of(kind: LayerKind, widths: tuple[int, ...], *, int8: bool, signed: bool = True) -> Written:
    """Write a one-layer model in NHWC; its int8 is always signed.

    Args:
        kind: kind of the layer.
        widths: input and output channels, or just channels.
        int8: whether it is quantised to int8 instead of float32.
        signed: ignored.
    """
    schema = need("ai_edge_litert.schema_py_generated")
    build = _Builder(schema, int8)
    settings = kind.settings
    height, width = settings.get("height", 1), settings.get("width", 1)
    shape = [1, height, width, widths[0]]
    if kind.kind == "linear":
        shape = [1, widths[0]]
        x = build.activation(shape)
        inputs = [x, build.weight(widths[1], widths[0]), build.bias(widths[1])]
        build.operator("FULLY_CONNECTED", inputs, [1, widths[1]], schema.FullyConnectedOptionsT())
    elif kind.kind in ("conv", "depthwise"):
        x = build.activation(shape)
        kernel, out = settings["kernel"], widths[-1]
        options: Any = schema.Conv2DOptionsT() if kind.kind == "conv" else schema.DepthwiseConv2DOptionsT()
        options.padding = 0 if settings["same"] else 1
        options.strideH, options.strideW = settings["stride"]
        options.dilationHFactor, options.dilationWFactor = settings["dilation"]
        options.fusedActivationFunction = 1  # RELU
        if kind.kind == "conv":
            weight = build.weight(out, *kernel, widths[0])
        else:
            options.depthMultiplier = 1
            weight = build.weight(1, *kernel, out, axis=3)
        output_size = [
            _output_size(size, k, s, d, settings["same"])
            for size, k, s, d in zip((height, width), kernel, settings["stride"], settings["dilation"], strict=True)
        ]
        name = "CONV_2D" if kind.kind == "conv" else "DEPTHWISE_CONV_2D"
        build.operator(name, [x, weight, build.bias(out)], [1, *output_size, out], options)
    elif kind.kind in ("add", "mul"):
        inputs = [build.activation(shape), build.activation(shape)]
        options = schema.AddOptionsT() if kind.kind == "add" else schema.MulOptionsT()
        build.operator(kind.kind.upper(), inputs, shape, options)
    elif kind.kind == "pad":
        top, left = settings["padding"]
        pads = build.integers([[0, 0], [top, top], [left, left], [0, 0]])
        inputs = [build.activation(shape), pads]
        build.operator("PAD", inputs, [1, height + 2 * top, width + 2 * left, widths[0]], schema.PadOptionsT())
    elif kind.kind == "mean":
        inputs = [build.activation(shape), build.integers([1, 2])]
        build.operator("MEAN", inputs, [1, widths[0]], schema.ReducerOptionsT())
    else:
        options = schema.Pool2DOptionsT()
        options.padding = 1
        (options.filterHeight, options.filterWidth), (options.strideH, options.strideW) = (
            settings["kernel"],
            settings["stride"],
        )
        output_size = [
            _output_size(size, k, s, 1, False)
            for size, k, s in zip((height, width), settings["kernel"], settings["stride"], strict=True)
        ]
        name = "MAX_POOL_2D" if kind.kind == "max_pool" else "AVERAGE_POOL_2D"
        build.operator(name, [build.activation(shape)], [1, *output_size, widths[0]], options)
    return Written(build.finish(), tuple(shape), "int8" if int8 else "float32")


def _output_size(size: int, kernel: int, stride: int, dilation: int, same: bool) -> int:
    return -(-size // stride) if same else (size - dilation * (kernel - 1) - 1) // stride + 1


class _Builder:
    """Builds a flatbuffer with one operator."""

    def __init__(self, schema: Any, int8: bool) -> None:
        self.schema, self.int8 = schema, int8
        self.random = np.random.default_rng(0)
        self.graph, self.model = schema.SubGraphT(), schema.ModelT()
        self.graph.tensors, self.graph.inputs, self.graph.operators = [], [], []
        self.model.version, self.model.subgraphs, self.model.buffers = 3, [self.graph], [schema.BufferT()]

    def _tensor(
        self, shape: list[int], kind: int, data: NDArray[Any] | None, scales: list[float], axis: int = 0
    ) -> int:
        tensor = self.schema.TensorT()
        tensor.shape, tensor.type, tensor.name = np.array(shape, np.int32), kind, str(len(self.graph.tensors)).encode()
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if scales and self.int8:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = np.array(scales, np.float32)
            tensor.quantization.zeroPoint = np.zeros(len(scales), np.int64)
            tensor.quantization.quantizedDimension = axis
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def activation(self, shape: list[int], *, is_input: bool = True) -> int:
        kinds = self.schema.TensorType
        number = self._tensor(shape, kinds.INT8 if self.int8 else kinds.FLOAT32, None, [SCALE])
        if is_input:
            self.graph.inputs.append(number)
        return number

    def weight(self, *shape: int, axis: int = 0) -> int:
        kinds = self.schema.TensorType
        if self.int8:
            values: NDArray[Any] = self.random.integers(-127, 128, shape).astype(np.int8)
            return self._tensor(list(shape), kinds.INT8, values, [SCALE] * shape[axis], axis)
        return self._tensor(list(shape), kinds.FLOAT32, self.random.normal(0, 0.1, shape).astype(np.float32), [])

    def bias(self, size: int) -> int:
        kinds = self.schema.TensorType
        if self.int8:
            return self._tensor([size], kinds.INT32, np.zeros(size, np.int32), [SCALE * SCALE] * size)
        return self._tensor([size], kinds.FLOAT32, np.zeros(size, np.float32), [])

    def integers(self, values: Any) -> int:
        data = np.array(values, np.int32)
        return self._tensor(list(data.shape), self.schema.TensorType.INT32, data, [])

    def operator(self, name: str, inputs: list[int], shape: list[int], options: Any) -> None:
        code = getattr(self.schema.BuiltinOperator, name)
        entry, operator = self.schema.OperatorCodeT(), self.schema.OperatorT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 3 if self.int8 else 1
        output = self.activation(shape, is_input=False)
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.graph.operators.append(operator)
        self.model.operatorCodes = [entry]
        self.graph.outputs = np.array([output], np.int32)

    def finish(self) -> bytes:
        self.graph.inputs = np.array(self.graph.inputs, np.int32)
        builder = need("flatbuffers").Builder(1024)
        builder.Finish(self.model.Pack(builder), IDENTIFIER)
        return bytes(builder.Output())

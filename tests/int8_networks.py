"""Small int8 networks of every operator that there is a C kernel for, drawn at random and written as `.tflite`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

VERSIONS = {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "TRANSPOSE_CONV": 4} | dict.fromkeys(
    ("RESHAPE", "RELU_N1_TO_1", "HARD_SWISH"), 1
)
"""Of operators that the second, which knows int8, is not right for: groups, no biases, or none but the first"""
RESCALINGS = ("QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1")
FUNCTIONS = ("GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "TANH")
OPERATOR = vars(schema.BuiltinOperator)
OPTIONS = vars(schema.BuiltinOptions)


class Builder:
    """A flatbuffer with one subgraph, operator by operator."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version, self.model.buffers, self.model.operatorCodes = 3, [schema.BufferT()], []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(self, shape: Sequence[int], scales: Any = None, zero: int = 0, values: Any = None, axis: int = 0) -> int:
        """A tensor by its shape, scales and zero point; with values a constant. Its number."""
        tensor = schema.TensorT()
        tensor.shape, tensor.name = np.array(shape, np.int32), str(len(self.graph.tensors)).encode()
        tensor.type = schema.TensorType.INT8
        if values is not None:
            tensor.type = {"int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32}[values.dtype.name]
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if scales is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.atleast_1d(np.asarray(scales, np.float32))
            tensor.quantization.zeroPoint = np.full(np.size(scales), zero, np.int64)
            tensor.quantization.quantizedDimension = axis
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def add(self, name: str, inputs: Sequence[int], output: int, options: str | None = None, **fields: Any) -> None:
        """An operator, with its options by their names in the schema."""
        code = schema.OperatorCodeT()
        code.builtinCode, code.version = OPERATOR[name], VERSIONS.get(name, 2)
        code.deprecatedBuiltinCode = min(OPERATOR[name], 127)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes)
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if options is not None:
            operator.builtinOptionsType = OPTIONS[options]
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for field, value in fields.items():
                setattr(operator.builtinOptions, field, value)
        self.model.operatorCodes.append(code)
        self.graph.operators.append(operator)

    def content(self, source: int, output: int) -> bytes:
        self.graph.inputs, self.graph.outputs = np.array([source], np.int32), np.array([output], np.int32)
        written = flatbuffers.Builder(1024)
        written.Finish(self.model.Pack(written), b"TFL3")
        return bytes(written.Output())


@dataclass(frozen=True)
class Now:
    """The activation that the next operator reads."""

    number: int
    shape: tuple[int, ...]
    scale: float
    zero: int


class Drawn:
    """A network that grows by operators whose every choice is drawn."""

    def __init__(self, seed: int) -> None:
        self.random, self.build = np.random.default_rng(seed), Builder()
        height, width, channels = (int(size) for size in self.random.integers((5, 5, 1), (12, 12, 7)))
        self.now = self.activation((1, height, width, channels))
        self.start = self.now

    def one(self, *choices: Any) -> Any:
        return choices[self.random.integers(len(choices))]

    def activation(self, shape: tuple[int, ...], scale: float | None = None, zero: int | None = None) -> Now:
        if scale is None or zero is None:
            scale = float(np.float32(self.random.uniform(0.01, 0.1)))
            zero = int(self.one(-128, 127, self.random.integers(-128, 128)))
        return Now(self.build.tensor(shape, scale, zero), shape, scale, zero)

    def weights(self, shape: tuple[int, ...], channels: int, axis: int, inputs: int) -> tuple[list[int], float]:
        """Weights and biases, which only CONV_2D has to have; and the size of the sums of so many products."""
        scales = self.random.uniform(0.002, 0.02, channels if self.one(True, True, False) else 1).astype(np.float32)
        values = self.random.integers(-127, 128, shape, dtype=np.int8)
        numbers = [self.build.tensor(shape, scales, 0, values, axis)]
        typical = 70 * math.sqrt(inputs)
        if (len(shape) == 4 and axis == 0) or self.one(True, True, False):
            bias = self.random.integers(-70 * int(typical), 70 * int(typical), channels).astype(np.int32)
            numbers.append(self.build.tensor((channels,), self.now.scale * scales, 0, bias))
        return numbers, float(self.now.scale * scales.mean() * typical)

    def sums(self, shape: tuple[int, ...], typical: float) -> Now:
        """An activation that sums of this size fill; now and then with a scale so small that they are scaled up."""
        scale = typical * float(self.random.uniform(0.5, 3)) if self.random.uniform() > 0.1 else self.now.scale / 1000
        return self.activation(shape, float(np.float32(scale)), int(self.random.integers(-128, 128)))

    def windowed(self, kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[dict[str, int], int, int]:
        """Strides, padding, and the size of the output."""
        strides = [int(stride) for stride in self.random.integers(1, 4, 2)]
        reach = [(size - 1) * spread + 1 for size, spread in zip(kernel, dilation, strict=True)]
        sizes = self.now.shape[1:3]
        fits = all(length <= size for length, size in zip(reach, sizes, strict=True))
        padding = self.one(0, 1) if fits else 0
        height, width = (
            -(-size // stride) if padding == 0 else (size - length) // stride + 1
            for size, stride, length in zip(sizes, strides, reach, strict=True)
        )
        return {"padding": padding, "strideH": strides[0], "strideW": strides[1]}, height, width

    def shape_of_kernel(self) -> tuple[tuple[int, int], tuple[int, int]]:
        kernel, dilation = self.random.integers(1, 5, 2), self.random.integers(1, 3, 2)
        return (int(kernel[0]), int(kernel[1])), (int(dilation[0]), int(dilation[1]))

    # ------------------------------------------------------------------------------------ operators

    def convolution(self) -> None:
        kernel, dilation = self.shape_of_kernel()
        inputs = self.now.shape[3]
        groups = int(self.one(1, 1, *(number for number in range(2, inputs) if inputs % number == 0)))
        channels, depth = groups * int(self.random.integers(1, 5)), inputs // groups
        fields, height, width = self.windowed(kernel, dilation)
        used, typical = self.weights((channels, *kernel, depth), channels, 0, depth * math.prod(kernel))
        output = self.sums((1, height, width, channels), typical)
        self.build.add(
            "CONV_2D", [self.now.number, *used], output.number, "Conv2DOptions", **fields,
            dilationHFactor=dilation[0], dilationWFactor=dilation[1], fusedActivationFunction=self.one(0, 1, 2, 3),
        )  # fmt: skip
        self.now = output

    def depthwise(self) -> None:
        kernel, dilation = self.shape_of_kernel()
        multiplier = int(self.random.integers(1, 4))
        channels = multiplier * self.now.shape[3]
        fields, height, width = self.windowed(kernel, dilation)
        used, typical = self.weights((1, *kernel, channels), channels, 3, math.prod(kernel))
        output = self.sums((1, height, width, channels), typical)
        self.build.add(
            "DEPTHWISE_CONV_2D", [self.now.number, *used], output.number, "DepthwiseConv2DOptions", **fields,
            depthMultiplier=multiplier, dilationHFactor=dilation[0], dilationWFactor=dilation[1],
            fusedActivationFunction=self.one(0, 1, 2, 3),
        )  # fmt: skip
        self.now = output

    def transposed(self) -> None:
        """Of any size that the convolution from the output makes the input of."""
        (height, width), _ = self.shape_of_kernel()
        channels, strides = int(self.random.integers(1, 5)), [int(stride) for stride in self.random.integers(1, 4, 2)]
        padding, sizes = int(self.one(0, 1)), []
        for size, kernel, stride in zip(self.now.shape[1:3], (height, width), strides, strict=True):
            least = (size - 1) * stride + (1 if padding == 0 else kernel)
            sizes.append(least + int(self.random.integers(0, stride)))
        shape, inputs = (1, *sizes, channels), self.now.shape[3]
        used, typical = self.weights((channels, height, width, inputs), channels, 0, inputs * height * width)
        output = self.sums(shape, typical)
        self.build.add(
            "TRANSPOSE_CONV", [self.build.tensor((4,), values=np.array(shape, np.int32)), used[0], self.now.number,
            *used[1:]], output.number, "TransposeConvOptions", padding=padding, strideH=strides[0], strideW=strides[1],
            fusedActivationFunction=self.one(0, 1, 3),
        )  # fmt: skip
        self.now = output

    def nearest(self) -> None:
        self.resized("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions")

    def bilinear(self) -> None:
        self.resized("RESIZE_BILINEAR", "ResizeBilinearOptions")

    def resized(self, name: str, options: str) -> None:
        """Larger or smaller, each side on its own, in each of the three ways to place pixels."""
        height, width = (int(size) for size in self.random.integers(1, 24, 2))
        output = self.activation((1, height, width, self.now.shape[3]), self.now.scale, self.now.zero)
        sizes = self.build.tensor((2,), values=np.array([height, width], np.int32))
        aligns, halves = self.one((False, False), (True, False), (False, True))
        self.build.add(
            name, [self.now.number, sizes], output.number, options, alignCorners=aligns, halfPixelCenters=halves
        )
        self.now = output

    def average_pool(self) -> None:
        self.pool("AVERAGE_POOL_2D")

    def max_pool(self) -> None:
        self.pool("MAX_POOL_2D")

    def pool(self, name: str) -> None:
        kernel, _ = self.shape_of_kernel()
        fields, height, width = self.windowed(kernel, (1, 1))
        output = self.activation((1, height, width, self.now.shape[3]), self.now.scale, self.now.zero)
        self.build.add(
            name, [self.now.number], output.number, "Pool2DOptions", **fields,
            filterHeight=kernel[0], filterWidth=kernel[1], fusedActivationFunction=self.one(0, 1, 3),
        )  # fmt: skip
        self.now = output

    def residual(self) -> None:
        """The sum or difference of the activation and of what a 1x1 convolution makes of it."""
        before, branch = self.now, self.branch()
        pair = [before, branch] if self.one(True, False) else [branch, before]
        self.sum(self.one("ADD", "ADD", "SUB"), pair, before.shape)

    def branch(self) -> Now:
        """What a 1x1 convolution makes of the activation."""
        channels = self.now.shape[3]
        used, typical = self.weights((channels, 1, 1, channels), channels, 0, channels)
        branch = self.sums(self.now.shape, typical)
        self.build.add(
            "CONV_2D", [self.now.number, *used], branch.number, "Conv2DOptions",
            padding=1, strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1,
        )  # fmt: skip
        return branch

    def sum(self, name: str, pair: Sequence[Now], shape: tuple[int, ...]) -> None:
        scale = float(np.float32(max(one.scale for one in pair) * self.random.uniform(0.7, 2)))
        output = self.activation(shape, scale, int(self.random.integers(-128, 128)))
        options = {"ADD": "AddOptions", "SUB": "SubOptions"}[name]
        fused = self.one(0, 1, 3)
        self.build.add(name, [one.number for one in pair], output.number, options, fusedActivationFunction=fused)
        self.now = output

    def other(self) -> Now:
        """A second operand: a constant, repeated along some dimensions, or some of the activation, or what a
        convolution makes of it."""
        shape = tuple(int(self.one(1, size)) for size in self.now.shape)
        if self.one(True, False):
            scale, zero = np.float32(self.random.uniform(0.01, 0.1)), int(self.random.integers(-128, 128))
            shape = self.one(shape, shape[1:], shape[3:])
            values = self.random.integers(-128, 128, shape, dtype=np.int8)
            return Now(self.build.tensor(shape, scale, zero, values), shape, float(scale), zero)
        return self.one(self.branch, lambda: self.part(shape))()

    def part(self, shape: tuple[int, ...]) -> Now:
        """Some of the activation, from anywhere in it."""
        starts = self.random.integers(0, np.array(self.now.shape) - shape + 1)
        output = self.activation(shape, self.now.scale, self.now.zero)
        ends = [self.build.tensor((4,), values=np.array(each, np.int32)) for each in (starts, shape)]
        self.build.add("SLICE", [self.now.number, *ends], output.number, "SliceOptions")
        return output

    def slice(self) -> None:
        self.now = self.part(tuple(int(self.random.integers(1, size + 1)) for size in self.now.shape))

    def repeated(self) -> None:
        """A sum or difference with an operand of another shape, or a constant."""
        pair = [self.now, self.other()]
        if self.one(True, False):
            pair.reverse()
        self.sum(self.one("ADD", "SUB"), pair, self.now.shape)

    def product(self) -> None:
        pair = [self.now, self.other()]
        if self.one(True, False):
            pair.reverse()
        scale = float(np.float32(pair[0].scale * pair[1].scale * self.random.uniform(20, 120)))
        output = self.activation(self.now.shape, scale, int(self.random.integers(-128, 128)))
        self.build.add(
            "MUL", [one.number for one in pair], output.number, "MulOptions", fusedActivationFunction=self.one(0, 1, 3)
        )
        self.now = output

    def function(self, name: str) -> None:
        """A function of one value. Some have a scale of their own; hard-swish takes none far below its input's."""
        own = float(np.float32(self.now.scale * self.random.uniform(0.4, 2))), int(self.random.integers(-128, 128))
        scale, zero = {"LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}.get(name, own)
        output = self.activation(self.now.shape, scale, zero)
        options = {"GELU": "GeluOptions", "LEAKY_RELU": "LeakyReluOptions", "HARD_SWISH": "HardSwishOptions"}
        fields = {"alpha": float(np.float32(self.random.uniform(0.01, 0.5)))} if name == "LEAKY_RELU" else {}
        self.build.add(name, [self.now.number], output.number, options.get(name), **fields)
        self.now = output

    def softmax(self) -> None:
        output = self.activation(self.now.shape, 1 / 256, -128)
        beta = float(self.one(1.0, np.float32(0.3)))
        self.build.add("SOFTMAX", [self.now.number], output.number, "SoftmaxOptions", beta=beta)
        self.now = output

    def pad(self) -> None:
        self.padded("PAD", "PadOptions")

    def pad_with(self) -> None:
        """With a value of its own."""
        value = self.random.integers(-128, 128, 1, dtype=np.int8)
        self.padded("PADV2", "PadV2Options", self.build.tensor((1,), self.now.scale, self.now.zero, value))

    def padded(self, name: str, options: str, *more: int) -> None:
        around = self.random.integers(0, 3, (4, 2)).astype(np.int32)
        around[0] = 0
        shape = tuple(int(size) for size in np.array(self.now.shape) + around.sum(1))
        output = self.activation(shape, self.now.scale, self.now.zero)
        inputs = [self.now.number, self.build.tensor((4, 2), values=around), *more]
        self.build.add(name, inputs, output.number, options)
        self.now = output

    def transpose(self) -> None:
        order = np.array([0, *(1 + self.random.permutation(3))], np.int32)
        output = self.activation(tuple(self.now.shape[axis] for axis in order), self.now.scale, self.now.zero)
        inputs = [self.now.number, self.build.tensor((4,), values=order)]
        self.build.add("TRANSPOSE", inputs, output.number, "TransposeOptions")
        self.now = output

    def shuffle(self) -> None:
        """Channels in two groups taken in turns, in five dimensions."""
        _, height, width, channels = self.now.shape
        groups = 2 if channels % 2 == 0 else 1
        first, second = (height, width, groups, channels // groups), (height, width, channels // groups, groups)
        self.reshape((1, *first))
        output = self.activation((1, *second), self.now.scale, self.now.zero)
        order = self.build.tensor((5,), values=np.array([0, 1, 2, 4, 3], np.int32))
        self.build.add("TRANSPOSE", [self.now.number, order], output.number, "TransposeOptions")
        self.now = output
        self.reshape((1, height, width, channels))

    def reshape(self, sizes: tuple[int, ...]) -> None:
        output = self.activation(sizes, self.now.scale, self.now.zero)
        shape = self.build.tensor((len(sizes),), values=np.array(sizes, np.int32))
        self.build.add("RESHAPE", [self.now.number, shape], output.number, "ReshapeOptions")
        self.now = output

    def concatenation(self) -> None:
        axis, times = int(self.random.integers(1, 4)), int(self.random.integers(2, 4))
        shape = list(self.now.shape)
        shape[axis] *= times
        output = self.activation(tuple(shape), self.now.scale, self.now.zero)
        self.build.add(
            "CONCATENATION",
            [self.now.number] * times,
            output.number,
            "ConcatenationOptions",
            axis=self.one(axis, axis - 4),
        )
        self.now = output

    def rescaling(self, name: str = "QUANTIZE") -> None:
        output = self.activation(self.now.shape)
        self.build.add(name, [self.now.number], output.number, "QuantizeOptions" if name == "QUANTIZE" else None)
        self.now = output

    def mean(self) -> None:
        first, keeps = int(self.random.integers(1, 3)), bool(self.one(True, False))
        axes = np.array(self.one((first, first + 1), (first + 1, first), (first - 4, first - 3)), np.int32)
        shape = [1 if axis in (first, first + 1) else size for axis, size in enumerate(self.now.shape)]
        kept = tuple(shape) if keeps else (*shape[:first], *shape[first + 2 :])
        scale = float(np.float32(self.now.scale * self.random.uniform(0.2, 1.2)))
        output = self.activation(kept, scale, int(self.random.integers(-128, 128)))
        inputs = [self.now.number, self.build.tensor((2,), values=axes)]
        self.build.add("MEAN", inputs, output.number, "ReducerOptions", keepDims=keeps)
        self.now = output

    def flatten(self) -> None:
        self.reshape((1, math.prod(self.now.shape)))

    def dense(self) -> None:
        inputs, outputs = math.prod(self.now.shape), int(self.random.integers(1, 9))
        used, typical = self.weights((outputs, inputs), outputs, 0, inputs)
        result = self.sums((1, outputs), typical)
        self.build.add(
            "FULLY_CONNECTED", [self.now.number, *used], result.number, "FullyConnectedOptions",
            fusedActivationFunction=self.one(0, 1, 3),
        )  # fmt: skip
        self.now = result


def draw(seed: int) -> bytes:
    """A network of one to four operators, the first of a kind by the seed, and a classifier or none."""
    drawn = Drawn(seed)
    kinds: list[Callable[[], None]] = [
        drawn.convolution, drawn.depthwise, drawn.average_pool, drawn.max_pool, drawn.residual, drawn.pad,
        drawn.pad_with, drawn.transpose, drawn.concatenation, drawn.repeated, drawn.product, drawn.softmax,
        drawn.slice, drawn.shuffle, drawn.transposed, drawn.nearest, drawn.bilinear,
        *(partial(drawn.rescaling, name) for name in RESCALINGS),
        *(partial(drawn.function, name) for name in FUNCTIONS),
    ]  # fmt: skip
    kinds[seed % len(kinds)]()
    for _ in range(drawn.random.integers(0, 4)):
        drawn.one(*kinds)()
    if drawn.one(True, False):
        drawn.one(drawn.mean, drawn.flatten)()
        drawn.dense()
    return drawn.build.content(drawn.start.number, drawn.now.number)


def draw_one(kind: str, seed: int = 0) -> bytes:
    """A network of one operator, by the name of its method."""
    drawn = Drawn(seed)
    getattr(drawn, kind)()
    return drawn.build.content(drawn.start.number, drawn.now.number)

"""One layer as an ONNX model, written node by node: torch's exporter would take a second for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrim.compat.optional import need

from .layers import SCALE, LayerKind, Written

OPSET, IR_VERSION = 18, 10


def model_of(kind: LayerKind, widths: tuple[int, ...], *, int8: bool, signed: bool = False) -> Written:
    """A model of one layer, with its activation as the exporter and ONNX Runtime's quantisation write it.

    Args:
        kind: what is fixed; ``pad`` is not among them, as ONNX's convolutions pad by themselves.
        widths: input and output channels, or channels.
        int8: quantised; its input and output are integers, so that the layer alone is timed.
        signed: int8 activations instead of uint8 with 7-bit weights (`deploy.onnx.quantise`).
    """
    given = kind.settings
    shape = [1, widths[0], given.get("height", 1), given.get("width", 1)]
    build = _Builder(need("onnx"), int8, signed)
    if kind.kind == "linear":
        shape = [1, widths[0]]
        result = build.node("Gemm", build.input(shape), *build.weights(widths[1], widths[0]), transB=1)
    elif kind.kind in ("conv", "depthwise"):
        kernel, out = given["kernel"], widths[-1]
        groups = out if kind.kind == "depthwise" else 1
        weights = build.weights(out, widths[0] // groups, *kernel)
        sizes = {"kernel_shape": kernel, "strides": given["stride"], "dilations": given["dilation"]}
        pads = _pads(given) if given["same"] else [0, 0, 0, 0]
        result = build.node("Conv", build.input(shape), *weights, group=groups, pads=pads, **sizes)
        result = build.node("Relu", result)
    elif kind.kind in ("add", "mul"):
        result = build.node(kind.kind.capitalize(), build.input(shape), build.input(shape))
    elif kind.kind == "mean":
        result = build.node("ReduceMean", build.input(shape), build.constant(np.array([2, 3])), keepdims=0)
    else:
        operator = "MaxPool" if kind.kind == "max_pool" else "AveragePool"
        result = build.node(operator, build.input(shape), kernel_shape=given["kernel"], strides=given["stride"])
    rank = 2 if kind.kind in ("linear", "mean") else 4
    return Written(build.finish(result, rank), tuple(shape), build.data_type)


def _pads(given: dict[str, Any]) -> list[int]:
    """Before and after, of height and width, so that a stride of 1 keeps the size."""
    before, after = [], []
    for size, kernel, stride, dilation in zip(
        (given["height"], given["width"]), given["kernel"], given["stride"], given["dilation"], strict=True
    ):
        total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return before + after


class _Builder:
    """A graph of one layer; in int8 with a pair of QuantizeLinear and DequantizeLinear where values are integers."""

    def __init__(self, onnx: Any, int8: bool, signed: bool) -> None:
        self.onnx, self.int8 = onnx, int8
        self.activation: Any = np.int8 if signed else np.uint8
        self.largest = 127 if signed else 63  # of the weights: 7 bits do not overflow on x86
        self.data_type = np.dtype(self.activation).name if int8 else "float32"
        self.random = np.random.default_rng(0)
        self.inputs: list[Any] = []
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def _name(self) -> str:
        return f"t{len(self.inputs) + len(self.nodes) + len(self.constants)}"

    def constant(self, values: NDArray[Any]) -> str:
        name = self._name()
        self.constants.append(self.onnx.numpy_helper.from_array(values, name))
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = self._name()
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def input(self, shape: list[int]) -> str:
        name = self._name()
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, self._element(), shape))
        return self.node("DequantizeLinear", name, *self._scale()) if self.int8 else name

    def weights(self, out: int, *others: int) -> tuple[str, str]:
        """A weight with its filters first, and a bias."""
        if not self.int8:
            weight = self.random.normal(0, 0.1, (out, *others)).astype(np.float32)
            return self.constant(weight), self.constant(np.zeros(out, np.float32))
        values = self.random.integers(-self.largest, self.largest + 1, (out, *others)).astype(np.int8)
        scales = np.full(out, SCALE, np.float32)
        weight_of = (self.constant(values), self.constant(scales), self.constant(np.zeros(out, np.int8)))
        bias_of = (self.constant(np.zeros(out, np.int32)), self.constant(scales * np.float32(SCALE)))
        zero = self.constant(np.zeros(out, np.int32))
        weight_name = self.node("DequantizeLinear", *weight_of, axis=0)
        return weight_name, self.node("DequantizeLinear", *bias_of, zero, axis=0)

    def _scale(self) -> tuple[str, str]:
        """As of what a ReLU has passed: its zero is the least integer, and needs no operator of its own."""
        zero = np.array(np.iinfo(self.activation).min, self.activation)
        return self.constant(np.array(SCALE, np.float32)), self.constant(zero)

    def _element(self) -> int:
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(self.data_type)))

    def finish(self, result: str, rank: int) -> bytes:
        """The model whose output is `result`."""
        if self.int8:
            result = self.node("QuantizeLinear", result, *self._scale())
        helper = self.onnx.helper
        output = helper.make_tensor_value_info(result, self._element(), [None] * rank)
        graph = helper.make_graph(self.nodes, "layer", self.inputs, [output], self.constants)
        opsets = [helper.make_opsetid("", OPSET)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString())

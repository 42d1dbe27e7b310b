"""One-layer ONNX models, written node by node: torch's exporter would take a second for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrim.compat.optional import need

from .layers import SCALE, LayerKind, Written

OPSET, IR_VERSION = 18, 10


def model_of(kind: LayerKind, widths: tuple[int, ...], *, int8: bool, signed: bool = False) -> Written:
    """Write a one-layer model, with its activation as the exporter and ONNX Runtime's quantisation write it.

    Args:
        kind: kind of the layer, except ``pad``: ONNX's convolutions pad by themselves.
        widths: input and output channels, or just channels.
        int8: whether it is quantised; its input and output are then integers, so that only the layer is timed.
        signed: int8 activations instead of uint8 with 7-bit weights (`deploy.onnx.quantise`).
    """
    settings = kind.settings
    shape = [1, widths[0], settings.get("height", 1), settings.get("width", 1)]
    build = _Builder(need("onnx"), int8, signed)
    if kind.kind == "linear":
        shape = [1, widths[0]]
        result = build.node("Gemm", build.input(shape), *build.weights(widths[1], widths[0]), transB=1)
    elif kind.kind in ("conv", "depthwise"):
        kernel, out = settings["kernel"], widths[-1]
        groups = out if kind.kind == "depthwise" else 1
        weights = build.weights(out, widths[0] // groups, *kernel)
        sizes = {"kernel_shape": kernel, "strides": settings["stride"], "dilations": settings["dilation"]}
        pads = _pads(settings) if settings["same"] else [0, 0, 0, 0]
        result = build.node("Conv", build.input(shape), *weights, group=groups, pads=pads, **sizes)
        result = build.node("Relu", result)
    elif kind.kind in ("add", "mul"):
        result = build.node(kind.kind.capitalize(), build.input(shape), build.input(shape))
    elif kind.kind == "mean":
        result = build.node("ReduceMean", build.input(shape), build.constant(np.array([2, 3])), keepdims=0)
    else:
        operator = "MaxPool" if kind.kind == "max_pool" else "AveragePool"
        result = build.node(operator, build.input(shape), kernel_shape=settings["kernel"], strides=settings["stride"])
    rank = 2 if kind.kind in ("linear", "mean") else 4
    return Written(build.finish(result, rank), tuple(shape), build.data_type)


def _pads(settings: dict[str, Any]) -> list[int]:
    """Same-padding: [top, left, bottom, right], so that a stride of 1 keeps the size."""
    before, after = [], []
    for size, kernel, stride, dilation in zip(
        (settings["height"], settings["width"]),
        settings["kernel"],
        settings["stride"],
        settings["dilation"],
        strict=True,
    ):
        total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return before + after


class _Builder:
    """Builds the graph of one layer; in int8, QuantizeLinear and DequantizeLinear surround it."""

    def __init__(self, onnx: Any, int8: bool, signed: bool) -> None:
        self.onnx, self.int8 = onnx, int8
        self.activation: Any = np.int8 if signed else np.uint8
        self.max_weight = 127 if signed else 63  # 7-bit weights do not overflow on x86
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
        """Add a weight of shape (out, *others) and a bias of shape (out)."""
        if not self.int8:
            weight = self.random.normal(0, 0.1, (out, *others)).astype(np.float32)
            return self.constant(weight), self.constant(np.zeros(out, np.float32))
        values = self.random.integers(-self.max_weight, self.max_weight + 1, (out, *others)).astype(np.int8)
        scales = np.full(out, SCALE, np.float32)
        weight_inputs = (self.constant(values), self.constant(scales), self.constant(np.zeros(out, np.int8)))
        bias_inputs = (self.constant(np.zeros(out, np.int32)), self.constant(scales * np.float32(SCALE)))
        zero = self.constant(np.zeros(out, np.int32))
        weight_name = self.node("DequantizeLinear", *weight_inputs, axis=0)
        return weight_name, self.node("DequantizeLinear", *bias_inputs, zero, axis=0)

    def _scale(self) -> tuple[str, str]:
        """Scale and zero point of a ReLU's output: zero is the smallest integer, so the ReLU needs no operator."""
        zero = np.array(np.iinfo(self.activation).min, self.activation)
        return self.constant(np.array(SCALE, np.float32)), self.constant(zero)

    def _element(self) -> int:
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(self.data_type)))

    def finish(self, result: str, rank: int) -> bytes:
        """Serialise the model whose output is `result`."""
        if self.int8:
            result = self.node("QuantizeLinear", result, *self._scale())
        helper = self.onnx.helper
        output = helper.make_tensor_value_info(result, self._element(), [None] * rank)
        graph = helper.make_graph(self.nodes, "layer", self.inputs, [output], self.constants)
        opsets = [helper.make_opsetid("", OPSET)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString())

"""The timed layers of a network as a runtime runs them: their fixed settings and their variable widths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pretrim.analysis.network import Network, Operator
from pretrim.cost.formula import Term
from pretrim.cost.litert.follow import CONVOLUTIONS
from pretrim.cost.litert.lowering import Lowering
from pretrim.cost.litert.rules import lower
from pretrim.deploy.runtime import RuntimeName

POOLS = {"max_pool2d_with_indices": "max_pool", "avg_pool2d": "average_pool"}
SUMS = {"add": "add", "sub": "add", "mul": "mul"}
SCALE = 0.02
"""Quantisation scale of int8 tensors in one-layer models; the time does not depend on it."""


@dataclass(frozen=True)
class LayerKind:
    """Everything that layers have in common if they differ only in their widths.

    Attributes:
        kind: conv, depthwise, linear, pad, add, mul, mean, max_pool, average_pool.
        fixed: input size, kernel, stride, padding and other fixed settings, as JSON text.
    """

    kind: str
    fixed: str

    @classmethod
    def of(cls, kind: str, fixed: Mapping[str, Any]) -> LayerKind:
        """Create a kind with sorted settings, so that equal kinds compare equal."""
        return cls(kind, json.dumps(dict(fixed), sort_keys=True))

    @property
    def key(self) -> str:
        """Key of this kind in tables."""
        return f"{self.kind} {self.fixed}"

    @property
    def settings(self) -> dict[str, Any]:
        """The fixed settings as a dictionary."""
        return dict(json.loads(self.fixed))


@dataclass(frozen=True)
class Written:
    """A one-layer model in a runtime's file format.

    Attributes:
        content: content of the file.
        shape: shape of its input, or of each of its inputs.
        data_type: data type of its input.
    """

    content: bytes
    shape: tuple[int, ...]
    data_type: str


@dataclass(frozen=True)
class TimedLayer:
    """A layer to time: its kind, and its channels as terms in the network's widths.

    Attributes:
        kind: its fixed settings.
        widths: input and output channels, or just channels, as terms of a constant and at most one dimension.
        name: name of the module.
        parameters: names of the parameters of a convolution or linear layer, which is trimmed by its filters.
    """

    kind: LayerKind
    widths: tuple[Term, ...]
    name: str
    parameters: tuple[str, ...]


def timed_layers(network: Network, runtime: RuntimeName = "litert") -> tuple[list[TimedLayer], list[str]]:
    """List the timed layers in order, and the operators whose time is left out.

    LiteRT has extra operators that pad before a strided convolution and transpose feature maps to PyTorch's layout;
    ONNX has neither.
    """
    low = lower(network)
    sizes = network.sizes(network.dense)
    layers, left_out = [], []
    for node in low.nodes:
        if node.kind in ("pad", "transpose") and runtime == "onnx":
            continue
        shape = _shape(low, node.reads[0], sizes) if node.reads else None
        layer = None if shape is None else _layer(low, node.kind, node.operator, node.reads[0], shape, sizes)
        if layer is None:
            left_out.append(f"{node.kind} in {node.operator.module or 'the model'}")
        else:
            layers.append(layer)
    return layers, left_out


def _shape(low: Lowering, activation: int, sizes: Any) -> tuple[Term, int, int] | None:
    """(channels, height, width) of an activation that holds images or vectors; None for others."""
    constant, dims = low.elements[activation]
    if not dims:  # the input of the network, or a padded copy of it
        example = low.network.example
        shape = example.get("shape") if isinstance(example, Mapping) else None
        if not isinstance(shape, list) or len(shape) != 4:
            return None
        positions = int(constant) // int(shape[1])
        side = round(positions**0.5)
        return (float(shape[1]), ()), side, positions // max(side, 1)
    if len(dims) == 2 and constant == 1.0:
        return (1.0, dims[1:]), 1, 1
    if len(dims) == 2:  # a padded copy: the constant is the number of positions
        side = round(constant**0.5)
        return (1.0, dims[1:2]), side, int(constant) // max(side, 1)
    if len(dims) == 4:
        return (1.0, dims[1:2]), int(sizes[dims[2]]), int(sizes[dims[3]])
    return None


def _layer(
    low: Lowering, kind: str, operator: Operator, source: int, shape: tuple[Term, int, int], sizes: Any
) -> TimedLayer | None:
    channels, height, width = shape
    size = {"height": height, "width": width}
    attributes = operator.attributes
    if kind == "pad":
        padding = _pair(attributes.get("padding", 0))
        return TimedLayer(LayerKind.of("pad", {**size, "padding": padding}), (channels,), operator.module, ())
    if kind in CONVOLUTIONS and operator.weight:
        out: Term = (1.0, operator.outputs[0][1:2])
        if kind != "convolution":
            fixed = LayerKind.of("linear", {})
            # A linear layer after a flatten reads every position: its input is the other dimension of its weight.
            others = [dim for dim in operator.weight if dim != operator.outputs[0][1]]
            inputs: Term = (1.0, tuple(others[:1])) if others else channels
            return TimedLayer(fixed, (inputs, out), operator.module, operator.parameters)
        if attributes.get("transposed"):
            return None
        groups = int(attributes.get("groups", 1))
        kernel = [int(sizes[dim]) for dim in operator.weight[2:]]
        stride, dilation = _pair(attributes.get("stride", 1)), _pair(attributes.get("dilation", 1))
        same = any(_pair(attributes.get("padding", 0))) and low.made_by[source] != "pad"
        fixed_part = {**size, "kernel": kernel, "stride": stride, "dilation": dilation, "same": same}
        if groups == 1:
            return TimedLayer(LayerKind.of("conv", fixed_part), (channels, out), operator.module, operator.parameters)
        if int(sizes[operator.weight[1]]) == 1:
            return TimedLayer(LayerKind.of("depthwise", fixed_part), (out,), operator.module, operator.parameters)
        return None
    if kind in SUMS:
        return TimedLayer(LayerKind.of(SUMS[kind], size), (channels,), operator.module, ())
    if kind == "mean":
        return TimedLayer(LayerKind.of("mean", size), (channels,), operator.module, ())
    if kind in POOLS and not any(_pair(attributes.get("padding", 0))):
        kernel = list(_pair(attributes["kernel_size"]))
        stride = _pair(attributes.get("stride") or attributes["kernel_size"])
        fixed = LayerKind.of(POOLS[kind], {**size, "kernel": kernel, "stride": stride})
        return TimedLayer(fixed, (channels,), operator.module, ())
    return None


def _pair(value: Any) -> list[int]:
    if isinstance(value, int):
        return [value, value]
    return [int(value[0]), int(value[-1])] if len(value) else [0, 0]

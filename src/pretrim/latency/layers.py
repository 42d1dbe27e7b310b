"""The layers of a network that take time, as a runtime sees them: what is fixed, and which widths vary."""

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
"""of int8 tensors in models of one layer: the time does not depend on it"""


@dataclass(frozen=True)
class LayerKind:
    """What is the same for layers that differ in their widths alone.

    Attributes:
        kind: conv, depthwise, linear, pad, add, mul, mean, max_pool, average_pool.
        fixed: sizes of the input, kernel, stride, padding and so on; plain JSON.
    """

    kind: str
    fixed: str

    @classmethod
    def of(cls, kind: str, fixed: Mapping[str, Any]) -> LayerKind:
        """With its fixed part in one order, so that equal kinds are equal."""
        return cls(kind, json.dumps(dict(fixed), sort_keys=True))

    @property
    def key(self) -> str:
        """Of tables."""
        return f"{self.kind} {self.fixed}"

    @property
    def settings(self) -> dict[str, Any]:
        """The fixed part."""
        return dict(json.loads(self.fixed))


@dataclass(frozen=True)
class Written:
    """A model of one layer in the form of a runtime.

    Attributes:
        content: the file's.
        shape: of its input, or of each.
        data_type: of its input.
    """

    content: bytes
    shape: tuple[int, ...]
    data_type: str


@dataclass(frozen=True)
class TimedLayer:
    """One layer: its kind, and its widths (input and output channels, or channels) as terms of the network's widths.

    Attributes:
        kind: what is fixed.
        widths: one or two terms: a constant, and at most one dimension.
        name: the module.
        parameters: of a convolution or linear layer; its filters are what it is cut by.
    """

    kind: LayerKind
    widths: tuple[Term, ...]
    name: str
    parameters: tuple[str, ...]


def timed_layers(network: Network, runtime: RuntimeName = "litert") -> tuple[list[TimedLayer], list[str]]:
    """The layers in order, and the operators that are not timed (their time is left out).

    LiteRT pads before a convolution with a stride, and puts feature maps in PyTorch's order; ONNX does neither.
    """
    low = lower(network)
    sizes = network.sizes(network.dense)
    layers, left_out = [], []
    for node in low.nodes:
        if node.kind in ("pad", "transpose") and runtime == "onnx":
            continue
        shape = _shape(low, node.reads[0], sizes) if node.reads else None
        found = None if shape is None else _layer(low, node.kind, node.operator, node.reads[0], shape, sizes)
        if found is None:
            left_out.append(f"{node.kind} in {node.operator.module or 'the model'}")
        else:
            layers.append(found)
    return layers, left_out


def _shape(low: Lowering, activation: int, sizes: Any) -> tuple[Term, int, int] | None:
    """(channels, height, width) of an activation of images or vectors."""
    constant, dims = low.elements[activation]
    if not dims:  # the input of the network, or a padded copy of it
        given = low.network.example
        shape = given.get("shape") if isinstance(given, Mapping) else None
        if not isinstance(shape, list) or len(shape) != 4:
            return None
        places = int(constant) // int(shape[1])
        side = round(places**0.5)
        return (float(shape[1]), ()), side, places // max(side, 1)
    if len(dims) == 2 and constant == 1.0:
        return (1.0, dims[1:]), 1, 1
    if len(dims) == 2:  # a padded copy: the places are in the constant
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
    given = operator.attributes
    if kind == "pad":
        before = _pair(given.get("padding", 0))
        return TimedLayer(LayerKind.of("pad", {**size, "padding": before}), (channels,), operator.module, ())
    if kind in CONVOLUTIONS and operator.weight:
        out: Term = (1.0, operator.outputs[0][1:2])
        if kind != "convolution":
            fixed = LayerKind.of("linear", {})
            # A linear layer behind a flatten reads every place: its input is the other size of its weight.
            others = [dim for dim in operator.weight if dim != operator.outputs[0][1]]
            reads: Term = (1.0, tuple(others[:1])) if others else channels
            return TimedLayer(fixed, (reads, out), operator.module, operator.parameters)
        if given.get("transposed"):
            return None
        groups = int(given.get("groups", 1))
        kernel = [int(sizes[dim]) for dim in operator.weight[2:]]
        stride, dilation = _pair(given.get("stride", 1)), _pair(given.get("dilation", 1))
        same = any(_pair(given.get("padding", 0))) and low.made_by[source] != "pad"
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
    if kind in POOLS and not any(_pair(given.get("padding", 0))):
        kernel = list(_pair(given["kernel_size"]))
        stride = _pair(given.get("stride") or given["kernel_size"])
        fixed = LayerKind.of(POOLS[kind], {**size, "kernel": kernel, "stride": stride})
        return TimedLayer(fixed, (channels,), operator.module, ())
    return None


def _pair(value: Any) -> list[int]:
    if isinstance(value, int):
        return [value, value]
    return [int(value[0]), int(value[-1])] if len(value) else [0, 0]

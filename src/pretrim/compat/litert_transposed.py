"""Transposed convolutions in the form that LiteRT's converter and quantiser take.

A batch norm behind one stays a product and a sum, which share the scales of its channels in int8: LiteRT refuses the
file ("num_scales must be 1 for per-layer quantization"). So it is folded into the weights. And what `output_padding`
adds is legalised by no pass ("failed to legalize operation mhlo.convolution"; of the same pass is
github.com/google-ai-edge/litert-torch/issues/316): the whole output is computed, and cropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from .exported import exported_where, rewritten

aten = torch.ops.aten
TRANSPOSED = (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
ACTIVATIONS = (aten.relu.default, aten.relu_.default, aten.hardtanh.default, aten.relu6.default)
ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
DEFAULTS: dict[str, Any] = {"bias": None, "stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}


def plain_transposed(network: nn.Module, *examples: torch.Tensor) -> nn.Module:
    """The same function in that form; the network itself if it has no transposed convolution.

    Args:
        network: in eval mode.
        examples: one for each input, N x C x ...
    """
    exported = exported_where(network, examples, _is_transposed)
    if exported is None:
        return network
    for node in list(exported.graph.nodes):
        if node.target in TRANSPOSED:
            _fold_norm(exported, node)
            _crop(exported.graph, node)
    return rewritten(exported)


def _is_transposed(operator: Any, args: Any) -> bool:
    return operator is aten.convolution.default and bool(args[6])


def _given(node: fx.Node) -> dict[str, Any]:
    """The arguments of a transposed convolution by name, each with a number for every dimension."""
    given = DEFAULTS | dict(zip(ARGUMENTS, node.args, strict=False)) | node.kwargs
    dims = node.meta["val"].dim() - 2
    return given | {name: _each(given[name], dims) for name in ("stride", "padding", "output_padding", "dilation")}


def _fold_norm(module: fx.GraphModule, node: fx.Node) -> None:
    """Fold a batch norm that alone reads a transposed convolution into its weight and bias."""
    norm = next(iter(node.users))
    if len(node.users) > 1 or norm.target is not aten.batch_norm.default or norm.args[0] is not node:
        return
    given, epsilon = _given(node), norm.args[7]
    scale, shift, mean, variance = (_value(module, each) for each in norm.args[1:5])
    weight, bias = _value(module, given["weight"]), _value(module, given["bias"])
    if weight is None or mean is None or variance is None or not isinstance(epsilon, float):
        return
    factor = torch.rsqrt(variance + epsilon) * (1.0 if scale is None else scale)
    moved = (0.0 if bias is None else bias) - mean
    parts = weight.reshape(int(given["groups"]), -1, *weight.shape[1:])  # groups x inputs x outputs x ...
    wide = factor.view(len(parts), 1, -1, *[1] * (weight.dim() - 2))
    folded = {"weight": (parts * wide).flatten(0, 1), "bias": moved * factor + (0.0 if shift is None else shift)}
    with module.graph.inserting_before(node):
        for name, value in folded.items():
            module.register_buffer(f"{node.name}_{name}", value)
        given |= {name: module.graph.get_attr(f"{node.name}_{name}") for name in folded}
    node.args, node.kwargs = tuple(given[name] for name in ARGUMENTS), {}
    norm.replace_all_uses_with(node)
    module.graph.erase_node(norm)


def _value(module: fx.GraphModule, node: Any) -> torch.Tensor | None:
    """A tensor that a graph reads from its module; None for one that is computed, or absent."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    found: Any = module
    for name in str(node.target).split("."):
        found = getattr(found, name)
    return found.detach() if isinstance(found, torch.Tensor) else None


def _crop(graph: fx.Graph, node: fx.Node) -> None:
    """Compute the whole output where one side is padded, and cut off what padding takes away."""
    given, sizes = _given(node), list(node.meta["val"].shape[2:])
    extra, padding = given["output_padding"], given["padding"]
    if not any(extra) or any(more > less for more, less in zip(extra, padding, strict=True)):
        return
    end = node
    if len(node.users) == 1 and next(iter(node.users)).target in ACTIVATIONS:
        end = next(iter(node.users))  # the convolution computes it, too
    users = list(end.users)
    node.args = tuple((given | {"padding": [0] * len(sizes), "output_padding": [0] * len(sizes)})[n] for n in ARGUMENTS)
    node.kwargs = {}
    cropped = end
    for place, (start, size) in enumerate(zip(padding, sizes, strict=True), start=2):
        with graph.inserting_after(cropped):
            cropped = graph.call_function(aten.slice.Tensor, (cropped, place, start, start + size))
    for user in users:
        user.replace_input_with(end, cropped)


def _each(value: int | Sequence[int], count: int) -> list[int]:
    """An argument for each dimension."""
    return [value] * count if isinstance(value, int) else list(value) * (count // len(value))

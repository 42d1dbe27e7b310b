"""Rewrite transposed convolutions to the form that LiteRT's converter and quantiser support.

A batch norm after a transposed convolution is converted to a product and a sum, which get per-channel scales in int8,
and LiteRT rejects the file ("num_scales must be 1 for per-layer quantization"). So the batch norm is folded into the
weights. No pass of the converter legalises `output_padding` ("failed to legalize operation mhlo.convolution";
github.com/google-ai-edge/litert-torch/issues/316 is about the same pass), so the full output is computed and cropped.
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
    """An equivalent network in that form; the network itself if it has no transposed convolution.

    Args:
        network: a module in eval mode.
        examples: one tensor for each input, N x C x ...
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


def _arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a transposed convolution by name, with strides, paddings and dilations for every dimension."""
    arguments = DEFAULTS | dict(zip(ARGUMENTS, node.args, strict=False)) | node.kwargs
    dims = node.meta["val"].dim() - 2
    return arguments | {
        name: _per_dimension(arguments[name], dims) for name in ("stride", "padding", "output_padding", "dilation")
    }


def _fold_norm(module: fx.GraphModule, node: fx.Node) -> None:
    """Fold a batch norm into the transposed convolution before it, if nothing else reads the convolution's output."""
    norm = next(iter(node.users))
    if len(node.users) > 1 or norm.target is not aten.batch_norm.default or norm.args[0] is not node:
        return
    arguments, epsilon = _arguments(node), norm.args[7]
    scale, shift, mean, variance = (_value(module, parameter) for parameter in norm.args[1:5])
    weight, bias = _value(module, arguments["weight"]), _value(module, arguments["bias"])
    if weight is None or mean is None or variance is None or not isinstance(epsilon, float):
        return
    factor = torch.rsqrt(variance + epsilon) * (1.0 if scale is None else scale)
    centred_bias = (0.0 if bias is None else bias) - mean
    grouped_weight = weight.reshape(int(arguments["groups"]), -1, *weight.shape[1:])  # groups x inputs x outputs x ...
    broadcast_factor = factor.view(len(grouped_weight), 1, -1, *[1] * (weight.dim() - 2))
    folded = {
        "weight": (grouped_weight * broadcast_factor).flatten(0, 1),
        "bias": centred_bias * factor + (0.0 if shift is None else shift),
    }
    with module.graph.inserting_before(node):
        for name, value in folded.items():
            module.register_buffer(f"{node.name}_{name}", value)
        arguments |= {name: module.graph.get_attr(f"{node.name}_{name}") for name in folded}
    node.args, node.kwargs = tuple(arguments[name] for name in ARGUMENTS), {}
    norm.replace_all_uses_with(node)
    module.graph.erase_node(norm)


def _value(module: fx.GraphModule, node: Any) -> torch.Tensor | None:
    """A parameter or buffer that a graph reads from its module; None for a computed or missing tensor."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: Any = module
    for name in str(node.target).split("."):
        value = getattr(value, name)
    return value.detach() if isinstance(value, torch.Tensor) else None


def _crop(graph: fx.Graph, node: fx.Node) -> None:
    """Where there is output padding, compute the full output and crop it instead of using any padding."""
    arguments, sizes = _arguments(node), list(node.meta["val"].shape[2:])
    extra, padding = arguments["output_padding"], arguments["padding"]
    if not any(extra) or any(added > removed for added, removed in zip(extra, padding, strict=True)):
        return
    last = node
    if len(node.users) == 1 and next(iter(node.users)).target in ACTIVATIONS:
        last = next(iter(node.users))  # fused into the convolution, so crop after it
    users = list(last.users)
    node.args = tuple(
        (arguments | {"padding": [0] * len(sizes), "output_padding": [0] * len(sizes)})[name] for name in ARGUMENTS
    )
    node.kwargs = {}
    cropped = last
    for dimension, (start, size) in enumerate(zip(padding, sizes, strict=True), start=2):
        with graph.inserting_after(cropped):
            cropped = graph.call_function(aten.slice.Tensor, (cropped, dimension, start, start + size))
    for user in users:
        user.replace_input_with(last, cropped)


def _per_dimension(value: int | Sequence[int], count: int) -> list[int]:
    """An argument as a list with a number for each dimension."""
    return [value] * count if isinstance(value, int) else list(value) * (count // len(value))

"""Remove expansions that the next operator would broadcast anyway, before LiteRT's converter sees the network.

``x * y.expand_as(x)``, as in efficient channel attention, equals ``x * y``. litert-torch 0.10 changes the layout of x
to N x H x W x C but not that of the expanded y: this does not compile, or, if the numbers of channels and pixels match,
computes something else. No report of this exact defect was found; github.com/google-ai-edge/litert-torch/issues/1126 is
about the same pass, which knows only some operators.
"""

from __future__ import annotations

import torch
from torch import fx, nn

from .exported import exported_where, rewritten

aten = torch.ops.aten
EXPANSIONS = (aten.expand.default, aten.expand_as.default)
BROADCASTING = (aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor)


def remove_expansions(network: nn.Module, *examples: torch.Tensor) -> nn.Module:
    """An equivalent network without redundant expansions; the network itself if it has none.

    Args:
        network: a module in eval mode.
        examples: one tensor for each input, N x C x ...
    """
    exported = exported_where(network, examples, lambda operator, _: operator is aten.expand.default)
    if exported is None:
        return network
    graph, has_removed = exported.graph, False
    for node in list(graph.nodes):
        if node.target in EXPANSIONS and all(_broadcasts(user, node) for user in node.users):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
            has_removed = True
    return rewritten(exported) if has_removed else network


def _broadcasts(user: fx.Node, expanded: fx.Node) -> bool:
    """Whether an operator gives the same result without the expansion, as its other operand has the full shape."""
    shapes = [operand.meta["val"].shape for operand in user.args if isinstance(operand, fx.Node)]
    others = [operand for operand in user.args if isinstance(operand, fx.Node) and operand is not expanded]
    return (
        user.target in BROADCASTING
        and len(shapes) == 2
        and len(others) == 1
        and others[0].meta["val"].shape == expanded.meta["val"].shape
    )

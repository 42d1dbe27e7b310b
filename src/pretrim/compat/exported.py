"""Export a network's graph so that operators can be rewritten before LiteRT's converter sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

Wanted = Callable[[Any, Any], bool]
"""Whether an operator with these arguments must be rewritten."""


def exported_where(network: nn.Module, examples: tuple[torch.Tensor, ...], wanted: Wanted) -> fx.GraphModule | None:
    """Export the graph of a network that runs a wanted operator; None, at little cost, for other networks.

    Args:
        network: a module in eval mode.
        examples: one tensor for each input, N x C x ...
        wanted: called with each operator of the forward pass and its arguments.
    """
    with torch.no_grad(), _OperatorSearch(wanted) as search:
        network(*examples)
    return torch.export.export(network, examples).module(check_guards=False) if search.found else None


def rewritten(exported: fx.GraphModule) -> nn.Module:
    """The module of a rewritten graph, in eval mode, which exported modules do not support."""
    return fx.GraphModule(exported, exported.graph).eval()


class _OperatorSearch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records whether a forward pass runs a wanted operator."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.wanted, self.found = wanted, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found |= self.wanted(func, args)
        return func(*args, **(kwargs or {}))

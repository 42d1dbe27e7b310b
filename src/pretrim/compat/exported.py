"""The graph of a network whose operators are rewritten before LiteRT's converter sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

Wanted = Callable[[Any, Any], bool]
"""Whether an operator, with its arguments, is one to rewrite"""


def exported_where(network: nn.Module, examples: tuple[torch.Tensor, ...], wanted: Wanted) -> fx.GraphModule | None:
    """The exported graph of a network that runs an operator to rewrite; None for any other, which is cheap to tell.

    Args:
        network: in eval mode.
        examples: one for each input, N x C x ...
        wanted: is called with each operator of the forward pass and its arguments.
    """
    with torch.no_grad(), _Seen(wanted) as seen:
        network(*examples)
    return torch.export.export(network, examples).module(check_guards=False) if seen.found else None


def rewritten(exported: fx.GraphModule) -> nn.Module:
    """The module of a graph that was changed, in eval mode, which an exported one cannot be put in."""
    return fx.GraphModule(exported, exported.graph).eval()


class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Whether a forward pass runs an operator to rewrite."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.wanted, self.found = wanted, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found |= self.wanted(func, args)
        return func(*args, **(kwargs or {}))

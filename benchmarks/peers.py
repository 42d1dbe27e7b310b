"""The peer for comparison: Torch-Pruning, which prunes trained networks (pip install --no-deps torch-pruning)."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Importance = Literal["l1", "group"]


def pruned_to(model: nn.Module, example: torch.Tensor, macs: int, importance: Importance = "l1") -> nn.Module:
    """The largest network within a MAC limit, by bisection on the pruning ratio; filters are ranked globally.

    Args:
        model: trained network; it is not modified.
        example: images, N x C x H x W; N is 1.
        macs: most multiply-accumulates for one image, as counted by `macs_of`.
        importance: L1 norm of the filters (Li et al. 2017), or of the whole group (Fang et al. 2023, DepGraph).
    """
    import torch_pruning as tp

    def prune(ratio: float) -> nn.Module:
        pruned = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
        criteria = tp.importance
        score = criteria.MagnitudeImportance(p=1) if importance == "l1" else criteria.GroupMagnitudeImportance(p=2)
        head = [module for module in pruned.modules() if isinstance(module, nn.Linear)][-1:]
        tp.pruner.MetaPruner(
            pruned, example, importance=score, global_pruning=True, pruning_ratio=ratio, ignored_layers=head
        ).step()
        return pruned

    low, high = 0.0, 0.98
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if macs_of(prune(middle), example) <= macs else (middle, high)
    return prune(high)


def macs_of(model: nn.Module, example: torch.Tensor) -> int:
    """Multiply-accumulates of one image, by torch's own counter."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(example)
    return counter.get_total_flops() // 2

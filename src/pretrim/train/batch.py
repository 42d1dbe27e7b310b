"""The input of one forward pass of the training."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Batch:
    """Normalised images of one forward pass, N x C x ..., and their targets, N x ..."""

    images: torch.Tensor
    targets: torch.Tensor
    others: torch.Tensor | None = None
    """Targets of the images that were mixed in; None without mixup."""
    share: float = 1.0
    """Weight of the first image in a mixed one."""

"""What one forward pass of the training gets."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Batch:
    """Images of one forward pass, normalised, N x C x ..., and their targets, N x ..."""

    images: torch.Tensor
    targets: torch.Tensor
    others: torch.Tensor | None = None
    """the targets of the images that were mixed in"""
    share: float = 1.0
    """what the first image has of a mixed one"""

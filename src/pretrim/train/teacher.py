"""The teacher of a distillation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Teacher:
    """A trained network whose scores a smaller one learns from (Hinton et al. 2015).

    Attributes:
        model: the network; it is put in eval mode and not trained.
        mean: per-channel mean of pixel values in 0..1 that its images are normalised by.
        std: per-channel standard deviation of them.
        name: an identifier that a resumed training must match, e.g. the SHA-256 of its weights.
    """

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str = ""

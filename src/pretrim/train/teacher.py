"""A trained network that another one learns from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Teacher:
    """A trained network whose scores a smaller one learns from (Hinton et al. 2015).

    Attributes:
        model: the network; it is put in eval mode and not trained.
        mean: by which its images are normalised, per channel, for pixels of 0..1.
        std: likewise.
        name: what a resumed training has to be given again, e.g. the SHA-256 of its weights.
    """

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str = ""

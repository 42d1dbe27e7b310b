"""Layers that are not registered as submodules are reported; registered layers are not."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from networks import conv
from torch import Tensor, nn

import pretrim

CONTAINERS: dict[str, Callable[[nn.Module], Any]] = {
    "list": lambda layer: [layer],
    "dict": lambda layer: {"first": [layer]},
    "object": lambda layer: SimpleNamespace(layer=layer),
}


class Inside(nn.Module):
    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.stem, self.layers, self.head = conv(3, 8), layers, conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", CONTAINERS)
def test_unregistered_layers_are_reported(kind: str) -> None:
    network = pretrim.analyze(nn.Sequential(Inside(CONTAINERS[kind](conv(8, 8)))), torch.zeros(1, 3, 8, 8))
    assert network.notes[0].startswith("PyTorch does not see the layers in 0.layers")


@pytest.mark.parametrize("kind", CONTAINERS)
def test_registered_layers_and_layers_without_parameters_are_not_reported(kind: str) -> None:
    model = Inside(CONTAINERS[kind](nn.ReLU()))
    model.also = CONTAINERS[kind](model.stem)
    assert not pretrim.analyze(model, torch.zeros(1, 3, 8, 8)).notes

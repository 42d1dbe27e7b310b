"""Features reshaped to a signal, an image or a volume: channels come first, however `forward` writes the shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from reference import masked, randomise, relative_error, run
from torch import Tensor, nn

import pretrim
from pretrim.surgery.apply import cut, kept_channels

WIDTH, SIDE = 8, 6
LAYERS: dict[int, tuple[Any, Any, Any]] = {
    1: (nn.ConvTranspose1d, nn.BatchNorm1d, nn.Conv1d),
    2: (nn.ConvTranspose2d, nn.BatchNorm2d, nn.Conv2d),
    3: (nn.ConvTranspose3d, nn.BatchNorm3d, nn.Conv3d),
}


class Generator(nn.Module):
    """A linear layer whose features are reshaped to `WIDTH` maps, and layers that enlarge them."""

    def __init__(self, dims: int, shape: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        transposed, norm, conv = LAYERS[dims]
        self.width, self.sides, self.shape = WIDTH, (SIDE,) * dims, shape
        self.linear = nn.Linear(5, WIDTH * SIDE**dims)
        self.layers = nn.Sequential(
            norm(WIDTH), nn.Upsample(scale_factor=2), conv(WIDTH, 6, 3), nn.ReLU(), transposed(6, 2, 4, 2)
        )

    def forward(self, noise: Tensor) -> Tensor:
        return self.layers(self.shape(self, self.linear(noise)))  # type: ignore[no-any-return]


SHAPES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "an attribute": lambda m, x: x.view(-1, m.width, *m.sides),
    "of the norm": lambda m, x: x.reshape(len(x), m.layers[0].num_features, *m.sides),
    "the rest": lambda m, x: x.view(len(x), -1, *m.sides),
    "unflattened": lambda m, x: x.unflatten(1, (m.width, *m.sides)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dims", LAYERS)
def test_features_reshaped_to_maps_are_slimmed_exactly(dims: int, shape: str) -> None:
    model = randomise(Generator(dims, SHAPES[shape]), 0)
    noise = torch.randn(2, 5, dtype=torch.float64)
    network = pretrim.analyze(model, noise)
    assert [frozen.layer for frozen in network.frozen] == ["layers.4"]
    widths = network.dense // 2
    keep = kept_channels(network, widths, np.random.default_rng(0).random(len(network.group_of)))
    slim = cut(model, network, widths, keep, rescale=False)
    assert slim.linear.out_features == model.linear.out_features // 2
    assert relative_error(run(slim, noise), run(masked(model, network, keep), noise)) < 1e-10


@pytest.mark.parametrize("dims", LAYERS)
def test_a_width_written_as_a_number_in_forward_is_reported(dims: int) -> None:
    network = pretrim.analyze(Generator(dims, lambda m, x: x.view(-1, 8, *m.sides)), torch.zeros(1, 5))
    frozen = network.frozen[0]
    assert (frozen.layer, frozen.filters) == ("linear", 8 * SIDE**dims)
    assert frozen.reason.startswith("view with the number 8, which stays when the network is narrower")
    assert frozen.source_line.startswith("test_generators.py:")

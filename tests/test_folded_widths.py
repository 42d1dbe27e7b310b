"""Feature maps folded into one dimension, by a multiple of a stored width: the width follows exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from networks import conv
from reference import masked, randomise, relative_error, run
from torch import Tensor, nn

import pretrim
from pretrim.surgery.apply import cut, kept_channels

IMAGES = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Computes the same however it asks for the number."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.side, self.channels, self.features = 8, channels, 64 * channels
        self.a, self.c = conv(3, channels), nn.Linear(64 * channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.fold(self.a(x)))  # type: ignore[no-any-return]

    def fold(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Multiple(Net):
    def fold(self, x: Tensor) -> Tensor:
        return x.view(-1, self.channels * 8 * 8)


class WithTheBatch(Net):
    def fold(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), 8 * 8 * self.channels)


class Square(Net):
    def fold(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.side**2 * self.channels)


class Sides(Net):
    def fold(self, x: Tensor) -> Tensor:
        return x.view(-1, self.side * self.side * self.channels)


class LineBefore(Net):
    def fold(self, x: Tensor) -> Tensor:
        size = self.channels * 64
        x = x * 1
        return x.view(-1, size)


class SeveralLines(Net):
    def fold(self, x: Tensor) -> Tensor:
        return x.view(
            -1,
            self.channels  # of each place
            * self.side
            * self.side,
        )


class OfALayer(Net):
    def fold(self, x: Tensor) -> Tensor:
        return x.view(-1, self.a.out_channels * 64)


class Stored(Net):
    def fold(self, x: Tensor) -> Tensor:
        return x.view(-1, self.features)


class ChannelsLast(Net):
    def fold(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).reshape(-1, self.channels * 64)


class FlattenedLast(Net):
    def fold(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


KINDS = [Multiple, WithTheBatch, Square, Sides, LineBefore, SeveralLines, OfALayer, Stored, ChannelsLast]


@pytest.mark.parametrize("channels", [12, 8], ids=["12 channels", "as many channels as rows"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_multiple_of_a_width_follows_exactly(kind: type[Net], channels: int) -> None:
    model: Any = randomise(kind(channels), 0)
    plain = randomise((FlattenedLast if kind is ChannelsLast else Net)(channels), 0)
    analysed = pretrim.analyze(model, IMAGES)
    assert [frozen.layer for frozen in analysed.frozen] == ["c"]
    assert analysed.dense.tolist() == [channels], "each channel alone"
    widths = analysed.dense // 2
    keep = kept_channels(analysed, widths, np.random.default_rng(0).random(len(analysed.group_of)))
    slim = cut(model, analysed, widths, keep, rescale=False)
    assert slim.a.out_channels == channels // 2 and slim.side == 8
    assert relative_error(run(slim, IMAGES), run(masked(plain, analysed, keep), IMAGES)) < 1e-10


def test_a_plain_number_is_named_with_what_would_follow() -> None:
    class Literal(Net):
        def fold(self, x: Tensor) -> Tensor:
            return x.view(-1, 768)

    analysed = pretrim.analyze(randomise(Literal(12), 0), IMAGES)
    assert "with the number 768, which stays" in analysed.frozen[0].reason
    assert "x.flatten(1) would follow" in analysed.frozen[0].reason

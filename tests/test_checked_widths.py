"""A `forward` that checks its input's width against a number of its module: the number follows, nothing freezes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import conv
from reference import masked, randomise, relative_error, run
from torch import Tensor, nn

import pretrim
from pretrim.surgery.apply import cut, kept_channels

IMAGES = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """Computes the same whatever it checks."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.wide, self.sizes = dim, 2 * dim, [dim, 8, 8]
        self.conv = conv(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        return F.relu(self.conv(x)) + x

    def check(self, x: Tensor) -> None:
        """Nothing here."""


class Asserts(Block):
    def check(self, x: Tensor) -> None:
        assert x.shape[1] == self.dim, f"expected {self.dim} channels"


class Raises(Block):
    def check(self, x: Tensor) -> None:
        _, channels, *_ = x.shape
        if channels != self.dim:
            raise ValueError(f"expected {self.dim} channels, but got {channels}")


class TorchAsserts(Block):
    def check(self, x: Tensor) -> None:
        torch._assert(x.size(1) == self.dim, "wrong width")


class Mirrored(Block):
    def check(self, x: Tensor) -> None:
        assert self.dim == x.size(1)


class Shapes(Block):
    def check(self, x: Tensor) -> None:
        assert list(x.shape[1:]) == self.sizes


class Doubled(Block):
    def check(self, x: Tensor) -> None:
        assert 2 * x.shape[1] == self.wide


class Chooses(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x))
        return y + x if x.shape[1] == self.dim else y[:, :1] / 0


class Two(Block):
    """Layers of one width, whose outputs are not put together but for the check."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.other, self.back = conv(3, dim), conv(dim, dim)

    def check(self, x: Tensor) -> None:
        if self.other(x[:, :3]).shape[1] != x.shape[1]:
            raise ValueError("expected as many channels in both")


KINDS = [Asserts, Raises, TorchAsserts, Mirrored, Shapes, Doubled, Chooses]


def network(block: type[Block]) -> Any:
    return randomise(nn.Sequential(conv(3, 16), block(16), conv(16, 2)), 0)


@pytest.mark.parametrize("block", KINDS, ids=lambda block: block.__name__)
def test_a_number_that_a_width_is_checked_against_follows_exactly(block: type[Block]) -> None:
    model, plain = network(block), network(Block)
    analysed = pretrim.analyze(model, IMAGES)
    assert [frozen.layer for frozen in analysed.frozen] == ["2"]
    widths = analysed.dense // 2
    keep = kept_channels(analysed, widths, np.random.default_rng(0).random(len(analysed.group_of)))
    slim = cut(model, analysed, widths, keep, rescale=False)
    assert slim[1].conv.out_channels == 8
    assert relative_error(run(slim, IMAGES), run(masked(plain, analysed, keep), IMAGES)) < 1e-10


def test_two_widths_that_are_compared_stay_equal() -> None:
    model = network(Two)
    analysed = pretrim.analyze(model, IMAGES)
    slim = analysed.plan(macs="0.4x", round_to=1).apply(model)
    assert slim[1].other.out_channels == slim[0].out_channels < 16


def test_a_width_that_is_checked_against_a_plain_number_is_named() -> None:
    class Literal(Block):
        def check(self, x: Tensor) -> None:
            assert x.shape[1] == 16

    analysed = pretrim.analyze(network(Literal), IMAGES)
    assert {frozen.layer for frozen in analysed.frozen} == {"0", "1.conv", "2"}
    assert "compares it with the number 16" in analysed.frozen[0].reason


class Tokens(nn.Module):
    """torch's attention checks the width that it was made for, in a function of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 16, 2, 2), nn.LayerNorm(16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        b, n, c = x.shape
        x = self.layer(x.reshape(2 * b, n // 2, c))
        return self.head(x.reshape(b, n, c).mean(1))  # type: ignore[no-any-return]


def test_attention_after_tokens_in_windows_is_slimmed() -> None:
    model = Tokens()
    image = torch.zeros(1, 3, 8, 8)
    analysed = pretrim.analyze(model, image)
    assert [frozen.layer for frozen in analysed.frozen] == ["head"]
    slim = analysed.plan(params="0.5x", round_to=1).apply(model)
    width = slim.patches.out_channels
    assert width < 16
    assert slim.layer.self_attn.embed_dim == width
    assert slim(image).shape == (1, 2)
    assert sum(p.numel() for p in slim.parameters()) <= sum(p.numel() for p in model.parameters()) // 2

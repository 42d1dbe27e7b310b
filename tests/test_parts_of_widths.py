"""Numbers that `forward` computes as a part of a stored width (`dim // heads`): the width follows exactly."""

from __future__ import annotations

from types import SimpleNamespace
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


class Attention(nn.Module):
    """Four heads of eight channels."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.heads, self.cfg = 32, 4, Config()
        self.a, self.qkv, self.o, self.c = conv(3, 32), conv(32, 96), conv(32, 32), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        b, _, h, w = x.shape
        q, k, v = self.in_heads(self.qkv(x), b, h * w).unbind(1)
        x = F.scaled_dot_product_attention(q.mT, k.mT, v.mT, scale=0.3)
        return self.c(self.o(x.mT.reshape(b, self.hidden, h, w)).mean((2, 3)))  # type: ignore[no-any-return]

    def in_heads(self, x: Tensor, b: int, n: int) -> Tensor:
        return x.reshape(b, 3, self.heads, self.hidden // self.heads, n)


class Config:
    def __init__(self) -> None:
        self.hidden, self.heads = 32, 4

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


class LineBefore(Attention):
    def in_heads(self, x: Tensor, b: int, n: int) -> Tensor:
        width = self.hidden // self.heads
        x = x * 1
        return x.view(b, 3, self.heads, width, n)


class Configured(Attention):
    def in_heads(self, x: Tensor, b: int, n: int) -> Tensor:
        return x.view(b, 3, self.cfg.heads, self.cfg.hidden // self.cfg.heads, n)


class Property(Attention):
    def in_heads(self, x: Tensor, b: int, n: int) -> Tensor:
        return x.view(b, 3, self.cfg.heads, self.cfg.head_dim, n)


class Projections(Attention):
    """Three layers that the same line reads: one integer stands for the channels of all."""

    def __init__(self) -> None:
        super().__init__()
        del self.qkv
        self.q, self.k, self.v = conv(32, 32), conv(32, 32), conv(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        b, _, h, w = x.shape
        q, k, v = (layer(x).view(b, self.heads, self.hidden // self.heads, h * w) for layer in (self.q, self.k, self.v))
        x = F.scaled_dot_product_attention(q.mT, k.mT, v.mT, scale=0.3)
        return self.c(self.o(x.mT.reshape(b, self.hidden, h, w)).mean((2, 3)))  # type: ignore[no-any-return]


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.channels, self.groups = 32, 4
        self.a, self.c = conv(3, 32), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        b, _, h, w = x.shape
        x = x.view(b, self.groups, self.channels // self.groups, h, w).transpose(1, 2)
        return self.c(x.reshape(b, self.channels, h, w).mean((2, 3)))  # type: ignore[no-any-return]


class Squeeze(nn.Module):
    """Its hidden width is a quarter of the other, in the code as well."""

    def __init__(self) -> None:
        super().__init__()
        self.hp = SimpleNamespace(widths=[16, 32], reduction=4)
        self.a, self.down, self.up, self.c = conv(3, 32), nn.Linear(32, 8), nn.Linear(8, 32), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        gate = self.down(x.mean((2, 3))).view(-1, self.hp.widths[-1] // self.hp.reduction)
        return self.c((x * self.up(gate.relu()).sigmoid()[:, :, None, None]).mean((2, 3)))  # type: ignore[no-any-return]


KINDS = [Attention, LineBefore, Configured, Property, Projections, Shuffle, Squeeze]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_part_of_a_width_follows_exactly(kind: type[nn.Module]) -> None:
    model: Any = randomise(kind(), 0)
    analysed = pretrim.analyze(model, IMAGES)
    assert [frozen.layer for frozen in analysed.frozen] == ["c"]
    widths = analysed.dense // 2
    keep = kept_channels(analysed, widths, np.random.default_rng(0).random(len(analysed.group_of)))
    slim = cut(model, analysed, widths, keep, rescale=False)
    assert slim.a.out_channels == 16
    assert relative_error(run(slim, IMAGES), run(masked(model, analysed, keep), IMAGES)) < 1e-10


def test_a_plain_number_freezes() -> None:
    class Literal(Attention):
        def in_heads(self, x: Tensor, b: int, n: int) -> Tensor:
            return x.view(b, 3, -1, 8, n)

    analysed = pretrim.analyze(randomise(Literal(), 0), IMAGES)
    assert {frozen.layer for frozen in analysed.frozen} == {"qkv", "c"}
    assert "with the number 8, which stays" in next(f for f in analysed.frozen if f.layer == "qkv").reason

"""Operators that no longer freeze their inputs: slim networks equal the masked dense network exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from networks import Net, conv
from reference import masked, randomise, relative_error, run
from torch import Tensor, nn
from torch.nn import functional

import pretrim
from pretrim.surgery.apply import cut, kept_channels


class MaxNorm(nn.Conv2d):
    """EEGNet's constraint: filters with too large a norm are scaled down in every step."""

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=0.5)
        return super().forward(x)


def over_frequencies(m: Any, x: Tensor) -> Tensor:
    return m.c(m.norm(m.a(x).transpose(2, 3)).transpose(2, 3))  # type: ignore[no-any-return]


def by_class(m: Any, x: Tensor) -> Tensor:
    scale, shift = m.table(torch.tensor([1])).chunk(2, 1)
    return m.c(m.a(x) * scale[:, :, None, None] + shift[:, :, None, None])  # type: ignore[no-any-return]


def in_fours(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    return m.c(functional.group_norm(x, x.shape[1] // 4))  # type: ignore[no-any-return]


def distances(m: Any, x: Tensor) -> Tensor:
    flat = m.a(x).flatten(2).mT
    return m.c(x * torch.cdist(flat, flat).mean())  # type: ignore[no-any-return]


def every_other(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    return m.c(torch.cat([x[:, ::2], m.b(x[:, 1::2])], 1))  # type: ignore[no-any-return]


def thirds(m: Any, x: Tensor) -> Tensor:
    first, second, rest = m.a(x).chunk(3, 1)
    return m.c(torch.cat([m.b(first), second, rest], 1))  # type: ignore[no-any-return]


class InParts(nn.Module):
    """As in EdgeNeXt and Res2Net: the split size does not divide the channels, so the last part is smaller."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.a, self.b, self.c = conv(3, 16), nn.ModuleList([conv(width, width), conv(width, width)]), conv(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(torch.split(self.a(x), self.width, dim=1))
        for number, layer in enumerate(self.b):
            parts[number] = layer(parts[number] + parts[number - 1] if number else parts[0])
        return self.c(torch.cat(parts, 1))  # type: ignore[no-any-return]


class StoredWidths(nn.Module):
    """As in timm's attention: the widths are attributes of the module, the last one for a reshape that copies."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_dim, self.attn_dim = 2, 8, 16
        self.a, self.qkv, self.c = conv(3, 16), nn.Linear(16, 48), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).flatten(2).mT
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        x = (q @ k.mT).softmax(-1) @ v
        return self.c(x.transpose(1, 2).reshape(b, n, self.attn_dim))  # type: ignore[no-any-return]


def chain(m: Any, x: Tensor) -> Tensor:
    return m.c(m.norm(m.a(x)))  # type: ignore[no-any-return]


class Multiples(nn.Module):
    """Reshapes to a multiple of the stored width of a head, as LowFormer does."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_dim = 2, 8
        self.a, self.qkv, self.c = conv(3, 16), conv(16, 48), conv(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.qkv(self.a(x))
        b, _, h, w = x.shape
        q, k, v = x.reshape(b, self.heads, 3 * self.head_dim, h * w).transpose(2, 3).chunk(3, 3)
        x = (q @ k.mT).softmax(-1) @ v
        return self.c(x.transpose(2, 3).reshape(b, self.heads * self.head_dim, h, w))  # type: ignore[no-any-return]


def in_heads(x: Tensor, heads: int, width: int) -> Tensor:
    """A helper that receives its module's widths as arguments, as in MobileNetV5."""
    return x.reshape(len(x), heads, width, -1).mT


class ByHelper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads, self.key_dim = 2, 8
        self.a, self.q, self.k, self.c = conv(3, 16), conv(16, 16), conv(16, 8), conv(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        q, k = in_heads(self.q(x), self.heads, self.key_dim), in_heads(self.k(x), 1, self.key_dim)
        x = (q @ k.mT).softmax(-1) @ k
        return self.c(x.transpose(1, 2).reshape(len(x), 64, -1).mT.unflatten(2, (8, 8)))  # type: ignore[no-any-return]


MODELS: dict[str, Callable[[], nn.Module]] = {
    "renorm": lambda: Net(lambda m, x: m.c(m.b(m.a(x))), a=conv(3, 8), b=MaxNorm(8, 8, 3, padding=1), c=conv(8, 2)),
    "layer norm over the image": lambda: Net(chain, a=conv(3, 8), norm=nn.LayerNorm([8, 8]), c=conv(8, 2)),
    "layer norm over frequencies": lambda: Net(over_frequencies, a=conv(3, 8), norm=nn.LayerNorm(8), c=conv(8, 2)),
    "a group for each channel": lambda: Net(chain, a=conv(3, 12), norm=nn.GroupNorm(12, 12), c=conv(12, 2)),
    "distances between pixels": lambda: Net(distances, a=conv(3, 8), c=conv(3, 2)),
    "every other channel": lambda: Net(every_other, a=conv(3, 8), b=conv(4, 4), c=conv(8, 2)),
    "groups of four": lambda: Net(in_fours, a=conv(3, 16), c=conv(16, 2)),
    "parts of six channels": lambda: InParts(6),
    "three chunks of sixteen channels": lambda: Net(thirds, a=conv(3, 16), b=conv(6, 6), c=conv(16, 2)),
    "attention of stored widths": StoredWidths,
    "multiples of a stored width": Multiples,
    "stored widths given to a helper": ByHelper,
    "scale and shift of a class": lambda: Net(by_class, a=conv(3, 8), table=nn.Embedding(5, 16), c=conv(8, 2)),
}


def attention(scale: Callable[[Tensor], float]) -> Callable[[Any, Tensor], Tensor]:
    def run(m: Any, x: Tensor) -> Tensor:
        q = m.a(x).flatten(2).mT
        return m.c(((q @ q.mT * scale(q)).softmax(-1) @ q).mT.unflatten(2, (8, 8)))  # type: ignore[no-any-return]

    return run


@pytest.mark.parametrize(
    ("scale", "names"),
    [
        (lambda q: q.shape[-1] ** -0.5, ("mul in the model",)),
        (lambda q: 1 / q.size(2), ("mul in the model",)),
        (lambda q: 0.3, ()),
    ],
)
def test_operators_with_numbers_computed_from_widths_are_named(
    scale: Callable[[Tensor], float], names: tuple[str]
) -> None:
    model = Net(attention(scale), a=conv(3, 8), c=conv(8, 2))
    assert pretrim.analyze(model, torch.zeros(1, 3, 8, 8)).mixers == names


@pytest.mark.parametrize("name", MODELS)
def test_slim_networks_equal_the_masked_dense_network(name: str) -> None:
    model = randomise(MODELS[name](), 0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    assert [frozen.layer for frozen in network.frozen] == ["c"]
    assert not network.mixers
    widths = network.dense // 2
    keep = kept_channels(network, widths, np.random.default_rng(0).random(len(network.group_of)))
    slim = cut(model, network, widths, keep, rescale=False)
    assert slim.get_submodule("a").weight.shape[0] == model.get_submodule("a").weight.shape[0] // 2
    expected = masked(model, network, keep)
    assert relative_error(run(slim, images), run(expected, images)) < 1e-10


def clusters(m: Any, x: Tensor) -> Tensor:
    """NetVLAD: the weighted sum of the features for each cluster."""
    x = m.a(x)
    shares = m.k(x).flatten(2).softmax(1)
    return m.c(functional.normalize(shares @ x.flatten(2).mT, dim=0).flatten(1))  # type: ignore[no-any-return]


def two_streams(m: Any, x: Tensor) -> Tensor:
    """Bilinear pooling: products of the channels of one stream with the channels of another."""
    left, right = m.a(x).flatten(2), m.k(x).flatten(2)
    return m.c((left @ right.mT).reshape(len(x), -1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("forward", [clusters, two_streams])
@pytest.mark.parametrize("wide", ["a", "k"])
def test_the_wider_of_two_flattened_channel_dimensions_is_free(
    forward: Callable[[Any, Tensor], Tensor], wide: str
) -> None:
    sizes = {"a": 4, "k": 4} | {wide: 16}
    channels_read = sizes["a"] if forward is clusters else 3
    layers = {"a": conv(3, sizes["a"]), "k": conv(channels_read, sizes["k"]), "c": nn.Linear(64, 2)}
    model = randomise(Net(forward, **layers), 0)
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    narrow = "k" if wide == "a" else "a"
    assert {frozen.layer for frozen in network.frozen} == {narrow, "c"}
    if forward is clusters and wide == "k":
        return  # a softmax over clusters depends on their number, so no masked network is equivalent
    widths = network.dense // 2
    keep = kept_channels(network, widths, np.random.default_rng(0).random(len(network.group_of)))
    slim = cut(model, network, widths, keep, rescale=False)
    assert slim.get_submodule(wide).weight.shape[0] == 8
    assert relative_error(run(slim, images), run(masked(model, network, keep), images)) < 1e-10


def test_a_layer_whose_channels_are_multiplied_with_each_other_is_frozen() -> None:
    def gram(m: Any, x: Tensor) -> Tensor:
        x = m.a(x).flatten(2)
        return m.c((x @ x.mT).flatten(1))  # type: ignore[no-any-return]

    model = Net(gram, a=conv(3, 8), c=nn.Linear(64, 2))
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    assert {frozen.layer for frozen in network.frozen} == {"a", "c"}

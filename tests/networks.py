"""Small networks for the tests: a generator of random networks, and fixed awkward networks with costs computed by hand.

A random network is described by a :class:`Recipe`, which hypothesis draws and prints: a stem, some pieces and an
ending. Every piece maps (N, C, 8, 8) to (N, C', 8, 8) and is plain PyTorch, as a user would write it; nothing here
depends on pretrim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

SIDE = 8
Example = Any


def conv(into: int, out: int, kernel: int = 3, **kwargs: Any) -> nn.Conv2d:
    return nn.Conv2d(into, out, kernel, padding=kernel // 2, **kwargs)


# ---------------------------------------------------------------------------------------- pieces


class Residual(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out = c
        self.first, self.second = conv(c, 8, bias=False), conv(8, c, bias=r.random() < 0.5)
        self.norm, self.last = nn.BatchNorm2d(8), nn.BatchNorm2d(c)
        self.inplace = r.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(self.second(F.relu(self.norm(self.first(x)))))
        if self.inplace:
            y += x
            return F.relu_(y)
        return F.gelu(x + y)


class Dense(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out = c + 4 + 4
        self.norm, self.a, self.b = nn.BatchNorm2d(c), conv(c, 4), conv(c + 4, 4)
        self.front = r.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(F.relu(self.norm(x))))
        x = torch.cat([a, x] if self.front else [x, a], 1)
        return torch.cat([x, self.b(x)], dim=1)


class Depthwise(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        times = r.choice([1, 1, 2])
        self.out = 8
        self.deep = conv(c, c * times, groups=c)
        self.norm = nn.BatchNorm2d(c * times)
        self.point = conv(c * times, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.point(F.relu6(self.norm(self.deep(x))))


class Grouped(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        groups = r.choice([2, 4])
        self.out = 8
        self.reduce = conv(c, 16, 1)
        self.conv = conv(16, 8, groups=groups, bias=r.random() < 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv(F.relu(self.reduce(x))))


class Shuffle(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.groups, self.style = 8, 2, r.choice(["view", "reshape", "module", "function"])
        self.first, self.second = conv(c, 8, 1), conv(8, 8, groups=2)
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        n, c, h, w = x.shape
        if self.style == "view":
            x = x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
        elif self.style == "reshape":
            x = x.reshape(n, self.groups, c // self.groups, h, w).permute(0, 2, 1, 3, 4).reshape(n, c, h, w)
        elif self.style == "module":
            x = self.shuffle(x)
        else:
            x = F.channel_shuffle(x, self.groups)
        return F.relu(self.second(x))


class Halves(nn.Module):
    """The halves of a convolution's filters take different paths; the half width is a number stored at construction."""

    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.half = 12, 6
        self.style = r.choice(["chunk", "split", "sizes", "slice", "narrow"])
        self.conv, self.branch = conv(c, 12, 1), conv(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.style == "chunk":
            a, b = x.chunk(2, dim=1)
        elif self.style == "split":
            a, b = x.split(self.half, dim=1)
        elif self.style == "sizes":
            a, b = torch.split(x, [self.half, self.half], dim=1)
        elif self.style == "slice":
            a, b = x[:, : self.half], x[:, self.half :]
        else:
            a, b = x.narrow(1, 0, self.half), x.narrow(1, self.half, self.half)
        return torch.cat([a, F.relu(self.branch(b))], 1)


class Parts(nn.Module):
    """A split into unequal parts, with their sizes in a list."""

    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.sizes = [4, 6, 3] if r.random() < 0.5 else [4, 4, 6]
        self.out = sum(self.sizes)
        self.style = r.choice(["list", "slice"])
        self.conv, self.branch = conv(c, self.out, 1), conv(self.sizes[1], self.sizes[1])

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        if self.style == "list":
            a, b, c = torch.split(x, self.sizes, 1)
        else:
            end = self.sizes[0] + self.sizes[1]
            a, b, c = x[:, : self.sizes[0]], x[:, self.sizes[0] : end], x[:, end:]
        return torch.cat([c, self.branch(b), a], 1)


class Shared(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out = 8
        self.into, self.conv = conv(c, 8, 1), conv(8, 8)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        for norm in self.norms:
            x = F.relu(norm(self.conv(x)))
        return x


class SqueezeExcite(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.linear = c, r.random() < 0.5
        self.squeeze = nn.Linear(c, 4) if self.linear else conv(c, 4, 1)
        self.excite = nn.Linear(4, c) if self.linear else conv(4, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.linear:
            s = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
            return x * s.view(s.size(0), s.size(1), 1, 1)
        s = F.adaptive_avg_pool2d(x, 1)
        return x * F.hardsigmoid(self.excite(F.relu(self.squeeze(s))))


class Transposed(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out = 8
        groups = r.choice([1, 2, 4, 8])
        self.down = nn.Conv2d(c, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2, groups=groups, bias=r.random() < 0.5)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.up(F.relu(self.down(x)))))


class Attention(nn.Module):
    """Attention over the pixels, with its own projections and a scale stored at construction."""

    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.heads, self.width = c, 2, 4
        self.scale = self.width**-0.5
        self.style = r.choice(["linear", "qkv", "conv"])
        inner = self.heads * self.width
        if self.style == "linear":
            self.q, self.k, self.v = (nn.Linear(c, inner) for _ in range(3))
        elif self.style == "qkv":
            self.qkv = nn.Linear(c, 3 * inner)
        else:
            self.q, self.k, self.v = (conv(c, inner, 1) for _ in range(3))
        self.project = nn.Linear(inner, c)

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, _, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        if self.style == "linear":
            shape = (n, h * w, self.heads, -1)
            return tuple(f(tokens).view(shape).transpose(1, 2) for f in (self.q, self.k, self.v))  # type: ignore
        if self.style == "qkv":
            return tuple(self.qkv(tokens).reshape(n, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4))  # type: ignore
        shape = (n, self.heads, -1, h * w)
        return tuple(f(x).reshape(shape).transpose(2, 3) for f in (self.q, self.k, self.v))  # type: ignore

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = self.heads_of(x)
        attention = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
        y = (attention @ v).transpose(1, 2).reshape(n, h * w, -1)
        return x + self.project(y).transpose(1, 2).reshape(n, c, h, w)


class PixelShuffle(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.module = 4, r.random() < 0.5
        self.conv, self.shuffle = nn.Conv2d(c, 16, 3, stride=2, padding=1), nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.relu(self.shuffle(x) if self.module else F.pixel_shuffle(x, 2))


class PixelUnshuffle(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.by_hand = 8, r.random() < 0.5
        self.conv = conv(4 * c, 8)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if self.by_hand:  # space to depth, as YOLO and TResNet write it
            y = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(n, c * 4, h // 2, w // 2)
        else:
            y = F.pixel_unshuffle(x, 2)
        return F.interpolate(F.relu(self.conv(y)), scale_factor=2.0, mode="nearest")


class Norm(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.kind = 8, r.choice(["batch", "instance", "prelu", "prelu1", "group", "layer"])
        self.into, self.after = conv(c, 8), conv(8, 8, 1)
        builders: dict[str, Callable[[], nn.Module]] = {
            "batch": lambda: nn.BatchNorm2d(8),
            "instance": lambda: nn.InstanceNorm2d(8, affine=True),
            "prelu": lambda: nn.PReLU(8),
            "prelu1": lambda: nn.PReLU(1),
            "group": lambda: nn.GroupNorm(2, 8),
            "layer": lambda: nn.LayerNorm(8),
        }
        self.norm = builders[self.kind]()

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        if self.kind == "layer":
            return self.after(F.gelu(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)))
        return self.after(F.gelu(self.norm(x)))


class PaddedShortcut(nn.Module):
    """ResNet's shortcut without weights: zero channels are padded on, their number stored at construction."""

    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.extra, self.both = c + 4, 4, r.random() < 0.5
        self.half = 2
        self.conv = conv(c, self.out)

    def forward(self, x: Tensor) -> Tensor:
        beside = (0, 0, 0, 0, self.half, self.half) if self.both else (0, 0, 0, 0, 0, self.extra)
        return F.relu(self.conv(x) + F.pad(x, beside))


class UNet(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.mode = 8, r.choice(["nearest", "bilinear"])
        self.down, self.up = nn.Conv2d(c, 12, 3, stride=2, padding=1), conv(12 + c, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.down(x))
        y = F.interpolate(y, size=x.shape[2:], mode=self.mode)
        return F.relu(self.up(torch.cat((y, x), dim=1)))


class LayerScale(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.last = c, r.random() < 0.5
        shape = (c,) if self.last else (1, c, 1, 1)
        self.conv, self.gamma, self.shift = conv(c, c), nn.Parameter(torch.ones(shape)), nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.last:
            return x + (y.permute(0, 2, 3, 1) * self.gamma + self.shift).permute(0, 3, 1, 2)
        return x + torch.addcmul(self.shift, y, self.gamma)


class Gates(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.style = 8, r.choice(["mul", "glu", "chunk", "where", "einsum"])
        self.a, self.b, self.both = conv(c, 8), conv(c, 8, 1), conv(c, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.style == "glu":
            return F.glu(self.both(x), dim=1)
        if self.style == "chunk":
            a, b = self.both(x).chunk(2, 1)
            return a * b.sigmoid()
        a, b = self.a(x), self.b(x)
        if self.style == "where":
            return torch.where(a > 0, b, a)
        if self.style == "einsum":
            return torch.einsum("nchw,nc->nchw", a, b.mean((2, 3)))
        return torch.sigmoid(a) * torch.tanh(b)


class Tokens(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.side, self.style = 8, SIDE, r.choice(["flatten", "view", "reshape", "unflatten"])
        self.linear, self.mix = nn.Linear(c, 8), nn.Linear(SIDE * SIDE, SIDE * SIDE)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if self.style == "flatten":
            return self.mix(self.linear(x.flatten(2).transpose(1, 2)).relu().transpose(1, 2)).reshape(n, -1, h, w)
        if self.style == "view":
            return self.linear(x.view(n, c, h * w).permute(0, 2, 1)).transpose(1, 2).view(n, 8, h, w)
        if self.style == "reshape":
            y = self.linear(x.permute(0, 2, 3, 1).reshape(-1, c))
            return y.reshape(n, self.side, self.side, self.linear.out_features).permute(0, 3, 1, 2).contiguous()
        return self.linear(x.flatten(2).mT).mT.unflatten(2, (h, w))


class Branches(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.style = 8, r.choice(["mean", "sum", "selective", "cat", "max"])
        self.a, self.b = conv(c, 8), conv(c, 8, 1)
        self.choose = nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        if self.style == "mean":
            return torch.stack([a, b]).mean(0)
        if self.style == "sum":
            return torch.stack([a, b], dim=2).sum(dim=2)
        if self.style == "max":
            return torch.stack((a, b), 1).amax(1)
        if self.style == "cat":
            return torch.cat([a.unsqueeze(1), b.unsqueeze(1)], 1).mean(1)
        both = torch.stack([a, b], 1)  # selective kernels: a softmax over the branches for each channel
        weights = self.choose(both.sum(1).mean((2, 3))).view(x.shape[0], 2, -1).softmax(1)
        return (both * weights[..., None, None]).sum(1)


class Unfold(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.fold, self.side = 8, r.random() < 0.4, SIDE
        self.linear = nn.Linear(9 * c, 8 * (9 if self.fold else 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(F.unfold(x, 3, padding=1).transpose(1, 2)).transpose(1, 2)
        if self.fold:
            return F.fold(y, (self.side, self.side), 3, padding=1)
        return y.reshape(x.shape[0], -1, self.side, self.side)


class Repeats(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.style = 8, r.choice(["repeat", "expand", "flip", "interleave", "self"])
        self.conv = conv(2 * c if self.style in ("repeat", "interleave", "self") else c, 8)
        self.after = conv(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.style == "repeat":
            return self.conv(x.repeat(1, 2, 1, 1))
        if self.style == "interleave":
            return self.conv(x.repeat_interleave(2, dim=1))
        if self.style == "self":
            return self.conv(torch.cat([x, -x], 1))
        if self.style == "flip":
            return self.after(F.relu(self.conv(x).flip(1)))
        return self.conv(x + F.adaptive_avg_pool2d(x, 1).expand(-1, -1, x.shape[2], x.shape[3]))


class Maxout(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.inner = 8, r.random() < 0.5
        self.conv = conv(c, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        y = self.conv(x)
        return y.view(n, -1, 2, h, w).amax(2) if self.inner else y.view(n, 2, -1, h, w).amax(1)


class Pools(nn.Module):
    def __init__(self, c: int, r: Random) -> None:
        super().__init__()
        self.out, self.style = 12 if r.random() < 0.5 else c + 4, "inception"
        self.reduce = self.out == 12
        self.a, self.b = conv(c, 4), conv(c, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.max_pool2d(x, 3, 1, 1)
        if self.reduce:
            return F.elu(torch.cat([self.a(x), self.b(F.avg_pool2d(x, 3, 1, 1) + pooled)], 1))
        return torch.cat([self.a(pooled), x], 1)


PIECES: dict[str, Callable[[int, Random], nn.Module]] = {
    kind.__name__: kind
    for kind in (
        *(Residual, Dense, Depthwise, Grouped, Shuffle, Halves, Parts, Shared, SqueezeExcite, Transposed, Attention),
        *(PixelShuffle, PixelUnshuffle, Norm, PaddedShortcut, UNet, LayerScale, Gates, Tokens, Branches, Unfold),
        *(Repeats, Maxout, Pools),
    )
}


# ---------------------------------------------------------------------------------------- whole networks

INPUTS = ("one", "two", "named")
ENDINGS = ("pool", "flatten", "auxiliary", "pair", "named", "map")


@dataclass(frozen=True)
class Recipe:
    """The description of a random network; its repr is enough to reproduce a failure."""

    pieces: tuple[str, ...]
    stem: int
    inputs: str
    ending: str
    seed: int


class RandomNetwork(nn.Module):
    """A stem, pieces and an ending, as its recipe describes them."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        r = Random(recipe.seed)
        self.inputs, self.ending = recipe.inputs, recipe.ending
        self.stem = conv(3, recipe.stem)
        if recipe.inputs != "one":
            self.other = conv(2, recipe.stem, 1)
        self.pieces = nn.ModuleList()
        channels = recipe.stem
        for name in recipe.pieces:
            self.pieces.append(PIECES[name](channels, r))
            channels = int(self.pieces[-1].out)  # type: ignore[arg-type]
        self.head = nn.Linear(channels * (4 if recipe.ending == "flatten" else 1), 5)
        if recipe.ending == "auxiliary":
            self.auxiliary = nn.Sequential(conv(recipe.stem, 6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.auxiliary_head = nn.Linear(6, 5)
        if recipe.ending in ("pair", "named", "map"):
            self.map = conv(channels, 2, 1)

    def forward(self, image: Tensor, other: Tensor | None = None) -> Any:
        x = F.relu(self.stem(image) if other is None else self.stem(image) + self.other(other))
        early = x
        for piece in self.pieces:
            x = piece(x)
        if self.ending == "map":
            return self.map(x)
        if self.ending == "flatten":
            return self.head(torch.flatten(F.max_pool2d(x, SIDE // 2), 1))
        scores = self.head(x.mean(dim=(2, 3)))
        if self.ending == "auxiliary" and self.training:
            return scores, self.auxiliary_head(self.auxiliary(early))
        if self.ending == "pair":
            return scores, self.map(x)
        return {"scores": scores, "map": self.map(x)} if self.ending == "named" else scores


def build(recipe: Recipe) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return RandomNetwork(recipe).eval()


def example(recipe: Recipe, seed: int = 0, batch: int = 1, dtype: torch.dtype = torch.float32) -> Example:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, 3, SIDE, SIDE, generator=generator, dtype=dtype)
    other = torch.randn(batch, 2, SIDE, SIDE, generator=generator, dtype=dtype)
    return {"one": image, "two": (image, other), "named": {"image": image, "other": other}}[recipe.inputs]


def recipes(max_pieces: int = 4) -> st.SearchStrategy[Recipe]:
    """Recipes of random networks with one to `max_pieces` pieces."""
    return st.builds(
        Recipe,
        pieces=st.lists(st.sampled_from(sorted(PIECES)), min_size=1, max_size=max_pieces).map(tuple),
        stem=st.sampled_from([4, 8, 12, 16]),
        inputs=st.sampled_from(INPUTS),
        ending=st.sampled_from(ENDINGS),
        seed=st.integers(0, 2**16),
    )


# ---------------------------------------------------------------------------------------- awkward networks


class Net(nn.Module):
    """A network made of named layers and of a function that is its `forward`."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


@dataclass(frozen=True)
class Awkward:
    """A network, its costs computed by hand, and its groups as (channels, filters of the first layer per channel)."""

    name: str
    build: Callable[[], nn.Module]
    groups: tuple[tuple[int, int], ...]
    params: int
    macs: int

    @property
    def example(self) -> Tensor:
        return torch.zeros(1, 3, SIDE, SIDE)


def conv1(into: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(into, out, 1, bias=False)


def _shuffled(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    return m.c(m.b(x.view(x.shape[0], 2, -1, SIDE, SIDE).transpose(1, 2).reshape(x.shape)))


def _with_auxiliary(m: Any, x: Tensor) -> Any:
    x = m.stem(x)
    scores = m.head(x.mean((2, 3)))
    return (scores, m.auxiliary_head(m.auxiliary(x).mean((2, 3)))) if m.training else scores


# Images have 8x8 = 64 pixels; `conv` has a bias, `conv1` (1x1) has none.
AWKWARD: tuple[Awkward, ...] = (
    Awkward(
        "residual",
        lambda: Net(
            lambda m, x: m.head(F.relu((y := m.a(x)) + m.b(y)).mean((2, 3))),
            a=conv(3, 8),
            b=conv(8, 8),
            head=nn.Linear(8, 5),
        ),
        groups=((8, 1),),
        params=(3 * 8 * 9 + 8) + (8 * 8 * 9 + 8) + (8 * 5 + 5),  # 853
        macs=64 * 3 * 8 * 9 + 64 * 8 * 8 * 9 + 8 * 5,  # 50,728
    ),
    Awkward(
        "concatenation",
        lambda: Net(
            lambda m, x: m.c(torch.cat([(y := m.a(x)), m.b(y)], 1)), a=conv(3, 4), b=conv(4, 6), c=conv(10, 2, 1)
        ),
        groups=((4, 1), (6, 1)),
        params=(3 * 4 * 9 + 4) + (4 * 6 * 9 + 6) + (10 * 2 + 2),  # 356
        macs=64 * (108 + 216 + 20),  # 22,016
    ),
    Awkward(
        "the same channels twice in a concatenation",
        lambda: Net(lambda m, x: m.b(torch.cat([(y := m.a(x)), -y], 1)), a=conv1(3, 4), b=conv1(8, 2)),
        groups=((4, 1),),
        params=12 + 16,
        macs=64 * 28,
    ),
    Awkward(
        "depthwise",
        lambda: Net(lambda m, x: m.c(m.b(m.a(x))), a=conv1(3, 8), b=conv(8, 8, groups=8, bias=False), c=conv1(8, 4)),
        groups=((8, 1),),
        params=24 + 72 + 32,
        macs=64 * 128,
    ),
    Awkward(
        "depthwise with two filters a channel",
        lambda: Net(lambda m, x: m.c(m.b(m.a(x))), a=conv1(3, 4), b=conv(4, 8, groups=4, bias=False), c=conv1(8, 2)),
        groups=((4, 1),),
        params=12 + 72 + 16,
        macs=64 * 100,
    ),
    Awkward(
        "grouped",
        lambda: Net(lambda m, x: m.c(m.b(m.a(x))), a=conv1(3, 8), b=conv(8, 8, groups=2, bias=False), c=conv1(8, 2)),
        groups=((4, 2), (4, 2)),
        params=24 + 8 * 4 * 9 + 16,  # 328
        macs=64 * 328,
    ),
    # Channels 0..7 of `a` are tied in pairs (i, i+4); the shuffle sends pairs 0 0 1 1 to group 0, and 2 2 3 3 to 1.
    Awkward(
        "shuffled between groups",
        lambda: Net(_shuffled, a=conv1(3, 8), b=conv(8, 8, groups=2, bias=False), c=conv1(8, 2)),
        groups=((2, 4), (4, 2)),
        params=328,
        macs=64 * 328,
    ),
    Awkward(
        "shared",
        lambda: Net(lambda m, x: m.c(m.b(m.b(m.a(x)))), a=conv1(3, 8), b=conv(8, 8, bias=False), c=conv1(8, 2)),
        groups=((8, 1),),
        params=24 + 576 + 16,
        macs=64 * (24 + 2 * 576 + 16),  # 76,288
    ),
    Awkward(
        "flattened",
        lambda: Net(
            lambda m, x: m.head(torch.flatten(F.max_pool2d(m.a(x), 4), 1)), a=conv(3, 4), head=nn.Linear(16, 5)
        ),
        groups=((4, 1),),
        params=112 + 85,
        macs=64 * 108 + 80,
    ),
    Awkward(
        "unused",
        lambda: Net(lambda m, x: m.b(m.a(x)), a=conv(3, 4), idle=conv(4, 4), b=conv(4, 2, 1)),
        groups=((4, 1),),
        params=112 + 148 + 10,
        macs=64 * (108 + 8),
    ),
    Awkward(
        "auxiliary head",
        lambda: Net(
            _with_auxiliary,
            stem=conv(3, 4),
            head=nn.Linear(4, 2),
            auxiliary=conv(4, 6, 1),
            auxiliary_head=nn.Linear(6, 2),
        ),
        groups=((4, 1), (6, 1)),
        params=112 + 10 + 30 + 14,
        macs=64 * 108 + 8,
    ),
    Awkward(
        "pixel shuffle",
        lambda: Net(lambda m, x: m.b(F.pixel_shuffle(m.a(x), 2)), a=conv1(3, 16), b=conv1(4, 2)),
        groups=((4, 4),),
        params=48 + 8,
        macs=64 * 48 + 256 * 8,
    ),
    Awkward(
        "gated by its other half",
        lambda: Net(lambda m, x: m.b(F.glu(m.a(x), 1)), a=conv1(3, 8), b=conv1(4, 2)),
        groups=((4, 2),),
        params=24 + 8,
        macs=64 * 32,
    ),
    Awkward(
        "transposed in groups",
        lambda: Net(
            lambda m, x: m.c(m.b(m.a(x))),
            a=conv1(3, 8),
            b=nn.ConvTranspose2d(8, 4, 2, stride=2, groups=2, bias=False),
            c=conv1(4, 2),
        ),
        groups=((4, 2), (2, 2)),
        params=24 + 8 * 2 * 4 + 8,  # 96
        macs=64 * 24 + 64 * 64 + 256 * 8,  # 7,680
    ),
    Awkward(
        "squeeze and excite",
        lambda: Net(
            lambda m, x: m.c((y := m.a(x)) * torch.sigmoid(m.up(F.relu(m.down(y.mean((2, 3))))))[:, :, None, None]),
            a=conv1(3, 8),
            down=nn.Linear(8, 2),
            up=nn.Linear(2, 8),
            c=conv1(8, 2),
        ),
        groups=((8, 1), (2, 1)),
        params=24 + 18 + 24 + 16,
        macs=64 * 24 + 16 + 16 + 64 * 16,  # 2,592
    ),
    Awkward("nothing to trim", lambda: Net(lambda m, x: m.a(x), a=conv(3, 4)), groups=(), params=112, macs=64 * 108),
)

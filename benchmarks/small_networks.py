"""Small networks to measure the size of single operators, at least two for each kind that LiteRT's converter writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

Function = Callable[[torch.Tensor], torch.Tensor]
Shape = tuple[int, ...]
IMAGE, SIGNAL = (2, 16, 16), (2, 40)
CHANNELS, TIMES = 16, (1, 3)
"""Channels, and numbers of convolutions that the operator follows. Between them the operator count differs by two."""


class Repeated(nn.Module):
    """Convolutions, each followed by the same module, then a classifier."""

    def __init__(self, part: Callable[[], nn.Module], times: int, channels: int = CHANNELS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(times):
            layers += [nn.Conv2d(channels if number else IMAGE[0], channels, 3, 1, 1), part()]
        self.body, self.head = nn.Sequential(*layers), nn.LazyLinear(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))  # type: ignore[no-any-return]


class Calls(nn.Module):
    """A function as a module. Its further arguments are the outputs of `parts` (a convolution) for the same input."""

    def __init__(self, function: Callable[..., torch.Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, *(part(x) for part in self.parts))


def pointwise() -> nn.Module:
    return nn.Conv2d(CHANNELS, CHANNELS, 1)


def halves(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, 1)
    return torch.cat([second, first], 1)


def squeezed(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(y.mean((2, 3), keepdim=True))


class Attention(nn.Module):
    """Single-head self-attention over the positions of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS)
        self.query, self.key, self.value, self.project = (nn.Linear(CHANNELS, CHANNELS) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = F.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
        normed = self.norm(rows)
        weights = (self.query(normed) @ self.key(normed).transpose(1, 2) * 0.25).softmax(-1)
        rows = rows + self.project(weights @ self.value(normed))
        return rows.transpose(1, 2).reshape(-1, CHANNELS, x.shape[2] // 2, x.shape[3] // 2)


def convolution(*args: int, **options: int) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(CHANNELS, CHANNELS, *args, **options)


PARTS: dict[str, Callable[[], nn.Module]] = {
    "nothing": nn.Identity,
    "ReLU": nn.ReLU,
    "norm, ReLU": lambda: nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.ReLU()),
    "norm after ReLU": lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(CHANNELS)),
    "ReLU6": nn.ReLU6,
    "pointwise": pointwise,
    "depthwise": convolution(3, 1, 1, groups=CHANNELS),
    "grouped": convolution(3, 1, 1, groups=4),
    "dilated": convolution(3, 1, 2, dilation=2),
    "strided": convolution(3, 2, 1),
    "average pool": lambda: nn.AvgPool2d(2),
    "maximum pool": lambda: nn.MaxPool2d(2),
    "padded pool": lambda: nn.MaxPool2d(3, 2, 1),
    "sum": lambda: Calls(torch.add, pointwise()),
    "difference": lambda: Calls(torch.sub, pointwise()),
    "product": lambda: Calls(torch.mul, pointwise()),
    "concatenation": lambda: nn.Sequential(Calls(lambda x, y: torch.cat([x, y], 1), pointwise()), nn.Conv2d(32, 16, 1)),
    "slices": lambda: Calls(halves),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hard swish": nn.Hardswish,
    "hard sigmoid": nn.Hardsigmoid,
    "SiLU": nn.SiLU,
    "leaky ReLU": nn.LeakyReLU,
    "PReLU": lambda: nn.PReLU(CHANNELS),
    "squeeze and excitation": lambda: Calls(squeezed, pointwise()),
    "softmax over channels": lambda: nn.Softmax(1),
    "zero padding": lambda: nn.ZeroPad2d(1),
    "reflection": lambda: nn.ReflectionPad2d(1),
    "nearest": lambda: nn.Upsample(scale_factor=2, mode="nearest"),
    "bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "transposed": lambda: nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2),
    "group norm": lambda: nn.GroupNorm(4, CHANNELS),
    "group norm of one": lambda: nn.GroupNorm(1, CHANNELS),
    "attention": Attention,
    "channel shuffle": lambda: nn.ChannelShuffle(4),
}


def dense(*widths: int) -> nn.Module:
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers[:-1])


def signals() -> nn.Module:
    layers = [nn.Conv1d(2, 12, 5, 2, 2), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(12, CHANNELS, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(CHANNELS, 3))


def networks() -> Iterator[tuple[str, nn.Module, Shape]]:
    """Name, network in eval mode with reproducible weights, and input shape."""
    for name, part in PARTS.items():
        for times in TIMES:
            torch.manual_seed(0)
            model = Repeated(part, times).eval()
            model(torch.zeros(1, *IMAGE))
            yield f"{name} x {times}", model, IMAGE
    for name, build, shape in (
        ("dense", lambda: dense(512, 32, 3), IMAGE),
        ("deep dense", lambda: dense(512, 32, 24, 16, 8, 3), IMAGE),
        ("signal", signals, SIGNAL),
    ):
        torch.manual_seed(0)
        yield name, build().eval(), shape

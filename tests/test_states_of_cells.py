"""States that start as zeros of a stored width: of convolutional recurrent cells, whichever module makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from networks import Net, conv
from reference import masked, randomise, relative_error, run
from torch import Tensor, nn

import pretrim
from pretrim.surgery.apply import cut, kept_channels


class Cell(nn.Module):
    """A ConvLSTM cell (Shi et al. 2015, equation 3, without peepholes) as public implementations write it."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.conv = nn.Conv2d(channels + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, cell = state
        i, f, o, g = torch.split(self.conv(torch.cat([x, hidden], 1)), self.hidden, 1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell

    def start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        height, width = x.shape[-2:]
        return (
            torch.zeros(len(x), self.hidden, height, width, dtype=x.dtype),
            torch.zeros(len(x), self.hidden, height, width, dtype=x.dtype),
        )


def by_method(cell: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return cell.start(x)  # type: ignore[no-any-return]


def by_variable(cell: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    hidden = x.new_zeros(len(x), cell.hidden, *x.shape[-2:])
    return hidden, torch.zeros_like(hidden)


def by_lambda(cell: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    zeros = lambda: torch.zeros(len(x), cell.hidden, *x.shape[-2:], dtype=x.dtype)  # noqa: E731
    return zeros(), zeros()


STARTS: dict[str, Callable[[Any, Tensor], tuple[Tensor, Tensor]]] = {
    "a method of the cell": by_method,
    "a variable": by_variable,
    "a lambda": by_lambda,
}


class Frames(nn.Module):
    """Two cells of different widths, one after the other, over the frames of a video of 8x8 pixels."""

    def __init__(self, start: Callable[[Any, Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.start = start
        self.cells = nn.ModuleList([Cell(3, 16), Cell(16, 8)])
        self.c = conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        frames = list(x.unbind(1))
        for cell in self.cells:
            state, seen = self.start(cell, frames[0]), []
            for frame in frames:
                state = cell(frame, state)
                seen.append(state[0])
            frames = seen
        return self.c(frames[-1])  # type: ignore[no-any-return]


class OfPart(nn.Module):
    """The model makes the state of its part, by the part's own number."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.c = Cell(3, 16), conv(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        zeros = torch.zeros(len(x), self.cell.hidden, *x.shape[-2:], dtype=x.dtype)
        return self.c(self.cell(x, (zeros, zeros))[0])  # type: ignore[no-any-return]


class TwoStates(nn.Module):
    """One state is read only, so no layer makes its channels: they go with the number that both were made of."""

    def __init__(self, *, lines: int) -> None:
        super().__init__()
        self.hidden, self.lines = 16, lines
        self.a, self.c = conv(19, 16), conv(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.lines == 2:
            read = x.new_zeros(len(x), self.hidden, *x.shape[-2:])
            added = x.new_zeros(len(x), self.hidden, *x.shape[-2:])
        else:
            read, added = (x.new_zeros(len(x), self.hidden, *x.shape[-2:]) for _ in range(2))
        return self.c(self.a(torch.cat([x, read], 1)) + added)  # type: ignore[no-any-return]


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **{f"{name}, {n} frames": (lambda s=s: Frames(s), (2, n, 3, 8, 8)) for name, s in STARTS.items() for n in (1, 3)},
    "a number of a part": (OfPart, (2, 3, 8, 8)),
    "two states on two lines": (lambda: TwoStates(lines=2), (2, 3, 8, 8)),
    "two states on one line": (lambda: TwoStates(lines=1), (2, 3, 8, 8)),
    "an image as high as the state is wide": (lambda: TwoStates(lines=2), (2, 3, 16, 16)),
}


@pytest.mark.parametrize("name", MODELS)
def test_states_follow_their_cell_exactly(name: str) -> None:
    build, shape = MODELS[name]
    model = randomise(build(), 0)
    images = torch.randn(shape, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    assert [(frozen.layer, frozen.reason) for frozen in network.frozen] == [("c", "the network's output")]
    widths = network.dense // 2
    keep = kept_channels(network, widths, np.random.default_rng(0).random(len(network.group_of)))
    slim = cut(model, network, widths, keep, rescale=False)
    assert relative_error(run(slim, images), run(masked(model, network, keep), images)) < 1e-10
    for before, after in zip(model.modules(), slim.modules(), strict=True):
        if hasattr(before, "hidden"):
            assert after.hidden == before.hidden // 2


def test_a_number_that_an_image_happens_to_have_too_stays_with_its_layer() -> None:
    """The frame of zeros around an image is as wide as the layer: nothing ties them."""

    def framed(m: Any, x: Tensor) -> Tensor:
        return m.c(m.a(torch.cat([x, x.new_zeros(len(x), 3, 8, m.width)], 3)))  # type: ignore[no-any-return]

    model = Net(framed, a=conv(3, 8), c=conv(8, 2))
    model.width = 8
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    assert [group.channels for group in network.groups] == [8]
    slim = pretrim.apply(model, pretrim.plan(network, macs="0.6x", round_to=1), network=network)
    assert slim.width == 8

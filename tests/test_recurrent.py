"""Recurrent layers: their work and weights are counted, and their units are removed exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from reference import masked, randomise, relative_error, run
from torch import Tensor, nn

import pretrim
from pretrim.cost.costs import cost
from pretrim.planning.search import plan_of_widths
from pretrim.surgery.apply import cut, kept_channels

STEPS, INTO, UNITS = 16, 12, 16
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {}),
    ("LSTM", {"bidirectional": True, "num_layers": 2}),
    ("LSTM", {"proj_size": 6, "num_layers": 2}),
    ("GRU", {"num_layers": 3, "bias": False}),
    ("GRU", {"bidirectional": True}),
    ("RNN", {"nonlinearity": "relu"}),
]


class Spotter(nn.Module):
    """A convolution, a recurrent layer over its frames, and a classifier."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        directions = 1 + options.get("bidirectional", False)
        self.front = nn.Conv1d(3, INTO, 3, 2, 1)
        self.layer = getattr(nn, kind)(INTO, UNITS, batch_first=True, **options)
        self.head = nn.Linear(directions * (options.get("proj_size") or UNITS), 5)

    def forward(self, x: Tensor) -> Tensor:
        sequence, _ = self.layer(torch.relu(self.front(x)).transpose(1, 2))
        return self.head(sequence[:, -1])  # type: ignore[no-any-return]


def by_hand(model: Spotter) -> int:
    """Every weight matrix multiplies once a step."""
    matrices = sum(p.numel() for p in model.layer.parameters() if p.dim() == 2)
    return STEPS * (model.front.weight.numel() + matrices) + model.head.weight.numel()


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_the_work_is_that_of_the_weights_at_every_step(kind: str, options: dict[str, Any]) -> None:
    model = Spotter(kind, **options)
    network = pretrim.analyze(model, torch.zeros(1, 3, 2 * STEPS))
    assert int(cost(network, "macs")(network.dense)) == by_hand(model)
    plan = plan_of_widths(network, network.dense // 2)
    assert plan.slim["macs"] == by_hand(plan.apply(model))  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_removed_units_leave_the_others_as_they_were(kind: str, options: dict[str, Any]) -> None:
    model = randomise(Spotter(kind, **options), 0)
    images = torch.randn(2, 3, 2 * STEPS, dtype=torch.float64)
    network = pretrim.analyze(model, images)
    assert [layer.layer for layer in network.frozen] == ["head"]
    widths = network.dense // 2
    keep = kept_channels(network, widths, np.random.default_rng(0).random(len(network.group_of)))
    slim = cut(model, network, widths, keep, rescale=False)
    assert slim.layer.hidden_size == UNITS // 2
    assert relative_error(run(slim, images), run(masked(model, network, keep), images)) < 1e-10


class ByHand(nn.Module):
    """A cell that `forward` steps by hand, from zeros as wide as its state or as the cell says."""

    def __init__(self, kind: str, says: bool) -> None:
        super().__init__()
        self.front, self.cell, self.head = nn.Linear(3, INTO), getattr(nn, kind)(INTO, UNITS), nn.Linear(UNITS, 2)
        self.says, self.units = says, UNITS

    def forward(self, x: Tensor) -> Tensor:
        state: Any = x.new_zeros(len(x), self.cell.hidden_size if self.says else self.units)
        state = (state, state) if isinstance(self.cell, nn.LSTMCell) else state
        for step in range(x.shape[2]):
            state = self.cell(torch.relu(self.front(x[:, :, step])), state)
        return self.head(state[0] if isinstance(state, tuple) else state)  # type: ignore[no-any-return]


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_cells_that_are_stepped_by_hand_lose_units_exactly(kind: str, says: bool) -> None:
    model = randomise(ByHand(kind, says), 0)
    signals = torch.randn(2, 3, 5, dtype=torch.float64)
    network = pretrim.analyze(model, signals)
    assert [layer.layer for layer in network.frozen] == ["head"]
    widths = network.dense // 2
    keep = kept_channels(network, widths, np.random.default_rng(0).random(len(network.group_of)))
    slim = cut(model, network, widths, keep, rescale=False)
    assert relative_error(run(slim, signals), run(masked(model, network, keep), signals)) < 1e-10


class Custom(nn.Module):
    """A bilinear form, for which there is no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.pair, self.head = nn.Conv2d(3, 8, 3), nn.Bilinear(8, 8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.front(x).mean((2, 3))
        return self.head(self.pair(x, x))  # type: ignore[no-any-return]


def test_work_that_is_unknown_is_said() -> None:
    network = pretrim.analyze(Custom(), torch.zeros(1, 3, 8, 8))
    assert [note for note in network.notes if "not counted" in note] == [
        "the work of _trilinear in pair is not counted: pretrim has no rule for it"
    ]

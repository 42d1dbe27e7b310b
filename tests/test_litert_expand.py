"""Expansions are taken out where the operator after them broadcasts, and nowhere else."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pretrim.compat.litert_expand import remove_expansions
from pretrim.deploy import export

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """16 channels of 16 x 16 pixels: a mix-up of layouts changes no shape, only values."""

    def __init__(self, combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.combine = combine
        self.before, self.gate, self.after = nn.Conv2d(3, 16, 1), nn.Conv1d(1, 1, 3, padding=1), nn.LazyConv2d(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.before(images)
        y = self.gate(x.mean((2, 3)).view(x.shape[0], 1, -1)).sigmoid().view(x.shape[0], -1, 1, 1)
        return self.after(self.combine(x, y)).mean((2, 3))


def attention(combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> nn.Module:
    torch.manual_seed(0)
    network = Attention(combine).eval()
    network(IMAGES)
    return network


def expansions(network: nn.Module) -> int:
    names = [str(node.target) for node in torch.export.export(network, (IMAGES[:1],)).graph.nodes]
    return sum(name.startswith("aten.expand") for name in names)


@pytest.mark.parametrize(
    ("name", "combine", "left"),
    [
        ("mul", lambda x, y: x * y.expand_as(x), 0),
        ("add", lambda x, y: y.expand(x.shape[0], 16, 16, 16) + x, 0),
        ("cat", lambda x, y: torch.cat([x, y.expand_as(x)], 1), 1),  # it does not broadcast
        ("alone", lambda x, y: y.expand_as(x) * y.expand_as(x), 1),  # nothing else has the whole shape
    ],
)
def test_what_is_taken_out(name: str, combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], left: int) -> None:
    network = attention(combine)
    without = remove_expansions(network, IMAGES[:1])
    assert expansions(without) == left
    assert (without is network) == (name == "cat")
    with torch.no_grad():
        assert torch.equal(without(IMAGES[:1]), network(IMAGES[:1]))


def test_a_network_without_any_is_itself() -> None:
    network = attention(lambda x, y: x * y)
    assert remove_expansions(network, IMAGES[:1]) is network


def test_litert_computes_channel_attention_as_pytorch_does(tmp_path: Path) -> None:
    network = attention(lambda x, y: x * y.expand_as(x))
    made = export(network, tmp_path / "model.tflite", "litert", images=IMAGES, inputs="random")
    assert made.proof["relative_error"] < 1e-4

"""Transposed convolutions are rewritten in a form that LiteRT accepts; unsupported ones are refused in plain words."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pretrim.compat.litert_transposed import plain_transposed
from pretrim.deploy import export
from pretrim.errors import ExportError

LAYERS: dict[int, tuple[Any, Any]] = {
    1: (nn.ConvTranspose1d, nn.BatchNorm1d),
    2: (nn.ConvTranspose2d, nn.BatchNorm2d),
    3: (nn.ConvTranspose3d, nn.BatchNorm3d),
}
OPTIONS: list[dict[str, Any]] = [
    {"stride": 2},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": 3, "padding": 2, "output_padding": 1, "groups": 2},
    {"padding": 1, "bias": False},
]


def as_trained(network: nn.Module) -> nn.Module:
    """The network with parameters and statistics that are neither zero nor one."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + (0.5 if "var" in name else -0.4))
    return network.eval()


def targets(network: nn.Module) -> str:
    graph: Any = network.graph
    return " ".join(str(node.target) for node in graph.nodes)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dims", LAYERS)
def test_rewriting_removes_norm_and_output_padding_and_keeps_the_outputs(dims: int, options: dict[str, Any]) -> None:
    transposed, norm = LAYERS[dims]
    network = as_trained(nn.Sequential(transposed(4, 6, 3, **options), norm(6), nn.ReLU(), transposed(6, 2, 2)))
    images = torch.randn(1, 4, *(5, 4, 3)[:dims], generator=torch.Generator().manual_seed(0))
    plain = plain_transposed(network, images)
    with torch.no_grad():
        torch.testing.assert_close(plain(images), network(images))
    assert "norm" not in targets(plain)
    assert ("slice" in targets(plain)) == ("output_padding" in options)
    graph: Any = plain.graph
    padded = [node.args[5] for node in graph.nodes if "transpose" in str(node.target) and len(node.args) > 5]
    assert not any(map(any, padded))


def test_a_norm_whose_input_is_also_read_elsewhere_stays() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.norm = nn.ConvTranspose2d(4, 6, 2, 2), nn.BatchNorm2d(6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.up(x)
            return x + self.norm(x)

    network, images = as_trained(Both()), torch.ones(1, 4, 3, 3)
    plain = plain_transposed(network, images)
    assert "batch_norm" in targets(plain)
    with torch.no_grad():
        torch.testing.assert_close(plain(images), network(images))


def test_a_network_without_transposed_convolutions_is_not_rewritten() -> None:
    network = nn.Conv2d(3, 4, 1)
    assert plain_transposed(network, torch.zeros(1, 3, 4, 4)) is network


IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def decoder(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), *layers).eval()


def test_litert_runs_a_decoder_in_int8(tmp_path: Path) -> None:
    up = (nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1))
    artifact = export(decoder(*up), tmp_path / "model.tflite", "litert", images=IMAGES, calibration=IMAGES)
    assert not artifact.proof["failed"]


def test_what_litert_lacks_is_refused_in_plain_words(tmp_path: Path) -> None:
    network = decoder(nn.ConvTranspose2d(8, 2, 3, 2, 1, dilation=2))
    message = "has no transposed convolution of this dilation or padding: use dilation 1, and padding 0"
    with pytest.raises(ExportError, match=message):
        export(network, tmp_path / "model.tflite", "litert", images=IMAGES)
    assert list(tmp_path.iterdir()) == []


class ClosedGate(nn.Module):
    """A squeeze whose output is zero for every image, as a ReLU may produce: its range is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.squeeze, self.gate = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.head = nn.Linear(8, 4)
        nn.init.constant_(self.squeeze.bias, -9.0)  # type: ignore[arg-type]  # the layer has a bias

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(images))
        x = x * torch.sigmoid(self.gate(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def test_an_activation_that_is_always_zero_gets_a_range(tmp_path: Path) -> None:
    torch.manual_seed(0)
    artifact = export(ClosedGate().eval(), tmp_path / "model.tflite", "litert", images=IMAGES, calibration=IMAGES)
    assert not artifact.proof["failed"]

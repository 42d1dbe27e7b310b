"""The fit on public measurements (benchmarks/): counts of architectures against analysed networks, and the solver."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_board_time import BUILDERS
from torch import nn

import pretrim
from pretrim.latency.board_systems import Work
from pretrim.latency.board_time import work_of

pytest.importorskip("scipy")
sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))  # scripts beside each other, not a package

from board_fit import GUESS, KINDS, TIED, Key, Sample, fit, ratios, solve
from board_networks import find, nats

NAMES = {
    "ic": "ResNet-8 (MLPerf Tiny)",
    "vww": "MobileNetV1-0.25 96 (MLPerf Tiny)",
    "ad": "FC autoencoder (MLPerf Tiny)",
}


@pytest.mark.parametrize("name", NAMES)
def test_counted_architectures_are_those_that_pretrim_analyses(name: str) -> None:
    build, shape = BUILDERS[name]
    found = find(NAMES[name])
    assert found is not None
    assert found[1] == work_of(pretrim.analyze(build(), torch.zeros(1, *shape)))


# ---------------------------------------------------------------------------------------- NATS-Bench in PyTorch


def relu_conv(into: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out))


class Cell(nn.Module):
    """Nodes that sum their edges; operations by the names of NATS-Bench."""

    def __init__(self, edges: list[list[tuple[str, int]]], channels: int) -> None:
        super().__init__()
        self.edges = edges
        self.operations = nn.ModuleList(
            nn.ModuleList(self.operation(name, channels) for name, _ in incoming) for incoming in edges
        )

    @staticmethod
    def operation(name: str, channels: int) -> nn.Module:
        if name.startswith("nor_conv"):
            return relu_conv(channels, channels, int(name[-1]))
        return nn.AvgPool2d(3, 1, 1, count_include_pad=False) if name == "avg_pool_3x3" else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        nodes: list[torch.Tensor] = [x]
        for incoming, operations in zip(self.edges, self.operations, strict=True):
            pairs = zip(incoming, operations, strict=True)
            parts = [operation(nodes[source]) for (name, source), operation in pairs if name != "none"]
            nodes.append(sum(parts[1:], start=parts[0]))
        return nodes[-1]


class Reduction(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.left = nn.Sequential(relu_conv(channels, 2 * channels, 3, 2), relu_conv(2 * channels, 2 * channels, 3))
        self.right = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(channels, 2 * channels, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x) + self.right(x)


def nats_in_torch(edges: list[list[tuple[str, int]]]) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)]
    for channels in (16, 32, 64):
        layers += [Reduction(channels // 2)] if channels > 16 else []
        layers += [Cell(edges, channels) for _ in range(5)]
    layers += [nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    "architecture",
    [
        "|nor_conv_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|",
        "|skip_connect~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|",
        "|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_1x1~1|+|nor_conv_1x1~0|nor_conv_3x3~1|nor_conv_1x1~2|",
    ],
)
def test_relus_are_operators_where_their_input_has_other_readers(architecture: str) -> None:
    """In the third network LiteRT's converter leaves two of 77 ReLUs (of 16 and of 8 KiB): the others are fused."""
    edges = [
        [(edge.partition("~")[0], int(edge.partition("~")[2])) for edge in node.strip("|").split("|")]
        for node in architecture.split("+")
    ]
    analysed = work_of(pretrim.analyze(nats_in_torch(edges), torch.zeros(1, 3, 32, 32)))
    # The norm behind the last addition: two operators in the tables' files, four in LiteRT's of a trained network.
    tables = nats(architecture).work
    outputs = {**tables.outputs, "elementwise": tables.outputs["elementwise"] + 2 * 64 * 8 * 8}
    assert analysed == replace(tables, outputs=outputs)
    if architecture.count("nor_conv") == 6:
        assert analysed.outputs["activation"] == 16_384 + 8_192


# ---------------------------------------------------------------------------------------- the solver


def test_coefficients_come_back_from_what_they_make() -> None:
    rng = np.random.default_rng(0)
    true = np.array([1.2, 3.0, 0.0, 17.0])
    work = rng.uniform(1, 100, (60, 4))
    found = solve(work / (work @ true)[:, None], np.ones(4), ridge=1e-9)
    assert found == pytest.approx(true, abs=1e-3)


def test_relative_errors_count_small_networks_as_much_as_large_ones() -> None:
    """Two networks that disagree by a factor of two: the answer is between them, whatever their sizes."""
    rows = np.array([[1.0 / 2.0], [1000.0 / 1000.0]])  # 2 and 1 cycles for a unit of work
    assert solve(rows, np.array([1.0]), ridge=1e-9) == pytest.approx([(0.5 + 1.0) / (0.25 + 1.0)])


def sample(runtime: str, macs: float, outputs: float, cycles: float) -> Sample:
    work = Work({"convolution": macs}, {"convolution": outputs})
    key = Key("Cortex-M4", runtime, "", "int8")
    return Sample(key, f"{macs}", f"{macs}", "board", work, cycles, None, "source@commit")


def test_a_system_with_one_network_takes_the_ratios_of_others() -> None:
    """Outputs cost 30 multiply-accumulates on one runtime: then also on another, on which one network was measured."""
    rng = np.random.default_rng(0)
    known = [
        sample(f"known {number % 8}", macs, outputs, macs + 30 * outputs)
        for number, (macs, outputs) in enumerate(rng.uniform((1e6, 1e5), (1e7, 1e6), (400, 2)))
    ]
    single = sample("new", 4e6, 2e5, 2.5 * (4e6 + 30 * 2e5))
    other = sample("new", 6e6, 5e5, 2.5 * (6e6 + 30 * 5e5))
    predicted = float(other.row @ fit([single], ratios([*known, single])))
    assert predicted == pytest.approx(other.cycles, rel=0.1)
    by_macs_alone = single.cycles / 4e6 * 6e6
    assert abs(predicted - other.cycles) < 0.3 * abs(by_macs_alone - other.cycles)


def test_tied_kinds_have_one_number_each() -> None:
    assert TIED.shape == (len(KINDS), len(GUESS)) and (TIED.sum(axis=1) == 1).all()

"""Claim: analysis, planning and surgery stay usable with thousands of layers.

Chains of 500 to 2,000 convolutions (plain, with a residual stream, and in blocks of twenty whose outputs are
concatenated) are analysed, planned at half the MACs with the default method, and cut: seconds of processor time of
each, and of analysis per operator.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py        # 4 minutes on one core; writes benchmarks/results/scaling.md
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import pretrim

TABLE = Path(__file__).parent / "results" / "scaling.md"
LAYERS = (500, 1000, 2000)
BLOCK = 20


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.norm(self.conv(x)))


class Concatenated(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        widths = range(channels, channels + BLOCK * growth, growth)
        self.layers = nn.ModuleList(nn.Conv2d(width, growth, 3, padding=1) for width in widths)
        self.last = nn.Conv2d(channels + BLOCK * growth, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.cat([x, torch.relu(layer(x))], 1)
        return self.last(x)


def network(body: list[nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    )


def plain(layers: int) -> nn.Module:
    def layer() -> list[nn.Module]:
        return [nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]

    return network([part for _ in range(layers) for part in layer()])


def residual(layers: int) -> nn.Module:
    return network([Residual(16) for _ in range(layers)])


def concatenated(layers: int) -> nn.Module:
    return network([Concatenated(16, 8) for _ in range(layers // BLOCK)])


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and its seconds of processor time."""
    start = time.process_time()
    return work(), time.process_time() - start


@dataclass(frozen=True)
class Timed:
    """Seconds of processor time for a network of so many layers."""

    layers: int
    operators: int
    groups: int
    analysis: float
    plan: float
    apply: float

    @classmethod
    def of(cls, model: nn.Module, layers: int) -> Timed:
        """Do the three steps once."""
        found, analysis = timed(lambda: pretrim.analyze(model, torch.zeros(1, 3, 16, 16)))
        plan, planning = timed(lambda: found.plan(macs="0.5x"))
        _, surgery = timed(lambda: plan.apply(model, network=found))
        return cls(layers, len(found.operators), len(found.groups), analysis, planning, surgery)

    def row(self, name: str) -> str:
        """A line of the table."""
        numbers = [f"{self.layers:,}", f"{self.operators:,}", f"{self.groups:,}", f"{self.analysis:.1f}"]
        numbers += [f"{1000 * self.analysis / self.operators:.2f}", f"{self.plan:.1f}", f"{self.apply:.1f}"]
        return f"| {name} | {' | '.join(numbers)} |"


def slopes(name: str, times: list[Timed]) -> str:
    """The power of the number of layers by which each step grows: 1 is linear, 2 quadratic."""
    layers = np.log([one.layers for one in times])
    found = [
        np.polyfit(layers, np.log([max(getattr(one, step), 1e-3) for one in times]), 1)[0]
        for step in ("analysis", "plan", "apply")
    ]
    return f"| {name} | {' | '.join(f'{slope:.2f}' for slope in found)} |"


def main() -> None:
    torch.set_num_threads(1)
    pretrim.analyze(plain(2), torch.zeros(1, 3, 16, 16))  # torch loads a part of itself at the first analysis
    rows, powers = [], []
    for name, build in (("plain", plain), ("residual", residual), ("concatenated", concatenated)):
        times = []
        for layers in LAYERS:
            times.append(Timed.of(build(layers), layers))
            rows.append(times[-1].row(name))
            print(rows[-1], flush=True)
        powers.append(slopes(name, times))
    TABLE.write_text("\n".join([*HEAD, *rows, *GROWTH, *powers]) + "\n", encoding="utf-8")


HEAD = (
    "# Analysis, planning and surgery of networks with many layers",
    "",
    f"Seconds of processor time on one core, torch {torch.__version__} (`OMP_NUM_THREADS=1 python "
    "benchmarks/scaling.py`).",
    "",
    "| network | layers | operators | groups | analysis, s | per operator, ms | plan, s | apply, s |",
    "|---|---|---|---|---|---|---|---|",
)
GROWTH = (
    "",
    "The power of the number of layers by which each grows (1: linear):",
    "",
    "| network | analysis | plan | apply |",
    "|---|---|---|---|",
)


if __name__ == "__main__":
    main()

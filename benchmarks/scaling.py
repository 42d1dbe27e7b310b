"""Claim: analysis, planning and surgery stay usable with thousands of layers.

Chains of 500 to 2,000 convolutions (plain, with a residual stream, and in blocks of twenty whose outputs are
concatenated) are analysed, planned at half the MACs with the default method, and cut. Reported are the seconds of CPU
time for each step, and the analysis time per operator.

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
    """Call a function; return its result and the seconds of CPU time."""
    start = time.process_time()
    return work(), time.process_time() - start


@dataclass(frozen=True)
class Timing:
    """Seconds of CPU time for a network with this number of layers."""

    layers: int
    operators: int
    groups: int
    analysis: float
    plan: float
    apply: float

    @classmethod
    def of(cls, model: nn.Module, layers: int) -> Timing:
        """Run and time the three steps once."""
        network, analysis_seconds = timed(lambda: pretrim.analyze(model, torch.zeros(1, 3, 16, 16)))
        plan, plan_seconds = timed(lambda: network.plan(macs="0.5x"))
        _, apply_seconds = timed(lambda: plan.apply(model, network=network))
        return cls(layers, len(network.operators), len(network.groups), analysis_seconds, plan_seconds, apply_seconds)

    def row(self, name: str) -> str:
        """A line of the table."""
        numbers = [f"{self.layers:,}", f"{self.operators:,}", f"{self.groups:,}", f"{self.analysis:.1f}"]
        numbers += [f"{1000 * self.analysis / self.operators:.2f}", f"{self.plan:.1f}", f"{self.apply:.1f}"]
        return f"| {name} | {' | '.join(numbers)} |"


def growth_row(name: str, timings: list[Timing]) -> str:
    """A table row of the exponents with which each step grows in the number of layers: 1 is linear, 2 quadratic."""
    layers = np.log([timing.layers for timing in timings])
    exponents = [
        np.polyfit(layers, np.log([max(getattr(timing, step), 1e-3) for timing in timings]), 1)[0]
        for step in ("analysis", "plan", "apply")
    ]
    return f"| {name} | {' | '.join(f'{exponent:.2f}' for exponent in exponents)} |"


def main() -> None:
    torch.set_num_threads(1)
    pretrim.analyze(plain(2), torch.zeros(1, 3, 16, 16))  # warm-up: the first analysis loads parts of torch lazily
    rows, growth = [], []
    for name, build in (("plain", plain), ("residual", residual), ("concatenated", concatenated)):
        timings = []
        for layers in LAYERS:
            timings.append(Timing.of(build(layers), layers))
            rows.append(timings[-1].row(name))
            print(rows[-1], flush=True)
        growth.append(growth_row(name, timings))
    TABLE.write_text("\n".join([*HEAD, *rows, *GROWTH, *growth]) + "\n", encoding="utf-8")


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

"""Claim: every plan of a narrow network can be applied, whatever numbers its `forward` computes from the widths.

Twenty networks with 8 to 16 channels select channels by number in `forward`: shares (`int(c * r)`), slices, splits,
halves, squeeze-and-excitation, shuffles. The analysis tries only a few widths, so a constant that fits them by chance
could be mistaken for one that depends on the width. Ten plans of each network (modes, three limits, seeds), 200 in
total, are applied and run, and the shape of their output is compared with that of the dense network.

    python benchmarks/narrow_plans.py        # three minutes; writes results/narrow_plans.md
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pretrim
from pretrim.errors import InfeasibleBudget, PretrimError

RESULT = Path(__file__).parent / "results" / "narrow_plans.md"
PLANS = 10
SIDE = 8
Way = Callable[["Narrow", Tensor], Tensor]


class Narrow(nn.Module):
    """Two convolutions, a function (`way`) that selects their channels by number, and two more layers."""

    def __init__(self, channels: int, way: Way, **parts: nn.Module) -> None:
        super().__init__()
        self.channels, self.way = channels, way
        self.stem, self.body = nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)
        for name, part in parts.items():
            self.add_module(name, part)
        with torch.no_grad():
            out = way(self, torch.zeros(1, channels, SIDE, SIDE)).shape[1]
        self.last, self.head = nn.Conv2d(out, 12, 3, padding=1), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.way(self, torch.relu(self.body(torch.relu(self.stem(x)))))
        return self.head(torch.relu(self.last(x)).mean((2, 3)))  # type: ignore[no-any-return]


def split_at(x: Tensor, count: int) -> Tensor:
    """Treat the first `count` channels differently from the rest."""
    return torch.cat([2 * x[:, :count], -x[:, count:]], 1)


def share(ratio: float) -> Way:
    return lambda m, x: split_at(x, int(x.shape[1] * ratio))


def stored_share(ratio: float) -> Way:
    return lambda m, x: split_at(x, int(m.channels * ratio))


def shuffled(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def excited(m: Narrow, x: Tensor) -> Tensor:
    return x * torch.sigmoid(m.excite(torch.relu(m.squeeze(F.adaptive_avg_pool2d(x, 1)))))  # type: ignore[operator]


def halves(m: Narrow, x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return a * torch.sigmoid(b)


def partial_convolution(m: Narrow, x: Tensor) -> Tensor:
    """FasterNet's partial convolution: a quarter of the channels is convolved."""
    a, b = torch.split(x, [x.shape[1] // 4, x.shape[1] - x.shape[1] // 4], 1)
    return torch.cat([m.part(a), b], 1)  # type: ignore[operator]


def shifted(m: Narrow, x: Tensor) -> Tensor:
    """TSM's shift: an eighth of the channels moves left, an eighth right."""
    fold = x.shape[1] // 8
    left, right = F.pad(x[:, :fold, :, 1:], (0, 1)), F.pad(x[:, fold : 2 * fold, :, :-1], (1, 0))
    return torch.cat([left, right, x[:, 2 * fold :]], 1)


def heat(m: Narrow, x: Tensor) -> Tensor:
    """Append to the channels the expected position of each (soft-argmax)."""
    places = (x.flatten(2).softmax(-1) * torch.arange(float(SIDE**2))).sum(-1)
    return torch.cat([places[:, :, None, None].expand(-1, -1, SIDE, SIDE), x], 1)


def shuffle_unit(m: Narrow, x: Tensor) -> Tensor:
    """ShuffleNetV2's unit: one half of the channels is convolved, then both are shuffled."""
    a, b = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
    return shuffled(torch.cat([a, m.part(b)], 1), 2)  # type: ignore[operator]


def networks() -> dict[str, Callable[[], nn.Module]]:
    """Functions that build the networks, by name."""
    pointwise = nn.Conv2d
    return {
        "int(c * 0.25), 8": lambda: Narrow(8, share(0.25)),
        "int(c * 0.34), 12": lambda: Narrow(12, share(0.34)),
        "int(c * 0.66), 16": lambda: Narrow(16, share(0.66)),
        "int(c * 0.875), 16": lambda: Narrow(16, share(0.875)),
        "int(self.channels * 0.25), 16": lambda: Narrow(16, stored_share(0.25)),
        "int(self.channels * 0.75), 12": lambda: Narrow(12, stored_share(0.75)),
        "c // 3, 12": lambda: Narrow(12, lambda m, x: split_at(x, x.shape[1] // 3)),
        "ceil(c / 2), 10": lambda: Narrow(10, lambda m, x: split_at(x, math.ceil(x.shape[1] / 2))),
        "c - 2, 8": lambda: Narrow(8, lambda m, x: split_at(x, x.shape[1] - 2)),
        "max(2, c // 4), 12": lambda: Narrow(12, lambda m, x: x[:, : max(2, x.shape[1] // 4)]),
        "rounded to 4, 16": lambda: Narrow(16, lambda m, x: x[:, : max(4, int(x.shape[1] * 0.5 + 2) // 4 * 4)]),
        "chunk of 3, 12": lambda: Narrow(12, lambda m, x: torch.cat([t * n for n, t in enumerate(x.chunk(3, 1))], 1)),
        "gate of halves, 16": lambda: Narrow(16, halves),
        "partial convolution, 16": lambda: Narrow(16, partial_convolution, part=nn.Conv2d(4, 4, 3, padding=1)),
        "temporal shift, 16": lambda: Narrow(16, shifted),
        "squeeze and excite, 8": lambda: Narrow(8, excited, squeeze=pointwise(8, 2, 1), excite=pointwise(2, 8, 1)),
        "squeeze and excite, 12": lambda: Narrow(12, excited, squeeze=pointwise(12, 3, 1), excite=pointwise(3, 12, 1)),
        "shuffle of 4, 16": lambda: Narrow(16, lambda m, x: shuffled(x, 4)),
        "shuffle unit, 12": lambda: Narrow(12, shuffle_unit, part=nn.Conv2d(6, 6, 3, padding=1)),
        "coordinates, 9": lambda: Narrow(9, heat),
    }


def plan_options() -> Iterator[dict[str, Any]]:
    """Options for the plans of a network: the default mode, then sampled modes, then random ones with several seeds."""
    limits = ("0.8x", "0.6x", "0.4x")
    for limit in limits:
        yield {"macs": limit}
    for mode in ("macs", "params"):
        yield {"macs": "0.5x", "mode": mode}
    for number in range(PLANS - 5):
        yield {"macs": limits[number % 3], "mode": "random", "round_to": 1, "seed": number}


def tried(build: Callable[[], nn.Module]) -> dict[str, Any]:
    """Plan a network and apply its plans.

    Returns:
        Numbers of applied and of infeasible plans, the errors of plans that failed to apply, and the frozen layers.
    """
    torch.manual_seed(0)
    model, images = build().eval(), torch.zeros(2, 3, SIDE, SIDE)
    network = pretrim.analyze(model, images[:1])
    applied, impossible, failed = 0, 0, []
    for options in plan_options():
        try:
            plan = network.plan(**options)
        except InfeasibleBudget:
            impossible += 1
            continue
        try:
            assert plan.apply(model, network=network)(images).shape == model(images).shape
            applied += 1
        except (PretrimError, RuntimeError, AssertionError) as error:
            failed.append(f"{options}: {error}")
    frozen = [entry.layer for entry in network.frozen if entry.layer != "head"]
    return {"applied": applied, "impossible": impossible, "failed": failed, "frozen": frozen}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", help="networks by name")
    selected, results = parser.parse_args().only, {}
    for name, build in networks().items():
        if selected is None or name in selected:
            results[name] = tried(build)
            print(name, results[name], flush=True)
    failed = sum(len(result["failed"]) for result in results.values())
    total = failed + sum(result["applied"] for result in results.values())
    lines = [
        "# Plans of narrow networks, applied",
        "",
        f"By `benchmarks/narrow_plans.py`: {total} plans of {len(results)} networks were made, {failed} of them "
        "failed to apply. Impossible: no width within the limit is legal.",
        "",
        "| network, channels | applied | failed | impossible | frozen layers |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {result['applied']} | {len(result['failed'])} | {result['impossible']} | "
            f"{', '.join(result['frozen']) or '-'} |"
            for name, result in results.items()
        ),
    ]
    if selected is None:
        RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

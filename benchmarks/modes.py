"""Claim: each mode spares what it is named after.

On VGG-16, ResNet-56 and MobileNetV2 (32x32, 10 classes), mean over 20 seeds: at `macs="0.5x"` for all, PA leaves the
fewest parameters and MA the least activation memory; at `params="0.5x"` for all, FA leaves the fewest MACs. Beside them
the controls, and the other readings of the paper (step, weights, coupling) for FA at half the MACs.

    python benchmarks/modes.py          # about a minute; writes benchmarks/results/modes.md and modes.jsonl
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pretrim
from pretrim.analysis.network import Network
from pretrim.cost.costs import costs
from pretrim.models import BUILTIN
from pretrim.planning.allocate import allocate
from pretrim.planning.budget import Budget
from pretrim.planning.options import Options

RESULTS = Path(__file__).parent / "results"
NETWORKS = ("vgg16", "resnet56", "mobilenetv2")
SEEDS = 20
MODES = ("params", "macs", "memory", "uniform", "random", "waterfill")
READINGS: tuple[dict[str, Any], ...] = (
    {},
    {"step": "filter"},
    {"share_update": "adaptive"},
    {"coupling": "mean"},
    {"coupling": "max"},
)


def row(network: Network, limits: dict[str, str], options: dict[str, Any]) -> dict[str, float]:
    """Mean share of each cost that is left, over the seeds, and the smallest share of a group's filters."""
    bounds = Budget.parse(limits).resolve(network)
    plans = np.concatenate([allocate(network, bounds, Options(seed=seed, **options)) for seed in range(SEEDS)])
    functions = costs(network)
    left = {name: float(np.mean(f(plans) / f(network.dense))) for name, f in functions.items()}
    return left | {"narrowest": float((plans / network.dense).min(axis=1).mean())}


def records() -> list[dict[str, Any]]:
    found = []
    for name in NETWORKS:
        network = pretrim.analyze(BUILTIN[name](), torch.zeros(1, 3, 32, 32))
        for limit in ("macs", "params"):
            for mode in MODES:
                found.append(
                    {"network": name, "limit": limit, "mode": mode} | row(network, {limit: "0.5x"}, {"mode": mode})
                )
        for reading in READINGS:
            left = row(network, {"macs": "0.5x"}, {"mode": "macs", **reading})
            found.append(
                {"network": name, "limit": "macs", "mode": "macs", "reading": reading or {"default": True}} | left
            )
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Both tables in Markdown."""
    names = {"params": "PA", "macs": "FA", "memory": "MA"}
    head = "| network | limit | {} | params | MACs | activation | peak | narrowest group |\n" + "|---" * 8 + "|"
    modes, readings = [head.format("mode")], [head.format("FA with")]
    for r in found:
        said = names.get(r["mode"], r["mode"])
        if "reading" in r:
            said = ", ".join(f"{key}={value}" for key, value in r["reading"].items()).replace(
                "default=True", "defaults"
            )
        shares = (r[key] for key in ("params", "macs", "activation_bytes", "peak_activation_bytes", "narrowest"))
        line = (
            f"| {r['network']} | {r['limit']}=0.5x | {said} | " + " | ".join(f"{share:.3f}" for share in shares) + " |"
        )
        (readings if "reading" in r else modes).append(line)
    return "\n".join([*modes, "", *readings, ""])


def claims(found: list[dict[str, Any]]) -> list[str]:
    """Each claim with whether it holds."""
    said = []
    sampled = ("params", "macs", "memory")
    for name in NETWORKS:
        rows = [r for r in found if r["network"] == name and "reading" not in r and r["mode"] in sampled]
        for limit, cost, expected in (
            ("macs", "params", "params"),
            ("macs", "activation_bytes", "memory"),
            ("params", "macs", "macs"),
        ):
            best = min((r for r in rows if r["limit"] == limit), key=lambda r: r[cost])["mode"]
            said.append(
                f"{name}, {limit}=0.5x: least {cost} by {best} ({'as' if best == expected else 'NOT as'} claimed)"
            )
    return said


def main() -> None:
    found = records()
    (RESULTS / "modes.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found))
    (RESULTS / "modes.md").write_text(
        "# What each mode leaves\n\nShare of the dense network that is left, mean over "
        f"{SEEDS} seeds, by `python benchmarks/modes.py`.\n\n{table(found)}"
    )
    print(table(found), *claims(found), sep="\n")


if __name__ == "__main__":
    main()

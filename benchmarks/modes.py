"""Claim: each mode reduces the cost that it is named after the most.

On VGG-16, ResNet-56 and MobileNetV2 (32x32, 10 classes), mean over 20 seeds: if all modes plan for `macs="0.5x"`, PA
leaves the fewest parameters and MA the least activation memory; for `params="0.5x"`, FA leaves the fewest MACs. The
tables also show the controls, and the other interpretations of the paper (step, weights, coupling) for FA at half the
MACs.

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
    """Means over the seeds: the remaining share of each cost, and of the filters in the narrowest group."""
    budget = Budget.parse(limits).resolve(network)
    plans = np.concatenate([allocate(network, budget, Options(seed=seed, **options)) for seed in range(SEEDS)])
    cost_functions = costs(network)
    shares = {name: float(np.mean(cost(plans) / cost(network.dense))) for name, cost in cost_functions.items()}
    return shares | {"narrowest": float((plans / network.dense).min(axis=1).mean())}


def records() -> list[dict[str, Any]]:
    rows = []
    for name in NETWORKS:
        network = pretrim.analyze(BUILTIN[name](), torch.zeros(1, 3, 32, 32))
        for limit in ("macs", "params"):
            for mode in MODES:
                rows.append(
                    {"network": name, "limit": limit, "mode": mode} | row(network, {limit: "0.5x"}, {"mode": mode})
                )
        for reading in READINGS:
            shares = row(network, {"macs": "0.5x"}, {"mode": "macs", **reading})
            rows.append(
                {"network": name, "limit": "macs", "mode": "macs", "reading": reading or {"default": True}} | shares
            )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Both tables in Markdown: modes, and readings of the paper."""
    names = {"params": "PA", "macs": "FA", "memory": "MA"}
    header = "| network | limit | {} | params | MACs | activation | peak | narrowest group |\n" + "|---" * 8 + "|"
    modes, readings = [header.format("mode")], [header.format("FA with")]
    for record in rows:
        label = names.get(record["mode"], record["mode"])
        if "reading" in record:
            label = ", ".join(f"{key}={value}" for key, value in record["reading"].items()).replace(
                "default=True", "defaults"
            )
        shares = (record[key] for key in ("params", "macs", "activation_bytes", "peak_activation_bytes", "narrowest"))
        line = (
            f"| {record['network']} | {record['limit']}=0.5x | {label} | "
            + " | ".join(f"{share:.3f}" for share in shares)
            + " |"
        )
        (readings if "reading" in record else modes).append(line)
    return "\n".join([*modes, "", *readings, ""])


def claims(all_rows: list[dict[str, Any]]) -> list[str]:
    """A line for each claim that says whether it holds."""
    lines = []
    sampled_modes = ("params", "macs", "memory")
    for name in NETWORKS:
        rows = [
            record
            for record in all_rows
            if record["network"] == name and "reading" not in record and record["mode"] in sampled_modes
        ]
        for limit, cost, expected in (
            ("macs", "params", "params"),
            ("macs", "activation_bytes", "memory"),
            ("params", "macs", "macs"),
        ):
            best = min((record for record in rows if record["limit"] == limit), key=lambda record: record[cost])["mode"]
            lines.append(
                f"{name}, {limit}=0.5x: least {cost} by {best} ({'as' if best == expected else 'NOT as'} claimed)"
            )
    return lines


def main() -> None:
    rows = records()
    (RESULTS / "modes.jsonl").write_text("".join(json.dumps(record) + "\n" for record in rows))
    (RESULTS / "modes.md").write_text(
        "# What each mode leaves\n\nShare of the dense network that is left, mean over "
        f"{SEEDS} seeds, by `python benchmarks/modes.py`.\n\n{table(rows)}"
    )
    print(table(rows), *claims(rows), sep="\n")


if __name__ == "__main__":
    main()

"""Claim: a network that pretrim plans for a microcontroller fits, and its exported file is within the plan's limits.

Random plans of ten networks, each for a random microcontroller with random limits on file and arena between 25 and 95 %
of the dense network's. Each plan is proved before the training as in `compress` (`jobs.fit`). Then the network is built
again with other weights and converted with other images, like an export after a training. The real file size, and the
real arena by TensorFlow Lite for Microcontrollers, are compared with the predictions and the limits.

    python benchmarks/fit.py --plans 20        # of 200; 10 to 60 s of a core each; appends to results/fit.jsonl

Nine tenths of that time are LiteRT's two conversions per plan, for each of which torch traces the network four times.
Needs `pretrim[mcu]`. Plans that are already recorded are not made again.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonl
import networks
import torch
from torch import nn

from pretrim.deploy import arena_on, litert_file, micro
from pretrim.devices import Board, boards
from pretrim.errors import InfeasibleBudget, PretrimError
from pretrim.jobs.fit import fitted
from pretrim.jobs.options import Search, TargetOptions
from pretrim.jobs.plan import plan_for
from pretrim.jobs.reporter import Silent
from pretrim.jobs.target import find_target
from pretrim.models.dense import DenseModel, open_model
from pretrim.models.resolve import build, resolve
from pretrim.surgery.apply import apply

RECORDS = Path(__file__).parent / "results" / "fit.jsonl"
RESULT = Path(__file__).parent / "results" / "fit.md"
PLANS = 200
Shape = tuple[int, int, int]


def conv(into: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU())


def separable(into: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(into, into, 3, stride, groups=into), conv(into, out, 1))


def with_classifier(*features: nn.Module, channels: int, classes: int = 10) -> nn.Sequential:
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def ds_cnn() -> nn.Module:
    return with_classifier(conv(1, 64, 3, 2), *(separable(64, 64) for _ in range(4)), channels=64, classes=12)


def quarter_mobilenet() -> nn.Module:
    widths, strides = [8, 16, 32, 32, 64, 64, 128, 128, 256], [1, 2, 1, 2, 1, 2, 1, 2]
    blocks = [separable(a, b, s) for a, b, s in zip(widths, widths[1:], strides, strict=False)]
    return with_classifier(conv(3, 8, 3, 2), *blocks, channels=256, classes=2)


def plain() -> nn.Module:
    return with_classifier(conv(3, 24), conv(24, 48, 3, 2), conv(48, 48), conv(48, 96, 3, 2), conv(96, 96), channels=96)


def builtin(name: str, channels: int = 3) -> Callable[[], nn.Module]:
    return lambda: build(resolve(name, num_classes=10, input_shape=(channels, 32, 32)))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "resnet20": (builtin("resnet20"), (3, 32, 32)),
    "resnet56": (builtin("resnet56"), (3, 32, 32)),
    "mobilenetv2": (builtin("mobilenetv2"), (3, 32, 32)),
    "vgg16": (builtin("vgg16"), (3, 32, 32)),
    "alexnet": (builtin("alexnet"), (3, 32, 32)),
    "resnet20, grey 16x16": (builtin("resnet20", 1), (1, 16, 16)),
    "half mobilenetv2": (networks.mobilenetv2_half, (3, 32, 32)),
    "ds-cnn": (ds_cnn, (1, 32, 32)),
    "quarter mobilenet": (quarter_mobilenet, (3, 96, 96)),
    "plain": (plain, (3, 32, 32)),
}


def draw(number: int, opened: dict[str, DenseModel]) -> tuple[str, DenseModel, Board, dict[str, str]]:
    """Network, board and limits of a plan, determined by its number alone."""
    rng = random.Random(number)
    name = list(NETWORKS)[number % len(NETWORKS)]
    if name not in opened:
        builder, shape = NETWORKS[name]
        torch.manual_seed(0)
        opened[name] = open_model(builder(), shape, None)
    board = rng.choice([entry for entry in boards() if entry.kind == "microcontroller"])
    shares = {cost: f"{rng.uniform(0.25, 0.95):.4f}x" for cost in ("artifact_bytes", "arena_bytes")}
    return name, opened[name], board, shares


def try_plan(number: int, opened: dict[str, DenseModel]) -> dict[str, Any]:
    """The record of one plan: predicted sizes, sizes converted before the training, and sizes of an export after it."""
    name, dense, board, limits = draw(number, opened)
    record: dict[str, Any] = {"plan": number, "network": name, "board": board.name, "limits": limits}
    search = Search()
    target = find_target(TargetOptions(device=board.name), dict(limits), search)
    try:
        first_plan = plan_for(dense, target, search, Silent())
        plan = fitted(first_plan, dense, target, search, Silent())
    except InfeasibleBudget as error:
        return {**record, "refused": str(error)}
    assert plan.device is not None
    torch.manual_seed(number + 1)
    slim = apply(dense.module, plan, "fresh", dense.network).eval()
    tflite = litert_file(slim, torch.rand(6, *dense.input_shape))
    max_bytes = {cost: int(float(text[:-1]) * plan.device["dense"][cost]) for cost, text in limits.items()}
    real = {"artifact_bytes": len(tflite), "arena_bytes": arena_on(tflite, board).total_bytes}
    return {
        **record,
        "most": max_bytes,
        "predicted": {cost: plan.device["slim"][cost] for cost in max_bytes},
        "converted": plan.device["converted"],
        "real": real,
        "host_arena_bytes": micro.arena(tflite).total_bytes,
        "trimmed_again": bool((first_plan.widths != plan.widths).any()),
        "exceeds": [cost for cost in max_bytes if real[cost] > max_bytes[cost]],
    }


def page(records: list[dict[str, Any]]) -> str:
    feasible = [record for record in records if "real" in record]
    lines = [
        "# What is said to fit, and what the exported file takes",
        "",
        f"By `benchmarks/fit.py`: {len(records)} of {PLANS} random plans of {len(NETWORKS)} networks are made.",
        f"{sum('refused' in record for record in records)} were refused as impossible, "
        f"{sum(record['trimmed_again'] for record in feasible)} "
        "trimmed again after the conversion before the training,",
        f"and {sum(bool(record['exceeds']) for record in feasible)} of {len(feasible)} "
        "exceed a limit once exported with other",
        "weights. Arena: of the board (32-bit pointers, its kernels' memory), activations as TFLM placed them here.",
        "",
        "| network | plans | file, predicted to real | arena, predicted to real | trimmed again | exceed a limit |",
        "|---|---|---|---|---|---|",
    ]
    for name in NETWORKS:
        network_records = [record for record in feasible if record["network"] == name]
        if not network_records:
            continue
        cells = [name, str(len(network_records))]
        for cost in ("artifact_bytes", "arena_bytes"):
            errors = [100 * (record["predicted"][cost] / record["real"][cost] - 1) for record in network_records]
            cells.append(f"{min(errors):+.2f} to {max(errors):+.2f} %, median {statistics.median(errors):+.2f} %")
        cells += [
            str(sum(record["trimmed_again"] for record in network_records)),
            str(sum(bool(record["exceeds"]) for record in network_records)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plans", type=int, default=PLANS, help="how many, from the first")
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), help="of these networks")
    options = parser.parse_args()
    done_plans, opened = {record["plan"] for record in jsonl.read(RECORDS)}, dict[str, DenseModel]()
    for number in range(options.plans):
        name = list(NETWORKS)[number % len(NETWORKS)]
        if number in done_plans or (options.only and name not in options.only):
            continue
        try:
            record = try_plan(number, opened)
        except PretrimError as error:
            record = {"plan": number, "network": name, "refused": str(error)}
        jsonl.append(RECORDS, record)
        print(number, record["network"], record.get("exceeds", record.get("refused")), flush=True)
        RESULT.write_text(page(jsonl.read(RECORDS)))


if __name__ == "__main__":
    main()

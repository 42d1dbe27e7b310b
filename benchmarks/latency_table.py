"""Claim: the latency of a plan is known to 15 % before it is built, from a table of single layers and two networks.

20 random plans (mode random, 0.2 to 0.9 of the MACs) of ResNet-56 and MobileNetV2 for 3x32x32, in LiteRT on one
thread: predicted by `pretrim.latency`, and measured, all plans of a network in turns in the same processes. The two
networks that the table is corrected by (dense, and 0.3 of every width) are not among the plans.

    OMP_NUM_THREADS=1 python benchmarks/latency_table.py     # about 15 minutes; writes results/latency_table.md

Needs `pretrim[litert]` and a machine that does nothing else.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

import pretrim
from pretrim.deploy import export
from pretrim.latency import Place, measured_cost
from pretrim.measure import Protocol, measure
from pretrim.measure.worker import cpu_name
from pretrim.models.resolve import build, resolve

RESULT = Path(__file__).parent / "results" / "latency_table.md"
PLANS = 20


def row(name: str, data_type: str) -> str:
    torch.manual_seed(0)
    module = build(resolve(name, num_classes=10, input_shape=(3, 32, 32)))
    network = pretrim.analyze(module, torch.zeros(1, 3, 32, 32))
    started = time.perf_counter()
    cost = measured_cost(network, module, Place("benchmark", "litert", data_type, "CPU", 1))
    took = time.perf_counter() - started
    predicted, artifacts = [], []
    with tempfile.TemporaryDirectory() as folder:
        images = torch.randn(4, 3, 32, 32)
        for seed in range(PLANS):
            share = 0.2 + 0.7 * seed / (PLANS - 1)
            plan = network.plan(mode="random", macs=f"{share:.3f}x", seed=seed)
            file = Path(folder) / f"{seed}.tflite"
            slim = plan.apply(module).eval()
            sample = images if data_type == "int8" else None
            artifacts.append(export(slim, file, "litert", images=images, calibration=sample, force=True))
            predicted.append(int(cost(plan.widths)) * 1e-9)
        real = [found.latency.median_s for found in measure(artifacts, Protocol(runs=30, processes=3))]
    errors = [p / r - 1 for p, r in zip(predicted, real, strict=True)]
    within = sum(abs(error) <= 0.15 for error in errors)
    cells = [
        name,
        data_type,
        f"{1e3 * min(real):.2f} to {1e3 * max(real):.2f}",
        f"{100 * statistics.fmean(abs(error) for error in errors):.1f} %",
        f"{100 * min(errors):+.1f} to {100 * max(errors):+.1f} %",
        f"{within} of {PLANS}",
        f"{took:.0f}",
    ]
    print(*cells, sep=" | ", flush=True)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    head = (
        "# Latency, predicted and measured\n\n"
        f"{PLANS} random plans each, 3x32x32, LiteRT, one thread, {cpu_name()}. Goal: within 15 %.\n\n"
        "| network | data type | measured, ms | mean error | errors | within 15 % | s to make the table |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache  # a table of this run alone
        for name in ("resnet56", "mobilenetv2"):
            for kind in ("float32", "int8"):
                rows.append(row(name, kind))
                RESULT.write_text(head + "\n".join(rows) + "\n")  # what is done is not lost


if __name__ == "__main__":
    main()

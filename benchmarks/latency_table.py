"""Claim: a table of single layers and two networks predicts the latency of a plan to within 15 % before it is built.

20 random plans (mode random, 0.2 to 0.9 of the MACs) each of ResNet-56 and MobileNetV2 for 3x32x32, in LiteRT and in
ONNX Runtime on one thread. Their latency is predicted by `pretrim.latency` and measured, with all plans of a network
taking turns in the same processes. The two networks that correct the table (dense, and 0.3 of every width) are not
among the plans.

    OMP_NUM_THREADS=1 python benchmarks/latency_table.py [--runtimes onnx] [--only resnet56]      # about 25 minutes
    python benchmarks/latency_table.py --table

Records: benchmarks/results/latency_table.jsonl; rows that this processor has already measured are skipped. Needs the
extras litert and onnx, and an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import jsonl
import torch

import pretrim
from pretrim.deploy import SUFFIXES, TITLES, export
from pretrim.latency import PROVIDERS, LatencyKey, measured_cost
from pretrim.measure import Protocol, measure
from pretrim.measure.worker import cpu_name
from pretrim.models.resolve import build, resolve

RESULTS = Path(__file__).parent / "results"
RECORDS, TABLE = RESULTS / "latency_table.jsonl", RESULTS / "latency_table.md"
NETWORKS, RUNTIMES, KINDS = ("resnet56", "mobilenetv2"), ("litert", "onnx"), ("float32", "int8")
PLANS = 20
WITHIN = 0.15


def measure_plans(name: str, runtime: Any, data_type: str) -> dict[str, Any]:
    """Predict and measure the plans of a network. Returns their record."""
    torch.manual_seed(0)
    module = build(resolve(name, num_classes=10, input_shape=(3, 32, 32)))
    network = pretrim.analyze(module, torch.zeros(1, 3, 32, 32))
    started = time.perf_counter()
    cost = measured_cost(network, module, LatencyKey("benchmark", runtime, data_type, PROVIDERS[runtime], 1))
    table_s = time.perf_counter() - started
    predicted_ms, artifacts = [], []
    with tempfile.TemporaryDirectory() as folder:
        images = torch.randn(4, 3, 32, 32)
        for seed in range(PLANS):
            share = 0.2 + 0.7 * seed / (PLANS - 1)
            plan = network.plan(mode="random", macs=f"{share:.3f}x", seed=seed)
            file = Path(folder) / f"{seed}{SUFFIXES[runtime]}"
            slim = plan.apply(module).eval()
            calibration = images if data_type == "int8" else None
            artifacts.append(export(slim, file, runtime, images=images, calibration=calibration, force=True))
            predicted_ms.append(int(cost(plan.widths)) * 1e-6)
        measurements = measure(artifacts, Protocol(runs=30, processes=3))
    measured_ms = [1e3 * measurement.latency.median_s for measurement in measurements]
    row = {"network": name, "runtime": runtime, "data_type": data_type, "cpu": cpu_name()}
    return row | {"predicted_ms": predicted_ms, "measured_ms": measured_ms, "table_s": table_s}


def _sort_key(row: dict[str, Any]) -> tuple[str, int, int, int]:
    """Sort key of a row in the table."""
    order = (RUNTIMES.index(row["runtime"]), NETWORKS.index(row["network"]), KINDS.index(row["data_type"]))
    return row["cpu"], *order


def table() -> str:
    lines = [
        "# Latency, predicted and measured",
        "",
        f"{PLANS} random plans each, 3x32x32, one thread. Goal: within {WITHIN:.0%}.",
        "",
        "| processor | runtime | network | data type | measured, ms | mean error | errors | within 15 % "
        "| s to make the table |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(jsonl.read(RECORDS), key=_sort_key):
        pairs = zip(row["predicted_ms"], row["measured_ms"], strict=True)
        errors = [100 * (predicted / real - 1) for predicted, real in pairs]
        within = sum(abs(error) <= 100 * WITHIN for error in errors)
        cells = [
            *(row["cpu"], TITLES[row["runtime"]], row["network"], row["data_type"]),
            f"{min(row['measured_ms']):.2f} to {max(row['measured_ms']):.2f}",
            f"{statistics.fmean(map(abs, errors)):.1f} %",
            f"{min(errors):+.1f} to {max(errors):+.1f} %",
            f"{within} of {len(errors)}",
            f"{row['table_s']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--runtimes", nargs="*", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    known_cases = {
        (row["runtime"], row["network"], row["data_type"]) for row in jsonl.read(RECORDS) if row["cpu"] == cpu_name()
    }
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache  # so that latencies are not read from the cache of another run
        for case in product(options.runtimes, options.only, KINDS):
            if options.table or case in known_cases:
                continue
            row = measure_plans(case[1], case[0], case[2])
            jsonl.append(RECORDS, row)
            TABLE.write_text(table())  # so that an interrupted run keeps its results
    TABLE.write_text(table())


if __name__ == "__main__":
    main()

"""Question: in ONNX Runtime, what does its own latency table gain over LiteRT's table, and over none?

The networks of `runtimes.py`, dense and at half the MACs by seven methods: FLOPs-aware in multiples of 1, 8 and 16; the
latency mode by LiteRT's table in multiples of 8, and by ONNX Runtime's in multiples of 8 and of 16 (which pretrim
recommends where kernels pad to 16); and uniform. On one thread, with the eight networks of a block taking turns in the
same processes.

    OMP_NUM_THREADS=1 python benchmarks/onnx_latency.py [--only ResNet-56]     # about 20 minutes; resumable
    python benchmarks/onnx_latency.py --table

Records: benchmarks/results/onnx_latency.jsonl; rows that this processor has already measured are skipped. Needs the
extras litert and onnx, and an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import jsonl
import torch
from runtimes import IMAGES, KINDS, MACS, NETWORKS, PROTOCOL, module_of

import pretrim
from pretrim.deploy import RuntimeName, export
from pretrim.latency import PROVIDERS, LatencyKey, measured_cost
from pretrim.measure import measure
from pretrim.measure.worker import cpu_name

RESULTS = Path(__file__).parent / "results"
RECORDS, TABLE = RESULTS / "onnx_latency.jsonl", RESULTS / "onnx_latency.md"
WAYS: dict[str, dict[str, Any]] = {
    "dense": {},
    "macs, unaligned": {"mode": "macs", "round_to": 1},
    "macs, by 8": {"mode": "macs", "round_to": 8},
    "macs, by 16": {"mode": "macs", "round_to": 16},
    "latency by LiteRT's table, by 8": {"mode": "latency", "round_to": 8},
    "latency by its own table, by 8": {"mode": "latency", "round_to": 8},
    "latency by its own table, by 16": {"mode": "latency", "round_to": 16},
    "uniform": {"mode": "uniform", "round_to": 1},
}


def measure_block(network: str, kind: str) -> list[dict[str, Any]]:
    """Measure the eight networks of a block, which is a network and a data type. Returns their records."""
    module, images = module_of(network)
    analysis = pretrim.analyze(module, torch.zeros_like(images[:1]))
    rows, artifacts = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, (way, options) in enumerate(WAYS.items()):
            slim, costs = module, {"macs": 1.0, "params": 1.0}
            if options:
                latency_cost = {}
                if options["mode"] == "latency":
                    runtime: RuntimeName = "litert" if "LiteRT" in way else "onnx"
                    key = LatencyKey(cpu_name(), runtime, kind, PROVIDERS[runtime], 1)
                    latency_cost = {"latency_ns": measured_cost(analysis, module, key)}
                plan = analysis.plan(macs=MACS, costs=latency_cost, **options)
                slim = plan.apply(module).eval()
                costs = {name: plan.slim[name] / plan.dense[name] for name in costs}
            calibration = images[:IMAGES] if kind == "int8" else None
            file = Path(folder) / f"{number}.onnx"
            artifacts.append(
                export(slim, file, "onnx", images=images, calibration=calibration, inputs="random", force=True)
            )
            rows.append({"network": network, "data_type": kind, "way": way, "cpu": cpu_name(), **costs})
        measurements = measure(artifacts, PROTOCOL)
    times = [
        {"median_ms": 1e3 * measurement.latency.median_s, "std_ms": 1e3 * measurement.latency.std_s}
        for measurement in measurements
    ]
    version = {"runtime": measurements[0].machine["runtime"]}
    return [row | time | version for row, time in zip(rows, times, strict=True)]


def table() -> str:
    record_of = {(row["cpu"], row["network"], row["data_type"], row["way"]): row for row in jsonl.read(RECORDS)}
    blocks = list(dict.fromkeys(key[:3] for key in record_of))
    machines = sorted({f"{row['cpu']}, {row['runtime']}" for row in record_of.values()})
    titles = [f"{network}, {kind}" for _, network, kind in blocks]
    lines = [
        "# Half the MACs in ONNX Runtime",
        "",
        f"One image, one thread, {'; '.join(machines)}. "
        "Milliseconds of the dense network, and shares of it: medians of "
        f"{PROTOCOL.runs * PROTOCOL.processes} runs in {PROTOCOL.processes} processes, the networks of a column in "
        "turns. Goal: 60 % at most.",
        "",
        f"| way | {' | '.join(titles)} | median | least in |",
        f"|---|{'---|' * (len(titles) + 2)}",
    ]
    shares: dict[str, list[float]] = {
        way: [record_of[*block, way]["median_ms"] / record_of[*block, "dense"]["median_ms"] for block in blocks]
        for way in WAYS
    }
    fastest_ways = [min(list(WAYS)[1:], key=lambda way: shares[way][number]) for number in range(len(blocks))]
    for way, values in shares.items():
        if way == "dense":
            cells = [*(f"{record_of[*block, way]['median_ms']:.2f} ms" for block in blocks), "", ""]
        else:
            cells = [
                *(f"{value:.0%}" for value in values),
                f"{statistics.median(values):.0%}",
                str(fastest_ways.count(way)),
            ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    known_blocks = {(row["network"], row["data_type"]) for row in jsonl.read(RECORDS) if row["cpu"] == cpu_name()}
    for case in product(options.only, KINDS):
        if options.table or case in known_blocks:
            continue
        rows = measure_block(*case)
        jsonl.append(RECORDS, *rows)
        TABLE.write_text(table())  # so that an interrupted run keeps its results
    TABLE.write_text(table())


if __name__ == "__main__":
    main()

"""Claim: half the MACs take at most 60 % of the dense latency in every runtime, with aligned or measured widths.

ResNet-56, VGG-16 and MobileNetV2 (3x32x32) and ResNet-18 (3x224x224), dense and at half the MACs by five methods:

- balanced: the default, in multiples of 8;
- macs, unaligned: FLOPs-aware with any number of filters (the paper's method);
- macs, aligned: the same in multiples of 8;
- latency: sampled by each layer's share of the latency measured in LiteRT on this machine, in multiples of 8;
- uniform: one width multiplier for all layers.

The networks are untrained, since time does not depend on the weights. Latency is measured on one thread, with the six
networks of a row taking turns in the same processes. Instructions are those of one inference of the .tflite on an
emulated Cortex-A76 and A53 (`arm/`); they are exact, and the same on every machine.

    OMP_NUM_THREADS=1 python benchmarks/runtimes.py [--stages plan export measure count] [--only ResNet-56]  # resumable
    python benchmarks/runtimes.py --table

Records: benchmarks/results/runtimes.jsonl. Needs the extras onnx, litert and executorch. The stages plan and measure
need an otherwise idle machine; count needs the tools described in `arm/`. About 2 hours in total.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import arm
import jsonl
import torch
from torch import nn

import pretrim
from pretrim.deploy import SUFFIXES, export
from pretrim.deploy.artifact import read
from pretrim.latency import LatencyKey, measured_cost
from pretrim.measure import Protocol, measure
from pretrim.measure.worker import cpu_name
from pretrim.models.resolve import build, resolve
from pretrim.planning.plan import Plan

HERE = Path(__file__).parent
RECORDS, TABLE = HERE / "results" / "runtimes.jsonl", HERE / "results" / "runtimes.md"
FILES = HERE.parent / "build" / "runtimes"
NETWORKS = {
    "ResNet-56": ("resnet56", 32),
    "VGG-16": ("vgg16", 32),
    "MobileNetV2": ("mobilenetv2", 32),
    "ResNet-18": ("torchvision:resnet18", 224),
}
WAYS: dict[str, dict[str, Any]] = {
    "dense": {},
    "balanced": {"mode": "balanced", "round_to": 8},
    "macs, unaligned": {"mode": "macs", "round_to": 1},
    "macs, aligned": {"mode": "macs", "round_to": 8},
    "latency": {"mode": "latency", "round_to": 8},
    "uniform": {"mode": "uniform", "round_to": 1},
}
KINDS = ("float32", "int8")
RUNTIMES = {"onnx": "ONNX Runtime", "litert": "LiteRT", "executorch": "ExecuTorch"}
IMAGES = 4
MACS = "0.5x"
PROTOCOL = Protocol(runs=60, processes=3, rounds=6)
Case = tuple[str, str, str]
"""Network, method and data type."""


def module_of(network: str) -> tuple[nn.Module, torch.Tensor]:
    """The dense network and random images."""
    name, side = NETWORKS[network]
    torch.manual_seed(0)
    module = build(resolve(name, num_classes=10, input_shape=(3, side, side))).eval()
    return module, torch.randn(IMAGES, 3, side, side)


def cases(networks: list[str]) -> Iterator[Case]:
    for network in networks:
        for kind in KINDS:
            for way in WAYS:
                yield network, way, kind


def file_of(case: Case, suffix: str) -> Path:
    return FILES / ("_".join(case).replace(", ", "-") + suffix)


# ---------------------------------------------------------------------------------------- stages


def plan(networks: list[str]) -> None:
    """Write all missing plans as JSON. The latency mode first measures single layers."""
    for network in networks:
        module, images = module_of(network)
        analysis = pretrim.analyze(module, images[:1])
        for kind in KINDS:
            latency = None
            for way, options in WAYS.items():
                target = file_of((network, way, kind), ".plan.json")
                if target.exists() or not options:
                    continue
                if options["mode"] == "latency" and latency is None:
                    latency = measured_cost(analysis, module, LatencyKey(cpu_name(), "litert", kind, "CPU", 1))
                costs = {"latency_ns": latency} if options["mode"] == "latency" else {}
                plan = analysis.plan(macs=MACS, costs=costs, **options)
                plan.save(target)
                print(network, kind, way, f"{plan.slim['macs'] / plan.dense['macs']:.3f} of the MACs", flush=True)


def widths_of(case: Case) -> Plan | None:
    """The plan of a case; None for the dense network."""
    return Plan.load(file_of(case, ".plan.json")) if WAYS[case[1]] else None


def make_files(networks: list[str]) -> None:
    """Export all missing artifacts."""
    for case in cases(networks):
        network, _, kind = case
        for runtime in RUNTIMES:
            target = file_of(case, SUFFIXES[runtime])
            if target.exists():
                continue
            module, images = module_of(network)
            plan = widths_of(case)
            slim = (module if plan is None else plan.apply(module)).eval()
            calibration = images if kind == "int8" else None
            export(slim, target, runtime, images=images, calibration=calibration, inputs="random", force=True)
            print(target.name, flush=True)


def time(networks: list[str]) -> None:
    """Measure latency, with all networks of a runtime and data type taking turns."""
    known = {(entry["network"], entry["data_type"], entry.get("runtime")) for entry in jsonl.read(RECORDS)}
    for network in networks:
        for kind in KINDS:
            for runtime in RUNTIMES:
                if (network, kind, runtime) in known:
                    continue
                artifacts = [read(file_of((network, way, kind), SUFFIXES[runtime])) for way in WAYS]
                measurements = measure(artifacts, PROTOCOL)
                for way, measurement in zip(WAYS, measurements, strict=True):
                    latency = measurement.latency
                    record = {"network": network, "way": way, "data_type": kind, "runtime": runtime}
                    figures = {"median_ms": 1e3 * latency.median_s, "p90_ms": 1e3 * latency.p90_s}
                    figures |= {"std_ms": 1e3 * latency.std_s, "file_bytes": measurement.file_bytes}
                    jsonl.append(RECORDS, record | figures | {"machine": dict(measurement.machine)})
                times = [f"{1e3 * m.latency.median_s:.2f}" for m in measurements]
                print(network, kind, runtime, *times, flush=True)


def count(networks: list[str]) -> None:
    """Count instructions on the emulated cores."""
    arm.prepare()
    known = {(entry["network"], entry["way"], entry["data_type"], entry.get("core")) for entry in jsonl.read(RECORDS)}
    for network, way, kind in cases(networks):
        for core in arm.CORES:
            if (network, way, kind, core) not in known:
                instructions = arm.instructions(file_of((network, way, kind), SUFFIXES["litert"]), core)
                jsonl.append(
                    RECORDS,
                    {"network": network, "way": way, "data_type": kind, "core": core, "instructions": instructions},
                )
                print(network, way, kind, core, f"{instructions / 1e6:.3f} M", flush=True)


STAGES = {"plan": plan, "export": make_files, "measure": time, "count": count}


# ---------------------------------------------------------------------------------------- records


def describe(networks: list[str]) -> None:
    """Record the MACs and parameters of each case."""
    known = {(entry["network"], entry["way"], entry["data_type"]) for entry in jsonl.read(RECORDS) if "macs" in entry}
    for case in cases(networks):
        plan = widths_of(case)
        reference_plan = Plan.load(file_of((case[0], "macs, aligned", case[2]), ".plan.json")) if plan is None else plan
        costs = reference_plan.dense if plan is None else reference_plan.slim
        if case not in known:
            names = ("network", "way", "data_type")
            jsonl.append(
                RECORDS, dict(zip(names, case, strict=True)) | {"macs": costs["macs"], "params": costs["params"]}
            )


def table() -> str:
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for entry in jsonl.read(RECORDS):
        row = rows.setdefault((entry["network"], entry["data_type"], entry["way"]), {})
        if "runtime" in entry:
            row[entry["runtime"]] = entry
            row["machine"] = entry["machine"]
        elif "core" in entry:
            row[entry["core"]] = entry["instructions"]
        else:
            row |= {"macs": entry["macs"], "params": entry["params"]}
    machine = next((row["machine"] for row in rows.values() if "machine" in row), {"cpu": "?"})
    lines = [
        "# Half the MACs in three runtimes",
        "",
        f"One image, one thread, {machine['cpu']}. Milliseconds: medians of {PROTOCOL.runs * PROTOCOL.processes} runs "
        f"in {PROTOCOL.processes} processes, the networks of a block in turns. Instructions: of the .tflite on an "
        "emulated core, in millions. In brackets: the share of the dense network's. Goal: 60 % at most.",
        "",
        f"| network | | way | MACs, M | parameters, k | {' | '.join(f'{title}, ms' for title in RUNTIMES.values())} "
        "| Cortex-A76, M | Cortex-A53, M |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for network, way, kind in cases(list(NETWORKS)):
        if (network, kind, way) not in rows:
            continue
        row = rows[network, kind, way]
        dense = rows[network, kind, "dense"]
        cells = [f"{row['macs'] / 1e6:.1f} ({row['macs'] / dense['macs']:.0%})", f"{row['params'] / 1e3:.0f}"]
        for runtime in RUNTIMES:
            if runtime not in row:
                cells.append("-")
                continue
            entry, dense_ms = row[runtime], dense[runtime]["median_ms"]
            cells.append(f"{entry['median_ms']:.2f} ({entry['median_ms'] / dense_ms:.0%})")
        for core in arm.CORES:
            cells.append(f"{row[core] / 1e6:.2f} ({row[core] / dense[core]:.0%})" if core in row else "-")
        lines.append(f"| {network} | {kind} | {way} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *summary(rows)]).rstrip() + "\n"


def summary(table_rows: dict[tuple[str, str, str], dict[str, Any]]) -> list[str]:
    """How far the goals are met over all blocks: time in each runtime, instructions on each core."""

    def time(row: dict[str, Any], runtime: str) -> float:
        return float(row[runtime]["median_ms"])

    def instructions(row: dict[str, Any], core: str) -> float:
        return float(row[core])

    lines = []
    kinds = (
        ("time, three runtimes", tuple(RUNTIMES), time),
        ("instructions, two cores", tuple(arm.CORES), instructions),
    )
    for title, targets, value in kinds:
        shares: dict[str, list[float]] = {way: [] for way in WAYS if way != "dense"}
        for network, kind, target in product(NETWORKS, KINDS, targets):
            rows = {way: table_rows.get((network, kind, way), {}) for way in WAYS}
            if all(target in row for row in rows.values()):
                for way in shares:
                    shares[way].append(value(rows[way], target) / value(rows["dense"], target))
        lines += [
            f"| {title}: way | median share of dense | largest | blocks within 60 % | least of all in |",
            "|---|---|---|---|---|",
        ]
        best_methods = [min(shares, key=lambda way: shares[way][n]) for n in range(len(shares["uniform"]))]
        for way, values in shares.items():
            if values:
                middle, within = statistics.median(values), sum(value <= 0.6 for value in values)
                cells = [
                    f"{middle:.0%}",
                    f"{max(values):.0%}",
                    f"{within} of {len(values)}",
                    str(best_methods.count(way)),
                ]
                lines.append(f"| {way} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--only", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    FILES.mkdir(parents=True, exist_ok=True)
    if not options.table:
        for stage in options.stages:
            STAGES[stage](options.only)
        describe(options.only)
    TABLE.write_text(table())


if __name__ == "__main__":
    main()

"""Claim: of slimmed CNNs of torchvision and timm, 97 % export to ONNX and agree, 90 % to LiteRT and ExecuTorch.

Each network of `coverage.py`'s list that slims, untrained, at `macs="0.5x"`, is exported in float32 to each of the
three runtimes and run there on 2 random images: the outputs must agree with PyTorch's within 1e-4 of the largest.
Images are of 96 pixels where the network runs on those, else of its own size: which operators there are does not depend
on it. Each network and runtime is a process of its own, which is stopped after 5 minutes.

    python benchmarks/exports.py [--only NAME ...] [--runtimes onnx litert executorch] [--minutes 60]   # resumable
    python benchmarks/exports.py --table

Records: benchmarks/results/exports.jsonl.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import jsonl
from coverage import all_names, build, one_line, small_enough

HERE = Path(__file__).parent
RECORDS, TABLE = HERE / "results" / "exports.jsonl", HERE / "results" / "exports.md"
RUNTIMES = ("onnx", "litert", "executorch")
SECONDS = 300


def export_one(name: str, runtime: str) -> dict[str, Any]:
    """Slim, randomise the statistics, export; what fails is recorded by its message."""
    import torch

    import pretrim
    from pretrim.deploy import SUFFIXES, export

    torch.set_num_threads(1)
    record: dict[str, Any] = {"name": name, "runtime": runtime}
    model, size = build(name)
    torch.manual_seed(0)
    images = small_enough(model.eval(), torch.randn(2, *size))
    try:
        slim = pretrim.analyze(model, images[:1]).plan(macs="0.5x").apply(model).eval()
    except pretrim.PretrimError as error:
        return record | {"not_slim": one_line(error)}
    for module in slim.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{SUFFIXES[runtime]}"
        try:
            made = export(slim, path, runtime, images=images, inputs="random")
        except pretrim.PretrimError as error:
            return record | {"input": list(images.shape[1:]), "error": str(error)[:400]}
    return record | {
        "input": list(images.shape[1:]),
        "seconds": time.perf_counter() - start,
        "relative_error": made.proof["relative_error"],
        "notes": list(made.notes),
    }


def run(names: list[str], runtimes: list[str], minutes: float) -> None:
    """What is not recorded yet, until the time is over."""
    known = {(entry["name"], entry["runtime"]) for entry in jsonl.read(RECORDS)}
    end = time.monotonic() + 60 * minutes
    for name in names:
        for runtime in runtimes:
            if (name, runtime) in known or time.monotonic() > end:
                continue
            command = [sys.executable, __file__, "--one", name, runtime]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
                lines = done.stdout.splitlines()
                error = done.stderr.splitlines()[-1:] or [f"exit {done.returncode}"]
                entry = json.loads(lines[-1]) if done.returncode == 0 and lines else {"error": error[0][:400]}
            except subprocess.TimeoutExpired:
                entry = {"error": f"stopped after {SECONDS} s"}
            entry = {"name": name, "runtime": runtime} | entry
            jsonl.append(RECORDS, entry)
            print(name, runtime, entry.get("error") or entry.get("not_slim") or f"{entry['seconds']:.0f} s", flush=True)


def table() -> str:
    """Shares by runtime, then every failure."""
    found = [entry for entry in jsonl.read(RECORDS) if "not_slim" not in entry]
    names = all_names()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "litert-torch", "executorch"))
    lines = [
        "# Exports of slimmed networks",
        "",
        "Slim at half the MACs, float32, compared with PyTorch in the runtime itself (1e-4 of the largest output).",
        f"{packages}. Seconds are of two cores that other work shared, at times much of it.",
        "",
        "| runtime | networks tried | agree | share | median s |",
        "|---|---|---|---|---|",
    ]
    for runtime in RUNTIMES:
        own = [entry for entry in found if entry["runtime"] == runtime]
        good = sorted(entry["seconds"] for entry in own if "error" not in entry)
        share = f"{len(good) / len(own):.1%}" if own else "-"
        lines.append(f"| {runtime} | {len(own)} | {len(good)} | {share} | {good[len(good) // 2]:.0f} |" if good else "")
    tried = {entry["name"] for entry in jsonl.read(RECORDS)}
    lines += ["", f"Not tried yet: {len([n for n in names if n not in tried])} of {len(names)}.", ""]
    lines += ["| network | runtime | what it said |", "|---|---|---|"]
    for entry in found:
        if "error" in entry:
            said = entry["error"].replace("|", "\\|").replace("\n", " ")
            lines.append(f"| {entry['name']} | {entry['runtime']} | {said[:200]} |")
    slow = [entry for entry in found if entry.get("notes")]
    lines += ["", f"With operators that have no fast kernel in ExecuTorch: {len(slow)} networks.", ""]
    for entry in slow:
        lines.append(f"- {entry['name']}: {entry['notes'][0].rpartition(': ')[2]}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--runtimes", nargs="*", default=list(RUNTIMES))
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--one", nargs=2)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(export_one(*options.one)))
    elif options.table:
        TABLE.write_text(table())
    else:
        names = all_names()
        Random(0).shuffle(names)  # what is there when the time is over is a fair sample
        run(options.only or names, options.runtimes, options.minutes)
        TABLE.write_text(table())


if __name__ == "__main__":
    main()

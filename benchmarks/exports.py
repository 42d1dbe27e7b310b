"""Claim: of slimmed CNNs from torchvision and timm, 97 % export to ONNX with matching outputs, 90 % to the others.

The others are LiteRT and ExecuTorch. Each network in the list of `coverage.py` that can be slimmed, untrained, at
`macs="0.5x"` is exported in float32 to each of the three runtimes and run there on 2 random images. The outputs must
agree with PyTorch's to within 1e-4 of the largest output. Images have 96 pixels where the network runs on those, and
otherwise the network's own size, which does not affect its operators. Each export runs in its own process, which is
stopped after 5 minutes.

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
    """Slim a network, randomise its batch-norm statistics, and export it. Errors are recorded by their message."""
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
            artifact = export(slim, path, runtime, images=images, inputs="random")
        except pretrim.PretrimError as error:
            return record | {"input": list(images.shape[1:]), "error": str(error)[:400]}
    return record | {
        "input": list(images.shape[1:]),
        "seconds": time.perf_counter() - start,
        "relative_error": artifact.proof["relative_error"],
        "notes": list(artifact.notes),
    }


def run(names: list[str], runtimes: list[str], minutes: float) -> None:
    """Run the exports that are not recorded yet, until the time is over."""
    known = {(entry["name"], entry["runtime"]) for entry in jsonl.read(RECORDS)}
    deadline = time.monotonic() + 60 * minutes
    for name in names:
        for runtime in runtimes:
            if (name, runtime) in known or time.monotonic() > deadline:
                continue
            command = [sys.executable, __file__, "--one", name, runtime]
            try:
                completed = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
                lines = completed.stdout.splitlines()
                error = completed.stderr.splitlines()[-1:] or [f"exit {completed.returncode}"]
                entry = json.loads(lines[-1]) if completed.returncode == 0 and lines else {"error": error[0][:400]}
            except subprocess.TimeoutExpired:
                entry = {"error": f"stopped after {SECONDS} s"}
            entry = {"name": name, "runtime": runtime} | entry
            jsonl.append(RECORDS, entry)
            print(name, runtime, entry.get("error") or entry.get("not_slim") or f"{entry['seconds']:.0f} s", flush=True)


def table() -> str:
    """The page: shares by runtime, then every failure."""
    entries = [entry for entry in jsonl.read(RECORDS) if "not_slim" not in entry]
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
        runtime_entries = [entry for entry in entries if entry["runtime"] == runtime]
        seconds = sorted(entry["seconds"] for entry in runtime_entries if "error" not in entry)
        share = f"{len(seconds) / len(runtime_entries):.1%}" if runtime_entries else "-"
        lines.append(
            f"| {runtime} | {len(runtime_entries)} | {len(seconds)} | {share} | {seconds[len(seconds) // 2]:.0f} |"
            if seconds
            else ""
        )
    tried_names = {entry["name"] for entry in jsonl.read(RECORDS)}
    lines += ["", f"Not tried yet: {len([n for n in names if n not in tried_names])} of {len(names)}.", ""]
    lines += ["| network | runtime | error |", "|---|---|---|"]
    for entry in entries:
        if "error" in entry:
            message = entry["error"].replace("|", "\\|").replace("\n", " ")
            lines.append(f"| {entry['name']} | {entry['runtime']} | {message[:200]} |")
    slow_entries = [entry for entry in entries if entry.get("notes")]
    lines += ["", f"With operators that have no fast kernel in ExecuTorch: {len(slow_entries)} networks.", ""]
    for entry in slow_entries:
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
        Random(0).shuffle(names)  # so that an incomplete run is a representative sample
        run(options.only or names, options.runtimes, options.minutes)
        TABLE.write_text(table())


if __name__ == "__main__":
    main()

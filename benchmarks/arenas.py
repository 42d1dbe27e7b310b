"""Claim: the tensor arena on a 32-bit chip is predicted to within 5 %, and the file size to within 1 %.

Three comparisons. A few constants of the prediction were read off the first; the other two are independent of it.

- Arenas measured by others on an ESP32 and an nRF52840 (mcufit-bench: MLPerf Tiny's networks and person detection,
  whose graphs are public), against our count of the same graph.
- Our own networks, dense and slim, converted to int8: sizes predicted from the widths alone, against the file and the
  32-bit interpreter for microcontrollers (`mcufit_arena.py`).
- Random graphs of every operator with a C kernel, against the same interpreter.

    python benchmarks/arenas.py --data DIR        # about 5 minutes; writes results/arenas.md

DIR is the folder that `scripts/fit_board_times.py` reads. Needs `pretrim[mcu]`, mcufit (pip install --no-deps mcufit)
and Node.js.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import mcufit_arena
import networks
import torch
from fit import ds_cnn, plain, quarter_mobilenet
from torch import nn

import pretrim
from pretrim.cost.microcontroller import arena_cost, artifact_cost, kept_by_kernels
from pretrim.deploy import litert_file
from pretrim.deploy.graph import graph_of
from pretrim.jobs.fit import as_if_trained
from pretrim.models import BUILTIN

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from int8_networks import draw
from test_board_arena import OFFICIAL

RESULT = Path(__file__).parent / "results" / "arenas.md"
MODELS = {
    "person_detect.tflite": "person_detect",
    "kws_ref_model.tflite": "ds_cnn",
    "pretrainedResnet_quant.tflite": "resnet8",
    "ad01_int8.tflite": "autoencoder",
}
"""Names of networks by file name in the measurements; tests/test_board_arena.py has their graphs, counted by hand."""
Shape = tuple[int, int, int]
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "resnet20": (BUILTIN["resnet20"], (3, 32, 32)),
    "mobilenetv2": (BUILTIN["mobilenetv2"], (3, 32, 32)),
    "half mobilenetv2": (networks.mobilenetv2_half, (3, 32, 32)),
    "ds-cnn": (ds_cnn, (1, 32, 32)),
    "quarter mobilenet": (quarter_mobilenet, (3, 96, 96)),
    "plain": (plain, (3, 32, 32)),
}
PLANS = {"dense": {}, "half the MACs": {"macs": "0.5x"}}
DRAWN = 40


def comparison(predicted: int, real: int) -> str:
    return f"{predicted:,} | {real:,} | {100 * (predicted / real - 1):+.1f} %"


def board_rows(folder: Path) -> list[str]:
    """Table rows of the distinct arenas measured on boards."""
    with (folder / "mcufit_bench_results.csv").open(encoding="utf-8") as file:
        arenas = {
            (row["model"], row["target"], row["arena_used_bytes"]) for row in csv.DictReader(file) if row["target"]
        }
    rows = []
    for model, target, measured in sorted(arenas):
        official = OFFICIAL[MODELS[model]]
        with_cmsis = official.scratch + kept_by_kernels(official.operators, "cmsis-nn")
        predicted = official.arena(4) + (with_cmsis if target == "nano33ble" else 0)
        rows.append(f"| {model} | {target} | {comparison(predicted, int(measured))} |")
    return rows


def network_row(name: str, title: str, limits: dict[str, str]) -> str:
    """Table row of one of our networks: sizes predicted from its widths and sizes when converted."""
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = build()
    network = pretrim.analyze(model, torch.zeros(1, *shape))
    plan = network.plan(**limits) if limits else None
    widths = network.dense if plan is None else plan.widths
    slim = as_if_trained((model if plan is None else plan.apply(model)).eval())
    tflite = litert_file(slim, torch.randn(4, *shape))
    predicted, real = int(arena_cost(network, pointer_bytes=4)(widths)), mcufit_arena.arena(tflite)
    arena = f"{predicted:,} | too large for it |"
    if real is not None:
        arena = comparison(predicted, real.total_bytes - mcufit_arena.MORE_THAN_A_BOARD)
    line = f"| {name} | {title} | {comparison(int(artifact_cost(network)(widths)), len(tflite))} | {arena} |"
    print(line, flush=True)
    return line


def random_graphs_line() -> str:
    """A line on the errors of random graphs in bytes."""
    errors, equal_heads = [], 0
    for seed in range(DRAWN):
        tflite = draw(seed)
        real = mcufit_arena.arena(tflite)
        if real is not None:
            graph = graph_of(tflite)
            equal_heads += graph.head() == real.head_bytes
            errors.append(graph.arena() - (real.total_bytes - mcufit_arena.MORE_THAN_A_BOARD))
    return (
        f"{len(errors)} of {DRAWN} random graphs run there (the others have an operator that it lacks). Activations: "
        f"{equal_heads} equal to the byte. The whole arena: {min(errors):+} to {max(errors):+} bytes, median "
        f"{statistics.median(errors):+.0f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the measurements")
    folder = parser.parse_args().data
    lines = [
        "# The tensor arena in 32 bits: predicted, on boards, and by the interpreter",
        "",
        "Written by `benchmarks/arenas.py`. Bytes, int8.",
        "",
        "## Measured on boards by mcufit-bench (MIT, commit 88f8d23)",
        "",
        "esp32: ESP-NN's kernels; nano33ble: an nRF52840 with CMSIS-NN's. Predicted from graphs counted by hand.",
        "What the interpreter keeps once (300 bytes), what a build with CMSIS-NN keeps more, and a little of what",
        "operators take were read off these eight. So this shows that the numbers are the same for all; the next",
        "tables, which did not enter, how far they reach.",
        "",
        "| network | board | predicted | measured | |",
        "|---|---|---|---|---|",
        *board_rows(folder),
        "",
        "## Networks of ours, predicted from their widths",
        "",
        "Real arena: TensorFlow Lite for Microcontrollers as wasm32, less the 2,128 bytes by which that is above the",
        "ESP32 in each of those four networks.",
        "",
        "| network | | file, predicted | real | | arena, predicted | real, 32 bits | |",
        "|---|---|---|---|---|---|---|---|",
        *(network_row(name, title, limits) for name in NETWORKS for title, limits in PLANS.items()),
        "",
        "## Random graphs of every operator with a C kernel",
        "",
        random_graphs_line(),
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

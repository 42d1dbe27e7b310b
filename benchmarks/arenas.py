"""Claim: the tensor arena on a 32-bit chip is known before there is one, to 5 %, and the file to 1 %.

Three comparisons, none of which the prediction looks at. Arenas that others measured on an ESP32 and an nRF52840
(mcufit-bench: MLPerf Tiny's networks and person detection, whose graphs are public): our count of the same graph.
Networks of ours, dense and slim, converted to int8: predicted from the widths alone, against the file, and against the
interpreter for microcontrollers in 32 bits (`mcufit_arena.py`). And random graphs of every operator with a C kernel.

    python benchmarks/arenas.py --data DIR        # about 5 minutes; writes results/arenas.md

DIR is that of `scripts/fit_board_times.py`. Needs `pretrim[mcu]`, mcufit (pip install --no-deps mcufit) and Node.js.
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
"""As the measurements call the networks whose graphs are counted by hand in tests/test_board_arena.py"""
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


def off(predicted: int, real: int) -> str:
    return f"{predicted:,} | {real:,} | {100 * (predicted / real - 1):+.1f} %"


def board_rows(folder: Path) -> list[str]:
    """Every arena that was measured on a board, once."""
    with (folder / "mcufit_bench_results.csv").open(encoding="utf-8") as file:
        found = {
            (row["model"], row["target"], row["arena_used_bytes"]) for row in csv.DictReader(file) if row["target"]
        }
    rows = []
    for model, target, measured in sorted(found):
        official = OFFICIAL[MODELS[model]]
        with_cmsis = official.scratch + kept_by_kernels(official.operators, "cmsis-nn")
        predicted = official.arena(4) + (with_cmsis if target == "nano33ble" else 0)
        rows.append(f"| {model} | {target} | {off(predicted, int(measured))} |")
    return rows


def network_row(name: str, title: str, limits: dict[str, str]) -> str:
    """A network of ours: predicted from its widths, and converted."""
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = build()
    network = pretrim.analyze(model, torch.zeros(1, *shape))
    plan = network.plan(**limits) if limits else None
    widths = network.dense if plan is None else plan.widths
    slim = as_if_trained((model if plan is None else plan.apply(model)).eval())
    content = litert_file(slim, torch.randn(4, *shape))
    predicted, real = int(arena_cost(network, pointer_bytes=4)(widths)), mcufit_arena.arena(content)
    arena = f"{predicted:,} | too large for it |"
    if real is not None:
        arena = off(predicted, real.total_bytes - mcufit_arena.MORE_THAN_A_BOARD)
    line = f"| {name} | {title} | {off(int(artifact_cost(network)(widths)), len(content))} | {arena} |"
    print(line, flush=True)
    return line


def drawn_line() -> str:
    """How far off random graphs are, in bytes."""
    errors, heads = [], 0
    for seed in range(DRAWN):
        content = draw(seed)
        real = mcufit_arena.arena(content)
        if real is not None:
            graph = graph_of(content)
            heads += graph.head() == real.head_bytes
            errors.append(graph.arena() - (real.total_bytes - mcufit_arena.MORE_THAN_A_BOARD))
    return (
        f"{len(errors)} of {DRAWN} random graphs run there (the others have an operator that it lacks). Activations: "
        f"{heads} equal to the byte. The whole arena: {min(errors):+} to {max(errors):+} bytes, median "
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
        drawn_line(),
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

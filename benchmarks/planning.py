"""Claim: 10,000 plans for ResNet-50 at 224 px, each within a joint budget by exact costs, take 10 s on one core.

The budget is half the parameters, half the MACs and 0.6 of the peak memory at once. Also measured: the effect of larger
blocks of draws (`Options.block`) on speed and widths, and the time Torch-Pruning 1.6.1 takes to prune that network.

    python benchmarks/planning.py       # a minute or two; writes benchmarks/results/planning.md

Needs torchvision and torch-pruning (`make benchmarks`).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = (
    "1"  # one core, set before NumPy starts its threads
)

import platform
import time
from pathlib import Path

import numpy as np
import torch

import pretrim
from pretrim.analysis.network import IntArray, Network
from pretrim.models import zoo
from pretrim.planning.allocate import allocate
from pretrim.planning.budget import Budget
from pretrim.planning.options import Options

RESULT = Path(__file__).parent / "results" / "planning.md"
LIMITS = {"params": "0.5x", "macs": "0.5x", "ram": "0.6x"}
COUNT = 10_000


def timed(network: Network, block: int, count: int) -> tuple[float, IntArray]:
    """CPU seconds for `count` plans, which are checked against every limit, and their widths."""
    start = time.process_time()
    bounds = Budget.parse(LIMITS).resolve(network)
    widths = allocate(network, bounds, Options(mode="joint", block=block, seed=1), count)
    costs = bounds.measure(widths)
    seconds = time.process_time() - start
    assert (costs <= bounds.values).all()
    return seconds, widths


def torch_pruning_once(model: torch.nn.Module, x: torch.Tensor) -> float:
    import torch_pruning as tp

    start = time.process_time()
    pruner = tp.pruner.BasePruner(model, x, tp.importance.MagnitudeImportance(p=1), pruning_ratio=0.3, round_to=8)
    pruner.step()
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    model, x = zoo.torchvision().models.resnet50(weights=None), torch.zeros(1, 3, 224, 224)
    start = time.process_time()
    network = pretrim.analyze(model, x)
    traced = time.process_time() - start
    _, exact = timed(network, 1, COUNT)
    lines = [
        "# Throughput of planning",
        "",
        f"ResNet-50 at 224 px, {COUNT:,} plans, each at params, macs <= 0.5x and peak memory <= 0.6x, one core "
        f"({platform.machine()}, NumPy {np.__version__}, torch {torch.__version__}). Goal: under 10 s.",
        "",
        "| block | s | distinct plans | largest shift of a group's mean width against block 1, in channels (share) |",
        "|---|---|---|---|",
    ]
    for block in (1, 4, 8, 16, 32):
        seconds, widths = timed(network, block, COUNT)
        shift = np.abs(widths.mean(axis=0) - exact.mean(axis=0))
        worst = int((shift / network.dense).argmax())
        distinct = len(np.unique(widths, axis=0))
        share = shift[worst] / network.dense[worst]
        lines.append(f"| {block} | {seconds:.2f} | {distinct:,} | {shift[worst]:.2f} ({share:.2%}) |")
    peer = torch_pruning_once(model, x)
    lines += [
        "",
        f"Tracing the network once takes {traced:.2f} s; Torch-Pruning 1.6.1 takes {peer:.2f} s "
        "for one pruned network (by ratio: it takes no budget).",
        "",
    ]
    RESULT.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

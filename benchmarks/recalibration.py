"""Question: how does recalibrating batch norms after training change the accuracies in docs/results.md?

The rows use the short protocol of `accuracy.py` (ResNet-20, CIFAR-10 at 16x16, 8,000 images, 8 epochs, batches of 64):
the dense network, FA and uniform width at half the MACs, two seeds each. Recalibration changes no step of a training
(tests/test_norms.py), so one training gives both results: the network is tested with its final running averages, and
again with the statistics that `train` sets by default.

    OMP_NUM_THREADS=1 nice -n 19 python benchmarks/recalibration.py --data ../shared/data/cifar10    # 15 min of a core

Records: benchmarks/results/recalibration.jsonl; table: benchmarks/results/recalibration.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import accuracy
import jsonl
import torch
from torch import nn

from pretrim.data import DataSet
from pretrim.train import Evaluation, Execution, Recipe, compare, evaluate, recalibrate, recalibration_images, train
from pretrim.train.feed import BatchSource
from pretrim.train.norms import set_statistics, tracking_norms

RECORDS = Path(__file__).parent / "results" / "recalibration.jsonl"
PAGE = RECORDS.with_suffix(".md")
WAYS = {"dense": (), "FA": (("macs", 0.5),), "uniform": (("macs", 0.5),)}
KINDS = ("averages", "recalibrated", "plain")
EXECUTION = Execution(device="cpu", precision="float32", channels_last=True, compile=False, threads=1)


def run(way: str, seed: int, folder: str) -> dict[str, Any]:
    """Train one network and test it with each kind of statistics."""
    data = accuracy.data_of("cifar10", folder, "short")
    recipe = accuracy.PROTOCOLS["short"].recipe(seed)
    row = accuracy.Row("factors", "cifar10", "resnet20", WAYS[way], way, seed)
    model = accuracy._planned_model(row, data, accuracy.network_of("resnet20", len(data.classes), data.input_shape))
    training_start = time.process_time()
    training = train(model, data, recipe, execution=EXECUTION)
    training_end = time.process_time()
    averages = _test(model, data)
    images = recalibration_images(len(data.train), Recipe.recalibration)
    recalibrate(model, data, images=images)
    plain = _test(model, data)
    recalibration_start = time.process_time()
    set_statistics(model, BatchSource(data, recipe, torch.device("cpu")).calibration(images), tracking_norms(model))
    recalibration_s = time.process_time() - recalibration_start
    recalibrated = _test(model, data)
    return {
        "way": way,
        "seed": seed,
        "machine": accuracy.machine(),
        "training_cpu_s": training_end - training_start,
        "recalibration_cpu_s": recalibration_s,
        "recalibration_images": images,
        "validation_by_epoch": [epoch.validation_score for epoch in training.epochs],
        "averages": averages.accuracy,
        "recalibrated": recalibrated.accuracy,
        "plain": plain.accuracy,
        "test_images": averages.n,
        "pairs": compare(averages.right, recalibrated.right).to_json(),
    }


def _test(model: nn.Module, data: DataSet) -> Evaluation:
    return evaluate(model, data.test, data.mean, data.std)


def page(records: list[dict[str, Any]]) -> str:
    """The page: the table, and the differences between methods in docs/results.md with each kind of statistics."""
    first = records[0]
    lines = [
        "# Batch norms by running averages, and recalibrated",
        "",
        "Written by `benchmarks/recalibration.py`. ResNet-20, CIFAR-10 at 16x16, 8,000 training images, 8 epochs,",
        f"batches of 64, rate 0.05, float32; {first['machine']['cpu']}, 1 thread, torch {first['machine']['torch']}.",
        f"Test accuracy, %, of {first['test_images']:,} images (95 %: about 1 point either way): by averages of",
        "the training, recalibrated as `train` does by default, and recalibrated on images without augmentation.",
        "p: McNemar's test of the first two on the same images.",
        "",
        "| way | seed | averages | recalibrated | difference | p | on plain images |",
        "|---|---|---|---|---|---|---|",
        *[_row(record) for record in records],
        "",
        *_differences(records),
        "",
        _cost(records),
    ]
    return "\n".join(lines) + "\n"


def _row(record: dict[str, Any]) -> str:
    averages, recalibrated, plain = (f"{100 * record[kind]:.2f}" for kind in KINDS)
    pairs = record["pairs"]
    change = f"{100 * pairs['difference']:+.2f}"
    cells = (record["way"], str(record["seed"]), averages, recalibrated, change, f"{pairs['p_value']:.2g}", plain)
    return f"| {' | '.join(cells)} |"


def _differences(records: list[dict[str, Any]]) -> list[str]:
    by_row = {(record["way"], record["seed"]): record for record in records}
    seeds = sorted({seed for _, seed in by_row})
    lines = ["| difference, points, by seed | averages | recalibrated | on plain images |", "|---|---|---|---|"]
    for first, second in (("FA", "uniform"), ("FA", "dense"), ("uniform", "dense")):
        common_seeds = [seed for seed in seeds if {(first, seed), (second, seed)} <= set(by_row)]
        cells = [
            ", ".join(f"{100 * (by_row[first, seed][kind] - by_row[second, seed][kind]):+.2f}" for seed in common_seeds)
            for kind in KINDS
        ]
        lines.append(f"| {first} less {second} | {' | '.join(cells)} |")
    return lines


def _cost(records: list[dict[str, Any]]) -> str:
    recalibration_s = [record["recalibration_cpu_s"] for record in records]
    epoch_s = [record["training_cpu_s"] / 8 for record in records]
    shares = [100 * seconds / epoch for seconds, epoch in zip(recalibration_s, epoch_s, strict=True)]
    return (
        f"Recalibration by {records[0]['recalibration_images']:,} images took "
        f"{min(recalibration_s):.1f} to {max(recalibration_s):.1f} s of "
        f"CPU time, {min(shares):.0f} to {max(shares):.0f} % of an epoch with its validation."
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="../shared/data/cifar10", help="folder of the data set")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    known = {(record["way"], record["seed"]) for record in jsonl.read(RECORDS)}
    for seed in range(options.seeds):
        for way in WAYS:
            if (way, seed) not in known:
                jsonl.append(RECORDS, record := run(way, seed, options.data))
                print(way, seed, *(record[kind] for kind in KINDS), flush=True)
    PAGE.write_text(page(jsonl.read(RECORDS)))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()

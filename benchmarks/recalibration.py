"""Question: what does recalibrating batch norms at the end change in the figures of docs/results.md?

The rows are those of `accuracy.py`'s short protocol (ResNet-20, CIFAR-10 at 16x16, 8,000 images, 8 epochs, batches of
64): the dense network, FA and uniform width at half the MACs, two seeds each. Recalibration changes no step of a
training (tests/test_norms.py), so one training gives both: its network is tested with the running statistics that it
ends with, and again with those that `train` sets by default.

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

from pretrim.train import (
    Comparison,
    Evaluation,
    Execution,
    Recipe,
    compare,
    evaluate,
    recalibrate,
    recalibration_images,
    train,
    wilson,
)

RECORDS = Path(__file__).parent / "results" / "recalibration.jsonl"
PAGE = RECORDS.with_suffix(".md")
WAYS = {"dense": (), "FA": (("macs", 0.5),), "uniform": (("macs", 0.5),)}
EXECUTION = Execution(device="cpu", precision="float32", channels_last=True, compile=False, threads=1)


def run(way: str, seed: int, folder: str) -> dict[str, Any]:
    """Train one network, and test it both ways."""
    data = accuracy.data_of("cifar10", folder, "short")
    row = accuracy.Row("factors", "cifar10", "resnet20", WAYS[way], way, seed)
    model = accuracy._planned(row, data, accuracy.network_of("resnet20", len(data.classes), data.input_shape))
    started = time.process_time()
    training = train(model, data, accuracy.PROTOCOLS["short"].recipe(seed), execution=EXECUTION)
    trained = time.process_time()
    before = _tested(model, data)
    images = recalibration_images(len(data.train), Recipe.recalibration)
    at = time.process_time()
    recalibrate(model, data, images=images)
    took = time.process_time() - at
    after = _tested(model, data)
    return {
        "way": way,
        "seed": seed,
        "machine": accuracy.machine(),
        "training_cpu_s": trained - started,
        "recalibration_cpu_s": took,
        "recalibration_images": images,
        "validation_by_epoch": [epoch.validation_accuracy for epoch in training.epochs],
        **{f"{name}_before": part.accuracy for name, part in before.items()},
        **{f"{name}_after": part.accuracy for name, part in after.items()},
        "test_images": after["test"].n,
        "test_pairs": compare(before["test"].right, after["test"].right).to_json(),
    }


def _tested(model: Any, data: Any) -> dict[str, Evaluation]:
    return {name: evaluate(model, getattr(data, name), data.mean, data.std) for name in ("validation", "test")}


def page(records: list[dict[str, Any]]) -> str:
    """The table, and the differences between ways that docs/results.md is about, both ways."""
    first = records[0]
    lines = [
        "# Recalibrated batch norms, and without",
        "",
        "Written by `benchmarks/recalibration.py`. ResNet-20, CIFAR-10 at 16x16, 8,000 training images, 8 epochs,",
        f"batches of 64, rate 0.05, float32; {first['machine']['cpu']}, 1 thread, torch {first['machine']['torch']}. "
        f"Test accuracy of {first['test_images']:,} images, %; p: McNemar's test, before",
        "against after on the same images.",
        "",
        "| way | seed | before | after | after, 95 % | difference | p |",
        "|---|---|---|---|---|---|---|",
        *[_row(record) for record in records],
        "",
        *_differences(records),
        "",
        _cost(records),
    ]
    return "\n".join(lines) + "\n"


def _row(record: dict[str, Any]) -> str:
    ends = wilson(round(record["test_after"] * record["test_images"]), record["test_images"])
    pairs = {name: value for name, value in record["test_pairs"].items() if name in Comparison.__dataclass_fields__}
    sure = f"{100 * ends.low:.1f} to {100 * ends.high:.1f}"
    change = 100 * record["test_pairs"]["difference"]
    cells = (record["way"], record["seed"], *(f"{100 * record[f'test_{at}']:.2f}" for at in ("before", "after")))
    return f"| {' | '.join(map(str, cells))} | {sure} | {change:+.2f} | {pairs['p_value']:.2g} |"


def _differences(records: list[dict[str, Any]]) -> list[str]:
    by_row = {(record["way"], record["seed"]): record for record in records}
    seeds = sorted({seed for _, seed in by_row})
    lines = ["| difference, points, by seed | before | after |", "|---|---|---|"]
    for one, other in (("FA", "uniform"), ("FA", "dense"), ("uniform", "dense")):
        there = [seed for seed in seeds if {(one, seed), (other, seed)} <= set(by_row)]
        cells = [
            ", ".join(f"{100 * (by_row[one, s][f'test_{at}'] - by_row[other, s][f'test_{at}']):+.2f}" for s in there)
            for at in ("before", "after")
        ]
        lines.append(f"| {one} less {other} | {' | '.join(cells)} |")
    return lines


def _cost(records: list[dict[str, Any]]) -> str:
    took = [record["recalibration_cpu_s"] for record in records]
    epochs = [record["training_cpu_s"] / 8 for record in records]
    shares = [100 * seconds / epoch for seconds, epoch in zip(took, epochs, strict=True)]
    return (
        f"Recalibration by {records[0]['recalibration_images']:,} images took {min(took):.1f} to {max(took):.1f} s of "
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
                print(way, seed, record["test_before"], record["test_after"], flush=True)
    PAGE.write_text(page(jsonl.read(RECORDS)))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()

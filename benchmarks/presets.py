"""Question: what accuracy do the recipes that fit the number of images reach, compared with the plain recipe?

ResNet-20 at half the MACs, images of 16x16 pixels, on one thread: 600 images that stand for a user's own data (drawn
from CIFAR-10 and tested on 5,000 others, so that the accuracy is reliable), digits, and Fashion-MNIST, CIFAR-10 and
CIFAR-100: first subsets that train in minutes, then all images at the preset's full length.

    OMP_NUM_THREADS=1 nice python benchmarks/presets.py --data ../shared/data --fashion FOLDER

Each row is saved as soon as it is trained, and the table is rewritten: stop at any time, the same command resumes.

Records: benchmarks/results/presets.jsonl; table: benchmarks/results/presets.md.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import accuracy
import jsonl
import numpy as np
import torch

import pretrim
from pretrim.data import DataSet, Split, load
from pretrim.models.resolve import build, resolve
from pretrim.train import Execution, Recipe, evaluate, preset, train

RECORDS = Path(__file__).parent / "results" / "presets.jsonl"
PAGE = RECORDS.with_suffix(".md")
COLUMNS = (
    *("data", "images", "recipe", "epochs", "batch", "rate", "steps"),
    *("training %", "test %", "95 %", "n", "seed", "CPU s"),
)
IMAGE_SIZE, TEST_IMAGES, VALIDATION_IMAGES = 16, 5_000, 1_000
EXECUTION = Execution(device="cpu", precision="float32", channels_last=True, compile=False, threads=1)


@dataclass(frozen=True)
class Row:
    """One training.

    Attributes:
        title: title of the data in the table.
        data: argument of `load`; FOLDER and FASHION stand for folders of this machine.
        name: name by which the recipe is looked up.
        images: number of training images; None: all.
        seed: seed of the weights and the training.
        plain: whether to use the recipe for large data, 30 epochs with a batch size of 128.
    """

    title: str
    data: str
    name: str
    images: int | None
    seed: int
    plain: bool = False


ROWS = (
    *(Row("600 images of your own", "cifar10:FOLDER/cifar10", "own", 600, s, p) for s in (0, 1) for p in (False, True)),
    *(Row("digits", "digits", "digits", None, seed) for seed in (0, 1)),
    Row("Fashion-MNIST, 2,500 images", "fashion-mnist:FASHION", "fashion-mnist", 2_500, 0),
    Row("CIFAR-10, 2,500 images", "cifar10:FOLDER/cifar10", "cifar10", 2_500, 0),
    Row("CIFAR-100, 2,500 images", "FOLDER/cifar100", "cifar100", 2_500, 0),
    Row("Fashion-MNIST, all images", "fashion-mnist:FASHION", "fashion-mnist", None, 0),
    Row("CIFAR-10, all images", "cifar10:FOLDER/cifar10", "cifar10", None, 0),
    Row("CIFAR-100, all images", "FOLDER/cifar100", "cifar100", None, 0),
)


def run(row: Row, folder: str, fashion: str) -> dict[str, Any]:
    """Train and test one network."""
    spec = row.data.replace("FOLDER", folder).replace("FASHION", fashion)
    data = _data(spec, row.images)
    recipe = Recipe() if row.plain else preset(row.name, len(data.train))
    recipe = replace(recipe, seed=row.seed)
    torch.manual_seed(row.seed)
    dense = build(resolve("resnet20", num_classes=len(data.classes), input_shape=data.input_shape))
    plan = pretrim.analyze(dense, torch.zeros(1, *data.input_shape)).plan(macs="0.5x", seed=row.seed)
    slim = plan.apply(dense)
    started = time.process_time()
    training = train(slim, data, recipe, execution=EXECUTION)
    evaluation = evaluate(slim, data.test, data.mean, data.std)
    return {
        **vars(row),
        "training_images": len(data.train),
        "classes": len(data.classes),
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "steps": recipe.epochs * (len(data.train) // min(recipe.batch_size, len(data.train))),
        "mode": plan.options.get("mode"),
        "train_accuracy": training.epochs[-1].train_score,
        "validation_accuracy": training.epochs[-1].validation_score,
        "test_accuracy": evaluation.accuracy,
        "test_images": evaluation.n,
        "interval_95": evaluation.interval.to_json(),
        "warnings": list(training.warnings),
        "cpu_s": time.process_time() - started,
        "machine": accuracy.machine(),
    }


def _data(spec: str, images: int | None) -> DataSet:
    """Load the data, with smaller validation and test splits: the whole ones would take longer than the training."""
    data = load(spec, image_size=IMAGE_SIZE, limit=images, announce=lambda line: None)
    return replace(data, validation=_first(data.validation, VALIDATION_IMAGES), test=_first(data.test, TEST_IMAGES))


def _first(split: Split, images: int) -> Split:
    return split.take(np.arange(min(images, len(split))))


def page(records: list[dict[str, Any]]) -> str:
    first = records[0]
    return "\n".join(
        [
            "# Recipes that fit the data",
            "",
            f"Written by `benchmarks/presets.py`. ResNet-20 at half the MACs (mode {first['mode']}), images of "
            f"{IMAGE_SIZE}x{IMAGE_SIZE}, float32, one thread of",
            f"{first['machine']['cpu']}, torch {first['machine']['torch']}. Test accuracy on n images with its 95 % "
            "interval (Wilson); a row is one training.",
            "",
            f"| {' | '.join(COLUMNS)} |",
            "|---" * len(COLUMNS) + "|",
            *[_line(record) for record in records],
            "",
        ]
    )


def _line(record: dict[str, Any]) -> str:
    low, high = (100 * end for end in record["interval_95"])
    cells = (
        record["title"],
        f"{record['training_images']:,}",
        "for large data" if record["plain"] else "preset",
        record["epochs"],
        record["batch_size"],
        f"{record['learning_rate']:g}",
        f"{record['steps']:,}",
        f"{100 * record['train_accuracy']:.1f}",
        f"{100 * record['test_accuracy']:.1f}",
        f"{low:.1f} to {high:.1f}",
        f"{record['test_images']:,}",
        record["seed"],
        f"{record['cpu_s']:.0f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="../shared/data", help="folder with cifar10 and cifar100")
    parser.add_argument("--fashion", default="/usr/share/datasets/fashion-mnist", help="folder of the IDX files")
    options = parser.parse_args()
    known = {tuple(record[name] for name in Row.__dataclass_fields__) for record in jsonl.read(RECORDS)}
    for row in ROWS:
        if tuple(vars(row).values()) not in known:
            jsonl.append(RECORDS, record := run(row, options.data, options.fashion))
            PAGE.write_text(page(jsonl.read(RECORDS)))
            print(_line(record), flush=True)


if __name__ == "__main__":
    main()

"""Question: what does quantisation-aware training (`Recipe.qat`) gain in int8 over calibration alone?

Slim ResNet-20 (half the MACs) and MobileNetV2 (0.3 of the MACs) are trained on 4,000 images of CIFAR-10 for 10 epochs,
the last 2 with or without quantisation-aware training; then int8 in LiteRT and ExecuTorch is tested on the same 2,000
test images as float32 in PyTorch.

    OMP_NUM_THREADS=1 python benchmarks/qat.py [--only mobilenetv2] [--seeds 3]      # resumable; about 40 minutes
    python benchmarks/qat.py --table

Records: benchmarks/results/qat.jsonl. Needs CIFAR-10 (--data) and the extras litert and executorch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonl
import numpy as np
import torch

import pretrim
from pretrim.data import DataSet, load, normalise
from pretrim.deploy import SUFFIXES, export
from pretrim.models.resolve import build, resolve
from pretrim.train import Execution, Recipe, train

HERE = Path(__file__).parent
RECORDS, TABLE = HERE / "results" / "qat.jsonl", HERE / "results" / "qat.md"
NETWORKS = {"resnet20": "0.5x", "mobilenetv2": "0.3x"}
RUNTIMES = ("litert", "executorch")
EPOCHS, QAT_EPOCHS, TRAINING_IMAGES, TEST_IMAGES, CALIBRATION_IMAGES = 10, 2, 4000, 2000, 100


def measure(name: str, seed: int, qat: int, data: DataSet) -> dict[str, Any]:
    """Train one network, and test it in int8."""
    torch.manual_seed(seed)
    module = build(resolve(name, num_classes=10, input_shape=data.input_shape))
    slim = pretrim.analyze(module, torch.zeros(1, *data.input_shape)).plan(macs=NETWORKS[name], seed=0).apply(module)
    recipe = Recipe(epochs=EPOCHS, batch_size=64, learning_rate=0.05, seed=seed, qat=qat)
    execution = Execution(device="cpu", precision="float32", channels_last=True, compile=False, threads=1)
    record: dict[str, Any] = {"name": name, "seed": seed, "qat": qat}
    record["seconds"] = sum(epoch.seconds for epoch in train(slim, data, recipe, execution=execution).epochs)
    test = data.test.take(np.arange(TEST_IMAGES))
    data_options = {"images": normalise(test.images, data.mean, data.std), "labels": test.labels}
    data_options["calibration"] = normalise(data.train.take(np.arange(CALIBRATION_IMAGES)).images, data.mean, data.std)
    with tempfile.TemporaryDirectory() as folder:
        for runtime in RUNTIMES:
            file = Path(folder) / f"model{SUFFIXES[runtime]}"
            proof = export(slim, file, runtime, **data_options, force=True).proof
            record["float32"], record[runtime] = proof["accuracy"]
            record[f"{runtime}_sqnr_db"] = proof["sqnr_db"]
    return record


def run(names: list[str], seeds: int, data: DataSet) -> None:
    known = {(entry["name"], entry["seed"], entry["qat"]) for entry in jsonl.read(RECORDS)}
    for seed in range(seeds):
        for name in names:
            for qat in (0, QAT_EPOCHS):
                if (name, seed, qat) not in known:
                    record = measure(name, seed, qat, data)
                    jsonl.append(RECORDS, record)
                    print(record, flush=True)


def table() -> str:
    lines = [
        "# Quantisation-aware training",
        "",
        f"CIFAR-10, {TRAINING_IMAGES} training images, {EPOCHS} epochs, the last {QAT_EPOCHS} of them "
        f"quantisation-aware or not; accuracy in % on {TEST_IMAGES} test images, mean ± std; of int8, in points over "
        "float32 of the same network; SQNR: of the int8 scores against the float32 ones; "
        "s: of training, beside other work.",
        "",
        "| network | aware | n | float32 | LiteRT int8 over it | SQNR, dB | ExecuTorch int8 over it | SQNR, dB | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, share in NETWORKS.items():
        for qat in (0, QAT_EPOCHS):
            entries = [entry for entry in jsonl.read(RECORDS) if (entry["name"], entry["qat"]) == (name, qat)]
            if not entries:
                continue
            cells = [f"{name}, {share} of the MACs", "yes" if qat else "no", str(len(entries))]
            cells.append(_percent(entry["float32"] for entry in entries))
            for runtime in RUNTIMES:
                noise = statistics.fmean(entry[f"{runtime}_sqnr_db"] for entry in entries)
                cells += [_percent((entry[runtime] - entry["float32"] for entry in entries), "+"), f"{noise:.1f}"]
            cells.append(f"{statistics.fmean(entry['seconds'] for entry in entries):.0f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _percent(shares: Iterable[float], sign: str = "") -> str:
    values = [100 * share for share in shares]
    mean = f"{statistics.fmean(values):{sign}.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="cifar10:../shared/data/cifar10")
    parser.add_argument("--only", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if not options.table:
        run(options.only, options.seeds, load(options.data, limit=TRAINING_IMAGES))
    TABLE.write_text(table())


if __name__ == "__main__":
    main()

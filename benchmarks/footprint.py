"""Claim: before any training, pretrim predicts the size of the .tflite to within 5 % and the tensor arena within 10 %.

ResNet-20, ResNet-56, VGG-16 and MobileNetV2 for 3x32x32, dense and slim, in int8. Sizes predicted from the widths are
compared with the file that `export` writes, and with the arena that TensorFlow Lite for Microcontrollers allocates. The
third pair of columns is the arena without the memory plan that `export` writes into the file. The quantisation ranges
come from random images, which do not affect the sizes.

    python benchmarks/footprint.py        # about 10 minutes; writes results/footprint.md

Needs `pretrim[mcu]`.
"""

from __future__ import annotations

from pathlib import Path

import torch

import pretrim
from pretrim.cost.microcontroller import arena_cost, artifact_cost
from pretrim.deploy import litert, micro, tflite
from pretrim.models.resolve import build, resolve

RESULT = Path(__file__).parent / "results" / "footprint.md"
PLANS = {
    "dense": {},
    "half the MACs": {"macs": "0.5x"},
    "0.3 of the MACs, mode memory": {"macs": "0.3x", "mode": "memory"},
}


def row(name: str, title: str, limits: dict[str, str]) -> list[str]:
    torch.manual_seed(0)
    model = build(resolve(name, num_classes=10, input_shape=(3, 32, 32)))
    network = pretrim.analyze(model, torch.zeros(1, 3, 32, 32))
    plan = network.plan(**limits) if limits else None
    widths = network.dense if plan is None else plan.widths
    slim = (model if plan is None else plan.apply(model)).eval()
    images = torch.randn(4, 3, 32, 32)
    model_file = litert.quantise(litert.convert(slim, images[:1]).content, images.numpy()).content
    unplanned = model_file.replace(tflite.MEMORY_PLAN, b"x" * len(tflite.MEMORY_PLAN))
    pairs = [
        (int(artifact_cost(network)(widths)), len(model_file)),
        (int(arena_cost(network)(widths)), micro.arena(model_file).total_bytes),
        (int(arena_cost(network, planned=False)(widths)), micro.arena(unplanned).total_bytes),
    ]
    cells = [f"{predicted:,} | {real:,} | {100 * (predicted / real - 1):+.2f} %" for predicted, real in pairs]
    print(name, title, *cells, sep=" | ", flush=True)
    return [name, title, *cells]


def main() -> None:
    lines = [
        "# File and arena, predicted and real",
        "",
        "Bytes, int8, 3x32x32, 10 classes; TensorFlow Lite for Microcontrollers on a 64-bit host.",
        "",
        "| network | | file, predicted | real | | arena, predicted | real | | arena without the memory plan, predicted "
        "| real | |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in ("resnet20", "resnet56", "vgg16", "mobilenetv2"):
        for title, limits in PLANS.items():
            lines.append(f"| {' | '.join(row(name, title, limits))} |")
    RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

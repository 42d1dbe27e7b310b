"""Claim: pretrim trains on 1.5 times as many images per second on a CPU (5 times on a GPU) as a plain PyTorch loop.

The plain loop is that of PyTorch's tutorial "Training a Classifier": a Dataset of PIL images with torchvision's usual
transforms, a DataLoader with 2 workers, NCHW, float32. Both train the same network with the same batch size on
CIFAR-10, alternating in one run; each is warmed up, then timed for the same number of steps. Rows: the tutorial's own
network with its batch size of 4, and ResNet-20, dense and slim, with a batch size of 128.

    python benchmarks/throughput.py --data cifar10:FOLDER [--device cuda]      # writes results/throughput.md

Needs torchvision. Both loops may use all cores, which is the default.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

import pretrim
from pretrim.data import DataSet, Split, load
from pretrim.models import zoo
from pretrim.models.resolve import build, resolve
from pretrim.train import Execution, ExecutionChoice, Progress, Recipe, train

RESULT = Path(__file__).parent / "results" / "throughput.md"
ROUNDS = 5


class Tutorial(nn.Module):
    """The network of the tutorial."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.pool, self.conv2 = nn.Conv2d(3, 6, 5), nn.MaxPool2d(2, 2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(functional.relu(self.conv1(x)))
        x = torch.flatten(self.pool(functional.relu(self.conv2(x))), 1)
        return self.fc3(functional.relu(self.fc2(functional.relu(self.fc1(x)))))


class ImageDataset(Dataset):  # type: ignore[type-arg]
    """Like torchvision.datasets.CIFAR10: arrays in memory, each converted to a PIL image on access."""

    def __init__(self, split: Split, transform: Callable[[Image.Image], torch.Tensor]) -> None:
        assert isinstance(split.images, torch.Tensor)
        self.data = split.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets, self.transform = split.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def plain_loop(model: nn.Module, data: DataSet, batch: int, steps: int, device: str) -> Callable[[], float]:
    """A function that returns the images per second of the tutorial's loop over `steps` batches after a warm-up."""
    transforms = zoo.torchvision().transforms
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(data.mean, data.std),
        ]
    )
    loader = DataLoader(
        ImageDataset(data.train, transform), batch_size=batch, shuffle=True, num_workers=2, drop_last=True
    )
    model.to(device).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)

    def images_per_second() -> float:
        warm, started = max(2, steps // 10), 0.0
        for number, (inputs, labels) in enumerate(loader, start=1):
            inputs, labels = inputs.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
            loss.item()  # the tutorial adds up the losses
            if number == warm:
                started = time.perf_counter()
            if number == warm + steps:
                break
        return batch * steps / (time.perf_counter() - started)

    return images_per_second


def pretrim_loop(model: nn.Module, data: DataSet, batch: int, steps: int, execution: Execution) -> Callable[[], float]:
    """A function that returns the images per second of pretrim's loop over `steps` batches after a warm-up."""
    warm = max(2, steps // 10)
    short_data = replace(data, train=data.train.take(np.arange(batch * (warm + steps))))
    recipe = Recipe(epochs=1, batch_size=batch, learning_rate=0.001, flip=True)

    def images_per_second() -> float:
        times: list[float] = []

        def on_step(progress: Progress) -> None:
            if progress.step in (warm, warm + steps) and not progress.ends_epoch:
                times.append(time.perf_counter())

        train(model, short_data, recipe, execution=execution, on_step=on_step)
        return batch * steps / (times[1] - times[0])

    return images_per_second


def chosen_execution(model: nn.Module, data: DataSet, batch: int, device: str) -> ExecutionChoice:
    """The execution settings that pretrim chooses, by timing, for a long training of this network."""
    choices: list[ExecutionChoice] = []

    class StopTraining(Exception):
        pass

    def on_start(choice: ExecutionChoice) -> None:
        choices.append(choice)
        raise StopTraining

    recipe = Recipe(epochs=10_000, batch_size=batch, flip=True)
    try:
        train(model, data, recipe, execution=Execution(device=device), on_start=on_start)
    except StopTraining:
        pass
    return choices[0]


def rows(device: str) -> list[tuple[str, Callable[[], nn.Module], int, int]]:
    def dense() -> nn.Module:
        return build(resolve("resnet20", num_classes=10, input_shape=(3, 32, 32)))

    def slim() -> nn.Module:
        model = dense()
        plan = pretrim.analyze(model, torch.zeros(1, 3, 32, 32)).plan(mode="macs", macs="0.3x")
        return plan.apply(model)

    steps = 200 if device != "cpu" else 12
    return [
        ("the tutorial's network", Tutorial, 4, 1000),
        ("ResNet-20, 0.3 of its MACs", slim, 128, steps),
        ("ResNet-20", dense, 128, steps),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="cifar10:../shared/data/cifar10")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    data = load(options.data)
    data = replace(data, validation=Split(data.validation.images[:0], data.validation.labels[:0]))
    lines = []
    for name, make, batch, steps in rows(options.device):
        torch.manual_seed(0)
        choice = chosen_execution(make(), data, batch, options.device)
        loops = {
            "plain": plain_loop(make(), data, batch, steps, options.device),
            "pretrim": pretrim_loop(make(), data, batch, steps, choice.execution),
        }
        speeds: dict[str, list[float]] = {loop: [] for loop in loops}
        for _ in range(ROUNDS):
            for loop, measure_speed in loops.items():
                speeds[loop].append(measure_speed())
        ratios = [
            pretrim_speed / plain_speed
            for pretrim_speed, plain_speed in zip(speeds["pretrim"], speeds["plain"], strict=True)
        ]
        cells = [f"{statistics.median(speeds[loop]):,.0f}" for loop in ("plain", "pretrim")]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {name} | {batch} | {cells[0]} | {cells[1]} | {spread} | {choice.execution} |")
        print(lines[-1], flush=True)
    RESULT.write_text(_page(lines, options.device))


def _page(lines: list[str], device: str) -> str:
    cpu = next(
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    )
    chip = torch.cuda.get_device_name() if device != "cpu" else f"{cpu}, {torch.get_num_threads()} threads"
    return (
        "# Throughput\n\n"
        "Images a second in training on CIFAR-10: the loop of PyTorch's tutorial with a DataLoader of 2 workers, and "
        f"pretrim.\n{chip}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}; medians of {ROUNDS} "
        "rounds, turn by turn; ratio with its range. Goal: 1.5 on a CPU, 5 on a GPU.\n\n"
        "| network | batch | plain PyTorch | pretrim | ratio | how pretrim ran it |\n|---|---|---|---|---|---|\n"
        + "\n".join(lines)
        + "\n"
    )


if __name__ == "__main__":
    main()

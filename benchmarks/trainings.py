"""Claim: under limits on parameters, or on several costs, `balanced` widths train to a higher accuracy than uniform.

Under a limit on MACs alone a ResNet's uniform width is near the optimum (docs/results.md), and the two are to be equal.
Tested where the method can matter: all 50,000 training images of CIFAR-10 and CIFAR-100 at 32x32, budgets that cost
several points of accuracy, three seeds of each way, everything else the same:

- dense: the network as it is.
- uniform: one width multiplier, filled up to the limit.
- balanced: the default of `pretrim plan`.
- paper: the sampling of arXiv 2208.12816 in the mode of the limited cost (PA, FA), `joint` under several limits.

    python benchmarks/pack_data.py decode ../shared/data/cifar100 build/data/cifar100.safetensors    # once; cifar10 too
    python benchmarks/trainings.py --device cuda --workers 8                                # all; resumes where it was
    python benchmarks/trainings.py --device cuda --workers 8 --until $(($(date +%s) + 540))  # stops in time
    python benchmarks/trainings.py --ways paper --datasets cifar100                         # on a core: 25 minutes each
    python benchmarks/trainings.py --list                                                   # what is there, what is not
    python benchmarks/trainings.py --device cuda --speed 1,4,8,12                           # images a second, no record
    python benchmarks/trainings_page.py                                                     # the table

Nothing is chosen by an accuracy, so no image is held out for validation: all training images are trained on, and the
test images are looked at once, by the network of the last epoch. Every row is recorded when it is done
(benchmarks/results/trainings.jsonl); `--until` stops trainings after an epoch, and they go on there when called again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jsonl
import numpy as np
import torch
from accuracy import HERE, fresh, machine, network_of
from pack_data import noise, read
from torch import nn

from pretrim.core import Plan, plan_of_widths
from pretrim.data import DataSet
from pretrim.errors import PretrimError
from pretrim.train import Execution, Recipe, Training, evaluate, train

RECORDS = HERE / "results" / "trainings.jsonl"
BUILD = HERE.parent / "build"
CLASSES = {"cifar100": 100, "cifar10": 10}
SHAPE = (3, 32, 32)
NETWORKS = {"resnet20": "resnet20", "mobilenetv2 x0.5": f"{HERE / 'networks.py'}:mobilenetv2_half"}
# Running statistics, not recalibrated ones: after 20 epochs down to a rate of almost 0 they are those of the weights.
RECIPE = Recipe(epochs=20, batch_size=512, learning_rate=0.4, schedule="onecycle", recalibration=0)
"""One cycle in batches of 512 up to a rate of 0.4, after David Page's "How to train your ResNet" (2018), which took 24
epochs for CIFAR-10"""
ROUND_TO = 1
"""Any width, so that ways are compared and not what rounding costs each"""
Record = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """A data set, a network, and shares of its costs that it is kept to; no limits: the dense network."""

    data: str
    network: str
    limits: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Row:
    """One training."""

    cell: Cell
    way: str
    seed: int

    def __str__(self) -> str:
        limits = ", ".join(f"{100 * share:g} % {cost}" for cost, share in self.cell.limits)
        return f"{self.cell.data} {self.cell.network} {limits or 'no limit'}, {self.way}, seed {self.seed}"

    @property
    def options(self) -> dict[str, Any] | None:
        """Of `planning.options.Options`; None for the dense network."""
        if self.way == "dense":
            return None
        sampled = {"mode": paper_mode(self.cell.limits), "seed": self.seed} if self.way == "paper" else {}
        return {"round_to": ROUND_TO, **WAYS[self.way], **sampled}


WAYS: dict[str, dict[str, Any]] = {"uniform": {"mode": "uniform"}, "balanced": {"mode": "balanced"}, "paper": {}}
"""How widths are chosen under limits, by options of `planning.options.Options`; the paper's mode goes by the limits"""
EVERYTHING = (("params", 0.3), ("macs", 0.3), ("activation", 0.3))
CELLS = tuple(
    Cell(data, network, limits)
    for network, limits in (
        ("resnet20", (("params", 0.2),)),
        ("resnet20", (("params", 0.1),)),
        ("resnet20", (("params", 0.15), ("macs", 0.25))),
        ("resnet20", (("macs", 0.25),)),
        ("resnet20", (("macs", 0.12),)),
        ("mobilenetv2 x0.5", EVERYTHING),
    )
    for data in CLASSES
)
"""The most telling first"""


def limits_text(cell: Cell) -> str:
    return ", ".join(f"{cost} {share:g}" for cost, share in cell.limits)


def paper_mode(limits: Sequence[tuple[str, float]]) -> str:
    """What the paper samples by under these limits."""
    modes = {"params": "params", "macs": "macs", "activation": "memory"}
    return modes[limits[0][0]] if len(limits) == 1 else "joint"


def rows(cells: Sequence[Cell], seeds: range) -> Iterator[Row]:
    """Cell by cell, so that every stop leaves whole ones; a dense network after the first cell of its kind."""
    seen = set()
    for cell in cells:
        yield from (Row(cell, way, seed) for seed in seeds for way in WAYS)
        dense = Cell(cell.data, cell.network)
        if dense not in seen:
            seen.add(dense)
            yield from (Row(dense, "dense", seed) for seed in seeds)


# ---------------------------------------------------------------------------------------- what is to be trained


@dataclass(frozen=True)
class Task:
    """A training, and where and how it is run.

    Attributes:
        widths: of the groups of the dense network.
        images: at most so many of the training part, and of the test part; None: all.
        folder: of the data sets (``data/``) and of the trainings that were stopped (``trainings/``).
        until: time (as `time.time` counts) after which no epoch is begun.
    """

    data: str
    network: str
    widths: tuple[int, ...]
    recipe: Recipe
    execution: Execution
    images: int | None
    folder: Path
    until: float

    @property
    def key(self) -> str:
        """The same for the same training: ways that give the same widths share it."""
        how = [self.data, self.network, self.widths, asdict(self.recipe), self.images, self.execution.precision]
        return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()[:16]


@cache
def planned(row: Row) -> Plan:
    """The row's widths."""
    cell = row.cell
    network = network_of(NETWORKS[cell.network], CLASSES[cell.data], SHAPE)
    if row.options is None:
        return plan_of_widths(network, network.dense)
    return network.plan(**row.options, **{cost: f"{share!r}x" for cost, share in cell.limits})


def task_of(row: Row, plan: Plan, options: argparse.Namespace) -> Task:
    recipe = replace(
        RECIPE,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=RECIPE.learning_rate * options.batch_size / RECIPE.batch_size,
        seed=row.seed,
    )
    execution = Execution(
        device=options.device,
        precision=options.precision,
        channels_last=True,
        compile=False,
        threads=1,
        deterministic=options.deterministic,
    )
    widths = tuple(plan.widths.tolist())
    cell = row.cell
    return Task(cell.data, cell.network, widths, recipe, execution, options.images, options.build, options.until)


OF_ROW = ("data", "network", "limits", "way", "seed", "options", "costs", "dense_costs")
"""What a record has of its row; the rest is of the training"""


def record_of(row: Row, plan: Plan, trained: Record) -> Record:
    """What is kept of a row."""
    cell = row.cell
    values = (cell.data, cell.network, cell.limits, row.way, row.seed, row.options, dict(plan.slim), dict(plan.dense))
    return {**dict(zip(OF_ROW, values, strict=True)), **trained}


def _without_row(record: Record) -> Record:
    return {name: value for name, value in record.items() if name not in OF_ROW}


def row_key(record: Record) -> tuple[Row, str]:
    """Which row a record is of, and by which training."""
    limits = tuple((cost, share) for cost, share in record["limits"])
    return Row(Cell(record["data"], record["network"], limits), record["way"], record["seed"]), record["key"]


# ---------------------------------------------------------------------------------------- one training


class OutOfTime(Exception):
    """Raised after an epoch whose state is saved."""


@lru_cache(maxsize=2)
def data_of(file: Path, images: int | None) -> DataSet:
    return read(file, images)


def run(task: Task) -> Record | None:
    """Train and test; None where the time is over first."""
    if time.time() >= task.until:
        return None
    data = data_of(task.folder / "data" / f"{task.data}.safetensors", task.images)
    model = model_of(task, data)
    try:
        training = _trained(task, model, data)
    except OutOfTime:
        return None
    test = evaluate(model, data.test, data.mean, data.std)
    return {
        "key": task.key,
        "widths": list(task.widths),
        "images": len(data.train),
        "recipe": asdict(task.recipe),
        "execution": training.execution.to_json(),
        "machine": machine(),
        "training_s": round(sum(epoch.seconds for epoch in training.epochs), 2),
        "train_loss": [round(epoch.train_loss, 4) for epoch in training.epochs],
        "train_accuracy": training.epochs[-1].train_score,
        "test_accuracy": test.accuracy,
        "test_loss": test.plain_loss,
    }


def model_of(task: Task, data: DataSet) -> nn.Module:
    """The network of the task's widths, with the weights of its seed."""
    name, classes, seed = NETWORKS[task.network], len(data.classes), task.recipe.seed
    network = network_of(name, classes, data.input_shape)
    model = fresh(name, classes, data.input_shape, seed)
    torch.manual_seed(seed)
    return plan_of_widths(network, np.array(task.widths)).apply(model, network=network)


def _trained(task: Task, model: nn.Module, data: DataSet) -> Training:
    states = task.folder / "trainings"
    states.mkdir(parents=True, exist_ok=True)
    state = states / f"{task.key}.state"

    def stop_in_time(done: tuple[Any, ...]) -> None:
        if time.time() >= task.until and len(done) < task.recipe.epochs:
            raise OutOfTime

    training = train(
        model, data, task.recipe, execution=task.execution, checkpoint=state, resume=True, on_epoch=stop_in_time
    )
    state.unlink(missing_ok=True)
    return training


# ---------------------------------------------------------------------------------------- all of them


Waiting = list[tuple[Row, Plan]]
"""Rows that one training is for, with their plans"""


class Ledger:
    """The records there are, and the trainings that rows still wait for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        records = jsonl.read(options.records)
        self.trained = {record["key"]: _without_row(record) for record in records}
        self.known = {row_key(record) for record in records}
        self.left: dict[Task, Waiting] = {}

    def ask(self, row: Row) -> Task | None:
        """The training that a row needs, where it is not there and no row before it needs the same."""
        plan = planned(row)
        task = task_of(row, plan, self.options)
        if (row, task.key) in self.known:
            return None
        if task.key in self.trained:
            self._append(row, plan, self.trained[task.key])
            return None
        new = task not in self.left
        self.left.setdefault(task, []).append((row, plan))
        return task if new else None

    def finished(self, task: Task, future: Future[Record | None]) -> bool:
        """Record a training that is done; whether it went well, or is only to be continued."""
        try:
            trained = future.result()
        except (PretrimError, RuntimeError) as error:  # a loss that is not finite, a GPU out of memory
            print(f"{self.left[task][0][0]}: failed: {error}", flush=True)
            return False
        if trained is not None:
            for row, plan in self.left.pop(task):
                self._append(row, plan, trained)
        return True

    def _append(self, row: Row, plan: Plan, trained: Record) -> None:
        jsonl.append(self.options.records, record_of(row, plan, trained))
        print(f"{row}: {100 * trained['test_accuracy']:.2f} % test, {trained['training_s']:.0f} s", flush=True)


def run_all(wanted: Sequence[Row], options: argparse.Namespace) -> int:
    """Train what is missing, while the widths of later rows are still planned; how many trainings failed."""
    ledger = Ledger(options)
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for row in wanted[: options.workers]:  # workers import and analyse meanwhile
            pool.submit(planned, row)
        tasks = filter(None, map(ledger.ask, wanted))
        futures = {pool.submit(run, task): task for task in tasks}
        failed = sum(not ledger.finished(futures[future], future) for future in as_completed(futures))
    left = sum(map(len, ledger.left.values()))
    print(f"{len(wanted) - left} of {len(wanted)} rows are there, {failed} trainings failed")
    return failed


def show(wanted: Sequence[Row], options: argparse.Namespace) -> None:
    """Print which rows are left to be trained, with their widths."""
    ledger = Ledger(options)
    for row in wanted:
        ledger.ask(row)
    for waiting in ledger.left.values():
        for row, plan in waiting:
            print(f"{row}: {plan.widths.tolist()}")
    print(f"{sum(map(len, ledger.left.values()))} of {len(wanted)} rows are left, {len(ledger.left)} trainings")


# ---------------------------------------------------------------------------------------- how fast

BARRIERS: dict[int, Any] = {}
SPEED_EPOCHS = 3
"""The first of them also chooses kernels, and does not count"""


def _with_barriers(barriers: dict[int, Any]) -> None:
    BARRIERS.update(barriers)


_noise = cache(noise)


def timed(task: Task, workers: int) -> tuple[float, float]:
    """Images a second after the first epoch, and seconds of the first, beside `workers` - 1 others at the same time."""
    data = _noise(CLASSES[task.data], task.images or 50_000)
    model = model_of(task, data)
    BARRIERS[workers].wait()
    recipe = replace(task.recipe, epochs=SPEED_EPOCHS)

    def wait_for_others(done: tuple[Any, ...]) -> None:
        if len(done) == 1:
            BARRIERS[workers].wait()

    first, *others = train(model, data, recipe, execution=task.execution, on_epoch=wait_for_others).epochs
    return sum(epoch.images_per_s for epoch in others) / len(others), first.seconds


def speeds(wanted: Sequence[Row], options: argparse.Namespace) -> None:
    """Print the images a second of all workers together, for the first row of each network and for its dense one."""
    counts = sorted({int(text) for text in options.speed.split(",")})
    context = get_context("spawn")
    barriers = {count: context.Barrier(count) for count in counts}
    chosen = {(row.cell.network, row.way == "dense"): row for row in reversed(list(wanted))}
    with ProcessPoolExecutor(counts[-1], mp_context=context, initializer=_with_barriers, initargs=(barriers,)) as pool:
        for row in reversed(chosen.values()):
            task = task_of(row, planned(row), options)
            for count in counts:
                found = [each.result() for each in [pool.submit(timed, task, count) for _ in range(count)]]
                total, first = sum(speed for speed, _ in found), max(seconds for _, seconds in found)
                print(f"{row}: {count} workers, {total:,.0f} images a second, first epoch {first:.1f} s", flush=True)


def main() -> None:
    options = _options()
    cells = [cell for cell in CELLS if cell.data in options.datasets.split(",")]
    cells = [cell for cell in cells if cell.network in options.networks.split(",")]
    cells = [cell for cell in cells if options.limits in ("", limits_text(cell))]
    wanted = list(rows(cells, range(options.first_seed, options.seeds)))
    wanted = [row for row in wanted if row.way in options.ways.split(",")]
    if options.speed:
        return speeds(wanted, options)
    if options.list:
        return show(wanted, options)
    raise SystemExit(1 if run_all(wanted, options) else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, default=BUILD, help="folder of data/cifar10.safetensors and trainings/")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--datasets", default=",".join(CLASSES), help="several with commas")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="several with commas")
    parser.add_argument("--limits", default="", help='those of one cell: "macs 0.12", "params 0.15, macs 0.25"')
    parser.add_argument("--ways", default=",".join((*WAYS, "dense")), help="several with commas")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3, help="the first seed that is not run")
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs)
    parser.add_argument("--batch-size", type=int, default=RECIPE.batch_size, help="the learning rate goes with it")
    parser.add_argument("--images", type=int, default=None, help="for a try: the first of each part")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--until", type=float, default=float("inf"), help="seconds since 1970 when epochs end")
    parser.add_argument("--speed", default="", help="numbers of workers to time, with commas")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Claim: under limits on parameters or several costs, `balanced` widths train to a higher accuracy than uniform ones.

Under a limit on MACs alone, uniform width is near the optimum for a ResNet (docs/results.md), and the two should be
equal. The claim is tested where the method can matter: all 50,000 training images of CIFAR-10 and CIFAR-100 at 32x32,
budgets that cost several points of accuracy, and three seeds of each method, with everything else the same:

- dense: the unchanged network.
- uniform: one width multiplier, filled up to the limit.
- balanced: the default of `pretrim plan`.
- paper: the sampling of arXiv 2208.12816 in the mode of the limited cost (PA, FA), `joint` under several limits.

    python benchmarks/pack_data.py decode ../shared/data/cifar100 build/data/cifar100.safetensors    # once; cifar10 too
    python benchmarks/trainings.py --device cuda --workers 8                                # everything; resumable
    python benchmarks/trainings.py --device cuda --workers 8 --until $(($(date +%s) + 540))  # stops in time
    python benchmarks/trainings.py --ways paper --datasets cifar100                         # 25 minutes each on a core
    python benchmarks/trainings.py --list                                                   # rows left to train
    python benchmarks/trainings.py --device cuda --speed 1,4,8,12                           # images/s, records nothing
    python benchmarks/trainings_page.py                                                     # the table

Nothing is selected by accuracy, so no validation split is held out: the networks train on all training images, and each
is tested once, after the last epoch. Every row is recorded when it is done (benchmarks/results/trainings.jsonl).
`--until` stops trainings after an epoch; the next call resumes them there.
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
# Running statistics are not recalibrated: after 20 epochs down to a rate of almost 0 they match the final weights.
RECIPE = Recipe(epochs=20, batch_size=512, learning_rate=0.4, schedule="onecycle", recalibration=0)
"""One cycle with batches of 512 up to a learning rate of 0.4, after David Page's "How to train your ResNet" (2018),
which took 24 epochs for CIFAR-10."""
ROUND_TO = 1
"""Any width is legal, so that methods are compared without the effect of rounding."""
Record = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """A dataset, a network, and limits as shares of its dense costs; without limits, the dense network."""

    data: str
    network: str
    limits: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Row:
    """One training: a cell, a method of choosing widths, and a seed."""

    cell: Cell
    way: str
    seed: int

    def __str__(self) -> str:
        limits = ", ".join(f"{100 * share:g} % {cost}" for cost, share in self.cell.limits)
        return f"{self.cell.data} {self.cell.network} {limits or 'no limit'}, {self.way}, seed {self.seed}"

    @property
    def options(self) -> dict[str, Any] | None:
        """Options of `planning.options.Options`; None for the dense network."""
        if self.way == "dense":
            return None
        sampled = {"mode": paper_mode(self.cell.limits), "seed": self.seed} if self.way == "paper" else {}
        return {"round_to": ROUND_TO, **WAYS[self.way], **sampled}


WAYS: dict[str, dict[str, Any]] = {"uniform": {"mode": "uniform"}, "balanced": {"mode": "balanced"}, "paper": {}}
"""Options of `planning.options.Options` for each method of choosing widths; the paper's mode depends on the limits."""
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
"""All cells, the most informative first."""


def limits_text(cell: Cell) -> str:
    return ", ".join(f"{cost} {share:g}" for cost, share in cell.limits)


def paper_mode(limits: Sequence[tuple[str, float]]) -> str:
    """The mode of the paper's sampling under these limits."""
    modes = {"params": "params", "macs": "macs", "activation": "memory"}
    return modes[limits[0][0]] if len(limits) == 1 else "joint"


def rows(cells: Sequence[Cell], seeds: range) -> Iterator[Row]:
    """Rows cell by cell, so that an interrupted run leaves complete cells.

    The rows of a dense network follow those of the first cell with its dataset and network.
    """
    dense_cells = set()
    for cell in cells:
        yield from (Row(cell, way, seed) for seed in seeds for way in WAYS)
        dense_cell = Cell(cell.data, cell.network)
        if dense_cell not in dense_cells:
            dense_cells.add(dense_cell)
            yield from (Row(dense_cell, "dense", seed) for seed in seeds)


# ---------------------------------------------------------------------------------------- tasks


@dataclass(frozen=True)
class Task:
    """A training, with where and how to run it.

    Attributes:
        widths: widths of the groups.
        images: maximum number of training images, and of test images; None for all.
        folder: folder of the datasets (``data/``) and of the stopped trainings (``trainings/``).
        until: time after which no epoch starts, as `time.time` counts.
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
        """Identifies the training: methods that choose the same widths share it."""
        settings = [self.data, self.network, self.widths, asdict(self.recipe), self.images, self.execution.precision]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@cache
def plan_of_row(row: Row) -> Plan:
    """The plan of a row."""
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


ROW_KEYS = ("data", "network", "limits", "way", "seed", "options", "costs", "dense_costs")
"""Keys of a record that describe its row; the others describe the training."""


def record_of(row: Row, plan: Plan, trained: Record) -> Record:
    """The record of a row: its description and the results of its training."""
    cell = row.cell
    row_values = (
        cell.data,
        cell.network,
        cell.limits,
        row.way,
        row.seed,
        row.options,
        dict(plan.slim),
        dict(plan.dense),
    )
    return {**dict(zip(ROW_KEYS, row_values, strict=True)), **trained}


def _without_row(record: Record) -> Record:
    return {name: value for name, value in record.items() if name not in ROW_KEYS}


def row_key(record: Record) -> tuple[Row, str]:
    """The row of a record and the key of its training."""
    limits = tuple((cost, share) for cost, share in record["limits"])
    return Row(Cell(record["data"], record["network"], limits), record["way"], record["seed"]), record["key"]


# ---------------------------------------------------------------------------------------- one training


class OutOfTime(Exception):
    """Raised after an epoch, once its state is saved, if the time is over."""


@lru_cache(maxsize=2)
def data_of(file: Path, images: int | None) -> DataSet:
    return read(file, images)


def run(task: Task) -> Record | None:
    """Train and test; None if the time is over before the training ends."""
    if time.time() >= task.until:
        return None
    data = data_of(task.folder / "data" / f"{task.data}.safetensors", task.images)
    model = model_of(task, data)
    try:
        training = _train_or_resume(task, model, data)
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
    """The network with the task's widths and the initial weights of its seed."""
    name, classes, seed = NETWORKS[task.network], len(data.classes), task.recipe.seed
    network = network_of(name, classes, data.input_shape)
    model = fresh(name, classes, data.input_shape, seed)
    torch.manual_seed(seed)
    return plan_of_widths(network, np.array(task.widths)).apply(model, network=network)


def _train_or_resume(task: Task, model: nn.Module, data: DataSet) -> Training:
    folder = task.folder / "trainings"
    folder.mkdir(parents=True, exist_ok=True)
    state_file = folder / f"{task.key}.state"

    def stop_in_time(epochs: tuple[Any, ...]) -> None:
        if time.time() >= task.until and len(epochs) < task.recipe.epochs:
            raise OutOfTime

    training = train(
        model, data, task.recipe, execution=task.execution, checkpoint=state_file, resume=True, on_epoch=stop_in_time
    )
    state_file.unlink(missing_ok=True)
    return training


# ---------------------------------------------------------------------------------------- all trainings


Waiting = list[tuple[Row, Plan]]
"""Rows that wait for the same training, with their plans."""


class Ledger:
    """Existing records, and the trainings that rows still wait for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        records = jsonl.read(options.records)
        self.trained = {record["key"]: _without_row(record) for record in records}
        self.recorded = {row_key(record) for record in records}
        self.pending: dict[Task, Waiting] = {}

    def request(self, row: Row) -> Task | None:
        """The training that a row needs, unless it is recorded or an earlier row already requested it."""
        plan = plan_of_row(row)
        task = task_of(row, plan, self.options)
        if (row, task.key) in self.recorded:
            return None
        if task.key in self.trained:
            self._append(row, plan, self.trained[task.key])
            return None
        is_new = task not in self.pending
        self.pending.setdefault(task, []).append((row, plan))
        return task if is_new else None

    def finished(self, task: Task, future: Future[Record | None]) -> bool:
        """Record a finished training. Returns False if it failed; a training out of time has not failed."""
        try:
            trained = future.result()
        except (PretrimError, RuntimeError) as error:  # a loss that is not finite, a GPU out of memory
            print(f"{self.pending[task][0][0]}: failed: {error}", flush=True)
            return False
        if trained is not None:
            for row, plan in self.pending.pop(task):
                self._append(row, plan, trained)
        return True

    def _append(self, row: Row, plan: Plan, trained: Record) -> None:
        jsonl.append(self.options.records, record_of(row, plan, trained))
        print(f"{row}: {100 * trained['test_accuracy']:.2f} % test, {trained['training_s']:.0f} s", flush=True)


def run_all(wanted: Sequence[Row], options: argparse.Namespace) -> int:
    """Run the missing trainings while later rows are still being planned. Returns how many trainings failed."""
    ledger = Ledger(options)
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for row in wanted[: options.workers]:  # workers import and analyse in the meantime
            pool.submit(plan_of_row, row)
        tasks = filter(None, map(ledger.request, wanted))
        futures = {pool.submit(run, task): task for task in tasks}
        failed = sum(not ledger.finished(futures[future], future) for future in as_completed(futures))
    pending = sum(map(len, ledger.pending.values()))
    print(f"{len(wanted) - pending} of {len(wanted)} rows are recorded, {failed} trainings failed")
    return failed


def show(wanted: Sequence[Row], options: argparse.Namespace) -> None:
    """Print the rows left to train, with their widths."""
    ledger = Ledger(options)
    for row in wanted:
        ledger.request(row)
    for waiting in ledger.pending.values():
        for row, plan in waiting:
            print(f"{row}: {plan.widths.tolist()}")
    print(f"{sum(map(len, ledger.pending.values()))} of {len(wanted)} rows are left, {len(ledger.pending)} trainings")


# ---------------------------------------------------------------------------------------- speed

BARRIERS: dict[int, Any] = {}
SPEED_EPOCHS = 3
"""Epochs of a speed measurement. The first does not count, since it also chooses kernels."""


def _set_barriers(barriers: dict[int, Any]) -> None:
    BARRIERS.update(barriers)


_noise = cache(noise)


def timed(task: Task, workers: int) -> tuple[float, float]:
    """Images per second after the first epoch, and seconds of the first, with `workers` - 1 others in parallel."""
    data = _noise(CLASSES[task.data], task.images or 50_000)
    model = model_of(task, data)
    BARRIERS[workers].wait()
    recipe = replace(task.recipe, epochs=SPEED_EPOCHS)

    def wait_for_others(epochs: tuple[Any, ...]) -> None:
        if len(epochs) == 1:
            BARRIERS[workers].wait()

    first_epoch, *later_epochs = train(model, data, recipe, execution=task.execution, on_epoch=wait_for_others).epochs
    return sum(epoch.images_per_s for epoch in later_epochs) / len(later_epochs), first_epoch.seconds


def speeds(wanted: Sequence[Row], options: argparse.Namespace) -> None:
    """Print images per second over all workers, for the first row of each network and for the dense network."""
    counts = sorted({int(text) for text in options.speed.split(",")})
    context = get_context("spawn")
    barriers = {count: context.Barrier(count) for count in counts}
    row_of_network = {(row.cell.network, row.way == "dense"): row for row in reversed(list(wanted))}
    with ProcessPoolExecutor(counts[-1], mp_context=context, initializer=_set_barriers, initargs=(barriers,)) as pool:
        for row in reversed(row_of_network.values()):
            task = task_of(row, plan_of_row(row), options)
            for count in counts:
                results = [future.result() for future in [pool.submit(timed, task, count) for _ in range(count)]]
                images_per_s, first_s = sum(speed for speed, _ in results), max(seconds for _, seconds in results)
                print(
                    f"{row}: {count} workers, {images_per_s:,.0f} images a second, first epoch {first_s:.1f} s",
                    flush=True,
                )


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

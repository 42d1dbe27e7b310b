"""Question: how much does complexity-driven slimming at initialisation gain, and which variant of it is best?

All networks of a table are trained with the same recipe. The stages, the most informative first:

- factors: FLOPs-aware sampling (fraction, static, sum) at half the MACs with one setting changed at a time, next to
  uniform, random and water-filled widths. This stage decides the defaults of `allocate.Options`.
- own: each mode at a limit on the cost it is designed for, next to uniform width.
- peers: those defaults, uniform, random and Torch-Pruning (pre-train, prune, fine-tune) at 50 and 70 % fewer MACs.
- claims: reductions published in papers, with several limits at once.
- fashion: the rows of `peers` for ResNet-20 on Fashion-MNIST.

    OMP_NUM_THREADS=1 python benchmarks/accuracy.py --stage factors --workers 2          # CPU: about an hour
    python benchmarks/accuracy.py --stage claims --protocol pixels --networks alexnet,vgg16
    python benchmarks/accuracy.py --stage peers --protocol long --device cuda --networks vgg16,resnet56 --workers 4
    python benchmarks/accuracy.py --stage peers --list                                   # rows done and left to do
    python benchmarks/results_page.py                                                    # docs/results-archive.md

Every row is recorded when it is done, and an interrupted training resumes at its last epoch. Records:
benchmarks/results/accuracy.jsonl. Needs ../shared/data/cifar10 or --data; Fashion-MNIST; and torch-pruning for peers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jsonl
import numpy as np
import torch
from peers import pruned_to
from safetensors.torch import load_file, save_file
from torch import nn

import pretrim
from pretrim.analysis.network import Network
from pretrim.cost.costs import costs
from pretrim.data import DataSet, load
from pretrim.models.resolve import build, resolve
from pretrim.planning.plan import Plan
from pretrim.runs.training import Hooks, Trained, TrainingSpec, train_into
from pretrim.train import Execution, Recipe, evaluate

HERE = Path(__file__).parent
RECORDS = HERE / "results" / "accuracy.jsonl"
UNFINISHED = HERE.parent / "build" / "accuracy"
PEEK = 2000
"""Number of test images evaluated after every epoch, only for the curves; the result of a row uses all of them."""


@dataclass(frozen=True)
class Protocol:
    """Training settings shared by all rows of a table.

    Attributes:
        side: side length in pixels that images are resized to; None to keep their size.
        images: number of training images; None for all.
        validation: number of validation images; None for all.
    """

    side: int | None
    images: int | None
    validation: int | None
    epochs: int
    batch_size: int
    learning_rate: float

    def recipe(self, seed: int) -> Recipe:
        settings = {"epochs": self.epochs, "batch_size": self.batch_size, "learning_rate": self.learning_rate}
        # No recalibration, as in all recorded rows: see benchmarks/recalibration.py.
        return Recipe(**settings, seed=seed, recalibration=0)


PROTOCOLS = {
    "short": Protocol(side=16, images=8_000, validation=2_500, epochs=8, batch_size=64, learning_rate=0.05),
    # For networks with five pooling layers, which need more than 16 pixels. A training takes a quarter of an hour.
    "pixels": Protocol(side=None, images=4_000, validation=2_500, epochs=8, batch_size=64, learning_rate=0.05),
    "long": Protocol(side=None, images=None, validation=None, epochs=60, batch_size=128, learning_rate=0.1),
}
BASE: dict[str, Any] = {
    "mode": "macs",
    "step": "fraction",
    "fraction": 0.05,
    "share_update": "static",
    "coupling": "sum",
    "round_to": 1,
    "min_features": 1,
}
"""The baseline of the factors: any width is legal, so that budgets match, and the classifier may have few features."""
FACTORS: dict[str, dict[str, Any]] = {
    "FA": {},
    "PA": {"mode": "params"},
    "MA": {"mode": "memory"},
    "step: one filter": {"step": "filter"},
    "step: a fifth": {"fraction": 0.2},
    "weights: adaptive": {"share_update": "adaptive"},
    "coupling: mean": {"coupling": "mean"},
    "coupling: max": {"coupling": "max"},
    "multiples of 8": {"round_to": 8},
    "waterfill": {"mode": "waterfill"},
    "PA, features kept": {"mode": "params", "min_features": None},
    "random": {"mode": "random"},
    "random, features kept": {"mode": "random", "min_features": None},
    "uniform": {"mode": "uniform"},
}
CHOSEN: dict[str, dict[str, Any]] = {
    "FA": {},
    "FA, features kept": {"min_features": None},
    "PA": {"mode": "params"},
    "PA, features kept": {"mode": "params", "min_features": None},
    "random": {"mode": "random"},
    "random, features kept": {"mode": "random", "min_features": None},
    "uniform": {"mode": "uniform"},
}
PEERS = {"Torch-Pruning, L1": "l1", "Torch-Pruning, group norm": "group"}
KEPT: dict[str, dict[str, Any]] = {"MA, features kept": {"mode": "memory", "min_features": None}}
OWN = {"PA": ("params", 0.3), "MA": ("activation", 0.5)}
"""Modes with a limit on the cost that each is designed for. FA is not listed, since `factors` covers it."""
CLAIMS: dict[str, dict[str, float]] = {
    "mobilenetv2": {"params": 0.3, "macs": 0.5, "activation": 0.5},
    "vgg16": {"params": 0.18, "macs": 0.42},
    "resnet56": {"macs": 0.5},
    "resnet50": {"params": 0.04, "macs": 0.1},
    "alexnet": {"params": 0.3},
}
JOINT: dict[str, dict[str, Any]] = {"joint": {"mode": "joint", "min_features": None}, "uniform": {"mode": "uniform"}}


@dataclass(frozen=True)
class Row:
    """One training: a network, its limits, and the method that meets them."""

    stage: str
    data: str
    network: str
    limits: tuple[tuple[str, float], ...]
    way: str
    seed: int

    @property
    def options(self) -> dict[str, Any] | None:
        """Options of `allocate.Options`; None if the method makes no plan."""
        changes = {**FACTORS, **CHOSEN, **KEPT, **JOINT}.get(self.way)
        return None if changes is None else {**BASE, **changes, "seed": self.seed}


def rows(stage: str, networks: list[str], seeds: range) -> Iterator[Row]:
    """Rows of a stage, seed by seed, so that an interrupted run leaves comparable rows."""
    data = "fashion-mnist" if stage == "fashion" else "cifar10"
    for seed in seeds:
        for network in networks:
            if stage != "own":  # its dense rows are the same as those of `factors`
                yield Row(stage, data, network, (), "dense", seed)
            if stage == "factors":
                yield from (Row(stage, data, network, (("macs", 0.5),), way, seed) for way in FACTORS)
            elif stage == "own":
                for mode, limit in OWN.items():
                    ways = (mode, f"{mode}, features kept", "uniform")
                    yield from (Row(stage, data, network, (limit,), way, seed) for way in ways)
            elif stage == "claims":
                limits = tuple(CLAIMS[network].items())
                yield from (Row(stage, data, network, limits, way, seed) for way in JOINT)
            else:
                for keep in (0.5, 0.3):
                    yield from (Row(stage, data, network, (("macs", keep),), way, seed) for way in (*CHOSEN, *PEERS))


# ---------------------------------------------------------------------------------------- one row


@dataclass(frozen=True)
class Task:
    """A row, with where and how to train it."""

    row: Row
    protocol: str
    execution: Execution
    folder: str
    """Folder of the dataset."""

    @property
    def key(self) -> str:
        """Identifies the row with its protocol and execution settings, in 16 hexadecimal digits."""
        settings = [asdict(self.row), asdict(PROTOCOLS[self.protocol]), self.row.options, self.execution.to_json()]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def dense(self) -> Task:
        """The training that a peer starts from."""
        return replace(self, row=replace(self.row, way="dense", limits=()))


@lru_cache(maxsize=1)
def data_of(data: str, folder: str, protocol: str) -> DataSet:
    settings = PROTOCOLS[protocol]
    name = f"{data}:{folder}" if folder else data
    dataset = load(name, image_size=settings.side, limit=settings.images, announce=lambda line: None)
    indices = np.arange(min(settings.validation or len(dataset.validation), len(dataset.validation)))
    return replace(dataset, validation=dataset.validation.take(indices))


@lru_cache(maxsize=4)
def network_of(name: str, classes: int, shape: tuple[int, int, int]) -> Network:
    return pretrim.analyze(fresh(name, classes, shape, 0), torch.zeros(1, *shape))


def fresh(name: str, classes: int, shape: tuple[int, int, int], seed: int) -> nn.Module:
    """The dense network with the initial weights of a seed."""
    torch.manual_seed(seed)
    return build(resolve(name, num_classes=classes, input_shape=shape))


def run(task: Task) -> dict[str, Any]:
    """Train and test one row. Returns its record."""
    row, data = task.row, data_of(task.row.data, task.folder, task.protocol)
    UNFINISHED.mkdir(parents=True, exist_ok=True)
    network = network_of(row.network, len(data.classes), data.input_shape)
    started = time.perf_counter()
    dense_epochs: list[dict[str, Any]] = []
    if row.way in PEERS:
        model, dense_epochs = _pruned_model(task, data, network)
        recipe = PROTOCOLS[task.protocol].recipe(row.seed)
        # As usual after pruning: a fine-tuning learning rate, for half the number of epochs.
        recipe = replace(recipe, epochs=recipe.epochs // 2, learning_rate=recipe.learning_rate / 10)
    else:
        model = _planned_model(row, data, network)
        recipe = PROTOCOLS[task.protocol].recipe(row.seed)
    trained, epochs = _train(task, model, data, recipe)
    training = trained.training
    if row.way == "dense":
        save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, weights_of(task))
    spent = _costs(model.cpu(), data)
    return {
        "key": task.key,
        **asdict(row),
        "options": row.options,
        "protocol": {"name": task.protocol, **asdict(PROTOCOLS[task.protocol])},
        "execution": training.execution.to_json(),
        "machine": machine(),
        "wall_s": time.perf_counter() - started,
        "training_s": sum(epoch.seconds for epoch in training.epochs),
        "widths": spent.pop("widths"),
        "costs": spent,
        "dense_costs": {name: int(cost(network.dense)) for name, cost in costs(network).items()},
        "validation_accuracy": trained.validation.score,
        "test_accuracy": trained.test.score,
        "epochs": [*dense_epochs, *epochs],
    }


def _planned_model(row: Row, data: DataSet, network: Network) -> nn.Module:
    model = fresh(row.network, len(data.classes), data.input_shape, row.seed)
    options = row.options
    if options is None:
        return model
    shares = dict(row.limits)
    if row.way == "uniform" and len(shares) == 1:
        plan = _nearest_uniform(network, *row.limits[0])
    else:
        plan = network.plan(**options, **{name: f"{share!r}x" for name, share in shares.items()})
    torch.manual_seed(row.seed)
    return plan.apply(model)


def _nearest_uniform(network: Network, limit: str, keep: float) -> Plan:
    """The uniform plan nearest to the limit, above or below it.

    One width multiplier changes all layers at once, so that the cost changes in steps of 2 % and more.
    """
    plans = [
        network.plan(mode="uniform", round_to=1, **{limit: f"{keep * (0.95 + 0.002 * step)!r}x"}) for step in range(51)
    ]
    cost = {"activation": "activation_bytes"}.get(limit, limit)
    return min(plans, key=lambda plan: abs(plan.slim[cost] / plan.dense[cost] - keep))


def _pruned_model(task: Task, data: DataSet, network: Network) -> tuple[nn.Module, list[dict[str, Any]]]:
    """The pruned network, made from the trained dense one, and the epochs of that training."""
    dense = task.dense()
    trained = next(record for record in records() if record["key"] == dense.key)
    model = fresh(task.row.network, len(data.classes), data.input_shape, task.row.seed)
    model.load_state_dict(load_file(weights_of(dense)))
    budget = int(costs(network)["macs"](network.dense) * dict(task.row.limits)["macs"])
    pruned = pruned_to(model, torch.zeros(1, *data.input_shape), budget, PEERS[task.row.way])  # type: ignore[arg-type]
    return pruned, trained["epochs"]


def _train(
    task: Task, model: nn.Module, data: DataSet, recipe: Recipe
) -> tuple[Trained, list[dict[str, float | None]]]:
    """The training, and for each epoch its loss, validation accuracy, and accuracy on some of the test images."""
    test_subset = data.test.take(np.arange(min(PEEK, len(data.test))))
    folder = UNFINISHED / task.key
    folder.mkdir(parents=True, exist_ok=True)
    peeks_file = folder / "peeks.json"
    peeks: dict[str, float] = json.loads(peeks_file.read_text()) if peeks_file.exists() else {}

    def peek(epochs_done: tuple[Any, ...]) -> None:
        peeks[str(len(epochs_done))] = evaluate(model, test_subset, data.mean, data.std).accuracy
        peeks_file.write_text(json.dumps(peeks))

    spec = TrainingSpec(recipe, task.execution, title=f"{task.row.network}, {task.row.way}", resume=True)
    trained = train_into(folder, model, data, spec, Hooks(on_epoch=peek))
    shutil.rmtree(folder)
    epochs = [
        {
            "loss": round(epoch.train_loss, 5),
            "validation": epoch.validation_score,
            "test": peeks.get(str(epoch.epoch)),
        }
        for epoch in trained.training.epochs
    ]
    return trained, epochs


def weights_of(task: Task) -> Path:
    """File with the trained weights of a dense network, for the peers."""
    return UNFINISHED / f"{task.key}.safetensors"


def _costs(model: nn.Module, data: DataSet) -> dict[str, Any]:
    """Costs and widths from a new analysis of the network, since a pruned one has no plan."""
    network = pretrim.analyze(model, torch.zeros(1, *data.input_shape))
    spent: dict[str, Any] = {name: int(cost(network.dense)) for name, cost in costs(network).items()}
    spent["widths"] = {group.name: int(group.channels * group.multiplicity) for group in network.groups}
    return spent


# ---------------------------------------------------------------------------------------- records


def machine() -> dict[str, str]:
    """The hardware and versions that the results depend on."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "cpu": names[0] if names else platform.processor(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "pretrim": pretrim.__version__,
    }


def records() -> list[dict[str, Any]]:
    return jsonl.read(RECORDS)


def append(record: dict[str, Any]) -> None:
    jsonl.append(RECORDS, record)
    print(
        f"{record['network']} {record['way']} {dict(record['limits'])} seed {record['seed']}: "
        f"{100 * record['validation_accuracy']:.2f} % validation, {100 * record['test_accuracy']:.2f} % test, "
        f"{record['wall_s']:.0f} s",
        flush=True,
    )


def main() -> None:
    options = _options()
    gpu = options.device != "cpu"
    execution = Execution(
        device=options.device,
        precision="bfloat16" if gpu else "float32",
        channels_last=True,
        compile=False,
        threads=1,
    )
    wanted = rows(options.stage, options.networks.split(","), range(options.first_seed, options.seeds))
    tasks = [Task(row, options.protocol, execution, options.data) for row in wanted]
    if options.ways:
        tasks = [task for task in tasks if task.row.way in options.ways.split(";")]
    known_keys = {record["key"] for record in records()}
    if options.list:
        for task in tasks:
            print("done" if task.key in known_keys else "to do", task.row)
        return
    missing = [task for task in tasks if task.key not in known_keys]
    peers = [task for task in missing if task.row.way in PEERS]
    # Peers start from trained dense networks, whose weights stay on the machine that trained them.
    dense_tasks = {task.dense().key: task.dense() for task in peers if not weights_of(task.dense()).exists()}
    other_tasks = {task.key: task for task in missing if task.row.way not in PEERS}
    for wave in ([*{**dense_tasks, **other_tasks}.values()], peers):
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
            for future in as_completed([pool.submit(run, task) for task in wave]):
                if future.result()["key"] not in known_keys:
                    append(future.result())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stage", choices=("factors", "own", "peers", "claims", "fashion"), default="factors")
    parser.add_argument("--protocol", choices=tuple(PROTOCOLS), default="short")
    parser.add_argument("--networks", default="resnet20", help="several with commas")
    parser.add_argument("--ways", default="", help="some rows alone, several with semicolons")
    parser.add_argument(
        "--data", default="../shared/data/cifar10", help="folder of the data set; '' where none is needed"
    )
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()

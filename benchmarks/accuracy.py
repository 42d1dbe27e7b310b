"""Question: what is complexity-driven slimming at initialisation worth, and which reading of it is best?

Rows of networks trained by one recipe, in stages, the most telling first:

- factors: from FLOPs-aware sampling (fraction, static, sum) at half the MACs, one thing changed at a time, beside
  uniform, random and water-filled widths. It decides the defaults of `allocate.Options`.
- own: each mode at a limit on what it is for, beside uniform width.
- peers: those defaults, uniform, random and Torch-Pruning (pre-train, prune, fine-tune) at 50 and 70 % fewer MACs.
- claims: the reductions that papers publish, several limits at once.
- fashion: the rows of `peers` for ResNet-20 on Fashion-MNIST.

    OMP_NUM_THREADS=1 python benchmarks/accuracy.py --stage factors --workers 2          # CPU: about an hour
    python benchmarks/accuracy.py --stage claims --protocol pixels --networks alexnet,vgg16
    python benchmarks/accuracy.py --stage peers --protocol long --device cuda --networks vgg16,resnet56 --workers 4
    python benchmarks/accuracy.py --stage peers --list                                   # what is there, what is not
    python benchmarks/results_page.py                                                    # docs/results-archive.md

Every row is recorded when it is done, and an interrupted training goes on at its last epoch. Records:
benchmarks/results/accuracy.jsonl. Needs ../shared/data/cifar10, or --data; Fashion-MNIST; and torch-pruning for peers.
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
"""Test images that are looked at after every epoch, for the curves alone; the figure of a row is of all of them."""


@dataclass(frozen=True)
class Protocol:
    """How all rows of a table are trained.

    Attributes:
        side: pixels that images are resized to; None: as they are.
        images: for training; None: all.
        validation: images of the validation part that are used; None: all.
    """

    side: int | None
    images: int | None
    validation: int | None
    epochs: int
    batch_size: int
    learning_rate: float

    def recipe(self, seed: int) -> Recipe:
        how = {"epochs": self.epochs, "batch_size": self.batch_size, "learning_rate": self.learning_rate}
        return Recipe(**how, seed=seed, recalibration=0)  # as all rows were recorded: benchmarks/recalibration.py


PROTOCOLS = {
    "short": Protocol(side=16, images=8_000, validation=2_500, epochs=8, batch_size=64, learning_rate=0.05),
    # For what five poolings leave nothing of at 16 pixels; a training then takes a quarter of an hour.
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
"""What the factors are changed from: any width, so that budgets are matched, and the classifier may read few."""
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
"""Modes, and a limit on what each is for; FA's are the factors"""
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
    """One training: a network, what it is kept to, and by what way."""

    stage: str
    data: str
    network: str
    limits: tuple[tuple[str, float], ...]
    way: str
    seed: int

    @property
    def options(self) -> dict[str, Any] | None:
        """Of `allocate.Options`; None where no plan is drawn."""
        changes = {**FACTORS, **CHOSEN, **KEPT, **JOINT}.get(self.way)
        return None if changes is None else {**BASE, **changes, "seed": self.seed}


def rows(stage: str, networks: list[str], seeds: range) -> Iterator[Row]:
    """Seed by seed, so that every stop leaves what can be compared."""
    data = "fashion-mnist" if stage == "fashion" else "cifar10"
    for seed in seeds:
        for network in networks:
            if stage != "own":  # those of the factors are the same
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
    """A row, and where and how it is trained."""

    row: Row
    protocol: str
    execution: Execution
    folder: str
    """of the data"""

    @property
    def key(self) -> str:
        """The same for the same row on any machine of the kind, by 16 hexadecimal digits."""
        how = [asdict(self.row), asdict(PROTOCOLS[self.protocol]), self.row.options, self.execution.to_json()]
        return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()[:16]

    def dense(self) -> Task:
        """The training that a peer starts from."""
        return replace(self, row=replace(self.row, way="dense", limits=()))


@lru_cache(maxsize=1)
def data_of(data: str, folder: str, protocol: str) -> DataSet:
    how = PROTOCOLS[protocol]
    name = f"{data}:{folder}" if folder else data
    found = load(name, image_size=how.side, limit=how.images, announce=lambda line: None)
    places = np.arange(min(how.validation or len(found.validation), len(found.validation)))
    return replace(found, validation=found.validation.take(places))


@lru_cache(maxsize=4)
def network_of(name: str, classes: int, shape: tuple[int, int, int]) -> Network:
    return pretrim.analyze(fresh(name, classes, shape, 0), torch.zeros(1, *shape))


def fresh(name: str, classes: int, shape: tuple[int, int, int], seed: int) -> nn.Module:
    """The dense network with the weights of a seed."""
    torch.manual_seed(seed)
    return build(resolve(name, num_classes=classes, input_shape=shape))


def run(task: Task) -> dict[str, Any]:
    """Train and test one row; its record."""
    row, data = task.row, data_of(task.row.data, task.folder, task.protocol)
    UNFINISHED.mkdir(parents=True, exist_ok=True)
    network = network_of(row.network, len(data.classes), data.input_shape)
    started = time.perf_counter()
    before: list[dict[str, Any]] = []
    if row.way in PEERS:
        model, before = _pruned(task, data, network)
        recipe = PROTOCOLS[task.protocol].recipe(row.seed)
        # The rate of fine-tuning, and half the epochs again: what is usual after pruning.
        recipe = replace(recipe, epochs=recipe.epochs // 2, learning_rate=recipe.learning_rate / 10)
    else:
        model = _planned(row, data, network)
        recipe = PROTOCOLS[task.protocol].recipe(row.seed)
    trained, epochs = _train(task, model, data, recipe)
    training = trained.training
    if row.way == "dense":
        save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, weights_of(task))
    made = _costs(model.cpu(), data)
    return {
        "key": task.key,
        **asdict(row),
        "options": row.options,
        "protocol": {"name": task.protocol, **asdict(PROTOCOLS[task.protocol])},
        "execution": training.execution.to_json(),
        "machine": machine(),
        "wall_s": time.perf_counter() - started,
        "training_s": sum(epoch.seconds for epoch in training.epochs),
        "widths": made.pop("widths"),
        "costs": made,
        "dense_costs": {name: int(cost(network.dense)) for name, cost in costs(network).items()},
        "validation_accuracy": trained.validation.score,
        "test_accuracy": trained.test.score,
        "epochs": [*before, *epochs],
    }


def _planned(row: Row, data: DataSet, network: Network) -> nn.Module:
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
    """One width multiplier steps all layers at once, by 2 % and more: the plan nearest to the limit, over it or not."""
    plans = [
        network.plan(mode="uniform", round_to=1, **{limit: f"{keep * (0.95 + 0.002 * step)!r}x"}) for step in range(51)
    ]
    cost = {"activation": "activation_bytes"}.get(limit, limit)
    return min(plans, key=lambda plan: abs(plan.slim[cost] / plan.dense[cost] - keep))


def _pruned(task: Task, data: DataSet, network: Network) -> tuple[nn.Module, list[dict[str, Any]]]:
    """The trained dense network after pruning, and the epochs that its training took."""
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
    """The training, and by epoch: loss, validation accuracy, and accuracy on some of the test images."""
    some = data.test.take(np.arange(min(PEEK, len(data.test))))
    folder = UNFINISHED / task.key
    folder.mkdir(parents=True, exist_ok=True)
    peeks_file = folder / "peeks.json"
    peeks: dict[str, float] = json.loads(peeks_file.read_text()) if peeks_file.exists() else {}

    def peek(done: tuple[Any, ...]) -> None:
        peeks[str(len(done))] = evaluate(model, some, data.mean, data.std).accuracy
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
    """Of a dense network, for the peers."""
    return UNFINISHED / f"{task.key}.safetensors"


def _costs(model: nn.Module, data: DataSet) -> dict[str, Any]:
    """Of the network as it is, analysed anew: a pruned one has no plan."""
    found = pretrim.analyze(model, torch.zeros(1, *data.input_shape))
    spent: dict[str, Any] = {name: int(cost(found.dense)) for name, cost in costs(found).items()}
    spent["widths"] = {group.name: int(group.channels * group.multiplicity) for group in found.groups}
    return spent


# ---------------------------------------------------------------------------------------- records


def machine() -> dict[str, str]:
    """What the figures depend on."""
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
    known = {record["key"] for record in records()}
    if options.list:
        for task in tasks:
            print("done" if task.key in known else "to do", task.row)
        return
    left = [task for task in tasks if task.key not in known]
    peers = [task for task in left if task.row.way in PEERS]
    # Peers start from trained dense networks, whose weights stay on the machine that trained them.
    start = {task.dense().key: task.dense() for task in peers if not weights_of(task.dense()).exists()}
    others = {task.key: task for task in left if task.row.way not in PEERS}
    for wave in ([*{**start, **others}.values()], peers):
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
            for done in as_completed([pool.submit(run, task) for task in wave]):
                if done.result()["key"] not in known:
                    append(done.result())


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

"""Claim: training a slim network directly costs at most 40 % of pre-train, prune, fine-tune, and is as accurate.

For each seed, on the same data, machine, threads, precision and memory layout, with the same recipe in every epoch, and
within the same share of the dense network's multiply-accumulates:

- balanced: the default of `pretrim plan`, trained once.
- paper: the sampling by MACs (FA) of arXiv 2208.12816, trained once.
- uniform: one width multiplier, filled up to the limit, trained once.
- pruned: the dense network pre-trained, pruned with Torch-Pruning (L1, global), fine-tuned for half as many epochs.

    python benchmarks/training_cost.py --data cifar10:FOLDER     # ResNet-20 on one thread: 30 minutes with bfloat16
    python benchmarks/training_cost.py --data cifar10:FOLDER --device cuda --models vgg16,resnet56,mobilenetv2 \
        --images 0 --epochs 60
    python benchmarks/training_cost.py --table                   # results/training_cost.md from the records

Every training is recorded when it finishes; a second call resumes where the first was stopped. Needs torch-pruning.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pack_data import read
from peers import macs_of, pruned_to
from torch import nn

import pretrim
from pretrim.data import DataSet, Split, load
from pretrim.models.resolve import build, resolve
from pretrim.train import Execution, Recipe, Training, evaluate, train

RESULTS = Path(__file__).parent / "results" / "training_cost.jsonl"
TABLE = RESULTS.with_suffix(".md")
PASSES = 3
"""A backward pass has the multiply-accumulates of two forward passes."""
FINE_TUNING_RATE = 0.1
"""Share of the learning rate used for fine-tuning, as is usual after pruning (Li et al. 2017 use less)"""


def main() -> None:
    options = _options()
    if not options.table:
        data = _data(options)
        for model in options.models.split(","):
            for seed in range(options.seeds):
                _measure(model, seed, data, options)
    TABLE.write_text(_table(_records()))
    print(TABLE.read_text())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="cifar10:../shared/data/cifar10")
    parser.add_argument("--models", default="resnet20")
    parser.add_argument("--keep", default="0.3", help="share of the dense network's MACs, several with commas")
    parser.add_argument("--images", type=int, default=5000, help="training images; 0: all")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="other fields of the recipe")
    parser.add_argument("--arms", default=",".join(ARMS), help="several with commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    return parser.parse_args()


def _data(options: argparse.Namespace) -> DataSet:
    """The training and test images; the validation split is emptied, since nothing is chosen by validation."""
    if options.data.endswith(".safetensors"):
        return read(Path(options.data), options.images or None)
    data = load(options.data, limit=options.images or None)
    empty = Split(data.validation.images[:0], data.validation.labels[:0])
    return replace(data, validation=empty)


# ---------------------------------------------------------------------------------------- the arms


DIRECT: dict[str, dict[str, Any]] = {
    "balanced": {},
    "paper": {"mode": "macs"},
    "uniform": {"mode": "uniform", "round_to": 1},
}
"""How the widths of the networks trained once are chosen: fields of `planning.options.Options`"""
ARMS = ("dense", *DIRECT, "pruned")


def _measure(name: str, seed: int, data: DataSet, options: argparse.Namespace) -> None:
    """Run all trainings of one network and seed, except those already recorded."""
    execution = Execution(
        device=options.device,
        precision=options.precision,
        channels_last=True,
        compile=False,
        threads=options.threads,
    )
    extra_fields = {name: _parse_value(text) for name, text in (field.split("=") for field in options.set)}
    recipe = Recipe(epochs=options.epochs, seed=seed, **extra_fields)
    fine_tuning_recipe = replace(
        recipe, epochs=options.epochs // 2, learning_rate=FINE_TUNING_RATE * recipe.learning_rate
    )
    example = torch.zeros(1, *data.input_shape)
    settings = {"model": name, "seed": seed, "images": len(data.train), "epochs": options.epochs, "machine": _machine()}
    settings |= {"data": data.name, "recipe": extra_fields, "execution": execution.to_json()}

    def dense() -> nn.Module:
        torch.manual_seed(seed)
        return build(resolve(name, num_classes=len(data.classes), input_shape=data.input_shape))

    network = pretrim.analyze(dense(), example)

    def run(arm: str, keep: float, make: Callable[[], nn.Module], arm_recipe: Recipe) -> nn.Module | None:
        """Train one network, unless that is already recorded; record its cost and accuracy."""
        key = {**settings, "arm": arm, "keep": keep}
        if _is_recorded(key) or arm not in options.arms.split(","):
            return None
        model, build_seconds = _timed(make)
        started, cpu = time.perf_counter(), time.process_time()
        training = train(model, data, arm_recipe, execution=execution)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        accuracy = evaluate(model, data.test, data.mean, data.std).accuracy
        _record(
            {
                **key,
                **_costs(model.cpu(), example, training, len(data.train), arm_recipe.batch_size),
                "making_s": build_seconds,
                "seconds": seconds,
                "cpu_s": cpu,
                "test_accuracy": accuracy,
                "train_epochs": arm_recipe.epochs,
            }
        )
        return model

    def direct(keep: float, plan_options: dict[str, Any]) -> nn.Module:
        plan = network.plan(macs=f"{keep}x", **plan_options)
        torch.manual_seed(seed)
        return plan.apply(dense())

    trained = run("dense", 1.0, dense, recipe)
    for keep in map(float, options.keep.split(",")):
        for arm, arm_options in DIRECT.items():
            plan_options = {**arm_options, "seed": seed} if arm == "paper" else arm_options
            run(arm, keep, lambda keep=keep, plan_options=plan_options: direct(keep, plan_options), recipe)
        if trained is None:  # its weights are not kept between calls
            trained = dense()
            if "pruned" in options.arms and not _is_recorded({**settings, "arm": "pruned", "keep": keep}):
                train(trained, data, recipe, execution=execution)
        max_macs = round(keep * macs_of(dense(), example))
        run("pruned", keep, lambda max_macs=max_macs: pruned_to(trained.cpu(), example, max_macs), fine_tuning_recipe)  # noqa: B023 (called at once)


def _parse_value(text: str) -> int | float | str:
    """Parse the value of a recipe field given on the command line."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _costs(model: nn.Module, example: torch.Tensor, training: Training, images: int, batch: int) -> dict[str, Any]:
    macs, steps = macs_of(model, example), images // batch
    step_seconds = [epoch.seconds / steps for epoch in training.epochs]
    return {
        "macs": macs,
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "training_flops": 2 * PASSES * macs * steps * batch * len(training.epochs),
        "step_s": statistics.median(step_seconds),
        "train_loss": training.epochs[-1].train_loss,
    }


def _timed(make: Callable[[], nn.Module]) -> tuple[nn.Module, float]:
    started = time.perf_counter()
    model = make()
    return model, time.perf_counter() - started


# ---------------------------------------------------------------------------------------- records


def _machine() -> dict[str, str]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {
        "cpu": processor,
        "isa": torch.backends.cpu.get_cpu_capability(),
        "gpu": gpu,
        "torch": torch.__version__,
        "pretrim": pretrim.__version__,
    }


def _records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def _is_recorded(key: dict[str, Any]) -> bool:
    return any(all(record.get(name) == value for name, value in key.items()) for record in _records())


def _record(entry: dict[str, Any]) -> None:
    with RESULTS.open("a") as file:
        file.write(json.dumps(entry) + "\n")
    print({name: entry[name] for name in ("model", "arm", "seed", "keep", "seconds", "test_accuracy")}, flush=True)


def _table(records: list[dict[str, Any]]) -> str:
    """One section per setting, with the mean and standard deviation of per-seed differences and ratios."""
    return "\n".join(["# Training cost", "", *(line for line in _sections(records))]) + "\n"


def _sections(records: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    names = ("data", "model", "images", "epochs")
    for setting in sorted({(*(r[name] for name in names), r["keep"]) for r in records if r["arm"] == "pruned"}):
        *values, keep = setting
        matching = [r for r in records if [r[name] for name in names] == values and r["keep"] in (keep, 1.0)]
        arms = {arm: {r["seed"]: r for r in matching if r["arm"] == arm} for arm in ARMS}
        arms = {arm: by_seed for arm, by_seed in arms.items() if by_seed}
        seeds = sorted(set.intersection(*(set(by_seed) for by_seed in arms.values())))
        if seeds:
            lines += _section({arm: [by_seed[seed] for seed in seeds] for arm, by_seed in arms.items()})
    return lines


TITLES = {
    "balanced": "balanced, trained once",
    "paper": "the paper's FA, trained once",
    "uniform": "uniform width, trained once",
    "pruned": "pre-trained, pruned, fine-tuned",
    "dense": "dense",
}


def _section(arms: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Cost and accuracy of each arm, and each direct arm against pre-train, prune, fine-tune, seed by seed."""
    dense, first = arms["dense"], arms["pruned"][0]
    machine, execution = first["machine"], first["execution"]
    processor = f"{machine['cpu']} ({machine['isa']}), {execution['threads']} thread"
    recipe = "".join(f", {name.replace('_', ' ')} {value}" for name, value in first["recipe"].items())
    totals = {**arms, "pruned": [_with_pretraining(d, b) for d, b in zip(dense, arms["pruned"], strict=True)]}
    lines = [
        f"## {first['model']} on {first['data']}, {first['keep']:.0%} of the MACs, n = {len(dense)}",
        "",
        f"{first['images']:,} training images, {first['epochs']} epochs{recipe}; "
        f"{processor if machine['gpu'] == 'none' else machine['gpu']}; torch {machine['torch']}, "
        f"{execution['precision']}, channels_last. Mean ± standard deviation over seeds.",
        "",
        "| | MACs | parameters | training FLOPs | CPU time s | wall time s | ms a step | test accuracy % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm in arms:
        runs, last_runs = totals[arm], arms[arm]
        cells = [
            TITLES[arm],
            f"{_mean_std([r['macs'] / 1e6 for r in runs])} M",
            f"{_mean_std([r['params'] / 1e3 for r in runs])} k",
            f"{_mean_std([r['training_flops'] / 1e12 for r in runs], 1)} T",
            _mean_std([r["cpu_s"] for r in runs], 0),
            _mean_std([r["seconds"] + r["making_s"] for r in runs], 0),
            _mean_std([1000 * r["step_s"] for r in last_runs], 0),
            _mean_std([100 * r["test_accuracy"] for r in runs]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", *(_against_pruned(arm, totals) for arm in DIRECT if arm in arms), ""]


def _against_pruned(arm: str, totals: dict[str, list[dict[str, Any]]]) -> str:
    pairs = list(zip(totals[arm], totals["pruned"], strict=True))
    cpu, wall, flops = ([a[name] / b[name] for a, b in pairs] for name in ("cpu_s", "seconds", "training_flops"))
    points = [100 * (a["test_accuracy"] - b["test_accuracy"]) for a, b in pairs]
    return (
        f"- {arm} against pre-train, prune, fine-tune: CPU time {_mean_std(cpu, 3)} (goal: at most 0.40), "
        f"wall {_mean_std(wall, 3)}, training FLOPs {_mean_std(flops, 3)}; accuracy {_mean_std(points)} points "
        f"(goal: at least -0.2)"
    )


def _with_pretraining(dense: dict[str, Any], fine_tuned: dict[str, Any]) -> dict[str, Any]:
    """The record of a fine-tuning, with the cost of the pre-training added."""
    summed = ("training_flops", "cpu_s", "seconds", "making_s")
    return {**fine_tuned, **{name: dense[name] + fine_tuned[name] for name in summed}}


def _mean_std(values: list[float], digits: int = 2) -> str:
    mean = statistics.mean(values)
    return f"{mean:.{digits}f} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else f"{mean:.{digits}f}"


if __name__ == "__main__":
    main()

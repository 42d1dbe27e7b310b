"""One trial: plan, build, train, evaluate, save. Done again with the same question it gives the same answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pretrim.analysis.network import IntArray, Network
from pretrim.cost.costs import costs
from pretrim.cost.microcontroller import arena_cost, artifact_cost
from pretrim.data import DataSet
from pretrim.errors import PretrimError
from pretrim.files import write_text
from pretrim.models.resolve import ModelReference, build
from pretrim.planning.options import Options
from pretrim.planning.plan import Plan
from pretrim.planning.search import make_plan, plan_of_widths
from pretrim.runs.record import CURVE, LOG, STATE
from pretrim.runs.save import save
from pretrim.surgery.apply import apply
from pretrim.train import EpochRecord, Progress, draw_curve, evaluate, train, write_log

from .settings import DENSE, StudyConfig, TrialSpec

if TYPE_CHECKING:
    from pretrim.latency import LatencyCost

RECORD = "trial.json"
"""In the folder of a finished trial: what the study's table holds of it"""
PREDICTED = {"litert": "predicted_latency_ns", "onnx": "predicted_latency_onnx_ns"}
"""Costs of a plan by the tables of this machine that are there"""


@dataclass(frozen=True)
class Subject:
    """What all trials of a study are about, made once in each process.

    Attributes:
        reference: what rebuilds the dense network.
        network: its analysis.
        data: what to train and test on.
        latency: measured costs by runtime, where a mode or a limit asks for them.
    """

    reference: ModelReference
    network: Network
    data: DataSet
    latency: Mapping[str, LatencyCost] = field(default_factory=dict)

    def module(self, seed: int) -> nn.Module:
        """The dense network with the weights of a seed."""
        torch.manual_seed(seed)
        return build(self.reference)


class Stopped(Exception):
    """A trial that cheaper ones outdo (`stopping.py`); it is kept with what it has found."""


def run_trial(
    settings: StudyConfig,
    subject: Subject,
    asked: TrialSpec,
    folder: Path,
    *,
    on_step: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[dict[str, int], tuple[float, ...]], None] | None = None,
) -> dict[str, Any]:
    """Do one trial in its folder, from where it was stopped if it was; its record, as plain JSON.

    The finished folder is a run like any other: export it, measure it, evaluate it.

    Args:
        settings: of the study.
        subject: the network and the data.
        asked: which plan.
        folder: of this trial alone; made if it is not there.
        on_step: is told the progress; what it raises ends the trial.
        on_epoch: gets the plan's costs and the validation accuracies so far after each epoch; it may raise `Stopped`.

    Raises:
        PretrimError: the limit cannot be met, the loss is not finite, or a file cannot be written.
    """
    found = read_record(folder)
    if found is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    module = subject.module(asked.seed)
    plan = _plan(settings, subject, asked)
    torch.manual_seed(asked.seed)
    slim = apply(module, plan, "inherit" if asked.mode == DENSE else "fresh", subject.network)
    spent = costs_of(subject.network, plan.widths, settings.dtype)
    for runtime, cost in subject.latency.items():
        spent[PREDICTED[runtime]] = int(cost(plan.widths))

    def after(records: tuple[EpochRecord, ...]) -> None:
        write_log(records, folder / LOG)
        if on_epoch is not None:
            on_epoch(spent, tuple(record.validation_accuracy or 0.0 for record in records))

    training = train(
        slim,
        subject.data,
        replace(settings.recipe, seed=asked.seed),
        execution=settings.execution,
        checkpoint=folder / STATE,
        resume=True,
        made_of={"plan": [int(width) for width in plan.widths]},
        on_step=on_step,
        on_epoch=after,
    )
    data = subject.data
    write_log(training.epochs, folder / LOG)
    draw_curve(training.epochs, f"{subject.reference.name}, {asked.name}, seed {asked.seed}", folder / CURVE)
    validation = evaluate(slim, data.validation, data.mean, data.std)
    test = evaluate(slim, data.test, data.mean, data.std)
    record = {
        "asked": asked.to_json(),
        "costs": spent,
        "dense": costs_of(subject.network, subject.network.dense, settings.dtype),
        "widths": [int(width) for width in plan.widths],
        "validation_accuracy": validation.accuracy,
        "test_accuracy": test.accuracy,
        "epochs": [curve_point(epoch) for epoch in training.epochs],
        "seconds": sum(epoch.seconds for epoch in training.epochs),
    }
    save(
        slim,
        folder,
        reference=subject.reference,
        classes=data.classes,
        normalisation=(data.mean, data.std),
        input_shape=data.input_shape,
        data=data.to_json(),
        results={"test_accuracy": test.accuracy, "test_loss": test.plain_loss, **training.to_json()},
        into=True,
    )
    write_text(folder / RECORD, json.dumps(record, allow_nan=False) + "\n")
    (folder / STATE).unlink(missing_ok=True)
    return record


def read_record(folder: Path) -> dict[str, Any] | None:
    """What a finished trial left in its folder; None if there is none, or it is damaged."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "validation_accuracy" in found else None


def curve_point(epoch: EpochRecord) -> list[float | None]:
    """Loss, training and validation accuracy."""
    values = (epoch.train_loss, epoch.train_accuracy, epoch.validation_accuracy)
    return [None if value is None else round(value, 5) for value in values]


def costs_of(network: Network, widths: IntArray, dtype: str) -> dict[str, int]:
    """Everything that is known of a plan before it is trained: five costs, and flash and RAM of an int8 ``.tflite``."""
    functions = costs(network, dtype)  # type: ignore[arg-type]  # it checks the name
    found = {str(name): int(function(widths)) for name, function in functions.items()}
    try:
        found["artifact_bytes"] = int(artifact_cost(network, "int8")(widths))
        found["arena_bytes"] = int(arena_cost(network, "int8")(widths))
    except PretrimError:  # a network that LiteRT has no model of: the others hold all the same
        pass
    return found


def _plan(settings: StudyConfig, subject: Subject, asked: TrialSpec) -> Plan:
    """The plan of a trial."""
    network, dtype = subject.network, settings.dtype
    if asked.mode == DENSE:
        made = plan_of_widths(network, network.dense, dtype)  # type: ignore[arg-type]  # it checks the name
    else:
        options = Options(
            mode=asked.mode,  # type: ignore[arg-type]
            step=asked.step,  # type: ignore[arg-type]
            round_to=asked.round_to,
            seed=asked.seed,
        )
        timed = subject.latency.get(asked.runtime) if asked.is_timed else None
        costs = {} if timed is None else {timed.name: timed}
        made = make_plan(network, {asked.limit: f"{asked.keep!r}x"}, options, dtype, costs)  # type: ignore[arg-type]
    return replace(made, model=subject.reference.to_json())

"""One trial: plan, build, train, evaluate, save. Done again with the same question it gives the same answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pretrim.analysis.network import IntArray, Network
from pretrim.cost.costs import costs
from pretrim.cost.formula import Cost
from pretrim.cost.microcontroller import arena_cost, artifact_cost
from pretrim.devices import board
from pretrim.errors import PretrimError, StudyError
from pretrim.files import write_text
from pretrim.latency.on_board import costs_on, sketch
from pretrim.planning.plan import Plan
from pretrim.planning.search import make_plan, plan_of_widths
from pretrim.runs.folder import remove_temporaries
from pretrim.runs.record import STATE
from pretrim.runs.training import Hooks, Trained, TrainingSpec, save_trained, train_into
from pretrim.surgery.apply import apply
from pretrim.train import EpochRecord, Progress

from . import rows
from .inputs import TrialInputs, latency_key
from .settings import DENSE, RUNTIME, StudyConfig, TrialSpec

RECORD = "trial.json"
"""In the folder of a finished trial: what the study's table holds of it"""
PREDICTED = {"litert": "predicted_latency_ns", "onnx": "predicted_latency_onnx_ns"}
"""Costs of a plan by the tables of this machine that are there"""


class Stopped(Exception):
    """A trial that a cheaper one outdoes (`stopping.py`); it is kept with what it has found."""


def run_trial(
    config: StudyConfig,
    inputs: TrialInputs,
    spec: TrialSpec,
    folder: Path,
    *,
    on_step: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[dict[str, int], tuple[float, ...]], None] | None = None,
) -> dict[str, Any]:
    """Do one trial in its folder, from where it was stopped if it was; its record, as plain JSON.

    The finished folder is a run like any other: export it, measure it, evaluate it.

    Args:
        config: of the study.
        inputs: the network and the data.
        spec: which plan.
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
    remove_temporaries(folder)
    dense, data = inputs.dense, inputs.data
    module = dense.fresh(spec.seed)
    plan = plan_of_trial(config, inputs, spec)
    torch.manual_seed(spec.seed)
    slim = apply(module, plan, "inherit" if spec.mode == DENSE else "fresh", dense.network)
    spent = _spent(config, inputs, plan.widths)

    def after(records: tuple[EpochRecord, ...]) -> None:
        if on_epoch is not None:
            on_epoch(spent, tuple(record.validation_score or 0.0 for record in records))

    training = TrainingSpec(
        recipe=replace(config.recipe, seed=spec.seed),
        execution=config.execution,
        title=f"{dense.name}, {spec.name}, seed {spec.seed}",
        made_of={"plan": [int(width) for width in plan.widths], "network": dense.forward},
        resume=True,
        task=inputs.task,
    )
    trained = train_into(folder, slim, data, training, Hooks(on_step=on_step, on_epoch=after))
    record = {
        "asked": spec.to_json(),
        "costs": spent,
        "dense": costs_of(dense.network, dense.network.dense, config.dtype),
        "on_boards": _on_boards(dense.network, {"dense": dense.network.dense, "slim": plan.widths}),
        "predicted_on": {PREDICTED[runtime]: places(config, runtime) for runtime in inputs.latency},
        "widths": [int(width) for width in plan.widths],
        **_found(trained),
    }
    save_trained(folder, slim, data, dense, trained.to_json())
    write_text(folder / RECORD, json.dumps(record, allow_nan=False) + "\n")
    (folder / STATE).unlink(missing_ok=True)
    return record


def _found(trained: Trained) -> dict[str, Any]:
    """Scores, curve and time."""
    epochs, metric = trained.training.epochs, trained.metric
    return {
        "metric": metric.to_json(),
        f"validation_{metric.name}": trained.validation.score,
        f"test_{metric.name}": trained.test.score,
        "validation": trained.validation.to_json(),
        "test": trained.test.to_json(),
        "warnings": list(trained.training.warnings),
        "epochs": [curve_point(epoch) for epoch in epochs],
        "seconds": sum(epoch.seconds for epoch in epochs),
    }


def read_record(folder: Path) -> dict[str, Any] | None:
    """What a finished trial left in its folder; None if there is none, or it is damaged."""
    try:
        text = (folder / RECORD).read_text(encoding="utf-8")
        return dict(rows.read_record(text, "done", str(folder / RECORD)) or {})
    except (OSError, ValueError, StudyError):
        return None


def curve_point(epoch: EpochRecord) -> list[float | None]:
    """Loss, score of the training and of the validation images."""
    values = (epoch.train_loss, epoch.train_score, epoch.validation_score)
    return [None if value is None else round(value, 5) for value in values]


def costs_of(network: Network, widths: IntArray, dtype: str) -> dict[str, int]:
    """Everything that is known of a plan before it is trained: five costs, and flash and RAM of an int8 ``.tflite``.

    RAM as on a Cortex-M with CMSIS-NN; what other boards take is in a trial's ``on_boards``.

    Args:
        network: the analysed network.
        widths: channels that each group keeps (G).
        dtype: of the five costs.
    """
    functions = costs(network, dtype)  # type: ignore[arg-type]  # it checks the name
    found = {str(name): int(function(widths)) for name, function in functions.items()}
    try:
        found["artifact_bytes"] = int(artifact_cost(network, "int8")(widths))
        found["arena_bytes"] = int(arena_cost(network, "int8", pointer_bytes=4, kernels="cmsis-nn")(widths))
    except PretrimError:  # a network that LiteRT has no model of: the others hold all the same
        pass
    return found


def _on_boards(network: Network, widths: dict[str, IntArray]) -> dict[str, Any] | None:
    """What any microcontroller has to know of the dense and the slim network; None where LiteRT has no model of it."""
    try:
        return {which: sketch(network, at) for which, at in widths.items()}
    except PretrimError:
        return None


def places(config: StudyConfig, runtime: str) -> dict[str, Any]:
    """What a predicted latency of this machine holds for."""
    key = latency_key(config, runtime)
    return {"machine": key.device, "runtime": key.runtime, "data_type": key.data_type, "threads": key.threads}


def _spent(config: StudyConfig, inputs: TrialInputs, widths: IntArray) -> dict[str, int]:
    """The same, with the latencies that this machine's tables predict."""
    spent = costs_of(inputs.dense.network, widths, config.dtype)
    return spent | {PREDICTED[runtime]: int(cost(widths)) for runtime, cost in inputs.latency.items()}


def plan_of_trial(config: StudyConfig, inputs: TrialInputs, spec: TrialSpec) -> Plan:
    """The plan that a trial trains. Raises InfeasibleBudget where its limits cannot be met.

    Args:
        config: the study's.
        inputs: network, data and costs.
        spec: what the trial asks for.
    """
    dense = inputs.dense
    of_board = board(spec.device) if spec.device else None
    is_micro = of_board is not None and of_board.kind == "microcontroller"
    network, dtype = dense.network, of_board.data_type if of_board is not None and is_micro else config.dtype
    if spec.mode == DENSE:
        made = plan_of_widths(network, network.dense, config.dtype)  # type: ignore[arg-type]  # it checks the name
    else:
        made = make_plan(network, spec.amounts, spec.options(), dtype, _costs(inputs, spec, dtype))  # type: ignore[arg-type]  # it checks the name
    return replace(made, model=None if dense.reference is None else dense.reference.to_json())


def _costs(inputs: TrialInputs, spec: TrialSpec, dtype: str) -> dict[str, Cost]:
    """What a microcontroller decides, or the latency of this machine where one is needed."""
    network = inputs.dense.network
    if spec.device and board(spec.device).kind == "microcontroller":
        runtime = None if spec.runtime == RUNTIME else spec.runtime
        return costs_on(network, board(spec.device), dtype, runtime, timed=spec.is_timed)  # type: ignore[arg-type]
    timed = inputs.latency.get(spec.runtime) if spec.is_timed else None
    return {} if timed is None else {timed.name: timed}

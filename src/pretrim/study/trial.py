"""Run one trial: plan, build, train, evaluate, save. The same settings and spec give the same result."""

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
from pretrim.planning.budget import Budget
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
"""File in a finished trial's folder with the same record as the study's table."""
PREDICTED = {"litert": "predicted_latency_ns", "onnx": "predicted_latency_onnx_ns"}
"""Cost names of predicted latencies, by runtime; available if this machine has a latency table."""


class Stopped(Exception):
    """Raised to stop a trial that a cheaper one outperforms (`stopping.py`); the trial keeps its results so far."""


def run_trial(
    config: StudyConfig,
    inputs: TrialInputs,
    spec: TrialSpec,
    folder: Path,
    *,
    on_step: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[dict[str, int], tuple[float, ...]], None] | None = None,
) -> dict[str, Any]:
    """Run one trial in its folder, resuming if it was interrupted, and return its record as plain JSON.

    The finished folder is a run like any other, ready to be exported, measured or evaluated.

    Args:
        config: the study's settings.
        inputs: the network and the data.
        spec: the plan and the seed to train.
        folder: folder of this trial alone; created if missing.
        on_step: called with the progress after each step; an exception from it ends the trial.
        on_epoch: called after each epoch with the plan's costs and the validation scores so far; may raise `Stopped`.

    Raises:
        PretrimError: the limit cannot be met, the loss is not finite, or a file cannot be written.
    """
    finished = read_record(folder)
    if finished is not None:
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporaries(folder)
    dense, data = inputs.dense, inputs.data
    module = dense.fresh(spec.seed)
    plan = plan_of_trial(config, inputs, spec)
    torch.manual_seed(spec.seed)
    slim = apply(module, plan, "inherit" if spec.mode == DENSE else "fresh", dense.network)
    plan_costs = _plan_costs(config, inputs, plan.widths)

    def after_epoch(records: tuple[EpochRecord, ...]) -> None:
        if on_epoch is not None:
            on_epoch(plan_costs, tuple(record.validation_score or 0.0 for record in records))

    training = TrainingSpec(
        recipe=replace(config.recipe, seed=spec.seed),
        execution=config.execution,
        title=f"{dense.name}, {spec.name}, seed {spec.seed}",
        made_of={"plan": [int(width) for width in plan.widths], "network": dense.forward},
        resume=True,
        task=inputs.task,
    )
    trained = train_into(folder, slim, data, training, Hooks(on_step=on_step, on_epoch=after_epoch))
    record = {
        "asked": spec.to_json(),
        "costs": plan_costs,
        "dense": costs_of(dense.network, dense.network.dense, config.dtype),
        "on_boards": _on_boards(dense.network, {"dense": dense.network.dense, "slim": plan.widths}),
        "predicted_on": {PREDICTED[runtime]: latency_conditions(config, runtime) for runtime in inputs.latency},
        "widths": [int(width) for width in plan.widths],
        **_results(trained),
    }
    save_trained(folder, slim, data, dense, trained.to_json())
    write_text(folder / RECORD, json.dumps(record, allow_nan=False) + "\n")
    (folder / STATE).unlink(missing_ok=True)
    return record


def _results(trained: Trained) -> dict[str, Any]:
    """The scores, learning curve and training time of a trial's record."""
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
    """Read the record in a finished trial's folder; None if it is missing or damaged."""
    try:
        text = (folder / RECORD).read_text(encoding="utf-8")
        return dict(rows.read_record(text, "done", str(folder / RECORD)) or {})
    except (OSError, ValueError, StudyError):
        return None


def curve_point(epoch: EpochRecord) -> list[float | None]:
    """Training loss, training score and validation score of an epoch."""
    values = (epoch.train_loss, epoch.train_score, epoch.validation_score)
    return [None if value is None else round(value, 5) for value in values]


def costs_of(network: Network, widths: IntArray, dtype: str) -> dict[str, int]:
    """All costs of a plan that are known before training: five costs, and flash and RAM of an int8 ``.tflite``.

    RAM is for a Cortex-M with CMSIS-NN; a trial's ``on_boards`` serves other boards.

    Args:
        network: the analysed network.
        widths: channels that each group keeps (G).
        dtype: data type of the five costs.
    """
    functions = costs(network, dtype)  # type: ignore[arg-type]  # costs() checks the name
    values = {str(name): int(function(widths)) for name, function in functions.items()}
    try:
        values["artifact_bytes"] = int(artifact_cost(network, "int8")(widths))
        values["arena_bytes"] = int(arena_cost(network, "int8", pointer_bytes=4, kernels="cmsis-nn")(widths))
    except PretrimError:  # no LiteRT model of this network; the other costs still hold
        pass
    return values


def _on_boards(network: Network, widths: dict[str, IntArray]) -> dict[str, Any] | None:
    """Sketches of the dense and slim networks for predictions on any board; None without a LiteRT model."""
    try:
        return {which: sketch(network, at) for which, at in widths.items()}
    except PretrimError:
        return None


def latency_conditions(config: StudyConfig, runtime: str) -> dict[str, Any]:
    """What this machine's predicted latency holds for: machine, runtime, data type, threads."""
    key = latency_key(config, runtime)
    return {"machine": key.device, "runtime": key.runtime, "data_type": key.data_type, "threads": key.threads}


def _plan_costs(config: StudyConfig, inputs: TrialInputs, widths: IntArray) -> dict[str, int]:
    """Like `costs_of`, with the latencies in ns that this machine's tables predict."""
    values = costs_of(inputs.dense.network, widths, config.dtype)
    return values | {PREDICTED[runtime]: int(cost(widths)) for runtime, cost in inputs.latency.items()}


def plan_of_trial(config: StudyConfig, inputs: TrialInputs, spec: TrialSpec) -> Plan:
    """The plan that a trial trains. Raises InfeasibleBudget if its limits cannot be met.

    Args:
        config: the study's settings.
        inputs: network, data and costs.
        spec: the trial's spec.
    """
    dense = inputs.dense
    network, dtype = dense.network, _data_type(config, spec)
    if spec.mode == DENSE:
        plan = plan_of_widths(network, network.dense, config.dtype)  # type: ignore[arg-type]  # the callee checks the name
    else:
        plan = make_plan(network, spec.amounts, spec.options(), dtype, _costs(inputs, spec, dtype))  # type: ignore[arg-type]  # the callee checks the name
    return replace(plan, model=None if dense.reference is None else dense.reference.to_json())


def dense_fits(config: StudyConfig, inputs: TrialInputs, spec: TrialSpec) -> bool:
    """Whether the dense network is known to meet all limits of a trial, so that the trial has nothing to trim.

    Args:
        config: the study's settings.
        inputs: network, data and costs.
        spec: the trial's spec.
    """
    if spec.mode == DENSE:
        return False
    dtype = _data_type(config, spec)
    budget = Budget.parse(spec.amounts, dtype)  # type: ignore[arg-type]  # the callee checks the name
    try:
        return budget.resolve_any(inputs.dense.network, _costs(inputs, spec, dtype)).dense_fits
    except PretrimError:
        return False  # a limit that cannot be evaluated: the trial itself shows the error


def _data_type(config: StudyConfig, spec: TrialSpec) -> str:
    """The data type that a trial's limits are counted in: its microcontroller's, or the study's."""
    target = board(spec.device) if spec.device else None
    return target.data_type if target is not None and target.kind == "microcontroller" else config.dtype


def _costs(inputs: TrialInputs, spec: TrialSpec, dtype: str) -> dict[str, Cost]:
    """Further cost functions of a plan: those of its microcontroller, or this machine's latency if it is needed."""
    network = inputs.dense.network
    if spec.device and board(spec.device).kind == "microcontroller":
        runtime = None if spec.runtime == RUNTIME else spec.runtime
        return costs_on(network, board(spec.device), dtype, runtime, timed=spec.is_timed)  # type: ignore[arg-type]
    timed = inputs.latency.get(spec.runtime) if spec.is_timed else None
    return {} if timed is None else {timed.name: timed}

"""Train one network in its run folder: state, log and curve while it trains, and the finished run at the end.

`compress`, a study's trials and the benchmarks all train by this.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from pretrim.models.dense import DenseModel
from pretrim.planning.plan import Plan
from pretrim.train import (
    ACCURACY,
    Assessment,
    Classification,
    EpochRecord,
    Execution,
    ExecutionChoice,
    Metric,
    Progress,
    Recipe,
    Task,
    Teacher,
    Training,
    draw_curve,
    is_main,
    train,
    write_log,
)

from .record import CURVE, LOG, STATE
from .save import save

if TYPE_CHECKING:
    from accelerate import Accelerator

    from pretrim.data import DataSet


@dataclass(frozen=True)
class TrainingSpec:
    """How a network is trained in its folder.

    Attributes:
        recipe: what the training does.
        execution: how its steps are run.
        title: of the curve.
        teacher: a trained network to learn from as well.
        made_of: plain JSON that a resumed training must agree with, beside recipe, data and plan.
        resume: go on from the state in the folder, if there is one.
        worst: test images with the largest loss that are kept as a picture and a list.
        task: what the network is for.
    """

    recipe: Recipe
    execution: Execution
    title: str
    teacher: Teacher | None = None
    made_of: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    worst: int = 0
    task: Task = field(default_factory=Classification)


@dataclass(frozen=True)
class Hooks:
    """What is told of a training; see `train.train`."""

    on_start: Callable[[ExecutionChoice], None] | None = None
    on_step: Callable[[Progress], None] | None = None
    on_epoch: Callable[[tuple[EpochRecord, ...]], None] | None = None


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes:
        training: its epochs, and how it was run.
        validation: on the images that choices may be made by.
        test: on those that nothing was chosen by.
        metric: that the scores are by.
    """

    training: Training
    validation: Assessment
    test: Assessment
    metric: Metric = ACCURACY

    def to_json(self) -> dict[str, Any]:
        """The results of a run record, plain JSON."""
        return {
            "metric": self.metric.to_json(),
            f"test_{self.metric.name}": self.test.score,
            "test_loss": self.test.plain_loss,
            f"validation_{self.metric.name}": self.validation.score,
            "test": self.test.to_json(),
            "validation": self.validation.to_json(),
            **self.training.to_json(),
        }


def train_into(
    folder: Path,
    model: nn.Module,
    data: DataSet,
    spec: TrainingSpec,
    hooks: Hooks | None = None,
    accelerator: Accelerator | None = None,
) -> Trained:
    """Train a model in place, with its state, log and curve in a folder; then evaluate it, and write where it errs.

    Args:
        folder: of the run; it must exist.
        model: a network.
        data: what to train, validate and test on.
        spec: how.
        hooks: what is told of it.
        accelerator: one that exists already; every process of it calls this.

    Raises:
        PretrimError, Interrupted: as `train.train`.
    """
    hooks = hooks or Hooks()

    def on_epoch(records: tuple[EpochRecord, ...]) -> None:
        write_log(records, folder / LOG)
        if hooks.on_epoch is not None:
            hooks.on_epoch(records)

    training = train(
        model,
        data,
        spec.recipe,
        execution=spec.execution,
        teacher=spec.teacher,
        checkpoint=folder / STATE,
        resume=spec.resume,
        made_of=dict(spec.made_of),
        on_start=hooks.on_start,
        on_step=hooks.on_step,
        on_epoch=on_epoch,
        accelerator=accelerator,
        task=spec.task,
    )
    task = spec.task
    validation = task.assess(model, data.validation, data.mean, data.std)
    trained = Trained(training, validation, task.assess(model, data.test, data.mean, data.std), task.metric)
    if is_main():
        write_log(training.epochs, folder / LOG)
        draw_curve(training.epochs, spec.title, folder / CURVE, training.chance, task.metric, training.chance_words)
        task.write_details(folder, trained.test, data, spec.title, spec.worst)
    return trained


def save_trained(
    folder: Path,
    model: nn.Module,
    data: DataSet,
    dense: DenseModel,
    results: Mapping[str, Any],
) -> None:
    """The finished run, beside the state of its training; only in the main process.

    Args:
        folder: of the run.
        model: the slim network, which carries its plan.
        data: what it was trained on.
        dense: the dense network.
        results: plain JSON.
    """
    if is_main():
        save(
            model,
            folder,
            reference=dense.reference,
            classes=data.classes,
            normalisation=(data.mean, data.std),
            input_shape=data.input_shape,
            data=data.to_json(),
            results=results,
            forward=dense.forward,
            into=True,
        )


def digest(plan: Plan) -> str:
    """What a plan keeps, of which model, in short."""
    kept = [plan.fingerprint, plan.example, [int(width) for width in plan.widths]]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:12]


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe, as plain JSON."""
    return asdict(recipe)

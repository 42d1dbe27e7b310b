"""Train a network in its run folder: write state, log and curve during training, and the finished run at the end.

`compress`, the trials of a study and the benchmarks all train this way.
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
    """How to train a network in its folder.

    Attributes:
        recipe: the training hyperparameters.
        execution: how training steps are executed.
        title: title of the training curve.
        teacher: a trained network to distil from.
        made_of: plain JSON that must match when training is resumed, besides recipe, data and plan.
        resume: continue from the state in the folder, if there is one.
        worst: number of test images with the largest loss to save as a picture and a list.
        task: the task of the network.
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
    """Callbacks of a training; see `train.train`."""

    on_start: Callable[[ExecutionChoice], None] | None = None
    on_step: Callable[[Progress], None] | None = None
    on_epoch: Callable[[tuple[EpochRecord, ...]], None] | None = None


@dataclass(frozen=True)
class Trained:
    """The outcome of a training.

    Attributes:
        training: its epochs, and how it was executed.
        validation: assessment on the validation images, which choices may be based on.
        test: assessment on the test images, which no choice was based on.
        metric: the metric of the scores.
    """

    training: Training
    validation: Assessment
    test: Assessment
    metric: Metric = ACCURACY

    def to_json(self) -> dict[str, Any]:
        """Convert to the results of a run record, as plain JSON."""
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
    """Train a model in place, with state, log and curve in a folder, then evaluate it and write its error details.

    Args:
        folder: an existing run folder.
        model: the network to train.
        data: the training, validation and test data.
        spec: how to train.
        hooks: callbacks.
        accelerator: an existing accelerator, all of whose processes must call this function.

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
    """Save the finished run next to its training state, in the main process only.

    Args:
        folder: the run folder.
        model: the slim network, which carries its plan.
        data: the data it was trained on.
        dense: the dense network.
        results: results as plain JSON.
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
    """Short hash of a plan: its model, example and widths."""
    content = [plan.fingerprint, plan.example, [int(width) for width in plan.widths]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """Convert a recipe to plain JSON."""
    return asdict(recipe)

"""The long part of `pretrim compress`: build, train, evaluate and save, from the start or from where it was stopped."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrim.errors import UsageError

from .progress import progress_bar, say

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from pretrim.data import DataSet
    from pretrim.planning.plan import Plan
    from pretrim.train import Choice, EpochRecord, Execution, Recipe, Teacher, Training

    from .subject import Subject


@dataclass(frozen=True)
class Job:
    """All that `compress` was asked for.

    Attributes:
        subject: the dense network.
        plan: what stays of it.
        data: what to train and test on.
        recipe: what the training does.
        execution: how its steps are run.
        output: the run folder.
        with_dense: train the dense network too, into the folder's ``dense``.
        resume: go on with what is in the folder.
        inherit: a file of trained weights of the dense network; None trains fresh ones.
        teacher: a run to learn from.
        trackers: names of trackers.
    """

    subject: Subject
    plan: Plan
    data: DataSet
    recipe: Recipe
    execution: Execution
    output: Path
    with_dense: bool = False
    resume: bool = False
    inherit: Path | None = None
    teacher: Path | None = None
    trackers: tuple[str, ...] = ()


def run(job: Job) -> dict[str, Any]:
    """Do it. Returns the record of it all, as plain JSON. Every process runs it; the main one writes and prints."""
    import torch

    from pretrim.models.weights import load_weights
    from pretrim.planning.evidence import loses
    from pretrim.runs.folder import output_folder
    from pretrim.runs.record import DENSE, STATE, TRACKING
    from pretrim.surgery.apply import apply
    from pretrim.train import is_main, make_accelerator

    subject, dense_folder = job.subject, job.output / DENSE
    weights = load_weights(subject.module, job.inherit) if job.inherit is not None else ""
    teacher = _teacher(job)
    torch.manual_seed(job.recipe.seed)
    init = "inherit" if job.inherit is not None else "fresh"
    slim = apply(subject.module, job.plan, init, subject.network)
    if job.plan.slim == job.plan.dense:
        say("note: the plan removes nothing")
    elif (lost := loses(job.plan.options.get("mode", ""), job.plan.limits)) is not None:
        say(f"note: {lost}")
    parts = {"weights": weights}
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        if is_main():
            stack.enter_context(output_folder(job.output, resume=job.resume))
        accelerator = make_accelerator(job.execution.device, job.trackers, job.output / TRACKING)
        if job.trackers:
            accelerator.init_trackers("pretrim", config=_flat(asdict(job.recipe)))
        if job.inherit is not None:
            results["inherited"] = _inherit(job, slim)
        results |= _train_and_test("slim", slim, job, job.plan, job.output, teacher, parts, accelerator)
        if job.with_dense:
            plan = _whole(subject, job.plan)
            dense = apply(subject.module, plan, "inherit", subject.network)
            if is_main():
                stack.enter_context(output_folder(dense_folder, resume=job.resume))
            results["dense"] = _train_and_test("dense", dense, job, plan, dense_folder, None, parts, accelerator)
            _save(job, dense, dense_folder, results["dense"])
        _save(job, slim, job.output, results)
    if is_main():  # only now: what is saved needs no state to be made again
        for folder in (dense_folder, job.output):
            (folder / STATE).unlink(missing_ok=True)
    accelerator.end_training()
    dense_accuracy = results["dense"]["test_accuracy"] if job.with_dense else None
    if job.inherit is not None and dense_accuracy is None:
        dense_accuracy = results["inherited"]["dense_test_accuracy"]
    return {
        "run": str(job.output),
        "model": subject.reference.name,
        "data": job.data.to_json(),
        "dense": {**job.plan.dense, "test_accuracy": dense_accuracy},
        "slim": {**job.plan.slim, "test_accuracy": results["test_accuracy"]},
        "results": results,
    }


def _whole(subject: Subject, plan: Plan) -> Plan:
    """The plan that removes nothing, so that the dense network is a run like any other."""
    from pretrim.planning.search import plan_of_widths

    whole = plan_of_widths(subject.network, subject.network.dense, plan.dtype, limits={}, options={})
    return replace(whole, model=subject.reference.to_json())


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """What trackers take: no None."""
    return {name: str(value) if value is None else value for name, value in config.items()}


def _teacher(job: Job) -> Teacher | None:
    """The network of another run, if it can teach this one."""
    if job.teacher is None:
        return None
    from pretrim.runs.load import read
    from pretrim.train import Teacher

    from .opened import open_run

    reference = read(job.teacher).reference
    ours = job.subject.reference
    # The user named this file as MODEL, so the same file may be run for the teacher.
    named = ours.name if reference is not None and reference.name == ours.name else None
    opened = open_run(job.teacher, named)
    if opened.classes != job.data.classes or opened.input_shape != job.data.input_shape:
        raise UsageError(
            f"Expected a teacher for the same classes and images of {'x'.join(map(str, job.data.input_shape))}, but "
            f"{job.teacher} has {len(opened.classes)} classes and images of {'x'.join(map(str, opened.input_shape))}."
        )
    return Teacher(opened.network, *opened.normalisation, name=opened.record.weights_sha256)


def _inherit(job: Job, slim: nn.Module) -> dict[str, Any]:
    """How accurate the trained network is, and what is left of that once it is cut, before it is fine-tuned."""
    from pretrim.train import evaluate, recalibrate

    data = job.data
    recalibrate(slim, data)
    found = {
        "file": str(job.inherit),
        "dense_test_accuracy": evaluate(job.subject.module, data.test, data.mean, data.std).accuracy,
        "cut_test_accuracy": evaluate(slim, data.test, data.mean, data.std).accuracy,
    }
    say(
        f"inherited: test accuracy {found['dense_test_accuracy']:.2%} dense, "
        f"{found['cut_test_accuracy']:.2%} cut and recalibrated"
    )
    return found


def _train_and_test(
    name: str,
    model: nn.Module,
    job: Job,
    plan: Plan,
    folder: Path,
    teacher: Teacher | None,
    parts: dict[str, str],
    accelerator: Accelerator,
) -> dict[str, Any]:
    """Train one network, with its state, log and curve in its folder; its accuracy on the test images."""
    from pretrim.runs.record import CURVE, LOG, STATE
    from pretrim.train import draw_curve, evaluate, is_main, track, train, write_log

    data = job.data

    def on_start(choice: Choice) -> None:
        timed = "; ".join(f"{label} {speed:,.0f} images/s" for label, speed in choice.speeds.items())
        say(f"training, {name}: {choice.execution}{f' (timed: {timed})' if timed else ''}")

    def on_epoch(records: tuple[EpochRecord, ...]) -> None:
        write_log(records, folder / LOG)
        if job.trackers:
            track(accelerator, name, records[-1])

    with progress_bar(name) as on_step:
        training: Training = train(
            model,
            data,
            job.recipe,
            execution=job.execution,
            teacher=teacher,
            checkpoint=folder / STATE,
            resume=job.resume,
            made_of={**parts, "plan": _digest(plan)},
            on_start=on_start,
            on_step=on_step,
            on_epoch=on_epoch,
            accelerator=accelerator,
        )
    if is_main():
        write_log(training.epochs, folder / LOG)
        draw_curve(training.epochs, f"{job.subject.reference.name}, {name}, on {data.name}", folder / CURVE)
    found = evaluate(model, data.test, data.mean, data.std)
    return {
        "test_accuracy": found.accuracy,
        "test_loss": found.plain_loss,
        "recipe": asdict(job.recipe),
        **training.to_json(),
    }


def _digest(plan: Plan) -> str:
    """What a plan keeps, of which model, in short."""
    kept = [plan.fingerprint, plan.example, [int(width) for width in plan.widths]]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:12]


def _save(job: Job, model: nn.Module, folder: Path, results: dict[str, Any]) -> None:
    """The finished run, beside the state of its training."""
    from pretrim.runs.save import save
    from pretrim.train import is_main

    if not is_main():
        return
    data = job.data
    save(
        model,
        folder,
        reference=job.subject.reference,
        classes=data.classes,
        normalisation=(data.mean, data.std),
        input_shape=data.input_shape,
        data=data.to_json(),
        results=results,
        into=True,
    )

"""Direct training: the loop, the same on a laptop and on several machines, safe to stop at any moment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
import torch
from torch import nn

from pretrim.compat import onednn
from pretrim.data import DataSet
from pretrim.errors import CheckpointError, ModelError, PretrimError, UsageError

from . import rounding
from . import state as states
from .batch import Batch
from .classification import Classification
from .execution import Execution, ExecutionChoice, choose, kernels, layout_warnings_ignored, threads
from .feed import STEP, BatchSource, seed_of
from .layout import lay_out, takes_channels_last
from .metric import ACCURACY, Metric
from .norms import learning_norms, recalibration_images, set_statistics, statistics_kept
from .optimizer import Average, learning_rate_at, make_optimizer
from .outputs import forward
from .processes import agreed, from_main, make_accelerator, same_on_all, total, wanted_precision
from .recipe import Recipe
from .state import EpochRecord, State
from .stop import Interrupted, StopRequest, listening
from .task import Task, odd_targets
from .teacher import Teacher

if TYPE_CHECKING:
    from accelerate import Accelerator

LOOK_EVERY = 25
"""Steps on a GPU between looks at the loss: a look waits for the GPU. On a CPU every step is looked at."""


@dataclass(frozen=True)
class Progress:
    """Where a training is, after a step and, with a new validation score, after an epoch.

    Epochs and steps count from 1; `loss` is the epoch's mean up to now (on a GPU up to the last look at it).
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    validation_score: float | None
    images_per_s: float
    seconds_left: float
    ends_epoch: bool
    """Whether this is the call after the epoch's validation."""
    metric: Metric = ACCURACY
    """that the score is by"""


@dataclass(frozen=True)
class Training:
    """What a training gave.

    Attributes:
        epochs: a record of each.
        execution: how its steps were run, nothing left open.
        speeds: images a second of each way that was timed at the start; empty if none was.
        processes: that it ran in.
        recalibration_images: training images by which the running statistics of norms were set anew before every
            validation and at the end; 0 for a network without such norms.
        chance: validation score of an answer without looking (always the most common class); None where there is none.
        chance_words: which answer.
        warnings: what to know before believing the accuracies, a sentence each (`diagnosis.py`).
    """

    epochs: tuple[EpochRecord, ...]
    execution: Execution
    speeds: Mapping[str, float]
    processes: int = 1
    recalibration_images: int = 0
    chance: float | None = None
    chance_words: str = ""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "seconds": sum(epoch.seconds for epoch in self.epochs),
            "execution": self.execution.to_json(),
            "timed_images_per_s": dict(self.speeds),
            "processes": self.processes,
            "recalibration_images": self.recalibration_images,
            "chance": self.chance,
            "warnings": list(self.warnings),
            "epochs": [epoch.to_json() for epoch in self.epochs],
        }


class Told(TypedDict, total=False):
    """What is called as a training goes on, in the main process."""

    on_start: Callable[[ExecutionChoice], None] | None
    """with how the steps are run"""
    on_step: Callable[[Progress], None] | None
    """with the progress, after every step and every epoch"""
    on_epoch: Callable[[tuple[EpochRecord, ...]], None] | None
    """with the records of all epochs, after each one"""


def train(
    model: nn.Module,
    data: DataSet,
    recipe: Recipe | None = None,
    *,
    execution: Execution | None = None,
    teacher: Teacher | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    made_of: Mapping[str, Any] | None = None,
    accelerator: Accelerator | None = None,
    task: Task | None = None,
    **told: Unpack[Told],
) -> Training:
    """Train a model **in place** on the training split; scores on the validation split are recorded, not used.

    Before each validation, and at the end, the running statistics of norms are set anew from training images; the
    training itself goes on with those that it had.

    Under ``torchrun`` or ``accelerate launch`` every process calls it, with the same arguments. The model is left in
    eval mode on the device that was used. The random state of the caller is not touched.

    Args:
        model: any network; its outputs may be a tensor, a tuple or a dict (main output first, or called ``"out"``).
        data: what to train on.
        recipe: what is done; by default the plain one.
        execution: how it is run; what it leaves open is chosen, by timing a few steps where that pays.
        teacher: a trained network to learn from as well.
        checkpoint: a file that the state is written to after every epoch and on Ctrl-C and SIGTERM, which then raise
            :class:`Interrupted`. Its folder must exist.
        resume: go on from that file, if it is there: bit for bit what the training would have been on this machine.
        made_of: plain JSON that a resumed training must agree with, beside recipe and data (say, the plan).
        accelerator: an Accelerator of yours; by default one is made.
        task: what the network is for; by default classification.
        told: what is called as it goes on (`Told`).

    Raises:
        PretrimError: the loss is no longer a finite number. The checkpoint is then the last good one.
        Interrupted: a signal stopped it, after the state was saved.
        DataError: fewer than 2 training images.
        ModelError: a forward that fails, or outputs that the task cannot judge or that nothing can be learnt from.
        UsageError: a state to resume of another training, or a device that is not there.
        CheckpointError: the state cannot be written or read.
    """
    recipe, wish = recipe or Recipe(), execution or Execution()
    accelerator = accelerator or make_accelerator(wish.device)
    device = _device(wish, accelerator)
    made_of = {"recipe": asdict(recipe), "data": data.identity, **(made_of or {})}
    if teacher is not None:
        made_of["teacher"] = teacher.name
    before = states.read(checkpoint) if resume and checkpoint is not None and checkpoint.exists() else None
    if before is not None:
        _check_same(before, made_of, wish)
    devices = [device] if device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(layout_warnings_ignored())
        stack.enter_context(onednn.avoided(model, active=device.type == "cpu"))
        run = _Training(model, data, recipe, device, accelerator, teacher, task or Classification(), told)
        choice = ExecutionChoice(_moved(before.execution, device), before.speeds) if before else run.choose(wish)
        stack.enter_context(threads(choice.execution.threads))
        stack.enter_context(kernels(choice.execution))
        stop = stack.enter_context(listening()) if checkpoint is not None else StopRequest()
        run.prepare(choice, before)
        if accelerator.is_main_process and (on_start := told.get("on_start")) is not None:
            on_start(choice)
        return run.run(stop, checkpoint, made_of)


def _moved(execution: Execution, device: torch.device) -> Execution:
    """How a training that was stopped was run, on the device that it goes on with."""
    is_same = execution.device.partition(":")[0] in ("auto", device.type)
    return execution if is_same else replace(execution, device=str(device))


def _device(wish: Execution, accelerator: Accelerator) -> torch.device:
    """Where this process trains. Raises UsageError for a device that is not there."""
    if wish.device in ("auto", "cuda", "cpu") or accelerator.num_processes > 1:
        return torch.device(accelerator.device)
    return torch.device(wish.device)


def _check_same(before: State, made_of: Mapping[str, Any], wish: Execution) -> None:
    """Raises UsageError unless a state is of a training with the same parts."""
    for part in {**made_of, **before.made_of}:  # in the order of the caller, who has the plain words first
        was, now = before.made_of.get(part), made_of.get(part)
        if was == now:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            inner = next(key for key in {**was, **now} if was.get(key) != now.get(key))
            part, was, now = f"{part}'s {inner}", was.get(inner), now.get(inner)
        said = f" ({_short(was)}, not {_short(now)})"
        raise UsageError(
            f"The training that was stopped had another {part}{said}: give what was given then, "
            f"or start again with --overwrite."
        )
    if not before.execution.keeps(wish):
        raise UsageError(
            f"Expected to go on as the training was started ({before.execution}), but something else was asked for: "
            f"leave it out."
        )


def _short(value: Any, most: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


class _Training:
    """One run in one process: the network, the optimiser, and where it is."""

    def __init__(
        self,
        model: nn.Module,
        data: DataSet,
        recipe: Recipe,
        device: torch.device,
        accelerator: Accelerator,
        teacher: Teacher | None,
        task: Task,
        told: Told,
    ) -> None:
        self.model, self.data, self.recipe, self.device = model.to(device), data, recipe, device
        self.accelerator, self.teacher, self.task = accelerator, teacher, task
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        main = accelerator.is_main_process
        self.on_step, self.on_epoch = (told.get("on_step"), told.get("on_epoch")) if main else (None, None)
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        self.feed = BatchSource(data, recipe, device, rank=self.rank, world=self.world, dtype=dtype, task=task)
        self.steps, self.batch_size = self.feed.steps, self.feed.batch_size
        self.look_every = LOOK_EVERY if device.type == "cuda" else 1
        self.loss_of = task.objective(recipe, data, device, None if teacher is None else self._ready(teacher))
        self.has_train_score = True
        self.records: tuple[EpochRecord, ...] = ()
        self.step, self.seconds = 0, 0.0
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.right = torch.zeros((), dtype=torch.int64, device=device)
        self.looked = math.nan
        self.scaler = torch.amp.GradScaler(device.type, enabled=False)
        self.norms = learning_norms(model) if recipe.recalibration else []

    def _ready(self, teacher: Teacher) -> Teacher:
        teacher.model.to(self.device).eval()
        return teacher

    # ------------------------------------------------------------------------------------ getting ready

    def choose(self, wish: Execution) -> ExecutionChoice:
        """How to run the steps: found in the main process, the same in all."""
        if wish.precision is None:
            wish = replace(wish, precision=wanted_precision(self.accelerator))
        total_steps = self.recipe.epochs * self.steps
        found = None
        if self.accelerator.is_main_process:
            batch = self.recipe.batch_size // self.world
            if wish.channels_last is None and not self._takes_channels_last():
                wish = replace(wish, channels_last=False)
            found = choose(wish, self.model, self.device, self._trial, steps=total_steps, batch=batch)
            self._forget()
        choice: ExecutionChoice = from_main(self.accelerator, found)
        if self.world > 1:
            choice = replace(choice, execution=replace(choice.execution, device=str(self.device)))
        return choice

    def _takes_channels_last(self) -> bool:
        models = [self.model, *([] if self.teacher is None else [self.teacher.model])]
        return all(takes_channels_last(model, self.data.input_shape) for model in models)

    def _trial(self, option: Execution) -> None:
        """The work of a step without its update: what differs between options is in the passes."""
        self._lay_out(option)
        torch.manual_seed(self.recipe.seed)
        self.model.train()
        for batch in next(iter(self.feed.epoch(1))):
            self._passes(self.model, batch, option)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _lay_out(self, option: Execution) -> None:
        self.feed.channels_last = bool(option.channels_last)
        lay_out(self.model, channels_last=bool(option.channels_last))
        if self.teacher is not None:
            lay_out(self.teacher.model, channels_last=bool(option.channels_last))

    def prepare(self, choice: ExecutionChoice, before: State | None) -> None:
        """Everything that depends on how the steps are run; the values of a state to go on from."""
        self.choice = choice
        self._lay_out(choice.execution)
        scaled = choice.execution.precision == "float16"
        self.optimizer = make_optimizer(self.model, self.recipe, scaled=scaled)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.average = Average(self.model, self.recipe.ema) if self.recipe.ema else None
        if before is not None:
            self._set(before)
        self.runner = self.accelerator.prepare_model(self.model) if self.world > 1 else self.model
        self.plain = self.runner
        if choice.execution.compile:
            self.runner = torch.compile(self.runner)

    # ------------------------------------------------------------------------------------ the loop

    def run(self, stop: StopRequest, checkpoint: Path | None, made_of: Mapping[str, Any]) -> Training:
        self.started, self.done_before = time.perf_counter(), len(self.records) * self.steps + self.step
        while len(self.records) < self.recipe.epochs:
            if self._epoch(stop):
                self._save(checkpoint, made_of)
            if len(self.records) < self.recipe.epochs and agreed(self.accelerator, stop, looks=True):
                self._interrupted(stop, checkpoint, made_of)
        if self.average is not None:
            self.average.keep()
        used = self._recalibrate(rounds=self.recipe.qat > 0)
        self.model.eval()
        baseline = self.task.baseline(self.data) if len(self.data.validation) else None
        return Training(
            epochs=self.records,
            execution=self.choice.execution,
            speeds=self.choice.speeds,
            processes=self.world,
            recalibration_images=used,
            chance=None if baseline is None else baseline.score,
            chance_words="" if baseline is None else baseline.words,
            warnings=self.task.warnings(self.records, self.data, self.recipe),
        )

    def _epoch(self, stop: StopRequest) -> bool:
        """The rest of an epoch; whether it came to its end."""
        self.model.train()
        epoch, first, started = len(self.records) + 1, self.step, time.perf_counter()
        before = self.seconds
        for batches in self.feed.epoch(epoch, first):
            self.step += 1
            self._step(batches, epoch)
            last = self.step == self.steps
            looks = last or self.step % self.look_every == 0
            if looks:
                self._look(epoch)
            self.seconds = before + time.perf_counter() - started
            self._tell(ends=False)
            # Processes must stop at the same step, so they agree on it when they look.
            if not last and agreed(self.accelerator, stop, looks=looks):
                return False
        self._finish(epoch)
        return True

    def _step(self, batches: list[Batch], epoch: int) -> None:
        self._seed(seed_of(self.recipe.seed, STEP, epoch, self.step, self.rank))
        rate = learning_rate_at((epoch - 1) * self.steps + self.step, self.steps, self.recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(batches, start=1):
            waits = self.world > 1 and number < len(batches)
            with self.accelerator.no_sync(self.runner) if waits else nullcontext():
                model = self.plain if self._rounds() else self.runner  # nothing can be replaced in a compiled one
                self._passes(model, batch, self.choice.execution, share=1.0 / len(batches))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update()

    def _seed(self, seed: int) -> None:
        """The numbers that the model's dropout draws. torch.manual_seed would keep a stack trace of every call."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(seed)

    def _passes(self, model: nn.Module, batch: Batch, execution: Execution, share: float = 1.0) -> None:
        """Forward and backward; nothing waits for a GPU."""
        with torch.autocast(self.device.type, execution.dtype, enabled=execution.precision != "float32"):
            outputs = forward(model, batch.images, rounding.forward if self._rounds() else None)
            loss, score = self.loss_of(outputs, batch)
        if not loss.requires_grad:
            raise ModelError(
                "Expected a model with parameters to train, but its outputs need no gradient: "
                "leave requires_grad on, and torch.no_grad out of its forward."
            )
        self.scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
        self.loss += loss.detach() * share
        if score is None:
            self.has_train_score = False
        else:
            self.right += score

    def _rounds(self) -> bool:
        """Whether this is one of the last epochs, that are quantisation-aware."""
        return len(self.records) >= self.recipe.epochs - self.recipe.qat

    def _look(self, epoch: int) -> None:
        """Read the loss. Raises PretrimError if it is not finite."""
        value = self.loss.item()
        if not math.isfinite(value):
            raise self._diverged(f"a finite loss, but got {value}", epoch)
        self.looked = value / self.step

    def _check_weights(self, epoch: int) -> None:
        """Raises PretrimError if the last update, which no loss has shown yet, broke them: they are not to be kept."""
        finite = [parameter.isfinite().all() for parameter in self.model.parameters()]
        if not torch.stack(finite).all():  # one look, which waits for a GPU once
            raise self._diverged("finite weights, but some are not", epoch)

    def _diverged(self, what: str, epoch: int) -> PretrimError:
        mend = f"lower the learning rate (--lr, it was {self.recipe.learning_rate:g})"
        if odd := odd_targets(self.task, self.data.train):
            mend = f"{odd:,} training targets hold NaN or infinity, mend or leave them out of the loss; else {mend}"
        return PretrimError(f"Expected {what} in epoch {epoch}, step {self.step}: {mend}.")

    def _finish(self, epoch: int) -> None:
        """The record of an epoch that is done."""
        self._check_weights(epoch)
        loss, right = total(self.accelerator, self.loss / self.world, self.right)
        speed = self.steps * self.batch_size / self.seconds
        rate = self.optimizer.param_groups[0]["lr"]
        score = right / (self.steps * self.batch_size) if self.has_train_score else None
        validation, validation_loss = self._validate()
        record = EpochRecord(
            epoch=epoch,
            train_loss=loss / self.steps,
            train_score=score,
            validation_score=validation,
            learning_rate=rate,
            images_per_s=speed,
            seconds=self.seconds,
            validation_loss=validation_loss,
            metric=self.task.metric.name,
        )
        self.records = (*self.records, record)
        self._tell(ends=True)
        self._forget()

    def _forget(self) -> None:
        """Back to the start of an epoch."""
        self.step, self.seconds = 0, 0.0
        self.loss.zero_()
        self.right.zero_()

    def _validate(self) -> tuple[float | None, float | None]:
        """Score and loss on the validation split, with averaged weights, if any.

        Each process takes a part of it where the score of the whole is the mean over its images.
        """
        split = self.data.validation
        if not len(split):
            return None, None
        same_on_all(self.accelerator, self.model, self.average)
        divided = self.task.divides and self.world > 1
        part = split.take(np.arange(self.rank, len(split), self.world)) if divided else split
        score, loss = 0.0, 0.0
        with statistics_kept(self.norms), self.average.in_place() if self.average is not None else nullcontext():
            self._recalibrate(rounds=self._rounds())
            if len(part):
                found = self.task.assess(self.model, part, self.data.mean, self.data.std, is_final=False)
                score, loss = found.score, found.loss * len(part)
        if divided:
            sums = torch.tensor([round(score * len(part)), loss], dtype=torch.float64, device=self.device)
            summed, loss = total(self.accelerator, sums[0], sums[1])
            score = summed / len(split)
        return score, loss / len(split) if math.isfinite(loss) else None

    def _recalibrate(self, *, rounds: bool) -> int:
        """Set the running statistics to those of the weights as they are; the images that it took."""
        images = recalibration_images(len(self.data.train), self.recipe.recalibration)
        return set_statistics(
            self.model, self.feed.calibration(images), self.norms, rounding.forward if rounds else None
        )

    def _tell(self, *, ends: bool) -> None:
        if self.on_step is None:
            return
        epoch = len(self.records) + (0 if ends else 1)
        done = (epoch - 1) * self.steps + self.step
        each = (time.perf_counter() - self.started) / max(done - self.done_before, 1)
        left = each * (self.recipe.epochs * self.steps - done)
        validation = self.records[-1].validation_score if self.records else None
        speed = self.step * self.batch_size / self.seconds
        place = (epoch, self.recipe.epochs, self.step, self.steps)
        self.on_step(Progress(*place, self.looked, validation, speed, left, ends, self.task.metric))

    # ------------------------------------------------------------------------------------ its state

    def _save(self, checkpoint: Path | None, made_of: Mapping[str, Any]) -> None:
        """Write the state in the main process, then tell of it; the others wait."""
        if checkpoint is not None and self.accelerator.is_main_process:
            states.write(self._state(made_of), checkpoint)
        if self.on_epoch is not None and not self.step:
            self.on_epoch(self.records)
        if self.world > 1:
            self.accelerator.wait_for_everyone()

    def _interrupted(self, stop: StopRequest, checkpoint: Path | None, made_of: Mapping[str, Any]) -> None:
        if self.step:
            self._look(len(self.records) + 1)
            self._check_weights(len(self.records) + 1)
            self._save(checkpoint, made_of)
        raise Interrupted(
            f"Interrupted after epoch {len(self.records)}, step {self.step}; the state is saved: "
            f"--resume goes on from there.",
            stop.number,
        )

    def _state(self, made_of: Mapping[str, Any]) -> State:
        tensors = {states.MODEL + name: tensor for name, tensor in self._named().items()}
        for name, parameter in self.model.named_parameters():
            momentum = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                tensors[states.MOMENTUM + name] = momentum
        if self.average is not None:
            tensors |= {states.AVERAGE + name: tensor for name, tensor in self.average.values.items()}
        return State(
            made_of=made_of,
            execution=self.choice.execution,
            speeds=self.choice.speeds,
            epochs=self.records,
            step=self.step,
            loss=self.loss.item(),
            right=int(self.right.item()),
            seconds=self.seconds,
            updates=0 if self.average is None else self.average.updates,
            scaling=self.scaler.state_dict(),
            tensors=tensors,
        )

    def _named(self) -> dict[str, torch.Tensor]:
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    @torch.no_grad()
    def _set(self, before: State) -> None:
        """Take over the values of a state. Raises CheckpointError where it is of another network or place."""
        done = len(before.epochs)
        counted = [record.epoch for record in before.epochs] == list(range(1, done + 1))
        if not counted or done > self.recipe.epochs or before.step >= self.steps:
            raise CheckpointError(
                f"Expected a state within {self.recipe.epochs} epochs of {self.steps} steps, but it is after epoch "
                f"{done}, step {before.step}: start again with --overwrite."
            )
        states.copy_into(self._named(), before, states.MODEL)
        momenta = {}
        for name, parameter in self.model.named_parameters():
            if states.MOMENTUM + name in before.tensors:
                momenta[name] = self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter)
        states.copy_into(momenta, before, states.MOMENTUM)
        if self.average is not None:
            states.copy_into(self.average.values, before, states.AVERAGE)
            self.average.updates = before.updates
        if before.scaling:
            self.scaler.load_state_dict(dict(before.scaling))
        self.records, self.step, self.seconds = before.epochs, before.step, before.seconds
        self.loss.fill_(before.loss)
        self.right.fill_(before.right)

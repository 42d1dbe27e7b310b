"""The training loop: the same on a laptop and on several machines, and safe to stop at any moment."""

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

LOSS_CHECK_INTERVAL = 25
"""Steps on a GPU between checks of the loss, as reading it waits for the GPU. On a CPU it is checked every step."""


@dataclass(frozen=True)
class Progress:
    """Progress of a training, reported after every step and, with a new validation score, after every epoch.

    Epochs and steps count from 1; `loss` is the mean of the epoch so far (on a GPU, up to when it was last read).
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
    """Whether this is the report after the epoch's validation."""
    metric: Metric = ACCURACY
    """The metric of the score."""


@dataclass(frozen=True)
class Training:
    """The outcome of a training.

    Attributes:
        epochs: one record per epoch.
        execution: how the steps were run, with every option decided.
        speeds: images per second of each candidate that was timed at the start; empty if none was timed.
        processes: number of processes that it ran in.
        recalibration_images: number of training images used to recompute the running statistics of norms before every
            validation and at the end; 0 for a network without such norms.
        chance: validation score of an answer that ignores the image (such as predicting the most common class); None
            where there is none.
        chance_words: a description of that answer.
        warnings: caveats to read before trusting the accuracies, one sentence each (`diagnosis.py`).
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


class Callbacks(TypedDict, total=False):
    """Callbacks of a training, called in the main process."""

    on_start: Callable[[ExecutionChoice], None] | None
    """Called once before the first step, with how the steps are run."""
    on_step: Callable[[Progress], None] | None
    """Called with the progress after every step and every epoch."""
    on_epoch: Callable[[tuple[EpochRecord, ...]], None] | None
    """Called after each epoch with the records of all epochs so far."""


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
    **callbacks: Unpack[Callbacks],
) -> Training:
    """Train a model **in place** on the training split; scores on the validation split are recorded but not used.

    Before each validation, and at the end, the running statistics of norms are recomputed from training images; the
    training itself continues with its own running statistics.

    Under ``torchrun`` or ``accelerate launch`` every process calls this function with the same arguments. The model is
    left in eval mode on the device that was used. The caller's random state is not changed.

    Args:
        model: any network; its outputs may be a tensor, a tuple or a dict (main output first, or under ``"out"``).
        data: the data set to train on.
        recipe: the training recipe; defaults to the plain one.
        execution: how steps are run; open options are chosen when training starts, by timing a few steps where that
            pays.
        teacher: a trained network to distil from.
        checkpoint: the file that the state is written to after every epoch and on Ctrl-C and SIGTERM, which then raise
            :class:`Interrupted`. Its folder must exist.
        resume: continue from that file if it exists; on the same machine the result is bit for bit that of an
            uninterrupted training.
        made_of: plain JSON that a resumed training must match, in addition to recipe and data (for example the plan).
        accelerator: an existing Accelerator to use; by default one is created.
        task: the task of the network; defaults to classification.
        callbacks: callbacks (`Callbacks`).

    Raises:
        PretrimError: the loss or the weights are no longer finite. The checkpoint is then the last good one.
        Interrupted: a signal stopped the training, after its state was saved.
        DataError: fewer than 2 training images.
        ModelError: the forward pass fails, or its outputs cannot be judged by the task or do not depend on trainable
            parameters.
        UsageError: the state to resume belongs to another training, or the device does not exist.
        CheckpointError: the state cannot be written or read.
    """
    recipe, requested = recipe or Recipe(), execution or Execution()
    accelerator = accelerator or make_accelerator(requested.device)
    device = _device(requested, accelerator)
    made_of = {"recipe": asdict(recipe), "data": data.identity, **(made_of or {})}
    if teacher is not None:
        made_of["teacher"] = teacher.name
    saved = states.read(checkpoint) if resume and checkpoint is not None and checkpoint.exists() else None
    if saved is not None:
        _check_same(saved, made_of, requested)
    cuda_devices = [device] if device.type == "cuda" else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=cuda_devices))
        stack.enter_context(layout_warnings_ignored())
        stack.enter_context(onednn.avoided(model, active=device.type == "cpu"))
        training = _Training(model, data, recipe, device, accelerator, teacher, task or Classification(), callbacks)
        choice = (
            ExecutionChoice(_execution_on(saved.execution, device), saved.speeds)
            if saved
            else training.choose(requested)
        )
        stack.enter_context(threads(choice.execution.threads))
        stack.enter_context(kernels(choice.execution))
        stop = stack.enter_context(listening()) if checkpoint is not None else StopRequest()
        training.prepare(choice, saved)
        if accelerator.is_main_process and (on_start := callbacks.get("on_start")) is not None:
            on_start(choice)
        return training.run(stop, checkpoint, made_of)


def _execution_on(execution: Execution, device: torch.device) -> Execution:
    """The execution of an interrupted training, on the device that it resumes on."""
    is_same = execution.device.partition(":")[0] in ("auto", device.type)
    return execution if is_same else replace(execution, device=str(device))


def _device(requested: Execution, accelerator: Accelerator) -> torch.device:
    """The device that this process trains on. Raises UsageError for a device that does not exist."""
    if requested.device in ("auto", "cuda", "cpu") or accelerator.num_processes > 1:
        return torch.device(accelerator.device)
    return torch.device(requested.device)


def _check_same(saved: State, made_of: Mapping[str, Any], requested: Execution) -> None:
    """Raise UsageError unless the saved state belongs to a training of the same parts."""
    for part in {**made_of, **saved.made_of}:  # in the order of the caller, who puts the plainest words first
        was, now = saved.made_of.get(part), made_of.get(part)
        if was == now:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            field = next(key for key in {**was, **now} if was.get(key) != now.get(key))
            part, was, now = f"{part}'s {field}", was.get(field), now.get(field)
        difference = f" ({_shortened(was)}, not {_shortened(now)})"
        raise UsageError(
            f"The interrupted training had a different {part}{difference}: give what was given then, "
            f"or start again with --overwrite."
        )
    if not saved.execution.keeps(requested):
        raise UsageError(
            f"Expected to go on as the training was started ({saved.execution}), but something else was asked for: "
            f"leave it out."
        )


def _shortened(value: Any, max_length: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= max_length else text[: max_length - 3] + "..."


class _Training:
    """One training in one process: the network, the optimiser, and the position in the run."""

    def __init__(
        self,
        model: nn.Module,
        data: DataSet,
        recipe: Recipe,
        device: torch.device,
        accelerator: Accelerator,
        teacher: Teacher | None,
        task: Task,
        callbacks: Callbacks,
    ) -> None:
        self.model, self.data, self.recipe, self.device = model.to(device), data, recipe, device
        self.accelerator, self.teacher, self.task = accelerator, teacher, task
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        main = accelerator.is_main_process
        self.on_step, self.on_epoch = (callbacks.get("on_step"), callbacks.get("on_epoch")) if main else (None, None)
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        self.feed = BatchSource(data, recipe, device, rank=self.rank, world=self.world, dtype=dtype, task=task)
        self.steps, self.batch_size = self.feed.steps, self.feed.batch_size
        self.loss_check_interval = LOSS_CHECK_INTERVAL if device.type == "cuda" else 1
        self.loss_of = task.objective(recipe, data, device, None if teacher is None else self._prepare_teacher(teacher))
        self.has_train_score = True
        self.records: tuple[EpochRecord, ...] = ()
        self.step, self.seconds = 0, 0.0
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.right = torch.zeros((), dtype=torch.int64, device=device)
        self.mean_loss = math.nan
        self.scaler = torch.amp.GradScaler(device.type, enabled=False)
        self.norms = learning_norms(model) if recipe.recalibration else []

    def _prepare_teacher(self, teacher: Teacher) -> Teacher:
        teacher.model.to(self.device).eval()
        return teacher

    # ------------------------------------------------------------------------------------ setup

    def choose(self, requested: Execution) -> ExecutionChoice:
        """Choose how to run the steps: in the main process, for all processes."""
        if requested.precision is None:
            requested = replace(requested, precision=wanted_precision(self.accelerator))
        total_steps = self.recipe.epochs * self.steps
        local_choice = None
        if self.accelerator.is_main_process:
            images_per_step = self.recipe.batch_size // self.world
            if requested.channels_last is None and not self._takes_channels_last():
                requested = replace(requested, channels_last=False)
            local_choice = choose(
                requested, self.model, self.device, self._run_trial_step, steps=total_steps, batch=images_per_step
            )
            self._reset_epoch()
        choice: ExecutionChoice = from_main(self.accelerator, local_choice)
        if self.world > 1:
            choice = replace(choice, execution=replace(choice.execution, device=str(self.device)))
        return choice

    def _takes_channels_last(self) -> bool:
        models = [self.model, *([] if self.teacher is None else [self.teacher.model])]
        return all(takes_channels_last(model, self.data.input_shape) for model in models)

    def _run_trial_step(self, option: Execution) -> None:
        """Run the passes of one step without its update: options differ in the passes only."""
        self._set_memory_layout(option)
        torch.manual_seed(self.recipe.seed)
        self.model.train()
        for batch in next(iter(self.feed.epoch(1))):
            self._forward_backward(self.model, batch, option)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _set_memory_layout(self, option: Execution) -> None:
        self.feed.channels_last = bool(option.channels_last)
        lay_out(self.model, channels_last=bool(option.channels_last))
        if self.teacher is not None:
            lay_out(self.teacher.model, channels_last=bool(option.channels_last))

    def prepare(self, choice: ExecutionChoice, saved: State | None) -> None:
        """Set up everything that depends on how the steps are run, and load the state to resume from, if any."""
        self.choice = choice
        self._set_memory_layout(choice.execution)
        scaled = choice.execution.precision == "float16"
        self.optimizer = make_optimizer(self.model, self.recipe, scaled=scaled)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scaled)
        self.average = Average(self.model, self.recipe.ema) if self.recipe.ema else None
        if saved is not None:
            self._load_state(saved)
        self.runner = self.accelerator.prepare_model(self.model) if self.world > 1 else self.model
        self.uncompiled_runner = self.runner
        if choice.execution.compile:
            self.runner = torch.compile(self.runner)

    # ------------------------------------------------------------------------------------ the loop

    def run(self, stop: StopRequest, checkpoint: Path | None, made_of: Mapping[str, Any]) -> Training:
        self.started, self.steps_before = time.perf_counter(), len(self.records) * self.steps + self.step
        while len(self.records) < self.recipe.epochs:
            if self._run_epoch(stop):
                self._save(checkpoint, made_of)
            if len(self.records) < self.recipe.epochs and agreed(self.accelerator, stop, looks=True):
                self._save_and_interrupt(stop, checkpoint, made_of)
        if self.average is not None:
            self.average.keep()
        used = self._recalibrate(quantised=self.recipe.qat > 0)
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

    def _run_epoch(self, stop: StopRequest) -> bool:
        """Run the rest of an epoch; return whether it was completed."""
        self.model.train()
        epoch, first_step, started = len(self.records) + 1, self.step, time.perf_counter()
        seconds_before = self.seconds
        for batches in self.feed.epoch(epoch, first_step):
            self.step += 1
            self._run_step(batches, epoch)
            is_last = self.step == self.steps
            checks_loss = is_last or self.step % self.loss_check_interval == 0
            if checks_loss:
                self._check_loss(epoch)
            self.seconds = seconds_before + time.perf_counter() - started
            self._report_progress(ends_epoch=False)
            # Processes must stop at the same step, so they agree on it when they check the loss.
            if not is_last and agreed(self.accelerator, stop, looks=checks_loss):
                return False
        self._finish_epoch(epoch)
        return True

    def _run_step(self, batches: list[Batch], epoch: int) -> None:
        self._seed_dropout(seed_of(self.recipe.seed, STEP, epoch, self.step, self.rank))
        rate = learning_rate_at((epoch - 1) * self.steps + self.step, self.steps, self.recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(batches, start=1):
            defers_sync = self.world > 1 and number < len(batches)
            with self.accelerator.no_sync(self.runner) if defers_sync else nullcontext():
                # functional_call cannot replace the weights of a compiled model.
                model = self.uncompiled_runner if self._is_qat_epoch() else self.runner
                self._forward_backward(model, batch, self.choice.execution, share=1.0 / len(batches))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update()

    def _seed_dropout(self, seed: int) -> None:
        """Seed the model's dropout. torch.manual_seed would keep a stack trace of every call."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(seed)

    def _forward_backward(self, model: nn.Module, batch: Batch, execution: Execution, share: float = 1.0) -> None:
        """Run forward and backward without waiting for a GPU."""
        with torch.autocast(self.device.type, execution.dtype, enabled=execution.precision != "float32"):
            outputs = forward(model, batch.images, rounding.forward if self._is_qat_epoch() else None)
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

    def _is_qat_epoch(self) -> bool:
        """Whether this is one of the last, quantisation-aware epochs."""
        return len(self.records) >= self.recipe.epochs - self.recipe.qat

    def _check_loss(self, epoch: int) -> None:
        """Read the mean loss of the epoch so far. Raises PretrimError if it is not finite."""
        value = self.loss.item()
        if not math.isfinite(value):
            raise self._divergence_error(f"a finite loss, but got {value}", epoch)
        self.mean_loss = value / self.step

    def _check_weights(self, epoch: int) -> None:
        """Raise PretrimError if the weights are not finite after the last update, whose effect no loss has shown yet.

        Such weights must not be saved.
        """
        finite = [parameter.isfinite().all() for parameter in self.model.parameters()]
        if not torch.stack(finite).all():  # a single read, as each one waits for the GPU
            raise self._divergence_error("finite weights, but some are not", epoch)

    def _divergence_error(self, expected: str, epoch: int) -> PretrimError:
        remedy = f"lower the learning rate (--lr, it was {self.recipe.learning_rate:g})"
        if odd := odd_targets(self.task, self.data.train):
            remedy = f"{odd:,} training targets hold NaN or infinity, keep them out of the loss; else {remedy}"
        return PretrimError(f"Expected {expected} in epoch {epoch}, step {self.step}: {remedy}.")

    def _finish_epoch(self, epoch: int) -> None:
        """Validate and record a completed epoch."""
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
        self._report_progress(ends_epoch=True)
        self._reset_epoch()

    def _reset_epoch(self) -> None:
        """Reset the counters to the start of an epoch."""
        self.step, self.seconds = 0, 0.0
        self.loss.zero_()
        self.right.zero_()

    def _validate(self) -> tuple[float | None, float | None]:
        """Return score and loss on the validation split, with the averaged weights, if any.

        Where the score of the split is the mean over its images, each process evaluates a part of it.
        """
        split = self.data.validation
        if not len(split):
            return None, None
        same_on_all(self.accelerator, self.model, self.average)
        is_divided = self.task.divides and self.world > 1
        part = split.take(np.arange(self.rank, len(split), self.world)) if is_divided else split
        score, loss = 0.0, 0.0
        with statistics_kept(self.norms), self.average.in_place() if self.average is not None else nullcontext():
            self._recalibrate(quantised=self._is_qat_epoch())
            if len(part):
                assessment = self.task.assess(self.model, part, self.data.mean, self.data.std, is_final=False)
                score, loss = assessment.score, assessment.loss * len(part)
        if is_divided:
            sums = torch.tensor([round(score * len(part)), loss], dtype=torch.float64, device=self.device)
            summed, loss = total(self.accelerator, sums[0], sums[1])
            score = summed / len(split)
        return score, loss / len(split) if math.isfinite(loss) else None

    def _recalibrate(self, *, quantised: bool) -> int:
        """Recompute the running statistics for the present weights; return the number of images used."""
        images = recalibration_images(len(self.data.train), self.recipe.recalibration)
        return set_statistics(
            self.model, self.feed.calibration(images), self.norms, rounding.forward if quantised else None
        )

    def _report_progress(self, *, ends_epoch: bool) -> None:
        if self.on_step is None:
            return
        epoch = len(self.records) + (0 if ends_epoch else 1)
        steps_done = (epoch - 1) * self.steps + self.step
        seconds_per_step = (time.perf_counter() - self.started) / max(steps_done - self.steps_before, 1)
        seconds_left = seconds_per_step * (self.recipe.epochs * self.steps - steps_done)
        validation = self.records[-1].validation_score if self.records else None
        speed = self.step * self.batch_size / self.seconds
        position = (epoch, self.recipe.epochs, self.step, self.steps)
        self.on_step(Progress(*position, self.mean_loss, validation, speed, seconds_left, ends_epoch, self.task.metric))

    # ------------------------------------------------------------------------------------ state

    def _save(self, checkpoint: Path | None, made_of: Mapping[str, Any]) -> None:
        """Write the state in the main process, then call `on_epoch`; the other processes wait."""
        if checkpoint is not None and self.accelerator.is_main_process:
            states.write(self._state(made_of), checkpoint)
        if self.on_epoch is not None and not self.step:
            self.on_epoch(self.records)
        if self.world > 1:
            self.accelerator.wait_for_everyone()

    def _save_and_interrupt(self, stop: StopRequest, checkpoint: Path | None, made_of: Mapping[str, Any]) -> None:
        if self.step:
            self._check_loss(len(self.records) + 1)
            self._check_weights(len(self.records) + 1)
            self._save(checkpoint, made_of)
        raise Interrupted(
            f"Interrupted after epoch {len(self.records)}, step {self.step}; the state is saved: "
            f"--resume goes on from there.",
            stop.number,
        )

    def _state(self, made_of: Mapping[str, Any]) -> State:
        tensors = {states.MODEL + name: tensor for name, tensor in self._named_tensors().items()}
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

    def _named_tensors(self) -> dict[str, torch.Tensor]:
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    @torch.no_grad()
    def _load_state(self, saved: State) -> None:
        """Load a saved state. Raises CheckpointError if it is of another network, or not within this training."""
        completed = len(saved.epochs)
        is_consecutive = [record.epoch for record in saved.epochs] == list(range(1, completed + 1))
        if not is_consecutive or completed > self.recipe.epochs or saved.step >= self.steps:
            raise CheckpointError(
                f"Expected a state within {self.recipe.epochs} epochs of {self.steps} steps, but it is after epoch "
                f"{completed}, step {saved.step}: start again with --overwrite."
            )
        states.copy_into(self._named_tensors(), saved, states.MODEL)
        momenta = {}
        for name, parameter in self.model.named_parameters():
            if states.MOMENTUM + name in saved.tensors:
                momenta[name] = self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter)
        states.copy_into(momenta, saved, states.MOMENTUM)
        if self.average is not None:
            states.copy_into(self.average.values, saved, states.AVERAGE)
            self.average.updates = saved.updates
        if saved.scaling:
            self.scaler.load_state_dict(dict(saved.scaling))
        self.records, self.step, self.seconds = saved.epochs, saved.step, saved.seconds
        self.loss.fill_(saved.loss)
        self.right.fill_(saved.right)

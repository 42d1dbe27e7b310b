"""Direct training: a slim network from its initial weights, with one plain recipe.

SGD with Nesterov momentum 0.9, a linear warm-up and a cosine to zero, weight decay on matrices and kernels alone
(not on norms and biases), random crops and flips. One seed gives one run on one machine with one number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .data import DataSet, Split, batches, normalise, random_crop_flip
from .errors import DataError, ModelError, PretrimError, UsageError
from .trace import describe_failure

MOMENTUM = 0.9
AUXILIARY_WEIGHT = 0.3
"""Of the loss of each auxiliary head (GoogLeNet: Szegedy et al. 2015, section 5)."""
MAIN_OUTPUT = "out"
"""The key of the main output, where a model returns a dict."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step, or all of them if there are fewer. A last batch that is not full is left out.
        learning_rate: its largest value, at the end of the warm-up.
        weight_decay: of convolution and linear weights.
        warmup: epochs (or a part of one) in which the learning rate rises from 0; at most a fifth of all.
        label_smoothing: of the cross-entropy; 0 is off.
        seed: of the order of the images, the augmentation and dropout.
        crop: random crops, with this share of the image's height as padding (4 pixels of 32); 0 is off.
        flip: random horizontal flips; None leaves it to the data set.
        channels_last: train in that memory format; the model's weights stay in it.
    """

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    warmup: float = 1.0
    label_smoothing: float = 0.0
    seed: int = 0
    crop: float = 0.125
    flip: bool | None = None
    channels_last: bool = False

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"Expected {name} to be at least {least}, but got {getattr(self, name)}.")
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"Expected learning_rate to be more than 0, but got {self.learning_rate}.")
        for name in ("weight_decay", "warmup", "crop"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"Expected {name} to be 0 or more, but got {getattr(self, name)}.")
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"Expected label_smoothing to be at least 0 and below 1, but got {self.label_smoothing}.")


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave. `validation_accuracy` is None where nothing is held out."""

    epoch: int
    train_loss: float
    validation_accuracy: float | None
    learning_rate: float
    images_per_s: float
    seconds: float


@dataclass(frozen=True)
class Progress:
    """Where a training is, after a step and, with a new validation accuracy, after an epoch.

    Epochs and steps count from 1; `loss` is the epoch's mean up to now.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    validation_accuracy: float | None
    images_per_s: float
    seconds_left: float
    ends_epoch: bool
    """Whether this is the call after the epoch's validation."""


@dataclass(frozen=True)
class Evaluation:
    """How well a network does on a split.

    Attributes:
        accuracy: share of images whose largest output is their class.
        loss: mean cross-entropy.
        per_class: that accuracy by class; None for a class without images.
        images_per_class: images of each class.
        n: images.
    """

    accuracy: float
    loss: float
    per_class: tuple[float | None, ...]
    images_per_class: tuple[int, ...]
    n: int


def train(
    model: nn.Module,
    data: DataSet,
    recipe: Recipe,
    *,
    on_step: Callable[[Progress], None] | None = None,
    device: str | torch.device = "cpu",
) -> tuple[EpochRecord, ...]:
    """Train a model **in place** on the training split; accuracies on the validation split are recorded, not used.

    The model is left in eval mode on `device`. The random state of the caller is not touched.

    Raises:
        PretrimError: the loss is no longer a finite number.
        DataError: fewer than 2 training images.
    """
    if len(data.train) < 2:
        raise DataError(f"Expected 2 or more training images, but got {len(data.train)}: give more images.")
    model.to(device)
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return _Training(model, data, recipe, on_step, torch.device(device)).run()


class _Training:
    """One run: the optimiser, and what the callback is told."""

    def __init__(
        self,
        model: nn.Module,
        data: DataSet,
        recipe: Recipe,
        on_step: Callable[[Progress], None] | None,
        device: torch.device,
    ) -> None:
        self.model, self.data, self.recipe, self.device = model, data, recipe, device
        self.batch_size = min(recipe.batch_size, len(data.train))
        self.steps = len(data.train) // self.batch_size
        self.on_step = on_step
        self.optimizer = make_optimizer(model, recipe)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.records: list[EpochRecord] = []
        self.started = time.perf_counter()

    def run(self) -> tuple[EpochRecord, ...]:
        for epoch in range(1, self.recipe.epochs + 1):
            self.records.append(record := self._epoch(epoch))
            if self.on_step is not None:
                self.on_step(self._progress(epoch, self.steps, record.train_loss, record.images_per_s, ends=True))
        self.model.eval()
        return tuple(self.records)

    def _epoch(self, epoch: int) -> EpochRecord:
        self.model.train()
        started, total = time.perf_counter(), 0.0
        for step, (images, labels) in enumerate(self._batches(), start=1):
            self._set_learning_rate((epoch - 1) * self.steps + step)
            total += self._step(images, labels, epoch, step)
            if self.on_step is not None:
                speed = step * self.batch_size / (time.perf_counter() - started)
                self.on_step(self._progress(epoch, step, total / step, speed))
        seconds = time.perf_counter() - started
        speed = self.steps * self.batch_size / seconds
        rate = self.optimizer.param_groups[0]["lr"]
        return EpochRecord(epoch, total / self.steps, self._validate(), rate, speed, seconds)

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Shuffled, augmented and normalised full batches of the training split."""
        data, recipe = self.data, self.recipe
        flip = data.flip if recipe.flip is None else recipe.flip
        padding = round(recipe.crop * data.input_shape[1])
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        for images, labels in islice(batches(data.train, self.batch_size, generator=self.generator), self.steps):
            images = random_crop_flip(images, self.generator, padding=padding, flip=flip)
            images = normalise(images, data.mean, data.std).to(self.device)
            yield images.contiguous(memory_format=layout), labels.to(self.device)

    def _step(self, images: torch.Tensor, labels: torch.Tensor, epoch: int, step: int) -> float:
        main, auxiliary = split_outputs(_forward(self.model, images))
        check_logits(main, len(self.data.classes))
        loss = self._loss(main, labels) + AUXILIARY_WEIGHT * sum(self._loss(out, labels) for out in auxiliary)
        value = loss.item()
        if not math.isfinite(value):
            raise PretrimError(
                f"Expected a finite loss, but got {value} in epoch {epoch}, step {step}: lower the learning rate "
                f"(--lr, it was {self.recipe.learning_rate:g})."
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return value

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)

    def _set_learning_rate(self, step: int) -> None:
        rate = learning_rate_at(step, self.steps, self.recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _validate(self) -> float | None:
        if not len(self.data.validation):
            return None
        return evaluate(self.model, self.data.validation, self.data.mean, self.data.std).accuracy

    def _progress(self, epoch: int, step: int, loss: float, speed: float, *, ends: bool = False) -> Progress:
        done = (epoch - 1) * self.steps + step
        left = (time.perf_counter() - self.started) / done * (self.recipe.epochs * self.steps - done)
        validation = self.records[-1].validation_accuracy if self.records else None
        return Progress(epoch, self.recipe.epochs, step, self.steps, loss, validation, speed, left, ends)


def learning_rate_at(step: int, steps_per_epoch: int, recipe: Recipe) -> float:
    """The learning rate of a step (from 1): a line up to its largest value, then half a cosine towards 0."""
    total = recipe.epochs * steps_per_epoch
    warmup = round(min(recipe.warmup, recipe.epochs / 5) * steps_per_epoch)
    if step <= warmup:
        return recipe.learning_rate * step / warmup
    done = (step - 1 - warmup) / (total - warmup)
    return recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD over the parameters that need a gradient; those of fewer than two dimensions do not decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=MOMENTUM, nesterov=True)


def _forward(model: nn.Module, images: torch.Tensor) -> Any:
    try:
        return model(images)
    except Exception as error:  # the user's own code; its error is shown
        raise ModelError(
            f"Expected the model to run on images of {'x'.join(map(str, images.shape))} in "
            f"{'train' if model.training else 'eval'} mode, but its forward raised {describe_failure(error)}."
        ) from error


def split_outputs(outputs: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The main output and the auxiliary ones: a tensor, a tuple (main first), or a dict (main under ``"out"``)."""
    if isinstance(outputs, torch.Tensor):
        return outputs, []
    if isinstance(outputs, Mapping):
        key = MAIN_OUTPUT if MAIN_OUTPUT in outputs else next(iter(outputs), None)
        ordered = [outputs[key], *(v for k, v in outputs.items() if k != key)] if key is not None else []
    else:
        ordered = list(outputs) if isinstance(outputs, (tuple, list)) else []
    found = [output for output in ordered if isinstance(output, torch.Tensor)]
    if not found:
        raise ModelError(f"Expected the model to return a tensor of class scores, but got {type(outputs).__name__}.")
    return found[0], found[1:]


def check_logits(logits: torch.Tensor, classes: int) -> None:
    """Raises ModelError unless there is one score for each class."""
    if logits.dim() != 2 or logits.shape[1] != classes:
        got = "x".join(map(str, logits.shape[1:]))
        raise ModelError(f"Expected the model to return {classes} class scores an image, but got {got}.")


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, mean: Sequence[float], std: Sequence[float], batch_size: int = 256
) -> Evaluation:
    """Accuracy and loss on a split, in eval mode, on the model's device; the model's modes are restored.

    Raises:
        DataError: the split is empty.
        ModelError: the outputs are not class scores.
    """
    if not len(split):
        raise DataError("Expected images to evaluate on, but the split is empty.")
    logits = torch.cat([scores(model, images, mean, std) for images, _ in batches(split, batch_size)])
    labels = split.labels
    classes = logits.shape[1]
    needed = int(labels.max()) + 1
    if needed > classes:
        raise ModelError(f"Expected the model to return {needed} or more class scores, but got {classes}.")
    right = logits.argmax(dim=1) == labels
    images = torch.bincount(labels, minlength=classes)
    hits = torch.bincount(labels[right], minlength=classes)
    return Evaluation(
        accuracy=int(right.sum()) / len(labels),
        loss=float(functional.cross_entropy(logits, labels)),
        per_class=tuple(int(h) / int(n) if n else None for h, n in zip(hits, images, strict=True)),
        images_per_class=tuple(int(n) for n in images),
        n=len(labels),
    )


@torch.no_grad()
def scores(model: nn.Module, images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Class scores (n x classes, float32, on the CPU) of uint8 images; the model's modes are restored."""
    modes = [(module, module.training) for module in model.modules()]
    first = next(model.parameters(), torch.zeros(0))
    model.eval()
    try:
        outputs = _forward(model, normalise(images, mean, std).to(first.device, first.dtype))
    finally:
        for module, mode in modes:
            module.training = mode
    logits = split_outputs(outputs)[0].float().cpu()
    if logits.dim() != 2:
        raise ModelError(f"Expected the model to return class scores, but got the shape {tuple(logits.shape)}.")
    return logits

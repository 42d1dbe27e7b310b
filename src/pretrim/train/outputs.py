"""The outputs of a network: main scores, auxiliary heads, and the loss over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pretrim.analysis.copies import describe_failure
from pretrim.errors import ModelError

from .batch import Batch
from .recipe import Recipe
from .teacher import Teacher

AUXILIARY_WEIGHT = 0.3
"""Weight of each auxiliary head in the loss (GoogLeNet: Szegedy et al. 2015, section 5)."""
MAIN_OUTPUT = "out"
"""Key of the main output when a model returns a dict."""


def forward(model: nn.Module, images: torch.Tensor, run: Callable[..., Any] | None = None) -> Any:
    """Run a user's model, or `run` in its place. Raises ModelError with the model's own error.

    Args:
        model: the network.
        images: N x C x H x W, normalised.
        run: called with the model and the images instead of calling the model.
    """
    try:
        return model(images) if run is None else run(model, images)
    except Exception as error:  # the user's own code; its error is shown
        raise ModelError(
            f"The model does not run on images of {'x'.join(map(str, images.shape))} in "
            f"{'train' if model.training else 'eval'} mode: its forward raised {describe_failure(error)}."
        ) from error


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """On exit, restore the train or eval mode of every module."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def split_outputs(outputs: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Split outputs into main and auxiliary ones: a tensor, a tuple (main first), or a dict (main under ``"out"``)."""
    if isinstance(outputs, torch.Tensor):
        return outputs, []
    if isinstance(outputs, Mapping):
        key = MAIN_OUTPUT if MAIN_OUTPUT in outputs else next(iter(outputs), None)
        ordered = [outputs[key], *(v for k, v in outputs.items() if k != key)] if key is not None else []
    else:
        ordered = list(outputs) if isinstance(outputs, (tuple, list)) else []
    tensors = [output for output in ordered if isinstance(output, torch.Tensor)]
    if not tensors:
        raise ModelError(f"Expected the model to return a tensor of class scores, but got {type(outputs).__name__}.")
    return tensors[0], tensors[1:]


def check_logits(logits: torch.Tensor, classes: int) -> None:
    """Raise ModelError unless the logits are N x classes."""
    if logits.dim() == 2 and logits.shape[1] != classes:
        raise ModelError(
            f"Expected the model to return {classes} class scores per image, but got {logits.shape[1]}: the data have "
            f"{classes} classes. Build the network for them (num_classes={classes}), or name its task (--task)."
        )
    if logits.dim() != 2:
        got = "x".join(map(str, logits.shape[1:]))
        raise ModelError(
            f"Expected the model to return {classes} class scores per image, but got {got}: a network for another task "
            f"needs --task."
        )


def check_auxiliary(auxiliary: Sequence[torch.Tensor], classes: int) -> None:
    """Raise ModelError unless every output other than the main one has a score per class, as auxiliary heads do."""
    others = ["x".join(map(str, output.shape[1:])) for output in auxiliary if output.shape[1:] != (classes,)]
    if others:
        raise ModelError(
            f"Expected every output of the model to be {classes} class scores per image, since those beside the main "
            f"one count as auxiliary heads, but got outputs of {classes} and of {', '.join(others)}: return the main "
            f"one alone, or name a task of your own that says what each counts for, --task FILE.py:CLASS."
        )


class Loss:
    """Cross-entropy over the main output and, with less weight, the auxiliary ones; plus distillation with a teacher.

    Args:
        recipe: label smoothing, mixing, distillation.
        classes: number of classes.
        teach: returns the teacher's scores of a batch of images.
        weights: weight of each class, on the device; None weighs all alike. The distillation loss is not weighted.
    """

    def __init__(
        self,
        recipe: Recipe,
        classes: int,
        teach: Callable[[torch.Tensor], torch.Tensor] | None,
        weights: torch.Tensor | None = None,
    ) -> None:
        self.recipe, self.classes, self.teach, self.weights = recipe, classes, teach, weights

    def __call__(self, outputs: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss and the number of correctly classified images."""
        main, auxiliary = split_outputs(outputs)
        check_logits(main, self.classes)
        check_auxiliary(auxiliary, self.classes)
        main = main if main.dtype == torch.float64 else main.float()
        loss = self._label_loss(main, batch)
        if self.teach is not None:
            share = self.recipe.distillation
            loss = (1.0 - share) * loss + share * self._distillation_loss(main, self.teach(batch.images))
        for output in auxiliary:
            loss = loss + AUXILIARY_WEIGHT * self._label_loss(output.to(main.dtype), batch)
        return loss, (main.detach().argmax(dim=1) == batch.targets).sum()

    def _label_loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        loss = self._cross_entropy(logits, batch.targets)
        if batch.others is None:
            return loss
        return batch.share * loss + (1.0 - batch.share) * self._cross_entropy(logits, batch.others)

    def _cross_entropy(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        smoothing = self.recipe.label_smoothing
        if self.weights is None:
            return functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        # Torch normalises its class weights within a batch, so splitting a batch among processes would change the sum.
        losses = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return (losses * self.weights.to(losses.dtype)[labels]).mean()

    def _distillation_loss(self, logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
        """KL divergence at a temperature; its square keeps the scale of gradients (Hinton et al. 2015, section 2)."""
        check_logits(teacher_logits, self.classes)
        temperature = self.recipe.temperature
        student = functional.log_softmax(logits / temperature, dim=1)
        target = functional.log_softmax(teacher_logits.to(logits.dtype) / temperature, dim=1)
        return temperature * temperature * functional.kl_div(student, target, reduction="batchmean", log_target=True)


def class_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Class weights (float64) that balance the loss: inversely proportional to a class's images, mean 1 over images.

    >>> class_weights(torch.tensor([0, 0, 0, 1]), 3)[:2].tolist()
    [0.6666666666666666, 2.0]
    """
    counts = torch.bincount(labels, minlength=classes).double()
    return len(labels) / (int((counts > 0).sum()) * counts.clamp_min(1.0))


def renormalised(teacher: Teacher, mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[..., torch.Tensor]:
    """Return a function that gives the teacher's scores, without gradients, of images normalised by `mean` and `std`.

    Args:
        teacher: the teacher's network and normalisation.
        mean: per-channel mean of pixel values in 0..1.
        std: per-channel standard deviation of them.
    """
    is_same = (teacher.mean, teacher.std) == (mean, std)
    scale = torch.tensor([ours / theirs for ours, theirs in zip(std, teacher.std, strict=True)]).view(1, -1, 1, 1)
    shift = torch.tensor(
        [(ours - theirs) / deviation for ours, theirs, deviation in zip(mean, teacher.mean, teacher.std, strict=True)]
    ).view(1, -1, 1, 1)

    @torch.no_grad()
    def teach(images: torch.Tensor) -> torch.Tensor:
        if not is_same:
            images = images * scale.to(images) + shift.to(images)
        return split_outputs(forward(teacher.model, images))[0]

    return teach

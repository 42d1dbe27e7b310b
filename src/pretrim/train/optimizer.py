"""The optimiser, its learning rate, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .recipe import Recipe

RISE_SHARE = 0.3
"""Share of the steps in which a one-cycle schedule's rate rises (Smith and Topin 2018, and torch's OneCycleLR)."""
START_FACTOR, END_FACTOR = 25.0, 1e4
"""Factors by which its first rate is below the largest, and its last below the first (torch's OneCycleLR)."""


def make_optimizer(model: nn.Module, recipe: Recipe, *, scaled: bool = False) -> torch.optim.SGD:
    """Create SGD over the trainable parameters; those with fewer than two dimensions get no weight decay.

    It is fused into one kernel for all parameters, as a loop over them takes longer than the convolutions of a small
    batch. It is not fused if the loss is `scaled`: torch's fused SGD lets infinite gradients into the momentum in a
    step that the scaler skips (torch 2.11 to 2.13; without an earlier gradient, it uses uninitialised memory).

    Args:
        model: the network.
        recipe: the recipe, of which learning rate, momentum and weight decay are used.
        scaled: whether the loss is scaled, for float16.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    momentum, nesterov = recipe.momentum, recipe.momentum > 0
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=momentum, nesterov=nesterov, fused=not scaled)


def learning_rate_at(step: int, steps_per_epoch: int, recipe: Recipe) -> float:
    """The learning rate of a step according to the recipe's schedule.

    Args:
        step: the step, counted from 1 over the whole training.
        steps_per_epoch: optimizer steps per epoch.
        recipe: the recipe, of which schedule, warm-up, epochs and largest rate are used.
    """
    total = recipe.epochs * steps_per_epoch
    if recipe.schedule == "onecycle":
        return recipe.learning_rate * _one_cycle(step, total)
    warmup = round(min(recipe.warmup, recipe.epochs / 5) * steps_per_epoch)
    if step <= warmup:
        return recipe.learning_rate * step / warmup
    return recipe.learning_rate * _half_cosine(1.0, 0.0, (step - 1 - warmup) / (total - warmup))


def _one_cycle(step: int, total: int) -> float:
    """The share of the largest rate: up from 1/25 in 30 % of the steps, then down to 1/250,000 at the last step."""
    peak = max(RISE_SHARE * total - 1, 0.0)
    if step - 1 < peak:
        return _half_cosine(1.0 / START_FACTOR, 1.0, (step - 1) / peak)
    return _half_cosine(1.0, 1.0 / (START_FACTOR * END_FACTOR), (step - 1 - peak) / max(total - 1 - peak, 1.0))


def _half_cosine(start: float, end: float, share: float) -> float:
    """Interpolate along half a cosine from `start` (at share 0) to `end` (at share 1)."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))


class Average:
    """Exponential moving average of a model's parameters and buffers, with a smaller decay at the start.

    After `t` updates the decay is ``min(decay, (1 + t) / (10 + t))``, as in TensorFlow's ExponentialMovingAverage, so
    that the initial weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.source = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.values = {name: tensor.detach().clone() for name, tensor in self.source.items()}
        self._floating = [name for name, tensor in self.source.items() if tensor.is_floating_point()]
        self._others = [name for name, tensor in self.source.items() if not tensor.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the model's present values; integers, such as counters, are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        new = [self.source[name].detach() for name in self._floating]
        torch._foreach_lerp_([self.values[name] for name in self._floating], new, 1.0 - decay)
        for name in self._others:
            self.values[name].copy_(self.source[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averaged values; on exit its own values are restored."""
        original = {name: tensor.detach().clone() for name, tensor in self.source.items()}
        self.keep()
        try:
            yield
        finally:
            self._copy(original)

    def keep(self) -> None:
        """Replace the model's values by the averaged ones."""
        self._copy(self.values)

    @torch.no_grad()
    def _copy(self, values: dict[str, torch.Tensor]) -> None:
        for name, tensor in self.source.items():
            tensor.copy_(values[name])

"""Analyse a model: trace it, form its network, and try it narrower until every operator follows.

Some models keep integers from construction (`split(x, [8, 8])`, a stored half width). They show only when the network
really is narrower, so the analysis builds narrower copies on fake tensors and compares every operator with what the
network predicts. At the first one that differs, its line of source is tried again: with the module's integer mended,
with another reading of a reshape, with the halves tied, and at last with its channels frozen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from .errors import ModelError
from .identity import describe, fingerprint
from .labels import Channels
from .network import Analysis, IntArray, Network, Operator, build_network
from .mending import cut_shapes, mend_modules
from .trace import (
    READS_VALUES,
    Example,
    Observer,
    Site,
    Stage,
    clone_module,
    describe_failure,
    named_tensors,
    stage,
    trace,
    with_batch,
)

MOST_TRIALS = 200
STRATEGIES: dict[str, tuple[str, ...]] = {
    "view": ("mend", "carrier1", "carrier2", "freeze", "freeze all"),
    "_unsafe_view": ("mend", "carrier1", "carrier2", "freeze", "freeze all"),
    "split": ("mend", "freeze", "freeze all"),
    "split_with_sizes": ("mend", "tie", "freeze", "freeze all"),
    "slice": ("mend", "tie", "freeze", "freeze all"),
}
WITH_INTEGERS = ("mend", "freeze", "freeze all")


class Mismatch(Exception):
    """A narrower network did something else than predicted, at one operator."""

    def __init__(self, operator: Operator | None, said: str) -> None:
        super().__init__(said)
        self.operator = operator
        self.said = said


def analyze(model: nn.Module, example: Example) -> Network:
    """Find a model's channel groups, its costs as functions of their widths, and what is frozen and why.

    Args:
        model: any module whose ``forward`` runs on `example`. It is not changed: it is copied with fake parameters.
        example: a tensor (first dimension: images), a tuple of arguments, or a dict of named arguments.

    Raises:
        ModelError: ``forward`` fails; its own error is shown.
    """
    return Analyst(model, example).run()


class Analyst:
    """One analysis: the copies of the model and what was learnt about its lines of source so far."""

    def __init__(self, model: nn.Module, example: Example) -> None:
        self.model = model
        self.example = with_batch(example, 1)
        self.hints: dict[Site, str] = {}
        self.notes: list[str] = []
        self.inference = self._inference_stage()
        self.training = self._training_stage()

    def _inference_stage(self) -> Stage:
        try:
            fake = stage(self.model, self.example)
            fake.run(_Silent(), training=False)
            return fake
        except ModelError:
            raise
        except Exception as error:
            return self._real_stage(error)

    def _real_stage(self, fake_error: Exception) -> Stage:
        """`forward` does not run on fake tensors: it reads values, or it is broken."""
        real = stage(self.model, self.example, real=True)
        try:
            real.run(_Silent(), training=False)
        except Exception as error:
            raise ModelError(
                f"Expected the model to run on {describe_example(self.example)}, but its forward raised "
                f"{describe_failure(error)}. Check the input shape, and that the model runs on its own."
            ) from error
        why = "reads values" if isinstance(fake_error, READS_VALUES) else "does not run on fake tensors"
        self.notes.append(f"forward {why} ({describe_failure(fake_error)}): traced on real tensors, one branch was seen")
        return real

    def _training_stage(self) -> Stage | None:
        """The same in train mode with a batch of 2, where heads used only in training show."""
        try:
            run = stage(self.model, with_batch(self.example, 2), real=self.inference.fake is None)
            run.run(_Silent(), training=True)
            return run
        except Exception as error:
            self.notes.append(f"train mode was not traced: {describe_failure(error)}")
            return None

    def run(self) -> Network:
        for _ in range(MOST_TRIALS):
            network = self._trace()
            try:
                self._try_narrower(network)
                return network
            except Mismatch as mismatch:
                self._learn(network, mismatch)
        raise ModelError(
            f"Expected a model that can be made narrower, but {MOST_TRIALS} trials did not find a consistent one: "
            f"please report it with the model."
        )

    def _trace(self) -> Network:
        channels = Channels()
        labels = {name: tuple(channels.new(size) for size in t.shape) for name, t in named_tensors(self.model)}
        inference = trace(self.inference, channels, labels, self.hints, training=False)
        training = self.training and trace(self.training, channels, labels, self.hints, training=True)
        trained = {name for name, _ in self.model.named_parameters()}
        parameters = {
            name: (tuple(tensor.shape), labels[name], name in trained) for name, tensor in named_tensors(self.model)
        }
        return build_network(
            Analysis(
                channels=channels,
                parameters=parameters,
                inference=inference,
                training=training,
                example=describe(self.example),
                fingerprint=fingerprint(self.model),
                notes=tuple(self.notes),
            )
        )

    def _try_narrower(self, network: Network) -> None:
        if not network.groups:
            return
        for widths in trial_widths(network):
            check_stage(self.inference, network, widths, training=False)
        if self.training is not None:
            check_stage(self.training, network, widths, training=True)

    def _learn(self, network: Network, mismatch: Mismatch) -> None:
        """Choose what to try next at the line where a narrower network went wrong."""
        if mismatch.operator is None:
            raise ModelError(f"Expected a model that can be made narrower, but {mismatch.said}.")
        site, op = mismatch.operator.site, mismatch.operator.op
        order = STRATEGIES.get(op, WITH_INTEGERS)
        tried = self.hints.get(site)
        following = order[order.index(tried) + 1 :] if tried in order else order
        if not following:
            raise ModelError(
                f"Expected every operator to follow a narrower network, but {op} in "
                f"{mismatch.operator.module or 'the model'} does not even with its channels frozen: {mismatch.said}."
            )
        self.hints[site] = following[0]


class _Silent(Observer):
    """Runs a model for its errors only."""

    def observe(self, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> None:
        pass


def trial_widths(network: Network) -> Iterator[IntArray]:
    """Two networks, about two thirds and one third as wide, in which neighbouring groups shrink differently."""
    places = np.arange(len(network.groups))
    for part, spread in ((0.66, 0.07), (0.4, 0.05)):
        ratio = part - spread * (places * 7 % 5 - 2)
        yield np.maximum(1, np.floor(network.dense * ratio)).astype(np.int64)


def describe_example(example: Example) -> str:
    """Shapes of the inputs in words."""
    if isinstance(example, torch.Tensor):
        return "an input of " + "x".join(map(str, example.shape))
    named = example.items() if isinstance(example, dict) else enumerate(example)
    parts = [f"{name}: {'x'.join(map(str, v.shape)) if isinstance(v, torch.Tensor) else v!r}" for name, v in named]
    return f"inputs {', '.join(parts)}"


# ---------------------------------------------------------------------------------------- narrower copies


class Checker(Observer):
    """Compares every operator of a narrower network with what the network predicts for it."""

    def __init__(self, operators: tuple[Operator, ...], sizes: IntArray) -> None:
        super().__init__()
        self.operators = operators
        self.sizes = sizes
        self.number = 0

    @property
    def expected(self) -> Operator | None:
        return self.operators[self.number] if self.number < len(self.operators) else None

    def observe(self, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> None:
        expected = self.expected
        if expected is None or expected.op != op:
            raise Mismatch(expected, f"it ran {op} where the dense network ran {expected.op if expected else 'nothing'}")
        for out, dims in zip(outputs, expected.outputs, strict=True):
            shape = tuple(self.sizes[list(dims)])
            if tuple(out.shape) != shape:
                raise Mismatch(expected, f"{op} gave {tuple(out.shape)} instead of {tuple(map(int, shape))}")
        self.number += 1


def check_stage(run: Stage, network: Network, widths: IntArray, *, training: bool) -> None:
    """Make a staged model narrower and check it operator by operator. Raises Mismatch."""
    shapes = cut_shapes(network, widths)
    with run.fake if run.fake is not None else nullcontext():
        narrow = clone_module(run.model, lambda name, t: _narrow(t, shapes[name]))
    mend_modules(narrow, run.model, network, widths)
    check_narrow(replace(run, model=narrow), network, widths, training=training)


def _narrow(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    new = tensor[tuple(slice(size) for size in shape)].detach().clone() if shape else tensor.detach().clone()
    return nn.Parameter(new, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new


def check_narrow(run: Stage, network: Network, widths: IntArray, *, training: bool) -> None:
    """Run a narrower model and compare every operator with the network's prediction. Raises Mismatch."""
    checker = Checker(network.training_operators if training else network.operators, network.sizes(widths))
    try:
        run.run(checker, training=training)
    except Mismatch:
        raise
    except Exception as error:
        raise Mismatch(checker.expected, f"forward raised {describe_failure(error)}") from error
    if checker.expected is not None:
        raise Mismatch(checker.expected, f"it ended before {checker.expected.op}")



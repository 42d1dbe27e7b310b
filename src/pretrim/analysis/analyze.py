"""Analyse a model: trace it, form its network, and try it narrower until every operator follows.

Some models keep integers from construction (`split(x, [8, 8])`, a stored half width). They show only when the network
really is narrower, so the analysis builds narrower copies on fake tensors and compares every operator with what the
network predicts. At the first one that differs, its line of source is tried again: with the module's integer
retargeted, with another reading of a reshape, with the halves tied, with its channels frozen, and at last
with all that its module sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from pretrim.errors import ModelError

from .build import Analysis, Declared, StoredIntegerConflict, build_network
from .channels import Channels, Ids, Labels
from .constants import freeze_constants, trained_names
from .copies import Example, describe_failure, named_tensors, with_batch
from .identity import describe, fingerprint
from .narrower import Mismatch, check_narrow, narrow_stage, trial_widths
from .network import Network
from .observer import READS_VALUES, Site, Stage, stage
from .rules import POINTWISE
from .trace import StoredInteger, Trace, trace

MOST_TRIALS = 200
STRATEGIES: dict[str, tuple[str, ...]] = {
    "view": ("retarget", "carrier1", "carrier2", "share", "freeze", "freeze all"),
    "_unsafe_view": ("retarget", "carrier1", "carrier2", "share", "freeze", "freeze all"),
    "split": ("retarget", "whole", "share", "freeze", "freeze all"),
    "split_with_sizes": ("retarget", "tie", "whole", "share", "freeze", "freeze all"),
    "slice": ("retarget", "tie", "whole", "share", "freeze", "freeze all"),
}
WITH_INTEGERS = ("retarget", "share", "freeze", "freeze all")


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
    """One analysis: a copy of the model to run, and what was learnt about its lines of source so far."""

    def __init__(self, model: nn.Module, example: Example) -> None:
        self.model = model
        self.example = with_batch(example, 1)
        self.hints: dict[Site, str] = {}
        self.in_conflict: set[Site] = set()  # lines whose integer stands for other channels elsewhere
        self.closed: set[str] = set()  # modules whose channels are all frozen
        self.notes: list[str] = []
        self.stage = stage(model, self.example)
        self.trains = True

    def run(self) -> Network:
        for _ in range(MOST_TRIALS):
            try:
                network = self._network()
                self._try_narrower(network)
                return network
            except StoredIntegerConflict as conflict:
                self.in_conflict.add(conflict.stored.site)
                self._learn(conflict.stored.site, conflict.stored.module, str(conflict))
            except Mismatch as mismatch:
                if mismatch.operator is None:
                    raise ModelError(f"Expected a model that can be made narrower, but {mismatch}.") from None
                self._learn(mismatch.operator.site, mismatch.operator.module, str(mismatch))
        raise ModelError(
            f"Expected a model that can be made narrower, but {MOST_TRIALS} trials did not find a consistent one: "
            f"please report it with the model."
        )

    def _network(self) -> Network:
        channels = Channels()
        labels = {name: parameter_labels(t, channels) for name, t in named_tensors(self.model)}
        inference = self._trace_inference(channels, labels)
        if not inference.output_shapes:  # then nothing would say which channels have to stay
            raise ModelError("Expected a forward that returns tensors, but found none in what it returned.")
        training = self._trace_training(channels, labels) if self.trains else None
        tie_shared(channels, [*inference.stored_integers, *(training.stored_integers if training else ())])
        freeze_constants(self.model, channels, labels, [inference, *([training] if training else ())])
        trained = trained_names(self.model)
        buffers = {name for name, _ in self.model.named_buffers()}
        return build_network(
            Analysis(
                channels=channels,
                parameters=[
                    Declared(name, tuple(t.shape), labels[name], name in trained, name in buffers)
                    for name, t in named_tensors(self.model)
                ],
                inference=inference,
                training=training,
                example=describe(self.example),
                fingerprint=fingerprint(self.model),
                notes=(*self.notes, *dict.fromkeys(inference.uncounted)),
            )
        )

    def _trace_inference(self, channels: Channels, labels: Mapping[str, Labels]) -> Trace:
        mark = channels.mark()
        try:
            return trace(self.stage, channels, labels, self.hints, self.closed, training=False)
        except Exception as error:
            if self.stage.fake is None:
                raise self._does_not_run(error) from error
            fake_error = error
        channels.forget_since(mark)
        self.stage = stage(self.model, self.example, real=True)
        found = self._trace_inference(channels, labels)
        why = "reads values" if isinstance(fake_error, READS_VALUES) else "does not run on fake tensors"
        self.notes.append(
            f"forward {why} ({describe_failure(fake_error)}): traced on real tensors, one branch was seen"
        )
        return found

    def _does_not_run(self, error: Exception) -> ModelError:
        return ModelError(
            f"Expected the model to run on {describe_example(self.example)}, but its forward raised "
            f"{describe_failure(error)}. Check the input shape, and that the model runs on its own."
        )

    def _trace_training(self, channels: Channels, labels: Mapping[str, Labels]) -> Trace | None:
        """The same in train mode with a batch of 2, where heads used only in training show."""
        mark = channels.mark()
        try:
            return trace(self._training_stage(), channels, labels, self.hints, self.closed, training=True)
        except Exception as error:
            channels.forget_since(mark)
            self.trains = False
            self.notes.append(f"train mode was not traced: {describe_failure(error)}")
            return None

    def _training_stage(self) -> Stage:
        return self.stage.with_example(with_batch(self.example, 2))

    def _try_narrower(self, network: Network) -> None:
        """Build a narrower copy and compare; in train mode too, if that runs lines that inference does not."""
        if not network.groups:
            return
        for widths in trial_widths(network):
            narrow = narrow_stage(self.stage, network, widths)
            check_narrow(narrow, network, widths, training=False)
        seen = {operator.site for operator in network.operators}
        if any(o.site not in seen and o.op not in POINTWISE for o in network.training_operators):
            narrow = narrow.with_example(with_batch(self.example, 2))
            check_narrow(narrow, network, widths, training=True)

    def _learn(self, site: Site, module: str, said: str) -> None:
        """Choose what to try next at the line where a narrower network went wrong."""
        order = STRATEGIES.get(site.op, WITH_INTEGERS)
        tried = self.hints.get(site)
        following = order[order.index(tried) + 1 :] if tried in order else order
        if site not in self.in_conflict:
            following = tuple(hint for hint in following if hint != "share")
        if following:
            self.hints[site] = following[0]
        else:
            self._close(module, said)

    def _close(self, module: str, said: str) -> None:
        """Freeze all that a module sees; where that was not enough, its parent, and at last the whole model."""
        while module in self.closed:
            if not module:
                raise ModelError(f"Expected a model that can be made narrower, but {said}.")
            module = module.rpartition(".")[0]
        self.closed.add(module)


def tie_shared(channels: Channels, stored_integers: Sequence[StoredInteger]) -> None:
    """Tie the channels that one stored integer stands for, where a trial asked for it; frozen ones need not follow."""
    shared = {(stored.module, stored.attribute, stored.index) for stored in stored_integers if stored.shared}
    if not shared:
        return
    root = channels.components()
    frozen = np.zeros(channels.count, dtype=bool)
    for freeze in channels.freezes:
        frozen[root[freeze.ids]] = True
    first: dict[tuple[str, str, int | None], Ids] = {}
    for stored in stored_integers:
        key = (stored.module, stored.attribute, stored.index)
        if key in shared and not frozen[root[stored.ids]].all():
            channels.tie(first.setdefault(key, stored.ids), stored.ids)


def parameter_labels(tensor: torch.Tensor, channels: Channels) -> Labels:
    """Ids for every dimension of a parameter or buffer, but for the windows of convolution weights."""
    window = range(2, tensor.dim()) if tensor.dim() >= 4 and tensor.shape[0] > 1 else ()
    return tuple(None if dim in window else channels.new(size) for dim, size in enumerate(tensor.shape))


def describe_example(example: Example) -> str:
    """Shapes of the inputs in words."""
    if isinstance(example, torch.Tensor):
        return "an input of " + "x".join(map(str, example.shape))
    named = example.items() if isinstance(example, dict) else enumerate(example)
    parts = [f"{name}: {'x'.join(map(str, v.shape)) if isinstance(v, torch.Tensor) else v!r}" for name, v in named]
    return f"inputs {', '.join(parts)}"

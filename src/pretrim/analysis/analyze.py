"""Analyse a model: trace it, build its network, and try narrower copies until every operator behaves as predicted.

Some models store integers at construction (`split(x, [8, 8])`, a stored half width). They show only when the network
really is narrower, so the analysis builds narrower copies on meta tensors and compares every operator with what the
network predicts. At the first operator that differs, its source line is tried again: with the module's integer
retargeted, with an integer of which the line uses a multiple or a fraction, with another interpretation of a reshape,
with the halves tied, with its channels frozen, and finally with everything frozen that its module reads.
"""

from __future__ import annotations

import linecache
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from pretrim.errors import ModelError, channels_last_hint, check_is, first_of, shown

from .build import Analysis, Declared, StoredIntegerConflict, build_network
from .channels import Channels, Ids, Labels
from .configuration import KeyPath
from .constants import freeze_constants, trained_names
from .copies import Example, describe_failure, named_tensors, with_batch
from .declared_widths import declared_widths
from .identity import describe, fingerprint
from .meta import ReadsValues
from .named_integers import StoredInteger
from .narrower import BY_NUMBER, Mismatch, check_narrow, narrow_stage, takes_by_number, takes_channels, trial_widths
from .network import IntArray, Network, Operator
from .observer import Site, Stage, stage
from .rules.joining import WITH_REST
from .rules.operators import POINTWISE
from .trace import Learnt, Trace, trace
from .unread import freeze_unread
from .unregistered import unregistered_notes
from .unused import unused_operations

MAX_TRIALS = 200
NOWHERE = Site("", 0, "", "")
VIEW = ("retarget", "multiple", "part", "share part", "carrier1", "carrier2", "share", "freeze", "freeze all")
PART = ("multiple", "part", "share", "freeze", "freeze all")
STRATEGIES: dict[str, tuple[str, ...]] = {
    "view": VIEW,
    "_unsafe_view": VIEW,
    "split": ("retarget", "whole", *PART),
    "split_with_sizes": ("retarget", "rest", "share rest", "tie", "whole", *PART),
    "slice": ("retarget", "tie", "whole", *PART),
    "native_group_norm": ("retarget", "whole", "freeze all"),
    "compare": ("share", "freeze"),
    "constant_pad_nd": ("retarget", "tie", "share", "freeze", "freeze all"),
}
WITH_INTEGERS = ("retarget", "share", "freeze", "freeze all")


def analyze(model: nn.Module, example: Example | list[Example], tried: Sequence[Mapping[str, int]] = ()) -> Network:
    """Find a model's channel groups, its costs as functions of their widths, and what is frozen and why.

    Args:
        model: any module whose ``forward`` runs on `example`. It is not changed: it is copied with meta parameters.
        example: a tensor (first dimension: images), a tuple of arguments, or a dict of named arguments. A list holds
            several of these, one for each path through ``forward`` (heads that are used one at a time); costs are
            counted on the first.
        tried: further widths by group at which narrower copies are tried (`Plan.tried`: those of a plan that failed).

    Raises:
        UsageError: `model` is not a module, or `example` holds no tensors.
        ModelError: ``forward`` fails; its own error is shown.
    """
    check_is(model, nn.Module, "model to be a torch.nn.Module")
    _check_example(example)
    is_right = isinstance(tried, list | tuple) and all(isinstance(widths, Mapping) for widths in tried)
    check_is(tried, object if is_right else (), "tried to be a list of widths by group, as Plan.tried has them")
    return Analyst(model, example, tried).run()


def _check_example(example: object) -> None:
    """Raise UsageError for an example that is not a model input: an array, or a shape in place of a tensor."""
    is_shape = isinstance(example, list | tuple) and example and all(isinstance(part, int | float) for part in example)
    if is_shape or not isinstance(example, torch.Tensor | tuple | list | Mapping):
        check_is(example, torch.Tensor, "example to be a tensor (or several), such as torch.zeros(1, 3, 32, 32)")


def follow(model: nn.Module, example: Example, network: Network, widths: IntArray) -> Network:
    """Return the network if a copy with these widths behaves as predicted, else a new analysis that tries them too.

    Args:
        model: the dense model.
        example: an example of its inputs.
        network: its analysis.
        widths: channels that each group keeps (G).
    """
    run = stage(model, with_batch(example, 1), real=any("real tensors" in note for note in network.notes))
    try:
        check_narrow(narrow_stage(run, network, widths), network.operators, network.sizes(widths))
    except Mismatch as mismatch:
        if mismatch.other_operator:  # torch runs others where a dimension is 1: nothing to learn
            return network
        failed = {group.name: int(kept) for group, kept in zip(network.groups, widths, strict=True)}
        return analyze(model, example, (*network.tried, failed))
    return network


class Misread(Exception):
    """Raised when the channels of reshapes were mistaken for an image's height or a signal's length."""

    def __init__(self, sites: set[Site]) -> None:
        super().__init__()
        self.sites = sites


class NeedsValues(Exception):
    """Raised when the model does not run on meta tensors."""


class Analyst:
    """One analysis: a copy of the model to run, and what has been learnt about its source lines so far."""

    def __init__(
        self, model: nn.Module, example: Example | list[Example], tried: Sequence[Mapping[str, int]] = ()
    ) -> None:
        self.model = model
        self.tried = tuple(tried)
        examples = example if isinstance(example, list) else [example]
        if not examples:
            raise ModelError("Expected an example of the model's inputs, but the list of examples is empty.")
        self.examples = [with_batch(entry, 1) for entry in examples]
        self.learnt = Learnt()
        self.in_conflict: set[Site] = set()  # lines whose integer stands for other channels elsewhere
        self.notes = list(unregistered_notes(model))
        self.stage = stage(model, self.examples[0])
        self.stages: list[Stage] = []  # those of `Network.other_runs`, in the same order
        self.failed: set[tuple[object, ...]] = set()  # keys of the paths that do not run

    def run(self) -> Network:
        for _ in range(MAX_TRIALS):
            try:
                network = self._network()
                scaled = self._try_narrower(network, [*trial_widths(network), *self._tried_widths(network)])
                self._try_single_channels(network)
                if self._freeze_fruitless_reshapes(network):
                    continue
                network = replace(network, operators=mark_scaled(network.operators, scaled))
                return replace(self._with_declared_widths(network), tried=self.tried)
            except NeedsValues as error:
                self.notes.append(str(error))
                self.stage = stage(self.model, self.examples[0], real=True)
            except StoredIntegerConflict as conflict:
                self.in_conflict.add(conflict.stored.site)
                self._learn(conflict.stored.site, conflict.stored.module, str(conflict))
            except Misread as misread:
                self.learnt.first |= misread.sites
            except Mismatch as mismatch:
                if mismatch.operator is None:
                    raise ModelError(f"The model cannot be made narrower: {mismatch}.") from None
                may_have_checked = mismatch.raised or mismatch.other_operator
                self._learn(mismatch.operator.site, mismatch.operator.module, str(mismatch), may_have_checked)
        raise ModelError(
            f"The model cannot be made narrower: {MAX_TRIALS} trials did not find a consistent one: "
            f"please report it with the model."
        )

    def _tried_widths(self, network: Network) -> list[IntArray]:
        """Widths of earlier plans that failed; groups that they do not name stay dense."""
        return [
            np.array([min(tried.get(group.name, group.channels), group.channels) for group in network.groups])
            for tried in self.tried
        ]

    def _network(self) -> Network:
        channels = Channels()
        labels = {name: parameter_labels(t, channels) for name, t in named_tensors(self.model)}
        traces = self._traces(channels, labels)
        self._check_reshapes(channels, traces)
        tie_shared(channels, [stored for run in traces for stored in run.stored_integers])
        freeze_constants(self.model, channels, labels, traces)
        unread = freeze_unread(self.model, channels, labels, traces)
        unused = unused_operations(traces[0]) if self.stage.meta is not None else frozenset()
        trained = trained_names(self.model)
        buffers = {name for name, _ in self.model.named_buffers()}
        return build_network(
            Analysis(
                channels=channels,
                parameters=[
                    Declared(name, tuple(t.shape), labels[name], name in trained, name in buffers)
                    for name, t in named_tensors(self.model)
                ],
                inference=traces[0],
                others=tuple(traces[1:]),
                example=describe(self.examples[0]),
                fingerprint=fingerprint(self.model),
                notes=(
                    *self.notes,
                    *dict.fromkeys(traces[0].uncounted),
                    *dict.fromkeys(message for run in traces for message in run.failed_rules),
                    *map(unread_note, unread),
                    *unused_notes(traces[0], unused),
                ),
                unused=unused,
            )
        )

    def _check_reshapes(self, channels: Channels, traces: Sequence[Trace]) -> None:
        """Raise Misread if a window slides along channels that a reshape could as well have in its first dimension."""
        readings = [reading for trace in traces for reading in trace.readings if reading[1] not in self.learnt.first]
        windowed = [ids for trace in traces for ids in trace.slid]
        if readings and windowed:
            root = channels.components()
            windowed_roots = np.unique(root[np.concatenate(windowed)])
            misread = {site for ids, site in readings if np.isin(root[ids], windowed_roots).any()}
            if misread:
                raise Misread(misread)

    def _traces(self, channels: Channels, labels: Mapping[str, Labels]) -> list[Trace]:
        """Trace the run that costs are counted on, then every other path through `forward`."""
        traces = [self._trace_example(self.stage, self.examples[0], channels, labels)]
        if not traces[0].output_shapes:  # then nothing would say which channels have to stay
            raise ModelError("Expected a forward that returns tensors, but found none in what it returned.")
        self.stages = []
        for number, example in enumerate(self.examples):
            run = self.stage.with_example(example)
            if number:
                traces.append(self._trace_example(run, example, channels, labels))
                self.stages.append(run)
            for index, other in enumerate(self._other_paths(run, example)):
                other_trace = self._trace_path(other, (number, index), channels, labels)
                if other_trace is not None:
                    traces.append(other_trace)
                    self.stages.append(other)
        return traces

    def _other_paths(self, run: Stage, example: Example) -> list[Stage]:
        """Train mode with two images, to see training-only heads; on real tensors also both outcomes of value reads."""
        train = replace(run.with_example(with_batch(example, 2)), training=True)
        outcomes = [] if run.meta is not None else [replace(run, outcome=outcome) for outcome in (True, False)]
        return [train, *outcomes]

    def _trace_example(self, run: Stage, example: Example, channels: Channels, labels: Mapping[str, Labels]) -> Trace:
        try:
            return trace(run, channels, labels, self.learnt)
        except Exception as error:
            if run.meta is None:
                raise does_not_run(error, example) from error
            why = "reads values" if isinstance(error, ReadsValues) else "does not run on meta tensors"
            message = f"forward {why} ({describe_failure(error)}): traced on real tensors"
            raise NeedsValues(f"{message}, with both outcomes of what it reads") from error

    def _trace_path(
        self, run: Stage, key: tuple[object, ...], channels: Channels, labels: Mapping[str, Labels]
    ) -> Trace | None:
        """Trace another path through `forward`; None if it fails, and then it is not tried again."""
        if key in self.failed:
            return None
        mark = channels.mark()
        try:
            return trace(run, channels, labels, self.learnt)
        except Exception as error:
            channels.forget_since(mark)
            self.failed.add(key)
            path = "train mode" if run.training else f"forward where what it reads is {run.outcome}"
            self.notes.append(f"{path} was not traced: {describe_failure(error)}")
            return None

    def _try_narrower(self, network: Network, trials: Sequence[IntArray]) -> set[int]:
        """Build narrower copies and compare them; also on other paths that run source lines not seen before.

        Returns the indices of operators that took other numbers than in the dense network.
        """
        scaled: set[int] = set()
        if not network.groups:
            return scaled
        for widths in trials:
            narrow = narrow_stage(self.stage, network, widths)
            scaled |= check_narrow(narrow, network.operators, network.sizes(widths))
        seen = {operator.site for operator in network.operators}
        for run, operators in zip(self.stages, network.other_runs, strict=True):
            if any(o.site not in seen and o.op not in POINTWISE for o in operators):
                check_narrow(replace(run, model=narrow.model), operators, network.sizes(widths))
            seen |= {operator.site for operator in operators}
        return scaled

    def _try_single_channels(self, network: Network) -> None:
        """Where channels are taken by number, also try one channel per group (`x[:, : max(2, c // 4)]`).

        torch may run other operators there, and some layers cannot be that narrow (a norm of a weight with one value),
        so only a mismatch at an operator that takes channels by number counts.
        """
        if not takes_by_number(network):
            return
        ones = np.ones_like(network.dense)
        try:
            check_narrow(narrow_stage(self.stage, network, ones), network.operators, network.sizes(ones))
        except Mismatch as mismatch:
            by_number = mismatch.operator is not None and mismatch.operator.op in BY_NUMBER
            if by_number and not mismatch.other_operator:
                raise

    def _freeze_fruitless_reshapes(self, network: Network) -> bool:
        """Freeze reshapes whose other interpretation did not let any channels follow; True if there are any.

        Their channels are then frozen with the reshape's own number as the reason.
        """
        runs = (network.operators, *network.other_runs)
        followed = {o.site for run in runs for o in run if takes_channels(network, o)}
        failed = [
            site for site, hint in self.learnt.hints.items() if hint.startswith("carrier") and site not in followed
        ]
        self.learnt.hints |= dict.fromkeys(failed, "freeze")
        return bool(failed)

    def _with_declared_widths(self, network: Network) -> Network:
        """Let integers that only other methods read follow their widths; a note names the ambiguous ones."""
        declared = declared_widths(self.model, network) if network.groups else []
        unambiguous = [width for width in declared if len(width.rows) == 1]
        stored = (StoredInteger(NOWHERE, d.module, d.attribute, (), network.members[d.rows[0]]) for d in unambiguous)
        ambiguous = [f"{d.attribute} of {d.module or 'the model'}" for d in declared if len(d.rows) > 1]
        note = f"integers of the dense network stay where they may stand for several widths: {first_of(ambiguous)}"
        extended = replace(
            network,
            stored_integers=(*network.stored_integers, *stored),
            stored_integer_dims=(*network.stored_integer_dims, *(d.rows[0] for d in unambiguous)),
            notes=(*network.notes, *([note] if ambiguous else [])),
        )
        if not unambiguous:
            return extended
        try:
            self._try_narrower(extended, trial_widths(extended)[:1])
        except Mismatch:  # then one of them means something else
            return network
        return extended

    def _learn(self, site: Site, module: str, message: str, may_have_checked: bool = False) -> None:
        """Choose what to try next at the source line where a narrower network went wrong.

        Args:
            site: that line.
            module: the module that ran it.
            message: what went wrong.
            may_have_checked: whether `forward` raised or took another path, as it does where it checks a width.
        """
        order = STRATEGIES.get(site.op, WITH_INTEGERS)
        previous = self.learnt.hints.get(site)
        remaining = order[order.index(previous) + 1 :] if previous in order else order
        if site not in self.in_conflict:
            remaining = tuple(hint for hint in remaining if not hint.startswith("share"))
        if "-" not in linecache.getline(site.file, site.line):  # no subtraction: the line takes no rest of a width
            remaining = tuple(hint for hint in remaining if hint not in WITH_REST)
        gives_up = not remaining or remaining[0].startswith("freeze")
        if gives_up and may_have_checked and not self.learnt.follows_checks:
            self.learnt.follows_checks = True
            self.learnt.hints.pop(site, None)
        elif remaining:
            self.learnt.hints[site] = remaining[0]
        else:
            self._close(module, message)

    def _close(self, module: str, message: str) -> None:
        """Freeze everything that a module reads; if that was not enough, its parent, and finally the whole model."""
        while module in self.learnt.closed:
            if not module:
                raise ModelError(f"The model cannot be made narrower: {message}.")
            module = module.rpartition(".")[0]
        self.learnt.closed.add(module)


def mark_scaled(operators: Sequence[Operator], scaled: set[int]) -> tuple[Operator, ...]:
    """Set `is_scaled` on the operators that take numbers computed from widths."""
    return tuple(replace(operator, is_scaled=number in scaled) for number, operator in enumerate(operators))


def does_not_run(error: Exception, example: Example) -> ModelError:
    """The error for a model that fails on its own example."""
    hint = channels_last_hint(example.shape[1:]) if isinstance(example, torch.Tensor) else ""
    return ModelError(
        f"The model does not run on {describe_example(example)}: its forward raised "
        f"{describe_failure(error)}. Check the input shape, and that the model runs on its own.{hint}"
    )


def unread_note(module: str) -> str:
    """The note about a module that no example runs."""
    return (
        f"no example runs {module or 'a parameter of the model'}: if forward can reach it, give one example per "
        f"way, analyze(model, [example1, example2])"
    )


def unused_notes(inference: Trace, unused: frozenset[int]) -> list[str]:
    """The note, if any, about layers whose results no output depends on."""
    operations = (inference.operations[number] for number in sorted(unused))
    names = list(
        dict.fromkeys(operation.module or operation.op for operation in operations if operation.filters is not None)
    )
    if not names:
        return []
    return [f"no output depends on {first_of(names)}: a converter leaves that out, so it is not counted"]


def tie_shared(channels: Channels, stored_integers: Sequence[StoredInteger]) -> None:
    """Tie all channels that one shared stored integer stands for; frozen channels need not follow."""
    shared = {(stored.module, stored.attribute, stored.path) for stored in stored_integers if stored.shared}
    if not shared:
        return
    root = channels.components()
    frozen = np.zeros(channels.count, dtype=bool)
    for freeze in channels.freezes:
        frozen[root[freeze.ids]] = True
    first: dict[tuple[str, str, KeyPath], Ids] = {}
    for stored in stored_integers:
        key = (stored.module, stored.attribute, stored.path)
        if key in shared and not frozen[root[stored.ids]].all():
            channels.tie(first.setdefault(key, stored.ids), stored.ids)


def parameter_labels(tensor: torch.Tensor, channels: Channels) -> Labels:
    """New ids for every dimension of a parameter or buffer, except the kernel dimensions of convolution weights."""
    kernel_dims = range(2, tensor.dim()) if tensor.dim() >= 4 and tensor.shape[0] > 1 else ()
    return tuple(None if dim in kernel_dims else channels.new(size) for dim, size in enumerate(tensor.shape))


def describe_example(example: Example) -> str:
    """Describe the shapes of the inputs in words."""
    if isinstance(example, torch.Tensor):
        return "an input of " + "x".join(map(str, example.shape))
    named = example.items() if isinstance(example, dict) else enumerate(example)
    parts = [f"{name}: {'x'.join(map(str, v.shape)) if isinstance(v, torch.Tensor) else shown(v)}" for name, v in named]
    return f"inputs {', '.join(parts)}"

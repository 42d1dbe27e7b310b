"""Analyse a model: trace it, form its network, and try it narrower until every operator follows.

Some models keep integers from construction (`split(x, [8, 8])`, a stored half width). They show only when the network
really is narrower, so the analysis builds narrower copies on meta tensors and compares every operator with what the
network predicts. At the first one that differs, its line of source is tried again: with the module's integer
retargeted, with an integer that it has a multiple or a part of, with another reading of a reshape, with the halves
tied, with its channels frozen, and at last with all that its module sees.
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

MOST_TRIALS = 200
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
            several of these, for each way through ``forward`` (heads that are used one at a time); costs are those of
            the first.
        tried: widths by group that narrower copies get, too (`Plan.tried`: those that a plan failed with).

    Raises:
        UsageError: no module, or no tensors.
        ModelError: ``forward`` fails; its own error is shown.
    """
    check_is(model, nn.Module, "model to be a torch.nn.Module")
    _check_example(example)
    is_right = isinstance(tried, list | tuple) and all(isinstance(widths, Mapping) for widths in tried)
    check_is(tried, object if is_right else (), "tried to be a list of widths by group, as Plan.tried has them")
    return Analyst(model, example, tried).run()


def _check_example(example: object) -> None:
    """Raises UsageError for what is no input: an array, or a shape in the place of a tensor of it."""
    is_shape = isinstance(example, list | tuple) and example and all(isinstance(part, int | float) for part in example)
    if is_shape or not isinstance(example, torch.Tensor | tuple | list | Mapping):
        check_is(example, torch.Tensor, "example to be a tensor (or several), such as torch.zeros(1, 3, 32, 32)")


def follow(model: nn.Module, example: Example, network: Network, widths: IntArray) -> Network:
    """The network, if a copy with these widths does what it predicts; else one that was learnt from how it failed.

    Args:
        model: the dense model.
        example: of its inputs.
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
    """Reshapes whose channels were taken for an image's height or a signal's length."""

    def __init__(self, sites: set[Site]) -> None:
        super().__init__()
        self.sites = sites


class NeedsValues(Exception):
    """The model does not run on meta tensors."""


class Analyst:
    """One analysis: a copy of the model to run, and what was learnt about its lines of source so far."""

    def __init__(
        self, model: nn.Module, example: Example | list[Example], tried: Sequence[Mapping[str, int]] = ()
    ) -> None:
        self.model = model
        self.tried = tuple(tried)
        examples = example if isinstance(example, list) else [example]
        if not examples:
            raise ModelError("Expected an example of the model's inputs, but the list of examples is empty.")
        self.examples = [with_batch(each, 1) for each in examples]
        self.learnt = Learnt()
        self.in_conflict: set[Site] = set()  # lines whose integer stands for other channels elsewhere
        self.notes = list(unregistered_notes(model))
        self.stage = stage(model, self.examples[0])
        self.stages: list[Stage] = []  # of the traces beyond the first, in their order
        self.failed: set[tuple[object, ...]] = set()  # ways that do not run

    def run(self) -> Network:
        for _ in range(MOST_TRIALS):
            try:
                network = self._network()
                scaled = self._try_narrower(network, [*trial_widths(network), *self._tried_widths(network)])
                self._try_single_channels(network)
                if self._read_in_vain(network):
                    continue
                network = replace(network, operators=marked(network.operators, scaled))
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
            f"The model cannot be made narrower: {MOST_TRIALS} trials did not find a consistent one: "
            f"please report it with the model."
        )

    def _tried_widths(self, network: Network) -> list[IntArray]:
        """The widths that were asked for; groups that they do not name stay dense."""
        return [
            np.array([min(each.get(group.name, group.channels), group.channels) for group in network.groups])
            for each in self.tried
        ]

    def _network(self) -> Network:
        channels = Channels()
        labels = {name: parameter_labels(t, channels) for name, t in named_tensors(self.model)}
        traces = self._traces(channels, labels)
        self._read_again(channels, traces)
        tie_shared(channels, [stored for each in traces for stored in each.stored_integers])
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
                    *dict.fromkeys(failed for each in traces for failed in each.failed_rules),
                    *map(unread_note, unread),
                    *unused_notes(traces[0], unused),
                ),
                unused=unused,
            )
        )

    def _read_again(self, channels: Channels, traces: Sequence[Trace]) -> None:
        """Raises Misread where a window slides along features that a reshape may as well have as channels."""
        readings = [each for trace in traces for each in trace.readings if each[1] not in self.learnt.first]
        slid = [ids for trace in traces for ids in trace.slid]
        if readings and slid:
            root = channels.components()
            along = np.unique(root[np.concatenate(slid)])
            misread = {site for ids, site in readings if np.isin(root[ids], along).any()}
            if misread:
                raise Misread(misread)

    def _traces(self, channels: Channels, labels: Mapping[str, Labels]) -> list[Trace]:
        """The run that costs are counted on, then every other way through `forward`."""
        traces = [self._trace_example(self.stage, self.examples[0], channels, labels)]
        if not traces[0].output_shapes:  # then nothing would say which channels have to stay
            raise ModelError("Expected a forward that returns tensors, but found none in what it returned.")
        self.stages = []
        for number, example in enumerate(self.examples):
            run = self.stage.with_example(example)
            if number:
                traces.append(self._trace_example(run, example, channels, labels))
                self.stages.append(run)
            for way, other in enumerate(self._other_ways(run, example)):
                found = self._trace_way(other, (number, way), channels, labels)
                if found is not None:
                    traces.append(found)
                    self.stages.append(other)
        return traces

    def _other_ways(self, run: Stage, example: Example) -> list[Stage]:
        """Train mode with two images, where heads used only in training show; and both outcomes of what is read."""
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
            said = f"forward {why} ({describe_failure(error)}): traced on real tensors"
            raise NeedsValues(f"{said}, with both outcomes of what it reads") from error

    def _trace_way(
        self, run: Stage, key: tuple[object, ...], channels: Channels, labels: Mapping[str, Labels]
    ) -> Trace | None:
        """A trace of another way through `forward`; one that fails says nothing, and is not tried again."""
        if key in self.failed:
            return None
        mark = channels.mark()
        try:
            return trace(run, channels, labels, self.learnt)
        except Exception as error:
            channels.forget_since(mark)
            self.failed.add(key)
            what = "train mode" if run.training else f"forward where what it reads is {run.outcome}"
            self.notes.append(f"{what} was not traced: {describe_failure(error)}")
            return None

    def _try_narrower(self, network: Network, trials: Sequence[IntArray]) -> set[int]:
        """Build narrower copies and compare; in other ways too, where they run lines that were not seen before.

        Returns the places of operators that took other numbers.
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
        """Where numbers take channels, single ones too (`x[:, : max(2, c // 4)]`).

        torch may run other operators there, and some layers cannot be that narrow (a norm of a weight with one value):
        only what takes channels by a number is at fault.
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

    def _read_in_vain(self, network: Network) -> bool:
        """Whether a reshape was read another way, and its channels are frozen all the same: then by its own number."""
        runs = (network.operators, *network.other_runs)
        follow = {o.site for run in runs for o in run if takes_channels(network, o)}
        vain = [site for site, hint in self.learnt.hints.items() if hint.startswith("carrier") and site not in follow]
        self.learnt.hints |= dict.fromkeys(vain, "freeze")
        return bool(vain)

    def _with_declared_widths(self, network: Network) -> Network:
        """Let integers that only other methods read follow their widths; those that may mean several are named."""
        declared = declared_widths(self.model, network) if network.groups else []
        clear = [each for each in declared if len(each.rows) == 1]
        stored = (StoredInteger(NOWHERE, d.module, d.attribute, (), network.members[d.rows[0]]) for d in clear)
        unclear = [f"{d.attribute} of {d.module or 'the model'}" for d in declared if len(d.rows) > 1]
        note = f"integers of the dense network stay where they may stand for several widths: {first_of(unclear)}"
        followed = replace(
            network,
            stored_integers=(*network.stored_integers, *stored),
            stored_integer_dims=(*network.stored_integer_dims, *(d.rows[0] for d in clear)),
            notes=(*network.notes, *([note] if unclear else [])),
        )
        if not clear:
            return followed
        try:
            self._try_narrower(followed, trial_widths(followed)[:1])
        except Mismatch:  # then one of them means something else
            return network
        return followed

    def _learn(self, site: Site, module: str, said: str, may_have_checked: bool = False) -> None:
        """Choose what to try next at the line where a narrower network went wrong.

        Args:
            site: that line.
            module: the module that ran it.
            said: what went wrong.
            may_have_checked: whether `forward` went another way, as it does where it checks a width.
        """
        order = STRATEGIES.get(site.op, WITH_INTEGERS)
        tried = self.learnt.hints.get(site)
        following = order[order.index(tried) + 1 :] if tried in order else order
        if site not in self.in_conflict:
            following = tuple(hint for hint in following if not hint.startswith("share"))
        if "-" not in linecache.getline(site.file, site.line):  # nothing is left of a width there
            following = tuple(hint for hint in following if hint not in WITH_REST)
        gives_up = not following or following[0].startswith("freeze")
        if gives_up and may_have_checked and not self.learnt.follows_checks:
            self.learnt.follows_checks = True
            self.learnt.hints.pop(site, None)
        elif following:
            self.learnt.hints[site] = following[0]
        else:
            self._close(module, said)

    def _close(self, module: str, said: str) -> None:
        """Freeze all that a module sees; where that was not enough, its parent, and at last the whole model."""
        while module in self.learnt.closed:
            if not module:
                raise ModelError(f"The model cannot be made narrower: {said}.")
            module = module.rpartition(".")[0]
        self.learnt.closed.add(module)


def marked(operators: Sequence[Operator], scaled: set[int]) -> tuple[Operator, ...]:
    """The same operators, and which take numbers that are computed from widths."""
    return tuple(replace(each, is_scaled=number in scaled) for number, each in enumerate(operators))


def does_not_run(error: Exception, example: Example) -> ModelError:
    """The error of a model that fails on its own example."""
    meant = channels_last_hint(example.shape[1:]) if isinstance(example, torch.Tensor) else ""
    return ModelError(
        f"The model does not run on {describe_example(example)}: its forward raised "
        f"{describe_failure(error)}. Check the input shape, and that the model runs on its own.{meant}"
    )


def unread_note(module: str) -> str:
    """What is said of a module that no example ran."""
    return (
        f"no example runs {module or 'a parameter of the model'}: if forward has a way to it, give an example of each "
        f"way, analyze(model, [example1, example2])"
    )


def unused_notes(inference: Trace, unused: frozenset[int]) -> list[str]:
    """What is said of layers whose result no output depends on."""
    found = (inference.operations[number] for number in sorted(unused))
    names = list(
        dict.fromkeys(operation.module or operation.op for operation in found if operation.filters is not None)
    )
    if not names:
        return []
    return [f"no output depends on {first_of(names)}: a converter leaves that out, so it is not counted"]


def tie_shared(channels: Channels, stored_integers: Sequence[StoredInteger]) -> None:
    """Tie the channels that one stored integer stands for, where a trial asked for it; frozen ones need not follow."""
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
    """Ids for every dimension of a parameter or buffer, but for the windows of convolution weights."""
    window = range(2, tensor.dim()) if tensor.dim() >= 4 and tensor.shape[0] > 1 else ()
    return tuple(None if dim in window else channels.new(size) for dim, size in enumerate(tensor.shape))


def describe_example(example: Example) -> str:
    """Shapes of the inputs in words."""
    if isinstance(example, torch.Tensor):
        return "an input of " + "x".join(map(str, example.shape))
    named = example.items() if isinstance(example, dict) else enumerate(example)
    parts = [f"{name}: {'x'.join(map(str, v.shape)) if isinstance(v, torch.Tensor) else shown(v)}" for name, v in named]
    return f"inputs {', '.join(parts)}"

"""Run a model once on meta tensors and follow its channels, operator by operator.

The model's structure is copied with meta parameters (no memory, no arithmetic; the caller's model is not touched), and
runs under a dispatch mode that sees every ATen operator with concrete shapes, whatever modules and functional calls
``forward`` consists of. Where ``forward`` reads values (``.item()``), the same mode runs on real tensors, and again
with either outcome.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

from .channels import Channels, Ids, Label, Labels
from .copies import (
    HERE,
    TORCH,
    describe_failure,
    named_tensors,
)
from .named_integers import Caller, StoredInteger, find_integers, find_ratios
from .observer import (
    Observer,
    Site,
    Stage,
)
from .rules import RULES
from .rules.call import Call, freeze_inputs, unknown
from .rules.joining import WITH_REST
from .rules.operators import NORMS, POINTWISE, RESHAPES, VIEWS
from .sizes_read import SizesRead, Width

FREE_OF_WORK = frozenset(
    """
    bincount bucketize diagonal diagonal_copy diagonal_scatter embedding_renorm index_add index_copy index_fill
    masked_scatter masked_select nonzero one_hot put searchsorted select_scatter slice_scatter take take_along_dim
    unique
    """.split()
)
"""Operators without a rule that do no multiply-accumulates."""
WORKING = ("linalg_", "_linalg_", "mkldnn_", "quantized_", "_scaled_dot_product", "_native_multi_head", "_trilinear")
"""Prefixes of operators that do multiply-accumulates."""


@dataclass
class Learnt:
    """What earlier trials of an analysis taught about source lines."""

    hints: dict[Site, str] = field(default_factory=dict)
    """What to do at each line."""
    closed: set[str] = field(default_factory=set)
    """Names of modules whose channels are all frozen."""
    first: set[Site] = field(default_factory=set)
    """Lines of reshapes whose channels come first (N x C x L)."""
    follows_checks: bool = False
    """Whether a number that `forward` finds equal to a width should follow it."""


@dataclass(frozen=True)
class Operation:
    """One ATen operator of a trace."""

    op: str
    module: str
    site: Site
    attributes: Mapping[str, Any]
    reads: tuple[int, ...]
    """Numbers of the buffers it reads that depend on the input."""
    writes: tuple[int, ...]
    """Numbers of the buffers it creates; empty for a reshape or an in-place operator."""
    parameters: tuple[str, ...]
    """Names of the parameters it reads."""
    shapes: tuple[tuple[int, ...], ...]
    outputs: tuple[Labels, ...]
    factors: tuple[tuple[int, Label], ...]
    """Sizes whose product is the number of multiply-accumulates; empty for other operators, and for products of
    parameters alone, which runtimes compute only once (positions created anew for each image are counted)."""
    filters: Label
    """The ids of the filters, if this is a layer: a convolution or matrix product with its own weight."""
    weight: tuple[tuple[int, Label], ...]
    """The dimensions of that weight: size and label."""
    weight_names: tuple[str, ...]
    """The parameters and buffers that the weight is computed from."""
    integers: tuple[tuple[int, Ids], ...]
    size_arguments: tuple[tuple[str, int, Ids], ...]
    """Arguments that the output shapes do not determine (`Call.size_arguments`)."""
    mixed: tuple[Ids, ...]
    """Channels that it reduces over, so that their values mix."""

    @property
    def fuses(self) -> bool:
        """Whether runtimes compute it in place on its input: norms, activations and other elementwise operators."""
        return self.op in POINTWISE or self.op in NORMS


@dataclass(frozen=True)
class Buffer:
    """A tensor that depends on the input and has its own memory."""

    shape: tuple[int, ...]
    labels: Labels
    itemsize: int


@dataclass
class Trace:
    """What one run of a model showed; operations are in execution order."""

    operations: list[Operation] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    stored_integers: list[StoredInteger] = field(default_factory=list)
    output_shapes: list[tuple[int, ...]] = field(default_factory=list)
    uncounted: list[str] = field(default_factory=list)
    """Notes on operators whose work is unknown."""
    failed_rules: list[str] = field(default_factory=list)
    """Notes on operators whose rule failed."""
    readings: list[tuple[Ids, Site]] = field(default_factory=list)
    """Channels that a reshape could have in its first dimension as well as in its last, with its source line."""
    slid: list[Ids] = field(default_factory=list)
    """Channels of dimensions along which a window slides."""


@dataclass
class Seen:
    """What is known about one tensor."""

    labels: Labels
    buffer: int | None = None
    parameters: tuple[str, ...] = ()
    base: torch.Tensor | None = None
    """The tensor that this is a view of, if that does not depend on the input yet: writing to the view changes that."""


class Tracer(Observer):  # type: ignore[no-untyped-call]
    """Propagates labels through a run with the table of rules, and records the trace."""

    def __init__(self, channels: Channels, learnt: Learnt) -> None:
        super().__init__()
        self.channels = channels
        self.hints = learnt.hints
        self.closed = learnt.closed
        self.first = learnt.first
        self.trace = Trace()
        self.seen: Any = WeakIdKeyDictionary()
        self.follows_checks = learnt.follows_checks
        self.sizes_read = SizesRead(self.look, self.found_equal)

    def know(self, tensor: torch.Tensor, seen: Seen) -> None:
        self.seen[tensor] = seen

    def look(self, tensor: torch.Tensor) -> Labels:
        seen = self.seen.get(tensor)
        return seen.labels if seen is not None else (None,) * tensor.dim()

    def new_buffer(self, tensor: torch.Tensor, labels: Labels) -> int:
        self.trace.buffers.append(Buffer(tuple(tensor.shape), labels, tensor.element_size()))
        return len(self.trace.buffers) - 1

    def observe(self, op: str, args: dict[str, Any], outputs: tuple[torch.Tensor, ...]) -> None:
        """See `Observer.observe`.

        Args:
            op: the operator's name.
            args: its arguments, by name.
            outputs: its output tensors.
        """
        caller = self.caller(op)
        site = caller.site
        hint = self.hints.get(site, "")
        call = Call(
            op,
            args,
            outputs,
            self.module,
            self.channels,
            self.look,
            hint,
            lambda: caller.source_line,
            self.sizes_read.of,
        )
        call.is_first = site in self.first
        labels = self.labels_of(call)
        self.count_unknown(call)
        per_output = labels if isinstance(labels, list) else [labels] * len(outputs)
        self.freeze_unfollowed(call)
        self.apply_hint(call, caller)
        inputs = [seen for tensor in call.tensors() if (seen := self.seen.get(tensor)) is not None]
        writes = [self.settle(call, inputs, out, at) for out, at in zip(outputs, per_output, strict=True)]
        self.trace.operations.append(self.operation(call, site, inputs, writes, per_output))
        self.trace.readings.extend((ids, site) for ids in call.readings)
        self.trace.slid.extend(call.slid)

    def labels_of(self, call: Call) -> Labels | list[Labels]:
        """Apply the operator's rule. The network itself runs, so a failing rule is not the model's fault."""
        try:
            return RULES.get(call.op, unknown)(call)
        except Exception as error:
            message = f"pretrim's rule for the operator {call.op} failed ({describe_failure(error)})"
            freeze_inputs(call, message)
            self.trace.failed_rules.append(f"{message}: please report it with the model")
            return [(None,) * out.dim() for out in call.outputs]

    def settle(self, call: Call, inputs: list[Seen], out: torch.Tensor, labels: Labels) -> int | None:
        """Record an output; returns its buffer if it is a new one.

        Args:
            call: the operator and its arguments.
            inputs: what is known about the tensors that it read.
            out: the output tensor.
            labels: channel ids of each of its dimensions.
        """
        known = self.seen.get(out)
        data = next((seen.buffer for seen in inputs if seen.buffer is not None), None)
        names = tuple(dict.fromkeys(name for seen in inputs for name in seen.parameters))
        if known is not None:  # an in-place operator returns its argument
            if call.op in RESHAPES or call.op in VIEWS:  # `squeeze_`, `transpose_`
                known.labels = labels
            return self.written(known, data)
        is_new = data is not None and call.op not in RESHAPES
        buffer = self.new_buffer(out, labels) if is_new else data
        self.know(out, Seen(labels, buffer, () if data is not None else names, None if is_new else self.base_of(call)))
        return buffer if is_new else None

    def base_of(self, call: Call) -> torch.Tensor | None:
        """The base tensor that an operator's result is a view of, if any."""
        if call.op not in VIEWS and call.op not in RESHAPES:
            return None
        source = next(iter(call.tensors()), None)
        seen = self.seen.get(source) if source is not None else None
        return seen.base if seen is not None and seen.base is not None else source

    def written(self, known: Seen, data: int | None) -> int | None:
        """Mark the target of an in-place operator, and the base that it is a view of, as dependent on the input.

        Args:
            known: what is known about the tensor that is written to.
            data: the input-dependent buffer that was read, if any.

        Returns:
            The buffer of the base, if it is a new one.
        """
        if known.buffer is not None or data is None:
            return None
        base: Seen | None = self.seen.get(known.base) if known.base is not None else None
        if known.base is None or base is None:
            known.buffer = data
            return None
        if base.buffer is not None:  # another view was written before
            known.buffer = base.buffer
            return None
        buffer = self.new_buffer(known.base, base.labels)
        known.buffer = base.buffer = buffer
        return buffer

    def count_unknown(self, call: Call) -> None:
        """Count the work of an operator without a rule by torch's own formula (its channels are frozen), or note it."""
        if call.op in RULES or call.op in FREE_OF_WORK:
            return
        packet = getattr(torch.ops.aten, call.op, None)
        formula = flop_registry.get(packet)
        if formula is not None:
            shapes = call.outputs[0] if len(call.outputs) == 1 else call.outputs
            call.factors = ((int(formula(**call.args, out_val=shapes)) // 2, None),)
        elif "::" in call.op or call.op.startswith(WORKING) or self.reads_matrix(call):
            where = f" in {call.module}" if call.module else ""
            self.trace.uncounted.append(f"the work of {call.op}{where} is not counted: pretrim has no rule for it")

    def reads_matrix(self, call: Call) -> bool:
        """Whether a parameter with several dimensions is among the arguments: the operator is likely a product."""
        seen = ((tensor, self.seen.get(tensor)) for tensor in call.tensors())
        return any(tensor.dim() > 1 and known is not None and known.parameters for tensor, known in seen)

    def operation(
        self, call: Call, site: Site, inputs: list[Seen], writes: list[int | None], labels: list[Labels]
    ) -> Operation:
        """Build the trace's record of an operator.

        Args:
            call: the operator and its arguments.
            site: the source line that called it.
            inputs: what is known about the tensors that it read.
            writes: the new buffer of each output; None if it has no new one.
            labels: channel ids of each output.
        """
        weight = self.seen.get(call.weight) if call.weight is not None else None
        dimensions: tuple[tuple[int, Label], ...] = ()
        has_data = any(seen.buffer is not None for seen in inputs)  # a weight computed from parameters is not a layer
        if has_data and call.weight is not None and weight is not None and weight.buffer is None and weight.parameters:
            dimensions = tuple(zip(call.weight.shape, weight.labels, strict=True))
        return Operation(
            op=call.op,
            module=call.module,
            site=site,
            attributes={name: plain(value) for name, value in call.args.items() if is_plain(value)},
            reads=tuple(dict.fromkeys(seen.buffer for seen in inputs if seen.buffer is not None)),
            writes=tuple(buffer for buffer in writes if buffer is not None),
            parameters=tuple(dict.fromkeys(name for seen in inputs for name in seen.parameters)),
            shapes=tuple(tuple(out.shape) for out in call.outputs),
            outputs=tuple(labels),
            factors=call.factors if has_data or any(not seen.parameters for seen in inputs) else (),
            filters=call.filters if dimensions else None,
            weight=dimensions,
            weight_names=weight.parameters if dimensions and weight is not None else (),
            integers=tuple(call.integers),
            size_arguments=tuple(call.size_arguments),
            mixed=tuple(call.mixed),
        )

    def freeze_unfollowed(self, call: Call) -> None:
        """Freeze, and report, the filters of a layer whose weight comes from an operator without a rule."""
        seen = self.seen.get(call.weight) if call.weight is not None else None
        if call.filters is None and seen is not None and seen.buffer is None and seen.parameters:
            call.filters = self.channels.new(call.outputs[0].shape[1 if call.op == "convolution" else -1])
            call.freeze(call.filters, "its weight is computed in a way that channels cannot be followed through")

    def caller(self, op: str) -> Caller:
        """The innermost source line outside torch and pretrim; the class distinguishes torch's own modules."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith((TORCH, HERE)):
            frame = frame.f_back
        owner = type(self.modules[-1][1]).__qualname__ if self.modules else ""
        file, line = (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("", 0)
        return Caller(Site(file, line, owner, op), frame, tuple(self.modules), self.module_names)

    def apply_hint(self, call: Call, caller: Caller) -> None:
        """Apply the hint of an earlier trial of this line: retarget its integers, or freeze what cannot follow."""
        if any(name in self.closed for name in ("", *(name for name, _ in self.modules))):
            freeze_inputs(call, "its module could not follow a narrower input")
            call.freeze(call.filters, "its module could not follow a narrower input")
        elif call.hint in ("retarget", "tie", "whole", "share", *WITH_REST):
            integers = call.integers or (self.widths_seen(call) if self.follows_checks else [])
            self.trace.stored_integers.extend(find_integers(caller, integers, call.hint))
        elif call.hint in ("multiple", "part", "share part"):
            for stored, rows in find_ratios(caller, call.integers, call.hint):
                call.tie_rows(rows)
                self.trace.stored_integers.append(stored)
        elif call.hint == "freeze":
            for value, ids in call.integers:
                advice = " (x.flatten(1) would follow)" if call.op in RESHAPES and call.outputs[0].dim() == 2 else ""
                call.freeze(ids, f"{call.op} with the number {value}, which stays when the network is narrower{advice}")
        elif call.hint == "freeze all":
            freeze_inputs(call, f"{call.op} could not follow a narrower input")
            for label in (call.filters, *(ids for _, ids in call.integers)):
                call.freeze(label, f"{call.op} could not follow a narrower input")

    def found_equal(self, width: Width, number: int) -> None:
        """Handle a comparison in `forward` where a width equals a number, as in ``assert x.shape[1] == self.dim``.

        Args:
            width: the width, read from a tensor.
            number: the number: a plain integer, or another width.
        """
        if not self.follows_checks or width.share.denominator != 1:
            return
        if isinstance(number, Width):
            if number.share == width.share:
                self.channels.tie(width.ids, number.ids)
            return
        ids = np.tile(width.ids, width.share.numerator)
        caller = self.caller("compare")
        hint = self.hints.get(caller.site, "retarget")
        stored = list(find_integers(caller, [(number, ids)], hint)) if hint != "freeze" else []
        self.trace.stored_integers.extend(stored)
        if not stored:
            reason = f"forward compares it with the number {number}, which stays when the network is narrower"
            self.channels.freeze(ids, self.module, reason, caller.source_line)

    def widths_seen(self, call: Call) -> list[tuple[int, Ids]]:
        """Channels that an operator of torch's own modules reads: torch checks their widths out of sight."""
        if not self.modules or not type(self.modules[-1][1]).__module__.startswith("torch."):
            return []
        labels = [label for tensor in call.tensors() for label in self.look(tensor)]
        return [(len(label), label) for label in labels if label is not None and len(label) > 1]


def is_plain(value: Any) -> bool:
    """Whether a value is a number, string or None, or a list or tuple of these."""
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return isinstance(value, (int, float, str, type(None)))


def plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def trace(
    run: Stage,
    channels: Channels,
    labels: Mapping[str, Labels],
    learnt: Learnt,
) -> Trace:
    """Trace one run; the ids of parameters are passed in, so that several runs share them.

    Raises whatever the model's ``forward`` raises.

    Args:
        run: the model, ready to run.
        channels: new ids, ties and freezes are added to it.
        labels: channel ids of every parameter and buffer, by name.
        learnt: what earlier trials ask for at each source line.
    """
    tracer = Tracer(channels, learnt)
    for name, tensor in named_tensors(run.model):
        tracer.know(tensor, Seen(labels[name], None, (name,)))
    for leaf in tree_leaves(run.example):
        if isinstance(leaf, torch.Tensor):
            nothing: Labels = (None,) * leaf.dim()
            tracer.trace.inputs.append(tracer.new_buffer(leaf, nothing))
            tracer.know(leaf, Seen(nothing, tracer.trace.inputs[-1]))
    result = run.run(tracer, tracer.sizes_read)
    for leaf in outputs_of(result):
        seen = tracer.seen.get(leaf)
        tracer.trace.output_shapes.append(tuple(leaf.shape))
        if seen is not None and seen.buffer is not None:
            tracer.trace.outputs.append(seen.buffer)
        for label in tracer.look(leaf):
            if label is not None:
                channels.freeze(label, "", "the network's output")
    return tracer.trace


def outputs_of(result: Any) -> Iterator[torch.Tensor]:
    """Every tensor in what `forward` returned, also in containers and in the attributes of objects of any class.

    The channels of a tensor missed here could be pruned, so every object is searched.
    """
    visited: set[int] = set()
    waiting = [result]
    while waiting:
        for leaf in tree_leaves(waiting.pop()):
            if isinstance(leaf, torch.Tensor):
                yield leaf
            elif id(leaf) not in visited and not isinstance(leaf, (nn.Module, type, ModuleType)):
                visited.add(id(leaf))
                waiting.append(_contents(leaf))


def _contents(thing: Any) -> list[Any]:
    """The contents of a container that torch does not know, or the attributes of an object."""
    if isinstance(thing, Mapping):
        return list(thing.values())
    if isinstance(thing, (list, tuple, Set)):
        return list(thing)
    slots = [name for kind in type(thing).__mro__ for name in vars(kind).get("__slots__", ())]
    return [*getattr(thing, "__dict__", {}).values(), *(getattr(thing, name, None) for name in slots)]

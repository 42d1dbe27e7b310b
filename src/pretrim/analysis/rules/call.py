"""One operator as a rule meets it: what it got, what it gave, and what the rule finds out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
import torch

from pretrim.analysis.channels import Channels, Ids, Label, Labels
from pretrim.analysis.copies import tensors_in
from pretrim.analysis.sizes_read import Width


def distinct(ids: Ids) -> Ids:
    """Every id once, in the order of the first of each."""
    _, first = np.unique(ids, return_index=True)
    once: Ids = ids[np.sort(first)]
    return once


def no_widths(sizes: Sequence[int]) -> list[Width | None]:
    """Of sizes that nobody read from a tensor."""
    return [None] * len(sizes)


@dataclass
class Call:
    """One operator as it arrives: what it got, what it gave, and what its rule finds out about it."""

    op: str
    args: dict[str, Any]
    outputs: tuple[torch.Tensor, ...]
    module: str
    channels: Channels
    look: Callable[[torch.Tensor], Labels]
    hint: str = ""
    place: Callable[[], str] = str
    """Gives the file and line of the user's code that called it; asked for where channels are frozen."""
    sizes_read: Callable[[Sequence[int]], list[Width | None]] = no_widths
    """Which of the sizes that it asks for were read from a tensor's channels."""
    integers: list[tuple[int, Ids]] = field(default_factory=list)
    told: list[tuple[str, int, Ids]] = field(default_factory=list)
    """Arguments that no output shape tells, by name (see `argument`): their values, and the ids that they count."""
    factors: tuple[tuple[int, Label], ...] = ()
    """Sizes whose product is the number of multiply-accumulates, each with its label."""
    filters: Label = None
    """The ids of the filters (convolution) or features (matrix product) that the operator computes."""
    weight: torch.Tensor | None = None
    """The operand that may be a parameter; it is a layer if that operand does not depend on the input."""
    is_first: bool = False
    """Whether a reshape has its channels in the first of several dimensions (N x C x L)."""
    readings: list[Ids] = field(default_factory=list)
    """Channels that it may have in the first as well as in the last."""
    slid: list[Ids] = field(default_factory=list)
    """Channels that a window slides along."""
    mixed: list[Ids] = field(default_factory=list)
    """Channels whose values are reduced into one another's (norms, mean, softmax across channels)."""

    def tensor(self, name: str) -> torch.Tensor | None:
        value = self.args.get(name)
        return value if isinstance(value, torch.Tensor) else None

    def tensors(self) -> Iterable[torch.Tensor]:
        return tensors_in(*self.args.values())

    def tie(self, *labels: Label) -> Label:
        """Tie labels of one length; beside a dimension of fixed size (None) the others are frozen."""
        known = [label for label in labels if label is not None]
        for other in known[1:]:
            self.channels.tie(known[0], other)
        if not known:
            return None
        if len(known) < len(labels) and known[0].size > 1:
            self.freeze(known[0], f"{self.op} joins it with a tensor of fixed size")
            return None
        return known[0]

    def tie_rows(self, ids: Ids) -> Ids:
        """Tie the channels at the same place of each row of a matrix; returns the first row."""
        if len(ids) > 1:
            self.channels.tie(ids[:1], ids[1:])
        first: Ids = ids[0]
        return first

    def freeze(self, label: Label, reason: str) -> None:
        if label is not None:
            self.channels.freeze(label, self.module, reason, self.place())

    def slide(self, label: Ids) -> None:
        """Freeze what a window slides along."""
        self.freeze(label, f"{self.op} slides along it")
        self.slid.append(label)

    def mix(self, label: Label) -> None:
        if label is not None:
            self.mixed.append(label)

    def follow_reads(self, widths: Sequence[Width | None], labels: Sequence[Label]) -> None:
        """Tie dimensions, or parts of one, whose sizes were read from a tensor's channels to these."""
        for width, label in zip(widths, labels, strict=True):
            if width is not None and label is None:
                self.freeze(width.ids, f"its width is asked for as a size of {self.op}")
            elif width is not None and label is not None:
                read, asked = distinct(width.ids), distinct(label)
                share = Fraction(asked.size, read.size)
                unit = self.tie_rows(read.reshape(share.denominator, -1))
                self.channels.tie(self.tie_rows(asked.reshape(share.numerator, -1)), unit)

    def follow(self, value: int, ids: Label) -> None:
        """Note that the integer `value` among the arguments has to stay the number of `ids` that are kept."""
        if ids is not None:
            self.integers.append((value, ids))

    def tell(self, name: str, ids: Ids) -> None:
        """Note that the argument `name` has to be the number of `ids` that are kept."""
        self.told.append((name, argument(self.args, name), ids))


def argument(args: Mapping[str, Any], name: str) -> int:
    """An integer among the arguments of an operator: `start` of a slice, counted from the front, or `pad 2`."""
    if name == "start":
        x = args["self"]
        return slice(args.get("start"), args.get("end")).indices(x.shape[args.get("dim", 0)])[0]
    key, _, index = name.partition(" ")
    return int(args[key][int(index)])


Rule: TypeAlias = Callable[[Call], Labels | list[Labels]]


def unknown(call: Call) -> list[Labels]:
    """Freeze every channel that reaches the operator, and say so."""
    freeze_inputs(call, f"no rule for the operator {call.op}")
    return [(None,) * out.dim() for out in call.outputs]


def freeze_inputs(call: Call, reason: str) -> None:
    for tensor in call.tensors():
        for label in call.look(tensor):
            call.freeze(label, reason)

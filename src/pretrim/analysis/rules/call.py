"""One operator call as a rule sees it: its arguments, its outputs, and what the rule finds out."""

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
    """Every id once, in order of first occurrence."""
    _, first = np.unique(ids, return_index=True)
    unique: Ids = ids[np.sort(first)]
    return unique


def no_widths(sizes: Sequence[int]) -> list[Width | None]:
    """The widths of sizes that were not read from any tensor: all None."""
    return [None] * len(sizes)


@dataclass
class Call:
    """One operator call: its arguments, its outputs, and what its rule finds out about it."""

    op: str
    args: dict[str, Any]
    outputs: tuple[torch.Tensor, ...]
    module: str
    channels: Channels
    look: Callable[[torch.Tensor], Labels]
    hint: str = ""
    source_line: Callable[[], str] = str
    """Returns the file and line of the user's code that called it; called only where channels are frozen."""
    sizes_read: Callable[[Sequence[int]], list[Width | None]] = no_widths
    """For each size argument, the width if it was read from a tensor's channels, else None."""
    integers: list[tuple[int, Ids]] = field(default_factory=list)
    size_arguments: list[tuple[str, int, Ids]] = field(default_factory=list)
    """Arguments that the output shapes do not determine: name (see `argument`), value, and the ids that it counts."""
    factors: tuple[tuple[int, Label], ...] = ()
    """Sizes whose product is the number of multiply-accumulates, each with its label."""
    filters: Label = None
    """The ids of the filters (convolution) or features (matrix product) that the operator computes."""
    weight: torch.Tensor | None = None
    """The operand that may be a parameter; the operator is a layer if that operand does not depend on the input."""
    is_first: bool = False
    """Whether a reshape puts its channels in the first of several dimensions (N x C x L)."""
    readings: list[Ids] = field(default_factory=list)
    """Channels that a reshape could have in the first of two dimensions as well as in the last."""
    slid: list[Ids] = field(default_factory=list)
    """Channels of dimensions along which a window slides."""
    mixed: list[Ids] = field(default_factory=list)
    """Channels that are reduced over, so that their values mix (norms, mean, softmax across channels)."""

    def tensor(self, name: str) -> torch.Tensor | None:
        value = self.args.get(name)
        return value if isinstance(value, torch.Tensor) else None

    def tensors(self) -> Iterable[torch.Tensor]:
        return tensors_in(*self.args.values())

    def tie(self, *labels: Label) -> Label:
        """Tie labels of equal length; if one of them is a dimension of fixed size (None), the others are frozen."""
        with_channels = [label for label in labels if label is not None]
        for other in with_channels[1:]:
            self.channels.tie(with_channels[0], other)
        if not with_channels:
            return None
        if len(with_channels) < len(labels) and with_channels[0].size > 1:
            self.freeze(with_channels[0], f"{self.op} joins it with a tensor of fixed size")
            return None
        return with_channels[0]

    def tie_rows(self, ids: Ids) -> Ids:
        """Tie the channels in each column of a matrix; returns the first row."""
        if len(ids) > 1:
            self.channels.tie(ids[:1], ids[1:])
        first: Ids = ids[0]
        return first

    def freeze(self, label: Label, reason: str) -> None:
        if label is not None:
            self.channels.freeze(label, self.module, reason, self.source_line())

    def slide(self, label: Ids) -> None:
        """Freeze the channels of a dimension along which a window slides."""
        self.freeze(label, f"{self.op} slides along it")
        self.slid.append(label)

    def mix(self, label: Label) -> None:
        if label is not None:
            self.mixed.append(label)

    def follow_reads(self, widths: Sequence[Width | None], labels: Sequence[Label]) -> None:
        """Tie dimensions, or parts of them, to the channels that their sizes were read from."""
        for width, label in zip(widths, labels, strict=True):
            if width is not None and label is None:
                self.freeze(width.ids, f"its width is used as a size of {self.op}")
            elif width is not None and label is not None:
                read, requested = distinct(width.ids), distinct(label)
                share = Fraction(requested.size, read.size)
                unit = self.tie_rows(read.reshape(share.denominator, -1))
                self.channels.tie(self.tie_rows(requested.reshape(share.numerator, -1)), unit)

    def follow(self, value: int, ids: Label) -> None:
        """Record that the integer argument `value` has to become the number of `ids` that are kept."""
        if ids is not None:
            self.integers.append((value, ids))

    def tell(self, name: str, ids: Ids) -> None:
        """Record that the argument `name` has to be the number of `ids` that are kept."""
        self.size_arguments.append((name, argument(self.args, name), ids))


def argument(args: Mapping[str, Any], name: str) -> int:
    """An integer argument of an operator: `start` of a slice, counted from the front, or a list item like `pad 2`."""
    if name == "start":
        x = args["self"]
        return slice(args.get("start"), args.get("end")).indices(x.shape[args.get("dim", 0)])[0]
    key, _, index = name.partition(" ")
    return int(args[key][int(index)])


Rule: TypeAlias = Callable[[Call], Labels | list[Labels]]


def unknown(call: Call) -> list[Labels]:
    """Freeze every channel that reaches the operator, with the reason."""
    freeze_inputs(call, f"no rule for the operator {call.op}")
    return [(None,) * out.dim() for out in call.outputs]


def freeze_inputs(call: Call, reason: str) -> None:
    for tensor in call.tensors():
        for label in call.look(tensor):
            call.freeze(label, reason)

"""Filters of a trained network that do nothing: zero, constant, or read by nobody. They are removed without loss.

A channel can go if every layer that reads it has no use for it: its weights for it are zero, or lead only to filters
that go as well, or the channel is a constant that the layer's own bias (or the mean of the norm behind it) can take.
A constant other than zero beside zero padding is another one at the border, so such a channel stays, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pretrim.analysis.copies import Example, call_model, copy_module, named_tensors
from pretrim.analysis.dependence import Dependence, Reading, input_dependence
from pretrim.analysis.network import IntArray, Network
from pretrim.analysis.trace import outputs_of
from pretrim.errors import ModelError

from .apply import KeptMask, cut

Flags = NDArray[np.bool_]
"""One for each channel"""


@dataclass(frozen=True)
class DeadGroup:
    """The dead filters of one channel group.

    Attributes:
        group: its name, the first layer whose filters they are.
        layers: all of them.
        channels: how many filters there were.
        zero: removed ones whose output is zero wherever it is read.
        constant: removed ones whose output is another constant, which the next bias has now.
        unread: removed ones that vary, but that no layer reads.
        spared: ones that are constant and stay, as pairs of how many and why.
    """

    group: str
    layers: tuple[str, ...]
    channels: int
    zero: int
    constant: int
    unread: int
    spared: tuple[tuple[int, str], ...]

    @property
    def removed(self) -> int:
        """All that go."""
        return self.zero + self.constant + self.unread


@dataclass(frozen=True)
class DeadFilters:
    """What can go from a network without any change of its outputs.

    Attributes:
        kept: of each channel whether it stays.
        widths: channels that each group keeps (G).
        folds: what is added to biases and running means, by name, so that they take the constants.
        groups: what goes and what stays though it is constant, of the groups where there is any.
    """

    kept: KeptMask
    widths: IntArray
    folds: Mapping[str, torch.Tensor]
    groups: tuple[DeadGroup, ...]

    @property
    def removed(self) -> int:
        """Channels that go, of all groups."""
        return int((~self.kept).sum())


def find_dead(model: nn.Module, network: Network, example: Example, frozen: Sequence[int] = ()) -> DeadFilters:
    """Find the filters that can go, all at once: also those that only dead ones read.

    Args:
        model: a trained network, which is not changed; in double precision, constants are exact to the last place.
        network: its analysis.
        example: inputs of one image; their values do not matter.
        frozen: groups (by number) that keep all their channels.

    Raises:
        ModelError: a network that cannot be looked through: its ``forward`` reads values.
    """
    if any("real tensors" in note for note in network.notes):
        raise ModelError("The network's forward reads values, so that what is constant depends on them: not slimmed.")
    dependence = input_dependence(model, network, example)
    candidates = _candidates(network, dependence, frozen)
    dead = _largest_dead_set(network, dependence.readings, candidates)
    return DeadFilters(
        kept=~dead,
        widths=np.bincount(network.group_of[~dead], minlength=len(network.groups)).astype(np.int64),
        folds=_folds(dependence.readings, dead),
        groups=tuple(_groups(network, dependence, dead)),
    )


def remove_dead(model: nn.Module, network: Network, dead: DeadFilters) -> nn.Module:
    """A copy of the network without its dead filters, the constants in biases and running means.

    Args:
        model: the network, which is not changed.
        network: its analysis.
        dead: what :func:`find_dead` found.
    """
    folded = copy_module(model)
    tensors = dict(named_tensors(folded))
    with torch.no_grad():
        for name, amount in dead.folds.items():
            tensors[name] += amount.to(tensors[name])
    return cut(folded, network, dead.widths, dead.kept, rescale=False)


def largest_difference(model: nn.Module, slim: nn.Module, examples: Sequence[Example]) -> float:
    """How far outputs of two networks are apart, as a share of the largest value of the same output.

    Args:
        model: the one that is right; it computes in its own precision.
        slim: the other one, in the same precision.
        examples: inputs of both.
    """
    worst = 0.0
    with torch.no_grad():
        for example in examples:
            pairs = zip(*(outputs_of(call_model(each.eval(), example)) for each in (model, slim)), strict=True)
            for expected, found in pairs:
                scale = float(expected.abs().max()) if expected.numel() else 0.0
                apart = float((found - expected).abs().max()) if expected.numel() else 0.0
                worst = max(worst, apart / scale if scale else apart)
    return worst


def _candidates(network: Network, dependence: Dependence, frozen: Sequence[int]) -> Flags:
    """Channels that nothing but layers reads."""
    flags = ~np.isin(network.group_of, np.array(frozen, dtype=np.int64))
    for ids, _ in dependence.mixed:
        flags[ids[ids >= 0]] = False
    for layer in network.layers:
        if layer.operator < 0:  # it runs in training only: what it is for does not show here
            ids = network.members[layer.filters]
            flags[ids[ids >= 0]] = False
    return flags


def _largest_dead_set(network: Network, readings: Sequence[Reading], candidates: Flags) -> Flags:
    """The largest set of channels that nobody outside it needs, with a channel left in every group."""
    dead = candidates.copy()
    while True:
        _keep_needed(readings, dead)
        alive = np.bincount(network.group_of[~dead], minlength=len(network.groups))
        empty = np.flatnonzero(alive == 0)
        if not empty.size:
            return dead
        # The last one first: what its channel reads may then be enough for the groups before it.
        dead &= ~((network.group_of == empty[-1]) & (network.rank_of == 0))


def _keep_needed(readings: Sequence[Reading], dead: Flags) -> None:
    """Take out of a set, in place, what a layer outside it needs, until there is nothing more of that."""
    needs = [(reading, _blocks(reading)) for reading in readings]
    before = -1
    while before != int(dead.sum()):
        before = int(dead.sum())
        for reading, blocks in reversed(needs):
            rows = ~_are(dead, reading.writes)
            needed = blocks[rows].any(axis=0) & (reading.reads >= 0)
            dead[reading.reads[needed]] = False


def _are(dead: Flags, ids: IntArray) -> Flags:
    """Of channels by their ids whether they are dead; those of fixed size (-1) are not."""
    flags: Flags = np.append(dead, False)[ids]
    return flags


def _blocks(reading: Reading) -> Flags:
    """Where a row needs a column: it has weights for it that neither are lost on zeros nor can go into a bias."""
    varies = reading.varies | reading.differs
    stuck = torch.zeros_like(varies) if _can_fold(reading) else (reading.adds != 0).any(0)
    blocks: Flags = (reading.uses & (varies | stuck)).numpy(force=True)
    return blocks


def _can_fold(reading: Reading) -> bool:
    return reading.target is not None and not reading.pads


def _folds(readings: Sequence[Reading], dead: Flags) -> dict[str, torch.Tensor]:
    """What the targets of constants take: only of columns that go."""
    folds = {}
    for reading in readings:
        columns = torch.from_numpy(_are(dead, reading.reads)).to(reading.adds.device)
        amount = reading.adds[:, columns].sum(1)
        if reading.target is not None and _can_fold(reading) and bool((amount != 0).any()):
            folds[reading.target] = reading.sign * amount
    return folds


# ---------------------------------------------------------------------------------------- what is said of it


def _groups(network: Network, dependence: Dependence, dead: Flags) -> Iterator[DeadGroup]:
    """What goes and what is spared, of each group with any."""
    varies, is_constant = _kinds(dependence.readings, len(dead))
    reasons = _reasons(dependence, dead, varies)
    for number, group in enumerate(network.groups):
        here = network.group_of == number
        gone = here & dead
        spared = tuple((int(count), why) for why, flags in reasons.items() if (count := (here & flags & ~dead).sum()))
        if gone.any() or spared:
            yield DeadGroup(
                group=group.name,
                layers=group.layers,
                channels=group.channels,
                zero=int((gone & ~varies & ~is_constant).sum()),
                constant=int((gone & ~varies & is_constant).sum()),
                unread=int((gone & varies).sum()),
                spared=spared,
            )


def _kinds(readings: Sequence[Reading], count: int) -> tuple[Flags, Flags]:
    """Of each channel whether it varies where it is read, and whether it is a constant other than zero there."""
    varies, is_constant = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    for reading in readings:
        for flags, columns in ((varies, reading.varies), (is_constant, reading.differs | (reading.adds != 0).any(0))):
            ids = reading.reads[columns.numpy(force=True)]
            flags[ids[ids >= 0]] = True
    return varies, is_constant


def _reasons(dependence: Dependence, dead: Flags, varies: Flags) -> dict[str, Flags]:
    """Why channels stay that are constant wherever a layer reads them, by the reason: the first one of each."""
    reasons: dict[str, Flags] = {}
    told = dead | varies
    for reading in dependence.readings:
        rows = ~_are(dead, reading.writes)
        columns = _blocks(reading)[rows].any(axis=0) & (reading.reads >= 0)
        flags = np.zeros(len(dead), dtype=bool)
        flags[reading.reads[columns]] = True
        flags &= ~told
        told |= flags
        if flags.any():
            why = _why(reading)
            reasons[why] = reasons.get(why, np.zeros_like(flags)) | flags
    return reasons


def _why(reading: Reading) -> str:
    layer = reading.layer or "the layer that reads it"
    if reading.pads or bool(reading.differs.any()):
        return f"{layer} pads with zeros, so a constant differs at the border"
    return f"{layer} has no bias of its own to take a constant"

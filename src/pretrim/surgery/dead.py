"""Dead filters of a trained network, which can be removed without changing its outputs: zero, constant or unread.

A channel can be removed if no layer that reads it needs it: the layer's weights for it are zero or lead only to filters
that are removed as well, or the channel is a constant that the layer's bias (or the mean of the norm after it) can
absorb. Next to zero padding, a constant other than zero differs at the border: such a channel stays, with the reason.
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
"""One flag for each channel id."""


@dataclass(frozen=True)
class DeadGroup:
    """The dead filters of one channel group.

    Attributes:
        group: name of the group: the first layer that its filters belong to.
        layers: all layers that its filters belong to.
        channels: number of channels before the removal.
        zero: number of removed filters whose output is zero wherever it is read.
        constant: number of removed filters with another constant output, which the next bias absorbed.
        unread: number of removed filters whose output varies, but is not read by any layer.
        spared: constant filters that stay, as pairs of number and reason.
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
        """Number of removed filters."""
        return self.zero + self.constant + self.unread


@dataclass(frozen=True)
class DeadFilters:
    """The filters that can be removed from a network without changing its outputs.

    Attributes:
        kept: whether each channel stays.
        widths: number of channels that each group keeps (G).
        folds: amounts to add to biases and running means, by name, so that they absorb the constants.
        groups: the groups with filters that are removed, or that stay although they are constant.
    """

    kept: KeptMask
    widths: IntArray
    folds: Mapping[str, torch.Tensor]
    groups: tuple[DeadGroup, ...]

    @property
    def removed(self) -> int:
        """Number of removed channels in all groups."""
        return int((~self.kept).sum())


def find_dead(model: nn.Module, network: Network, example: Example, frozen: Sequence[int] = ()) -> DeadFilters:
    """Find all filters that can be removed together, including those that only dead filters read.

    Args:
        model: a trained network, which is not changed; in double precision, constants are exact to the last digit.
        network: analysis of the model.
        example: inputs of one image; their values do not matter.
        frozen: indices of groups that keep all their channels.

    Raises:
        ModelError: the network cannot be analysed for dead filters, because its ``forward`` reads values.
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
    """Copy the network without its dead filters; biases and running means absorb their constants.

    Args:
        model: the network, which is not changed.
        network: analysis of the model.
        dead: the result of :func:`find_dead`.
    """
    folded = copy_module(model)
    tensors = dict(named_tensors(folded))
    with torch.no_grad():
        for name, amount in dead.folds.items():
            tensors[name] += amount.to(tensors[name])
    return cut(folded, network, dead.widths, dead.kept, rescale=False)


def largest_difference(model: nn.Module, slim: nn.Module, examples: Sequence[Example]) -> float:
    """The largest difference between the outputs of two networks, relative to the largest value of the same output.

    Args:
        model: the reference network, which computes in its own precision.
        slim: the network to compare, in the same precision.
        examples: inputs for both networks.
    """
    worst = 0.0
    with torch.no_grad():
        for example in examples:
            pairs = zip(*(outputs_of(call_model(module.eval(), example)) for module in (model, slim)), strict=True)
            for expected, actual in pairs:
                scale = float(expected.abs().max()) if expected.numel() else 0.0
                difference = float((actual - expected).abs().max()) if expected.numel() else 0.0
                worst = max(worst, difference / scale if scale else difference)
    return worst


def _candidates(network: Network, dependence: Dependence, frozen: Sequence[int]) -> Flags:
    """Channels that may be removed: not frozen, read by convolution and linear layers only, and used in inference."""
    flags = ~np.isin(network.group_of, np.array(frozen, dtype=np.int64))
    for ids, _ in dependence.mixed:
        flags[ids[ids >= 0]] = False
    for layer in network.layers:
        if layer.operator < 0:  # it runs in training only, so the readers of its filters are unknown
            ids = network.members[layer.filters]
            flags[ids[ids >= 0]] = False
    return flags


def _largest_dead_set(network: Network, readings: Sequence[Reading], candidates: Flags) -> Flags:
    """The largest set of channels that no layer outside it needs, with at least one channel left in every group."""
    dead = candidates.copy()
    while True:
        _keep_needed(readings, dead)
        alive = np.bincount(network.group_of[~dead], minlength=len(network.groups))
        empty = np.flatnonzero(alive == 0)
        if not empty.size:
            return dead
        # Keep a channel of the last empty group first: the channels it needs may then suffice for earlier groups.
        dead &= ~((network.group_of == empty[-1]) & (network.rank_of == 0))


def _keep_needed(readings: Sequence[Reading], dead: Flags) -> None:
    """Remove from a set, in place, the channels that a surviving channel needs, until no more are needed."""
    needs = [(reading, _needs(reading)) for reading in readings]
    before = -1
    while before != int(dead.sum()):
        before = int(dead.sum())
        for reading, matrix in reversed(needs):
            rows = ~_is_dead(dead, reading.writes)
            needed = matrix[rows].any(axis=0) & (reading.reads >= 0)
            dead[reading.reads[needed]] = False


def _is_dead(dead: Flags, ids: IntArray) -> Flags:
    """Whether the channels with the given ids are dead; an index that belongs to no channel (-1) is not."""
    flags: Flags = np.append(dead, False)[ids]
    return flags


def _needs(reading: Reading) -> Flags:
    """Whether each row needs each column: it uses a column that varies, or whose constant no bias can absorb."""
    varies = reading.varies | reading.differs
    stuck = torch.zeros_like(varies) if _can_fold(reading) else (reading.adds != 0).any(0)
    needs: Flags = (reading.uses & (varies | stuck)).numpy(force=True)
    return needs


def _can_fold(reading: Reading) -> bool:
    """Whether a bias or running mean can absorb constants: there is one, and the layer does not pad with zeros."""
    return reading.target is not None and not reading.pads


def _folds(readings: Sequence[Reading], dead: Flags) -> dict[str, torch.Tensor]:
    """Amounts that biases and running means absorb, by name, for the channels that are removed."""
    folds = {}
    for reading in readings:
        columns = torch.from_numpy(_is_dead(dead, reading.reads)).to(reading.adds.device)
        amount = reading.adds[:, columns].sum(1)
        if reading.target is not None and _can_fold(reading) and bool((amount != 0).any()):
            folds[reading.target] = reading.sign * amount
    return folds


# ---------------------------------------------------------------------------------------- report


def _groups(network: Network, dependence: Dependence, dead: Flags) -> Iterator[DeadGroup]:
    """The record of each group with removed or spared filters."""
    varies, is_constant = _kinds(dependence.readings, len(dead))
    reasons = _reasons(dependence, dead, varies)
    for number, group in enumerate(network.groups):
        members = network.group_of == number
        removed = members & dead
        spared = tuple(
            (int(count), reason) for reason, flags in reasons.items() if (count := (members & flags & ~dead).sum())
        )
        if removed.any() or spared:
            yield DeadGroup(
                group=group.name,
                layers=group.layers,
                channels=group.channels,
                zero=int((removed & ~varies & ~is_constant).sum()),
                constant=int((removed & ~varies & is_constant).sum()),
                unread=int((removed & varies).sum()),
                spared=spared,
            )


def _kinds(readings: Sequence[Reading], count: int) -> tuple[Flags, Flags]:
    """Whether each channel varies where it is read, and whether it is a constant other than zero there."""
    varies, is_constant = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    for reading in readings:
        for flags, columns in ((varies, reading.varies), (is_constant, reading.differs | (reading.adds != 0).any(0))):
            ids = reading.reads[columns.numpy(force=True)]
            flags[ids[ids >= 0]] = True
    return varies, is_constant


def _reasons(dependence: Dependence, dead: Flags, varies: Flags) -> dict[str, Flags]:
    """The channels that are constant wherever they are read and stay nevertheless, by the first reason of each."""
    reasons: dict[str, Flags] = {}
    explained = dead | varies
    for reading in dependence.readings:
        rows = ~_is_dead(dead, reading.writes)
        columns = _needs(reading)[rows].any(axis=0) & (reading.reads >= 0)
        flags = np.zeros(len(dead), dtype=bool)
        flags[reading.reads[columns]] = True
        flags &= ~explained
        explained |= flags
        if flags.any():
            reason = _reason(reading)
            reasons[reason] = reasons.get(reason, np.zeros_like(flags)) | flags
    return reasons


def _reason(reading: Reading) -> str:
    """Why a layer cannot absorb a constant that it reads."""
    layer = reading.layer or "the layer that reads it"
    if reading.pads or bool(reading.differs.any()):
        return f"{layer} pads with zeros, so a constant differs at the border"
    return f"{layer} has no bias of its own to take a constant"

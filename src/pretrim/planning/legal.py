"""The legal widths of each group: multiples of its rounding step, from the minimum that the options set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np
from numpy.typing import NDArray

from pretrim.analysis.network import Group, IntArray, Network

from .budget import ResolvedBudget
from .named_layers import fewest_filters, frozen_groups
from .options import Options

FloatArray = NDArray[np.float64]

NARROW = 8
"""A layer of fewer rounding steps than this gets a smaller step."""


def legal_widths(group: Group, round_to: int, min_width: int) -> IntArray:
    """The legal widths of a group in channels, ascending: multiples of its rounding step, and its dense width.

    The step is `round_to`, but at most an eighth of the layer: a layer of fewer than ``8 * round_to`` filters is
    rounded to the largest power of two that is at most an eighth of it. Coarser steps cost narrow networks accuracy,
    and finer steps cost time (docs/planning.md). Where one channel stands for several filters, the number of filters is
    rounded.

    Args:
        group: the group.
        round_to: filters are kept in multiples of this.
        min_width: the fewest filters that stay.

    >>> legal_widths(Group("conv", ("conv",), 64, 1), 8, 1).tolist()
    [8, 16, 24, 32, 40, 48, 56, 64]
    >>> legal_widths(Group("conv", ("conv",), 18, 1), 8, 9).tolist()
    [10, 12, 14, 16, 18]
    """
    filters = group.channels * group.multiplicity
    step = round_to if filters >= NARROW * round_to else 1 << max(0, (filters // NARROW).bit_length() - 1)
    step = max(1, step // gcd(step, group.multiplicity))
    fewest = min(-(-min_width // group.multiplicity), group.channels)
    steps = np.arange(step, group.channels, step, dtype=np.int64)
    return np.append(steps[steps >= fewest], group.channels)


RULED = ("balanced", "uniform", "waterfill")
"""Modes that compute the widths without draws: the default of `Options.min_features` does not apply to them."""
FEATURES_PER_CLASS, FEATURES_SHARE = 2, 4
"""Default of `Options.min_features`: `FEATURES_PER_CLASS` for each class, or the dense network's number divided by
`FEATURES_SHARE`, if that is less."""


def fewest_channels(network: Network, features: int | None) -> IntArray:
    """The fewest channels of each group (G) with which the last layer reads enough features.

    Args:
        network: the analysed network.
        features: `Options.min_features`; None for its default.

    Returns:
        0 for groups that the last layer does not read, and for all groups of a network without a classifier.
    """
    fewest = np.zeros(len(network.groups), dtype=np.int64)
    last = max(network.layers, key=lambda layer: layer.operator, default=None)
    if last is None or network.coefficients[last.filters].any():
        return fewest  # not a classifier: its outputs could be cut
    reads = [dim for dim in last.weight[:2] if dim != last.filters]  # a linear weight is traced transposed
    if len(reads) != 1:
        return fewest
    sizes = network.sizes(network.dense)
    classes, dense = int(sizes[last.filters]), int(sizes[reads[0]])
    required = min(FEATURES_PER_CLASS * classes, dense // FEATURES_SHARE) if features is None else min(features, dense)
    for g in np.flatnonzero(network.coefficients[reads[0]]):
        fewest[g] = -(-required * network.groups[g].channels // dense)
    return fewest


@dataclass(frozen=True)
class Problem:
    """One allocation problem: a network, its limits and the options, which give the legal widths of each group."""

    network: Network
    budget: ResolvedBudget
    options: Options

    @cached_property
    def legal(self) -> tuple[IntArray, ...]:
        """Legal widths of each group, ascending.

        The default of `min_features` holds only where the narrowest network then still meets every limit.
        """
        o = self.options
        frozen, min_filters = frozen_groups(self.network, o.freeze), fewest_filters(self.network, o.min_width)
        unrestricted = tuple(
            legal_widths(group, o.round_to, group.channels * group.multiplicity if is_frozen else int(fewest))
            for group, is_frozen, fewest in zip(self.network.groups, frozen, min_filters, strict=True)
        )
        if o.min_features is None and o.mode in RULED:
            return unrestricted
        min_channels = fewest_channels(self.network, o.min_features)
        restricted = tuple(legal[legal >= min_channels[g]] for g, legal in enumerate(unrestricted))
        smallest = np.array([legal[0] for legal in restricted], dtype=np.int64)
        is_reachable = bool((self.budget.measure(smallest) <= self.budget.values).all())
        return restricted if is_reachable or o.min_features is not None else unrestricted

    @cached_property
    def levels(self) -> IntArray:
        """Legal widths as a matrix (G x the largest number of them), padded with the dense width."""
        count = max((len(legal) for legal in self.legal), default=1)
        rows = [np.pad(legal, (0, count - len(legal)), mode="edge") for legal in self.legal]
        return np.array(rows, dtype=np.int64).reshape(len(rows), count)

    @cached_property
    def smallest(self) -> IntArray:
        """The narrowest legal width of each group (G)."""
        return np.array([legal[0] for legal in self.legal], dtype=np.int64)

    def floor(self, wanted: FloatArray) -> IntArray:
        """Round down to legal widths, or to the smallest where none is low enough: (n x G) -> (n x G)."""
        columns = [
            legal[np.maximum(np.searchsorted(legal, wanted[:, g], side="right") - 1, 0)]
            for g, legal in enumerate(self.legal)
        ]
        return np.stack(columns, axis=1) if columns else np.zeros(wanted.shape, dtype=np.int64)

    def next_up(self, group: IntArray, width: IntArray) -> IntArray:
        """The next larger legal width of each (group, width) pair; the same width where it is dense."""
        levels = self.levels[group]
        index = (levels <= width[:, None]).sum(axis=1)
        above: IntArray = levels[np.arange(len(group)), np.minimum(index, levels.shape[1] - 1)]
        return above

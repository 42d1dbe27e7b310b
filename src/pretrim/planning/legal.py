"""Which widths a group may have."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np
from numpy.typing import NDArray

from pretrim.analysis.network import Group, IntArray, Network

from .budget import ResolvedBudget
from .options import Options
from .wishes import fewest_filters, frozen_groups

FloatArray = NDArray[np.float64]

NARROW = 8
"""A layer of fewer rounding steps than this gets smaller steps"""


def legal_widths(group: Group, round_to: int, min_width: int) -> IntArray:
    """The widths a group may have, ascending: multiples of its rounding step, and its dense width.

    The step is `round_to`, but at most an eighth of the layer: one of fewer than ``8 * round_to`` filters is rounded to
    the largest power of two that is at most an eighth of it. Coarser steps cost narrow networks accuracy, and finer
    ones time (docs/planning.md). Where one channel stands for several filters, the filters are rounded.

    Args:
        group: the group.
        round_to: filters are kept in multiples of it.
        min_width: the least that stays.

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
"""Modes whose widths follow from a rule, so that nothing is to be kept from a draw"""
FEATURES_PER_CLASS, FEATURES_SHARE = 2, 4
"""What `Options.min_features` is by default: so many for each class, or one of so many of the dense network's"""


def fewest_channels(network: Network, features: int | None) -> IntArray:
    """Of each group (G), so that the last layer reads as many features as `Options.min_features` says."""
    least = np.zeros(len(network.groups), dtype=np.int64)
    last = max(network.layers, key=lambda layer: layer.operator, default=None)
    if last is None or network.coefficients[last.filters].any():
        return least  # no classifier: its outputs could be cut
    reads = [dim for dim in last.weight[:2] if dim != last.filters]  # a linear weight is traced transposed
    if len(reads) != 1:
        return least
    sizes = network.sizes(network.dense)
    classes, dense = int(sizes[last.filters]), int(sizes[reads[0]])
    wanted = min(FEATURES_PER_CLASS * classes, dense // FEATURES_SHARE) if features is None else min(features, dense)
    for g in np.flatnonzero(network.coefficients[reads[0]]):
        least[g] = -(-wanted * network.groups[g].channels // dense)
    return least


@dataclass(frozen=True)
class Problem:
    """One allocation: the legal widths of each group and the limits, in arrays."""

    network: Network
    budget: ResolvedBudget
    options: Options

    @cached_property
    def legal(self) -> tuple[IntArray, ...]:
        o = self.options
        frozen, fewest = frozen_groups(self.network, o.freeze), fewest_filters(self.network, o.min_width)
        narrow = tuple(
            legal_widths(group, o.round_to, group.channels * group.multiplicity if is_frozen else int(least))
            for group, is_frozen, least in zip(self.network.groups, frozen, fewest, strict=True)
        )
        if o.min_features is None and o.mode in RULED:
            return narrow
        least = fewest_channels(self.network, o.min_features)
        kept = tuple(legal[legal >= least[g]] for g, legal in enumerate(narrow))
        smallest = np.array([legal[0] for legal in kept], dtype=np.int64)
        is_reachable = bool((self.budget.measure(smallest) <= self.budget.values).all())
        return kept if is_reachable or o.min_features is not None else narrow

    @cached_property
    def levels(self) -> IntArray:
        """Legal widths as a matrix (G x most), filled up with the dense width."""
        most = max((len(legal) for legal in self.legal), default=1)
        rows = [np.pad(legal, (0, most - len(legal)), mode="edge") for legal in self.legal]
        return np.array(rows, dtype=np.int64).reshape(len(rows), most)

    @cached_property
    def smallest(self) -> IntArray:
        return np.array([legal[0] for legal in self.legal], dtype=np.int64)

    def floor(self, wanted: FloatArray) -> IntArray:
        """The largest legal widths not above the wanted ones (the smallest legal where there are none): n x G."""
        columns = [
            legal[np.maximum(np.searchsorted(legal, wanted[:, g], side="right") - 1, 0)]
            for g, legal in enumerate(self.legal)
        ]
        return np.stack(columns, axis=1) if columns else np.zeros(wanted.shape, dtype=np.int64)

    def next_up(self, group: IntArray, width: IntArray) -> IntArray:
        """The next legal width of each (group, width) pair; the same where it is dense."""
        levels = self.levels[group]
        place = (levels <= width[:, None]).sum(axis=1)
        above: IntArray = levels[np.arange(len(group)), np.minimum(place, levels.shape[1] - 1)]
        return above

"""Sparse dependence of products of sizes on groups: most products depend on two groups out of hundreds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pretrim.analysis.network import IntArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Incidence:
    """The (size, group) pairs (N) and the (product, group) pairs (P) of a formula where one depends on the other.

    Attributes:
        sizes: the size of each (size, group) pair (N).
        size_groups: the group of each (size, group) pair (N).
        size_shares: how much the size grows with one channel of the group (N).
        terms: the product of each (product, group) pair (P), ascending.
        groups: the group of each (product, group) pair (P).
        shares: how much each factor of the product grows with one channel of the group (P x factors).
    """

    sizes: IntArray
    size_groups: IntArray
    size_shares: FloatArray
    terms: IntArray
    groups: IntArray
    shares: FloatArray

    @classmethod
    def of(cls, coefficients: FloatArray, factors: IntArray) -> Incidence:
        """Build from dense coefficients (G x sizes) and the sizes that each product multiplies (products x factors)."""
        sizes, size_groups = (part.astype(np.int64) for part in np.nonzero(coefficients.T))
        size_shares = coefficients[size_groups, sizes]
        counts = np.bincount(sizes, minlength=coefficients.shape[1])
        starts = np.cumsum(counts) - counts
        flat = factors.ravel()
        repeats = counts[flat]
        entry = np.repeat(np.arange(flat.size), repeats)  # index into `flat`: which factor of which product
        inside = np.arange(entry.size) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        source = starts[flat[entry]] + inside
        term, place = np.divmod(entry, max(factors.shape[1], 1))
        groups = len(coefficients)
        keys, pair = np.unique(term * groups + size_groups[source], return_inverse=True)
        shares = np.zeros((len(keys), factors.shape[1]))
        shares[pair, place] = size_shares[source]
        return cls(sizes, size_groups, size_shares, keys // groups, keys % groups, shares)

    def sizes_at(self, widths: FloatArray, constants: FloatArray) -> FloatArray:
        """Values of all sizes at widths (G), given their constant parts."""
        variable = np.bincount(self.sizes, self.size_shares * widths[self.size_groups], minlength=len(constants))
        sizes: FloatArray = constants + variable
        return sizes

    @cached_property
    def couples(self) -> Couples:
        """All couples of pairs that share a product."""
        return Couples.of(self.terms, self.groups)


@dataclass(frozen=True)
class Couples:
    """All couples of (product, group) pairs that share a product, in both orders, and each pair with itself.

    These are where second derivatives can be nonzero.

    Attributes:
        left: index in `Incidence.terms` of each couple's first pair.
        right: index in `Incidence.terms` of each couple's second pair.
        cells: index into `rows` and `columns` of the matrix cell (of G x G) that each couple adds to.
        rows: row of each distinct cell: the group of the first pair.
        columns: column of each distinct cell: the group of the second pair.
    """

    left: IntArray
    right: IntArray
    cells: IntArray
    rows: IntArray
    columns: IntArray

    @classmethod
    def of(cls, terms: IntArray, groups: IntArray) -> Couples:
        """Build from the product (ascending) and the group of each pair."""
        starts = np.searchsorted(terms, terms)
        counts = np.searchsorted(terms, terms, side="right") - starts
        left = np.repeat(np.arange(len(terms)), counts)
        right = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts) + starts[left]
        count = int(groups.max(initial=0)) + 1
        places, cells = np.unique(groups[left] * count + groups[right], return_inverse=True)
        return cls(left, right, cells, places // count, places % count)

"""Which groups each product of sizes depends on: most of them on two out of hundreds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pretrim.analysis.network import IntArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Incidence:
    """The pairs of a product and a group that a formula's products have, and of a size and a group.

    Attributes:
        sizes: of each pair of a size and a group (N) the size.
        size_groups: likewise the group.
        size_shares: how much the size grows with one channel of the group.
        terms: of each pair of a product and a group (P) the product.
        groups: likewise the group.
        shares: how much each factor of the product grows with one channel of the group: P x factors.
    """

    sizes: IntArray
    size_groups: IntArray
    size_shares: FloatArray
    terms: IntArray
    groups: IntArray
    shares: FloatArray

    @classmethod
    def of(cls, coefficients: FloatArray, factors: IntArray) -> Incidence:
        """From dense coefficients (G x sizes) and the sizes that each product multiplies (products x factors)."""
        sizes, size_groups = (part.astype(np.int64) for part in np.nonzero(coefficients.T))
        size_shares = coefficients[size_groups, sizes]
        counts = np.bincount(sizes, minlength=coefficients.shape[1])
        starts = np.cumsum(counts) - counts
        flat = factors.ravel()
        repeats = counts[flat]
        entry = np.repeat(np.arange(flat.size), repeats)  # which factor of which product
        inside = np.arange(entry.size) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        source = starts[flat[entry]] + inside
        term, place = np.divmod(entry, max(factors.shape[1], 1))
        groups = len(coefficients)
        keys, pair = np.unique(term * groups + size_groups[source], return_inverse=True)
        shares = np.zeros((len(keys), factors.shape[1]))
        shares[pair, place] = size_shares[source]
        return cls(sizes, size_groups, size_shares, keys // groups, keys % groups, shares)

    def sizes_at(self, widths: FloatArray, constants: FloatArray) -> FloatArray:
        """Every size at widths (G)."""
        grown = np.bincount(self.sizes, self.size_shares * widths[self.size_groups], minlength=len(constants))
        found: FloatArray = constants + grown
        return found

    @cached_property
    def couples(self) -> Couples:
        """Every two pairs of one product."""
        return Couples.of(self.terms, self.groups)


@dataclass(frozen=True)
class Couples:
    """Every two pairs of one product, in both orders, and each with itself: where second derivatives are not 0.

    Attributes:
        left: the first pair, a place in `Incidence.terms`.
        right: the second.
        cells: of each couple, which cell of a matrix (G x G) it adds to.
        rows: of each cell, the group of the first.
        columns: of each cell, the group of the second.
    """

    left: IntArray
    right: IntArray
    cells: IntArray
    rows: IntArray
    columns: IntArray

    @classmethod
    def of(cls, terms: IntArray, groups: IntArray) -> Couples:
        """From the product, ascending, and the group of each pair."""
        starts = np.searchsorted(terms, terms)
        counts = np.searchsorted(terms, terms, side="right") - starts
        left = np.repeat(np.arange(len(terms)), counts)
        right = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts) + starts[left]
        count = int(groups.max(initial=0)) + 1
        places, cells = np.unique(groups[left] * count + groups[right], return_inverse=True)
        return cls(left, right, cells, places // count, places % count)

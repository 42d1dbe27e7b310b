"""Costs as sums of products of sizes, evaluated for one plan or for thousands at once.

A size is the length of a tensor dimension; it is an affine function of the widths.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrim.analysis.network import IntArray, Network
from pretrim.errors import UsageError, shown

from .incidence import Incidence

DType: TypeAlias = Literal["float32", "float16", "int8"]
ITEM_BYTES: dict[DType, int] = {"float32": 4, "float16": 2, "int8": 1}
"""Bytes of one activation or weight, by data type."""


class Cost(Protocol):
    """A cost of a network as a function of its widths. It may also offer `bound` or `by_layer`: see below."""

    @property
    def name(self) -> str:
        """The cost's name in the table of quantities, which includes the unit."""

    def __call__(self, widths: ArrayLike) -> IntArray:
        """Values (n) for widths (n x G), or one value for widths (G)."""


@runtime_checkable
class BoundedCost(Cost, Protocol):
    """A cost that may fall when a width grows, with a non-decreasing lower bound: plans are searched by the bound."""

    @property
    def bound(self) -> Cost:
        """A lower bound on the cost that never falls when a width grows."""


@runtime_checkable
class LayeredCost(Cost, Protocol):
    """A cost that is known for each layer, so that layers can be drawn in proportion to their share."""

    def by_layer(self, widths: ArrayLike) -> NDArray[np.float64]:
        """The contribution of each layer of the network: (n x G) -> (n x layers)."""


@dataclass(frozen=True)
class Formula:
    """Several sums of products of sizes, one per column: ``rows @ linear + offset + terms(rows) @ into``.

    Terms with a single size, which are the majority, are linear in the widths. They are stored separately because one
    matrix product evaluates them all. Values are integers below 2**53, so double precision is exact.
    """

    linear: NDArray[np.float64]
    """Slopes of the linear terms (groups x columns)."""
    offset: NDArray[np.float64]
    """Constant part of each column (columns)."""
    coefficients: NDArray[np.float64]
    """How much each size grows with one channel of a group (groups x sizes that occur in products of several)."""
    constants: NDArray[np.float64]
    """Constant part of each of these sizes."""
    factors: IntArray
    """Indices of the sizes that each product multiplies (terms x factors), padded with the last size, which is 1."""
    into: NDArray[np.float64]
    """Constant factor of each product in every column (terms x columns); 0 where it does not contribute."""

    def __call__(self, rows: IntArray | NDArray[np.float64]) -> NDArray[np.float64]:
        """Values (n x columns) for widths (n x G), which may be fractional during a search."""
        widths = rows.astype(np.float64)
        values: NDArray[np.float64] = widths @ self.linear
        values += self.offset
        if len(rows) == 1 and len(self.factors):  # a search evaluates rows one at a time: use the sparse form
            values += self.products(widths[0]) @ self.into
        elif len(self.factors):
            sizes = widths @ self.coefficients
            sizes += self.constants
            terms = sizes[:, self.factors[:, 0]]
            for place in range(1, self.factors.shape[1]):
                terms *= sizes[:, self.factors[:, place]]
            values += terms @ self.into
        return values

    @cached_property
    def incidence(self) -> Incidence:
        """Sparse structure: which groups each size and product depends on."""
        return Incidence.of(self.coefficients, self.factors)

    def sizes(self, widths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of the sizes that occur in products, at widths (G)."""
        return self.incidence.sizes_at(widths, self.constants)

    def products(self, widths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of all products (terms) at widths (G)."""
        products: NDArray[np.float64] = self.sizes(widths)[self.factors].prod(axis=1)
        return products


Term: TypeAlias = tuple[float, tuple[int, ...]]
"""A constant times a product of sizes, which are given as rows of the network's size table."""


def formula(network: Network, columns: Sequence[Iterable[Term]]) -> Formula:
    """Compile columns of terms into one formula.

    Args:
        network: the analysed network, whose size table the terms refer to.
        columns: the terms of each column; a column's value is their sum.
    """
    fixed: NDArray[np.bool_] = network.coefficients.max(axis=1, initial=0) == 0
    linear = np.zeros((len(network.groups), len(columns)))
    offset = np.zeros(len(columns))
    products: dict[tuple[int, ...], dict[int, float]] = {}
    for column, terms in enumerate(columns):
        for constant, dims in terms:
            free = tuple(sorted(dim for dim in dims if not fixed[dim]))
            constant *= math.prod(int(network.constants[dim]) for dim in dims if fixed[dim])
            if not free:
                offset[column] += constant
            elif len(free) == 1:
                linear[:, column] += constant * network.coefficients[free[0]]
                offset[column] += constant * network.constants[free[0]]
            else:
                by_column = products.setdefault(free, {})
                by_column[column] = by_column.get(column, 0.0) + constant
    return _with_products(network, linear, offset, products)


def _with_products(
    network: Network,
    linear: NDArray[np.float64],
    offset: NDArray[np.float64],
    products: Mapping[tuple[int, ...], Mapping[int, float]],
) -> Formula:
    """The formula with its linear part and its products: dims -> {column: constant}."""
    used = sorted({dim for dims in products for dim in dims})
    place = {dim: number for number, dim in enumerate(used)}
    longest = max((len(dims) for dims in products), default=1)
    factors = np.full((len(products), longest), len(used), dtype=np.int64)
    into = np.zeros((len(products), len(offset)))
    for number, (dims, columns) in enumerate(products.items()):
        factors[number, : len(dims)] = [place[dim] for dim in dims]
        for column, constant in columns.items():
            into[number, column] = constant
    coefficients = np.vstack([network.coefficients[used], np.zeros((1, len(network.groups)))]).T
    constants = np.append(network.constants[used], 1).astype(np.float64)
    return Formula(linear, offset, coefficients, constants, factors, into)


@dataclass(frozen=True)
class FormulaCost:
    """A cost given by the largest column of a formula: a sum has one column, a peak one per moment."""

    name: str
    formula: Formula

    def __call__(self, widths: ArrayLike) -> IntArray:
        array = np.asarray(widths, dtype=np.int64)
        values = np.rint(self.formula(np.atleast_2d(array)).max(axis=1)).astype(np.int64)
        result: IntArray = values[0] if array.ndim == 1 else values
        return result


def item_bytes(dtype: DType) -> int:
    """Bytes of one activation or weight. Raises UsageError for an unknown data type."""
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise UsageError(f"Expected dtype to be one of {', '.join(ITEM_BYTES)}, but got {shown(dtype)}.")
    return ITEM_BYTES[dtype]

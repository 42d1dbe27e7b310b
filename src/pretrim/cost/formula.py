"""Costs as sums of products of sizes: one formula for one plan or for thousands at once."""

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


class Cost(Protocol):
    """A cost of a network as a function of its widths. It may offer a `bound` or `by_layer` too, as below."""

    @property
    def name(self) -> str:
        """Its name in the table of quantities; the unit is part of it."""

    def __call__(self, widths: ArrayLike) -> IntArray:
        """Values (n) for widths (n x G), or one value for widths (G)."""


@runtime_checkable
class BoundedCost(Cost, Protocol):
    """A cost that may fall when a width grows, with a lower bound that never does: plans are searched by the bound."""

    @property
    def bound(self) -> Cost:
        """What no plan can go below."""


@runtime_checkable
class LayeredCost(Cost, Protocol):
    """A cost that is known layer by layer, so that layers can be drawn by their share of it."""

    def by_layer(self, widths: ArrayLike) -> NDArray[np.float64]:
        """The part of each layer of the network: (n x G) -> (n x layers)."""


@dataclass(frozen=True)
class Formula:
    """Columns that are sums of products of sizes: ``rows @ linear + offset + terms(rows) @ into``.

    Products of one size are linear in the widths, and most are; they are kept apart because a matrix product of the
    widths is all they take. Values are whole numbers below 2**53, so double precision is exact.
    """

    linear: NDArray[np.float64]
    """groups x columns"""
    offset: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    """groups x the sizes that occur in products of several"""
    constants: NDArray[np.float64]
    factors: IntArray
    """terms x factors: which of those sizes; the last size is always 1"""
    into: NDArray[np.float64]
    """terms x columns: the constant factor of each term, in the column it adds to"""

    def __call__(self, rows: IntArray | NDArray[np.float64]) -> NDArray[np.float64]:
        """Values (n x columns) for widths (n x G), whole numbers or, in a search, between them."""
        widths = rows.astype(np.float64)
        values: NDArray[np.float64] = widths @ self.linear
        values += self.offset
        if len(rows) == 1 and len(self.factors):  # a search asks for one after the other: zeros are left out
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
        """Which groups each product depends on."""
        return Incidence.of(self.coefficients, self.factors)

    def sizes(self, widths: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sizes that occur in products, at widths (G)."""
        return self.incidence.sizes_at(widths, self.constants)

    def products(self, widths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Every product at widths (G)."""
        found: NDArray[np.float64] = self.sizes(widths)[self.factors].prod(axis=1)
        return found


Term: TypeAlias = tuple[float, tuple[int, ...]]


def formula(network: Network, columns: Sequence[Iterable[Term]]) -> Formula:
    """Write columns of terms, each a constant times dimensions of the network, as one formula."""
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
                into = products.setdefault(free, {})
                into[column] = into.get(column, 0.0) + constant
    return _with_products(network, linear, offset, products)


def _with_products(
    network: Network,
    linear: NDArray[np.float64],
    offset: NDArray[np.float64],
    products: Mapping[tuple[int, ...], Mapping[int, float]],
) -> Formula:
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
    """One of the five costs: the largest column of a formula (a sum has one column)."""

    name: str
    formula: Formula

    def __call__(self, widths: ArrayLike) -> IntArray:
        array = np.asarray(widths, dtype=np.int64)
        values = np.rint(self.formula(np.atleast_2d(array)).max(axis=1)).astype(np.int64)
        result: IntArray = values[0] if array.ndim == 1 else values
        return result


def item_bytes(dtype: DType) -> int:
    """Bytes of one activation or weight."""
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise UsageError(f"Expected a data type out of {', '.join(ITEM_BYTES)}, but got {shown(dtype)}.")
    return ITEM_BYTES[dtype]

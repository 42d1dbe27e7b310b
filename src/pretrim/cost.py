"""What a network costs, as functions of its widths: definitions, written once.

========================= ==========================================================================================
cost                      definition, for one image
========================= ==========================================================================================
``params``                trained parameters (buffers such as running statistics do not count)
``macs``                  multiply-accumulates of convolutions and matrix products; ``flops = 2 * macs``
``weight_bytes``          parameters at the data type; in int8, tensors of one dimension (biases, norms) are int32
``activation_bytes``      sum of the output feature maps of convolution and linear layers, at the data type
``peak_activation_bytes`` the largest sum of activations alive at once when the operators run in order, with
                          convolution, norm and activation counted as one operator, as runtimes do
========================= ==========================================================================================

A cost is a function ``f(widths) -> values``: widths of one plan (G) or of many (n x G), one value for each. These five
are closed formulas, exact and never falling when a width grows. Costs of another kind (a tensor arena, a latency) share
the form but not those properties, so a final plan is verified against every limit (`budget.verify`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import UsageError
from .network import IntArray, Network

DType: TypeAlias = Literal["float32", "float16", "int8"]
CostName: TypeAlias = Literal["params", "macs", "weight_bytes", "activation_bytes", "peak_activation_bytes"]
COSTS: tuple[CostName, ...] = get_args(CostName)
ITEM_BYTES: dict[DType, int] = {"float32": 4, "float16": 2, "int8": 1}
BIAS_BYTES: dict[DType, int] = {"float32": 4, "float16": 2, "int8": 4}


class Cost(Protocol):
    """A cost of a network as a function of its widths."""

    @property
    def name(self) -> str:
        """What a budget calls it; the unit is part of the name."""

    def __call__(self, widths: ArrayLike) -> IntArray:
        """Values (n) for widths (n x G), or one value for widths (G)."""


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

    def __call__(self, rows: IntArray) -> NDArray[np.float64]:
        """Values (n x columns) for widths (n x G)."""
        widths = rows.astype(np.float64)
        values: NDArray[np.float64] = widths @ self.linear
        values += self.offset
        if len(self.factors):
            sizes = widths @ self.coefficients
            sizes += self.constants
            terms = sizes[:, self.factors[:, 0]]
            for place in range(1, self.factors.shape[1]):
                terms *= sizes[:, self.factors[:, place]]
            values += terms @ self.into
        return values


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


def cost(network: Network, name: CostName, dtype: DType = "float32") -> FormulaCost:
    """One cost of a network. Raises UsageError for a name or data type that is not one of the five (three)."""
    item = item_bytes(dtype)
    if name == "params":
        columns = [_parameter_terms(network, 1, 1)]
    elif name == "weight_bytes":
        columns = [_parameter_terms(network, item, BIAS_BYTES[dtype])]
    elif name == "macs":
        columns = [[(1.0, operator.factors) for operator in network.operators if operator.factors]]
    elif name == "activation_bytes":
        columns = [[(float(item), layer.output) for layer in network.layers if layer.operator >= 0]]
    elif name == "peak_activation_bytes":
        columns = peak_columns(network, item)
    else:
        raise UsageError(f"Expected a cost out of {', '.join(COSTS)}, but got {name!r}.")
    return FormulaCost(name, formula(network, columns))


def costs(network: Network, dtype: DType = "float32") -> dict[CostName, FormulaCost]:
    """All five costs of a network at one data type."""
    return {name: cost(network, name, dtype) for name in COSTS}


def item_bytes(dtype: DType) -> int:
    """Bytes of one activation or weight."""
    if dtype not in ITEM_BYTES:
        raise UsageError(f"Expected a data type out of {', '.join(ITEM_BYTES)}, but got {dtype!r}.")
    return ITEM_BYTES[dtype]


def _parameter_terms(network: Network, item: int, bias: int) -> list[Term]:
    return [(float(item if len(p.dims) > 1 else bias), p.dims) for p in network.parameters if p.trained]


def moments(network: Network) -> list[tuple[int, ...]]:
    """The distinct sets of tensors that are alive together while some operator runs, without those inside others."""
    born: dict[int, list[int]] = {}
    dying: dict[int, list[int]] = {}
    for t, tensor in enumerate(network.tensors):
        if tensor.birth <= tensor.death:
            born.setdefault(tensor.birth, []).append(t)
            dying.setdefault(tensor.death, []).append(t)
    alive: set[int] = set()
    found = set()
    for number in sorted(born.keys() | dying.keys()):
        alive.update(born.get(number, ()))
        found.add(tuple(sorted(alive)))
        alive.difference_update(dying.get(number, ()))
    return sorted(found)


def peak_columns(network: Network, item: int) -> list[list[Term]]:
    """One column a moment: the bytes of the tensors alive then."""
    return [[(float(item), network.tensors[t].dims) for t in together] for together in moments(network)] or [[]]


# ---------------------------------------------------------------------------------------- by layer


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs, and its share of the network's layers in each mode."""

    name: str
    kind: Literal["convolution", "linear"]
    filters: int
    params: int
    macs: int
    activation_bytes: int


Mode: TypeAlias = Literal["params", "macs", "memory"]
MODES: tuple[Mode, ...] = get_args(Mode)


def layer_terms(network: Network, mode: Mode) -> list[list[Term]]:
    """The complexity of each layer in a mode: its weights (PA), its multiply-accumulates (FA), its feature map (MA).

    The paper's three complexities (arXiv 2208.12816, section on pruning modes). Weights only: biases and norms follow
    the filters. Layers that run in training only (auxiliary heads) have weights, but no work and no feature map.
    """
    if mode == "params":
        return [[(1.0, layer.weight)] for layer in network.layers]
    if mode == "macs":
        return [[(1.0, layer.factors)] if layer.operator >= 0 else [] for layer in network.layers]
    if mode == "memory":
        return [[(1.0, layer.output)] if layer.operator >= 0 else [] for layer in network.layers]
    raise UsageError(f"Expected a mode out of {', '.join(MODES)}, but got {mode!r}.")


def layer_costs(network: Network, widths: ArrayLike, dtype: DType = "float32") -> tuple[LayerCost, ...]:
    """Costs layer by layer at one vector of widths (G)."""
    rows = np.atleast_2d(np.asarray(widths, dtype=np.int64))
    values = [np.rint(formula(network, layer_terms(network, mode))(rows)[0]).astype(int) for mode in MODES]
    sizes = network.sizes(rows[0])
    kinds: dict[str, Literal["convolution", "linear"]] = {"convolution": "convolution"}
    return tuple(
        LayerCost(
            name=layer.name,
            kind=kinds.get(layer.op, "linear"),
            filters=int(sizes[layer.filters]),
            params=int(params),
            macs=int(macs),
            activation_bytes=int(elements) * item_bytes(dtype),
        )
        for layer, params, macs, elements in zip(network.layers, *values, strict=True)
    )

"""Latency on a microcontroller without the board: cycles by kind of operator, fitted on public measurements.

``board_times.toml`` holds, for each processor core, runtime and version with public measurements, the cycles per
multiply-accumulate and per output element by kind of operator, the number of networks in the fit, and the error on
architecture families held out of the fit. `scripts/fit_board_times.py` writes it.

The time depends more on the runtime than on the network (a multiply-accumulate on a Cortex-M7 takes from one cycle to
over forty), so a prediction always names its runtime and comes with its range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrim.analysis.network import IntArray, Network, Operator
from pretrim.cost.formula import Formula, Term, formula
from pretrim.cost.litert.follow import ACTIVATIONS, FUSES
from pretrim.cost.litert.lowering import Lowering, Node
from pretrim.cost.litert.rules import lower
from pretrim.cost.microcontroller import is_depthwise
from pretrim.devices import Board

from .board_systems import SECOND_NS, WEIGHTED, Prediction, System, Work, find_system

ELEMENTWISE = frozenset({"add", "sub", "mul", "div"})
POOLS = frozenset({"max_pool2d_with_indices", "avg_pool2d", "mean"})
ELEMENT_FUNCTIONS = frozenset(
    {"relu", "hardtanh", "clamp", "leaky_relu", "prelu", "elu", "gelu", "silu", "mish", "softplus", "exp"}
    | {"sigmoid", "hardsigmoid", "hardswish", "tanh", "_softmax", "_log_softmax"}
)
"""Activations that are operators of their own. Operators in none of these sets only move data or have no public
measurements: their time is left out, and their names are reported."""


@dataclass(frozen=True)
class Part:
    """The work of one operator, as terms in the network's widths.

    Attributes:
        kind: one of `WEIGHTED` or `OTHERS`.
        macs: multiply-accumulates; None if it has none.
        outputs: output elements.
        parameters: names of its weights and biases.
    """

    kind: str
    macs: Term | None
    outputs: Term
    parameters: tuple[str, ...]


def parts_of(network: Network) -> tuple[list[Part], tuple[str, ...]]:
    """The work of each operator as LiteRT's converter emits them, and the kinds of operators left out."""
    low = lower(network, "int8")
    merged = _merged(low)
    parts, left_out = [], []
    for number, node in enumerate(low.nodes):
        if number in merged:
            continue
        kind = _kind(low, node)
        if kind is None:
            left_out.append(node.kind)
            continue
        is_weighted = kind in WEIGHTED and bool(node.operator.factors)
        macs: Term | None = (node.share, node.operator.factors) if is_weighted else None
        parts.append(Part(kind, macs, _outputs(low, number, node), node.operator.parameters if is_weighted else ()))
    return parts, tuple(dict.fromkeys(left_out))


def _merged(low: Lowering) -> set[int]:
    """Find the ReLUs that LiteRT does not run as operators.

    These are ReLUs that repeat another one of the same feature map, and all ReLUs of a feature map that nothing else
    reads, since they are fused into the operator that computes it.
    """
    readers: dict[int, list[int]] = {}
    for number, node in enumerate(low.nodes):
        for activation in node.reads:
            readers.setdefault(activation, []).append(number)
    merged: set[int] = set()
    for activation, numbers in readers.items():
        relus = [number for number in numbers if low.nodes[number].kind in ACTIVATIONS]
        is_fused = relus == numbers and low.made_by[activation] in FUSES
        merged.update(relus if is_fused else relus[1:])
    return merged


def work_of(network: Network, widths: ArrayLike | None = None) -> Work:
    """The total work of a network at widths (G), by default the dense network's."""
    sizes = network.sizes(network.dense if widths is None else widths)
    macs: dict[str, float] = {}
    outputs: dict[str, float] = {}
    for part in parts_of(network)[0]:
        for term, totals in ((part.macs, macs), (part.outputs, outputs)):
            if term is not None:
                totals[part.kind] = totals.get(part.kind, 0.0) + term[0] * float(np.prod(sizes[list(term[1])]))
    return Work(macs, outputs)


def _kind(low: Lowering, node: Node) -> str | None:
    """The kind of an operator in `WEIGHTED` or `OTHERS`; None if its time is not known."""
    operator = node.operator
    if node.kind == "convolution":
        return _kind_of_convolution(low, operator)
    if node.kind in ("addmm", "linear", "mm", "bmm", "matmul"):
        return "dense"
    if node.kind in ELEMENTWISE:
        return "elementwise"
    if node.kind in POOLS:
        return "pool"
    return "activation" if node.kind in ELEMENT_FUNCTIONS else None


def _kind_of_convolution(low: Lowering, operator: Operator) -> str:
    if not operator.attributes.get("transposed") and is_depthwise(low, operator):
        return "depthwise"
    return "pointwise" if max((low.size(dim) for dim in operator.weight[2:]), default=1) == 1 else "convolution"


def _outputs(low: Lowering, number: int, node: Node) -> Term:
    if node.kind == "mean":
        return low.elements[node.reads[0]]
    written = [t for t, birth in enumerate(low.births) if birth == number and low.made_by[t] != "input"]
    return low.elements[written[0]] if written else low.elements[node.reads[0]]


# ---------------------------------------------------------------------------------------- the cost


@dataclass(frozen=True)
class BoardTimeCost:
    """Nanoseconds for one image on a microcontroller as a function of widths; non-decreasing in every width.

    Attributes:
        total: formula with one column.
        layers: formula with a column for each layer of the network.
        range: factors that turn the prediction into the ends of its range.
        label: the board, its clock, the runtime and the number of fitted networks.
    """

    total: Formula
    layers: Formula
    range: tuple[float, float]
    label: str
    name: str = "latency_ns"

    def __call__(self, widths: ArrayLike) -> IntArray:
        """Values (n) for widths (n x G), or one value for widths (G)."""
        rows = np.atleast_2d(np.asarray(widths, dtype=np.int64))
        values = np.rint(self.total(rows)[:, 0]).astype(np.int64)
        result: IntArray = values[0] if np.ndim(widths) == 1 else values
        return result

    def by_layer(self, widths: ArrayLike) -> NDArray[np.float64]:
        """Nanoseconds of each layer of the network: (n x G) -> (n x layers)."""
        return self.layers(np.atleast_2d(np.asarray(widths, dtype=np.int64)))

    def interval(self, widths: ArrayLike) -> tuple[IntArray, IntArray]:
        """The lower and upper end of the range, each with the shape of the values."""
        low, high = (np.rint(self(widths) * factor).astype(np.int64) for factor in self.range)
        return low, high


@dataclass(frozen=True)
class BoardTime(Prediction):
    """A prediction for one network, as a function of its widths.

    Attributes:
        cost: nanoseconds as a function of widths.
    """

    cost: BoardTimeCost


def board_time(network: Network, board: Board, runtime: str | None = None, dtype: str = "int8") -> BoardTime:
    """Predict the latency of a network on a board from measurements of other networks on the same processor core.

    Args:
        network: the analysed network.
        board: a microcontroller.
        runtime: a name from `known_runtimes`, with a version (``"st-edge-ai 8.1"``) or without, which selects the
            newest version fitted on ten networks or more. None if only one runtime is known.
        dtype: int8 or float32.

    Raises UsageError if there is no public measurement of this core with this runtime and data type; the message lists
    the known ones.
    """
    system = find_system(board, runtime, dtype)
    parts, left_out = parts_of(network)
    ns = SECOND_NS / board.clock_hz
    basis = Prediction.of(board, system, {part.kind for part in parts}, left_out)
    cost = BoardTimeCost(
        total=formula(network, [[term for part in parts for term in _terms(part, system, ns)]]),
        layers=formula(network, _by_layer(network, parts, system, ns)),
        range=basis.range,
        label=basis.label,
    )
    return BoardTime(**vars(basis), cost=cost)


def _terms(part: Part, system: System, ns: float) -> Iterator[Term]:
    if part.macs is not None:
        yield ns * system.cycles_per_mac[part.kind] * part.macs[0], part.macs[1]
    yield ns * system.cycles_per_output[part.kind] * part.outputs[0], part.outputs[1]


def _by_layer(network: Network, parts: list[Part], system: System, ns: float) -> list[list[Term]]:
    column_of = {layer.parameters: number for number, layer in enumerate(network.layers)}
    columns: list[list[Term]] = [[] for _ in network.layers]
    for part in parts:
        if part.parameters in column_of:
            columns[column_of[part.parameters]].extend(_terms(part, system, ns))
    return columns

"""Each group's share of the complexity: what a draw is weighted by."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pretrim.analysis.network import IntArray, Network
from pretrim.cost.costs import MODES, Mode, layer_terms, moments, peak_columns
from pretrim.cost.formula import Formula, formula
from pretrim.errors import UsageError

from .legal import (
    FloatArray,
    Problem,
)
from .options import Method

Share: TypeAlias = Mode | Literal["latency"]
"""What counts as complexity: the paper's three, and measured time (LA)"""
MODE_OF_COST: dict[str, Share] = {
    "latency_ns": "latency",
    "params": "params",
    "weight_bytes": "params",
    "macs": "macs",
    "activation_bytes": "memory",
    "peak_activation_bytes": "memory",
    "artifact_bytes": "params",
    "arena_bytes": "memory",
}
PEAKS = frozenset({"peak_activation_bytes", "arena_bytes"})
"""Costs of one moment, not of all layers together"""


# ---------------------------------------------------------------------------------------- shares


class Shares:
    """Each group's weight in the draw, as the state demands."""

    def __init__(self, problem: Problem) -> None:
        network, options = problem.network, problem.options
        self.problem = problem
        self.owners = _owners(network)
        self.formulas = {mode: formula(network, layer_terms(network, mode)) for mode in MODES}
        self.latency = problem.bounds.latency
        modes: tuple[Share, ...] = MODES if self.latency is None else (*MODES, "latency")
        self.static = {mode: self._of_groups(mode, network.dense[None]) for mode in modes}
        self.changes = options.weights == "adaptive" or len(problem.bounds.values) > 1 or self._limits_peak()
        self._peak = _Peak(network) if self._limits_peak() else None

    def _limits_peak(self) -> bool:
        return any(cost.name in PEAKS for cost in self.problem.bounds.costs)

    def _of_groups(self, mode: Share, widths: IntArray) -> FloatArray:
        """The complexity of each group, coupled layers put together: (n x G)."""
        if mode != "latency":
            layers = self.formulas[mode](widths)
        elif self.latency is not None:
            layers = self.latency.by_layer(widths)
        else:
            raise UsageError("Expected a measured latency for the mode latency, but got none: see pretrim.latency.")
        if self.problem.options.coupling == "max":
            parts = [(layers * self.owners[:, g]).max(axis=1) for g in range(self.owners.shape[1])]
            return np.stack(parts, axis=1)
        total: FloatArray = layers @ self.owners
        return total / (self.owners > 0).sum(axis=0) if self.problem.options.coupling == "mean" else total

    def of_mode(self, mode: Share, widths: IntArray) -> FloatArray:
        if self.problem.options.weights == "adaptive":
            return self._of_groups(mode, widths)
        if mode not in self.static:
            self.static[mode] = self._of_groups(mode, self.problem.network.dense[None])
        return np.broadcast_to(self.static[mode], widths.shape)

    def __call__(self, widths: IntArray, open_: NDArray[np.bool_]) -> FloatArray:
        """Probabilities, up to a factor, of drawing each group: (n x G). Groups that are not open get 0."""
        bounds = self.problem.bounds
        over = np.maximum(bounds.measure(widths) / bounds.values - 1.0, 0.0)
        mixed = np.zeros(widths.shape)
        for place, cost in enumerate(bounds.costs):
            if over[:, place].any():
                mixed += over[:, place, None] * _normal(self._for_limit(cost.name, widths), open_)
        return mixed

    def _for_limit(self, cost: str, widths: IntArray) -> FloatArray:
        mode = self.problem.options.mode
        if cost not in PEAKS or self._peak is None:
            return self.of_mode(MODE_OF_COST[cost] if mode == "joint" else _as_mode(mode), widths)
        at_peak = self._peak.bytes_of_groups(widths)
        return at_peak if mode == "joint" else self.of_mode(_as_mode(mode), widths) * (at_peak > 0)


def _as_mode(method: Method) -> Share:
    if method != "latency" and method not in MODES:
        raise UsageError(f"Expected a mode out of {', '.join(MODES)}, latency, but got {method!r}.")
    return method


def _normal(weights: FloatArray, open_: NDArray[np.bool_]) -> FloatArray:
    """Rows that sum to 1 over the open groups; where those weigh nothing, they weigh the same."""
    weights = np.where(open_, weights, 0.0)
    total = weights.cumsum(axis=1)[:, -1:]  # cumsum adds in order, on every machine alike
    weights = np.where(total > 0, weights, open_)
    total = np.where(total > 0, total, open_.sum(axis=1, keepdims=True))
    share: FloatArray = weights / np.maximum(total, 1e-300)
    return share


def _owners(network: Network) -> FloatArray:
    """Which part of each layer's filters belongs to each group, in the dense network: layers x groups."""
    rows = [network.coefficients[layer.filters] * network.dense for layer in network.layers]
    sizes = [max(int(network.sizes(network.dense)[layer.filters]), 1) for layer in network.layers]
    shape = (len(rows), len(network.groups))  # either may be 0
    return np.array(rows, dtype=np.float64).reshape(shape) / np.array(sizes, dtype=np.float64)[:, None]


class _Peak:
    """Which groups own the tensors that are alive at the present peak, and how many bytes of them."""

    def __init__(self, network: Network) -> None:
        together = moments(network)
        self.moments: Formula = formula(network, peak_columns(network, 1))
        self.tensors: Formula = formula(network, [[(1.0, tensor.dims)] for tensor in network.tensors])
        self.alive = np.array(
            [[t in alive for t in range(len(network.tensors))] for alive in together], dtype=np.float64
        )
        owned = [[network.coefficients[d] * network.dense for d in tensor.dims] for tensor in network.tensors]
        self.owners = np.array([np.sum(parts, axis=0) > 0 for parts in owned], dtype=np.float64)

    def bytes_of_groups(self, widths: IntArray) -> FloatArray:
        peak = self.moments(widths).argmax(axis=1)
        there: FloatArray = self.tensors(widths) * self.alive[peak]
        return there @ self.owners

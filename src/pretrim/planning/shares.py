"""Each group's share of the complexity, which is its probability of being drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pretrim.analysis.network import IntArray, Network
from pretrim.cost.costs import MODES, layer_terms, moments, peak_columns
from pretrim.cost.formula import Formula, LayeredCost, formula
from pretrim.cost.quantities import Criterion, quantities
from pretrim.errors import UsageError, shown

from .legal import FloatArray, Problem
from .options import Method


class Shares:
    """The weight of each group in a draw, for given widths.

    Attributes:
        problem: the network, its limits and the options.
        owners: the part of each layer's filters that belongs to each group (layers x G).
        formulas: complexity of each layer, by mode.
        timed: a measured latency that is known by layer, if one was passed in.
        static: shares of the dense network, by criterion, as they are needed.
        changes: whether the weights depend on the widths.
    """

    def __init__(self, problem: Problem) -> None:
        network, options = problem.network, problem.options
        self.problem = problem
        self.owners = _owners(network)
        self.formulas = {mode: formula(network, layer_terms(network, mode)) for mode in MODES}
        self.timed = _layered(problem, "latency")
        self.static: dict[Criterion, FloatArray] = {}
        self.changes = options.share_update == "adaptive" or len(problem.budget.values) > 1 or self._limits_peak()
        self._peak = _Peak(network) if self._limits_peak() else None

    def _limits_peak(self) -> bool:
        """Whether any limit is on a peak."""
        return any(limit.quantity.is_peak for limit in self.problem.budget.limits)

    def _of_groups(self, criterion: Criterion, widths: IntArray) -> FloatArray:
        """The complexity of each group at widths (n x G), with coupled layers combined: n x G."""
        if criterion != "latency":
            layers = self.formulas[criterion](widths)
        elif self.timed is not None:
            layers = self.timed.by_layer(widths)
        else:
            raise UsageError("Expected a measured latency for the mode latency, but got none: see pretrim.latency.")
        if self.problem.options.coupling == "max":
            largest = [(layers * self.owners[:, g]).max(axis=1) for g in range(self.owners.shape[1])]
            return np.stack(largest, axis=1)
        total: FloatArray = layers @ self.owners
        return total / (self.owners > 0).sum(axis=0) if self.problem.options.coupling == "mean" else total

    def of_criterion(self, criterion: Criterion, widths: IntArray) -> FloatArray:
        """The complexity of each group (n x G), at the given widths or, with static shares, in the dense network."""
        if self.problem.options.share_update == "adaptive":
            return self._of_groups(criterion, widths)
        if criterion not in self.static:
            self.static[criterion] = self._of_groups(criterion, self.problem.network.dense[None])
        return np.broadcast_to(self.static[criterion], widths.shape)

    def __call__(self, widths: IntArray, open_: NDArray[np.bool_]) -> FloatArray:
        """Unnormalised probabilities of drawing each group (n x G).

        Each limit that is still exceeded contributes its shares, in proportion to the relative excess.

        Args:
            widths: current widths (n x G).
            open_: whether each group can still shrink (n x G); groups that cannot get 0.
        """
        budget = self.problem.budget
        over = np.maximum(budget.measure(widths) / budget.values - 1.0, 0.0)
        mixed = np.zeros(widths.shape)
        for place, cost in enumerate(budget.costs):
            if over[:, place].any():
                mixed += over[:, place, None] * normalised(self._for_limit(cost.name, widths), open_)
        return mixed

    def _for_limit(self, cost: str, widths: IntArray) -> FloatArray:
        """Weights of the groups (n x G) for one limited cost; for a peak, only groups with tensors alive at it."""
        mode, quantity = self.problem.options.mode, quantities()[cost]
        if not quantity.is_peak or self._peak is None:
            return self.of_criterion(quantity.criterion if mode == "joint" else _as_criterion(mode), widths)
        at_peak = self._peak.elements_of_groups(widths)
        return at_peak if mode == "joint" else self.of_criterion(_as_criterion(mode), widths) * (at_peak > 0)


def _layered(problem: Problem, criterion: Criterion) -> LayeredCost | None:
    """The cost that was passed in for a criterion without a formula, if it is known by layer."""
    for name, cost in problem.budget.handed.items():
        if quantities()[name].criterion == criterion and isinstance(cost, LayeredCost):
            return cost
    return None


def _as_criterion(method: Method) -> Criterion:
    """The criterion that a mode names. Raises UsageError for other modes."""
    if method != "latency" and method not in MODES:
        raise UsageError(f"Expected mode to be one of {', '.join(MODES)}, latency, but got {shown(method)}.")
    return method


def normalised(weights: FloatArray, open_: NDArray[np.bool_]) -> FloatArray:
    """Scale rows to sum to 1 over the open groups; if all of those have weight 0, they get equal weights."""
    weights = np.where(open_, weights, 0.0)
    total = weights.cumsum(axis=1)[:, -1:]  # cumsum adds in the same order on every machine
    weights = np.where(total > 0, weights, open_)
    total = np.where(total > 0, total, open_.sum(axis=1, keepdims=True))
    share: FloatArray = weights / np.maximum(total, 1e-300)
    return share


def _owners(network: Network) -> FloatArray:
    """The part of each layer's filters that belongs to each group in the dense network (layers x G)."""
    rows = [network.coefficients[layer.filters] * network.dense for layer in network.layers]
    sizes = [max(int(network.sizes(network.dense)[layer.filters]), 1) for layer in network.layers]
    shape = (len(rows), len(network.groups))  # either may be 0
    return np.array(rows, dtype=np.float64).reshape(shape) / np.array(sizes, dtype=np.float64)[:, None]


class _Peak:
    """The elements that groups own of the tensors alive at the current peak."""

    def __init__(self, network: Network) -> None:
        live_sets = moments(network)
        self.moments: Formula = formula(network, peak_columns(network, 1))
        self.tensors: Formula = formula(network, [[(1.0, tensor.dims)] for tensor in network.tensors])
        self.alive = np.array(
            [[t in alive for t in range(len(network.tensors))] for alive in live_sets], dtype=np.float64
        )
        owned = [[network.coefficients[d] * network.dense for d in tensor.dims] for tensor in network.tensors]
        self.owners = np.array([np.sum(parts, axis=0) > 0 for parts in owned], dtype=np.float64)

    def elements_of_groups(self, widths: IntArray) -> FloatArray:
        """Elements at the peak of the tensors that depend on each group: (n x G) -> (n x G)."""
        peak = self.moments(widths).argmax(axis=1)
        elements: FloatArray = self.tensors(widths) * self.alive[peak]
        return elements @ self.owners

"""Latency as a cost: a function of the widths computed from a table, in total and by layer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrim.analysis.network import IntArray, Network
from pretrim.cost.formula import Term
from pretrim.deploy.runtime import RuntimeName

from .layers import LayerKind, TimedLayer, timed_layers
from .table import Correction, Curve, Table, axis_of

NANOSECOND = 1e-9


def key_of(network: Network) -> str:
    """Key of a network and its input shape in the corrections of a table."""
    return hashlib.sha256(json.dumps([network.fingerprint, network.example]).encode()).hexdigest()[:16]


def wanted_axes(network: Network, runtime: RuntimeName = "litert") -> dict[LayerKind, tuple[tuple[int, ...], ...]]:
    """What a runtime's table must contain for a network: each layer kind, with axes up to its largest widths."""
    axes: dict[LayerKind, list[tuple[int, bool]]] = {}
    for layer in timed_layers(network, runtime)[0]:
        widths = [_largest(network, term) for term in layer.widths]
        earlier = axes.get(layer.kind, widths)
        # A width that differs between layers of the same kind needs an axis, even if it is fixed in each of them.
        axes[layer.kind] = [
            (max(a[0], b[0]), a[1] and b[1] and a[0] == b[0]) for a, b in zip(earlier, widths, strict=True)
        ]
    return {kind: tuple(axis_of(largest, is_fixed=fixed) for largest, fixed in pairs) for kind, pairs in axes.items()}


def _largest(network: Network, term: Term) -> tuple[int, bool]:
    """The largest width of a term, and whether it is fixed."""
    constant, dims = term
    if not dims:
        return int(constant), True
    size = int(network.sizes(network.dense)[dims[0]])
    return int(constant * size), not network.coefficients[dims[0]].any()


@dataclass(frozen=True)
class LatencyCost:
    """Nanoseconds of one inference as a function of widths; non-decreasing in every width.

    Attributes:
        network: the network whose widths it takes.
        layers: the timed layers.
        curves: the latency curve of each timed layer.
        start_s: latency in seconds of a network that does nothing.
        correction: from the sum of single layers to the whole network.
        label: name of the measured device, for the user.
        left_out: operators without a curve.
        aligned: kernels pad widths to a multiple of this.
    """

    network: Network
    layers: tuple[TimedLayer, ...]
    curves: tuple[Curve, ...]
    start_s: float
    correction: Correction
    label: str
    left_out: tuple[str, ...]
    aligned: int
    name: str = "latency_ns"

    def by_timed_layer(self, widths: ArrayLike) -> NDArray[np.float64]:
        """Seconds of each timed layer: (n x G) -> (n x layers)."""
        rows = np.atleast_2d(np.asarray(widths, dtype=np.int64))
        sizes = self.network.sizes(rows)
        columns = [
            curve(np.stack([_width(sizes, term) for term in layer.widths], axis=1))
            for layer, curve in zip(self.layers, self.curves, strict=True)
        ]
        return np.stack(columns, axis=1)

    def __call__(self, widths: ArrayLike) -> IntArray:
        """Values (n) for widths (n x G), or one value for widths (G)."""
        total = self.correction(self.start_s + self.by_timed_layer(widths).sum(axis=1))
        values = np.rint(total / NANOSECOND).astype(np.int64)
        result: IntArray = values[0] if np.ndim(widths) == 1 else values
        return result

    def by_layer(self, widths: ArrayLike) -> NDArray[np.float64]:
        """Seconds of each layer of the network that has weights: (n x G) -> (n x layers).

        The sampler of widths uses these values as the weights of its draw.
        """
        timed = self.by_timed_layer(widths)
        column_of: Mapping[tuple[str, ...], int] = {layer.parameters: n for n, layer in enumerate(self.network.layers)}
        seconds = np.zeros((len(timed), len(self.network.layers)))
        for number, layer in enumerate(self.layers):
            if layer.parameters in column_of:
                seconds[:, column_of[layer.parameters]] += timed[:, number]
        return seconds


def _width(sizes: IntArray, term: Term) -> IntArray:
    constant, dims = term
    if not dims:
        return np.full(len(sizes), int(constant), dtype=np.int64)
    return (constant * sizes[:, dims[0]]).astype(np.int64)


def latency_cost(
    network: Network, table: Table, *, correction: Correction | None = None, label: str | None = None
) -> LatencyCost:
    """The latency of a network from a table with the curves of `wanted_axes`; layers without a curve are left out.

    Args:
        network: the analysed network.
        table: layer latencies.
        correction: from the sum of layers to the whole network; by default the table's for this network, if any.
        label: name of the measured device, for the user; by default the table's.
    """
    layers, left_out = timed_layers(network, table.key.runtime)
    known = [layer for layer in layers if layer.kind.key in table.curves]
    missing = [f"{layer.kind.kind} in {layer.name}" for layer in layers if layer.kind.key not in table.curves]
    return LatencyCost(
        network=network,
        layers=tuple(known),
        curves=tuple(table.curves[layer.kind.key] for layer in known),
        start_s=table.start_s,
        correction=correction or table.corrections.get(key_of(network)) or Correction(),
        label=label or table.key.device,
        left_out=(*left_out, *missing),
        aligned=table.aligned,
    )

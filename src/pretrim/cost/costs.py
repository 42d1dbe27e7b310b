"""The closed-form costs of a network as functions of its widths.

========================= ==========================================================================================
cost                      definition, for one image
========================= ==========================================================================================
``params``                number of parameters (buffers such as running statistics do not count)
``macs``                  multiply-accumulates of convolutions and matrix products; ``flops = 2 * macs``
``weight_bytes``          bytes of the parameters at the data type; in int8, one-dimensional tensors (biases, norms)
                          are int32
``activation_bytes``      bytes of the output feature maps of all convolution and linear layers, at the data type
``peak_activation_bytes`` the largest total of activations alive at once when the operators run in order, with
                          convolution, norm and activation function fused into one operator, as runtimes do
========================= ==========================================================================================

A cost is a function ``f(widths) -> values``: it takes the widths of one plan (G) or of many (n x G) and returns one
value per plan. These five are closed formulas: exact, and non-decreasing in every width. Other costs (a tensor arena, a
latency) share the interface but not these properties, so a final plan is verified against every limit
(`planning.budget`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike

from pretrim.analysis.network import Network
from pretrim.errors import UsageError, check_is, shown

from .formula import Cost, DType, FormulaCost, Term, formula, item_bytes
from .quantities import quantities

CostName: TypeAlias = Literal["params", "macs", "weight_bytes", "activation_bytes", "peak_activation_bytes"]
COSTS: tuple[CostName, ...] = get_args(CostName)
BIAS_BYTES: dict[DType, int] = {"float32": 4, "float16": 2, "int8": 4}
"""Bytes per item of one-dimensional parameters; an int8 network keeps its biases in int32."""


def params(network: Network, dtype: DType = "float32") -> FormulaCost:
    """Number of parameters; the data type does not matter."""
    return FormulaCost("params", formula(network, [_parameter_terms(network, 1, 1)]))


def weight_bytes(network: Network, dtype: DType = "float32") -> FormulaCost:
    """Bytes of the parameters at the data type."""
    return FormulaCost(
        "weight_bytes", formula(network, [_parameter_terms(network, item_bytes(dtype), BIAS_BYTES[dtype])])
    )


def macs(network: Network, dtype: DType = "float32") -> FormulaCost:
    """Multiply-accumulates per image of convolutions and matrix products; the data type does not matter."""
    terms = [(1.0, operator.factors) for operator in network.operators if operator.factors]
    return FormulaCost("macs", formula(network, [terms]))


def activation_bytes(network: Network, dtype: DType = "float32") -> FormulaCost:
    """Bytes per image of the output feature maps of all convolution and linear layers."""
    item = float(item_bytes(dtype))
    terms = [(item, layer.output) for layer in network.layers if layer.operator >= 0]
    return FormulaCost("activation_bytes", formula(network, [terms]))


def peak_activation_bytes(network: Network, dtype: DType = "float32") -> FormulaCost:
    """The largest number of bytes of activations alive at once, per image."""
    return FormulaCost("peak_activation_bytes", formula(network, peak_columns(network, item_bytes(dtype))))


def costs(network: Network, dtype: DType = "float32") -> dict[CostName, FormulaCost]:
    """All five closed-form costs by name, at one data type.

    Raises UsageError if `network` is not an analysed network or the data type is unknown.
    """
    check_is(network, Network, "network to be what pretrim.analyze(model, example) found")
    functions = (params, macs, weight_bytes, activation_bytes, peak_activation_bytes)
    return {name: function(network, dtype) for name, function in zip(COSTS, functions, strict=True)}


def cost(network: Network, name: str, dtype: DType = "float32") -> Cost:
    """Build one cost by its name in the table of quantities, which other packages can extend.

    Args:
        network: the analysed network.
        name: the quantity's name in `quantities`.
        dtype: the data type that bytes are counted in.

    Raises UsageError for a name that is not in the table, a quantity that must be measured on a device, or an unknown
    data type.
    """
    item_bytes(dtype)  # checks the data type
    quantity = quantities().get(name)
    if quantity is None or quantity.factory is None:
        known = ", ".join(entry.name for entry in quantities().values() if entry.factory)
        raise UsageError(f"Expected cost to be one of {known}, but got {shown(name)}.")
    function: Cost = resolve_name(quantity.factory)(network, dtype)
    return function


def _parameter_terms(network: Network, item: int, bias: int) -> list[Term]:
    """One term per parameter: `item` bytes for each element, or `bias` bytes if the parameter has one dimension."""
    return [(float(item if len(p.dims) > 1 else bias), p.dims) for p in network.parameters if not p.is_buffer]


def moments(network: Network) -> list[tuple[int, ...]]:
    """The distinct sets of tensors (by index) that are alive together while some operator runs.

    Only operators at which a tensor is born or dies are looked at: the set does not grow in between.
    """
    births: dict[int, list[int]] = {}
    deaths: dict[int, list[int]] = {}
    for t, tensor in enumerate(network.tensors):
        if tensor.birth <= tensor.death:
            births.setdefault(tensor.birth, []).append(t)
            deaths.setdefault(tensor.death, []).append(t)
    alive: set[int] = set()
    live_sets = set()
    for number in sorted(births.keys() | deaths.keys()):
        alive.update(births.get(number, ()))
        live_sets.add(tuple(sorted(alive)))
        alive.difference_update(deaths.get(number, ()))
    return sorted(live_sets)


def peak_columns(network: Network, item: int) -> list[list[Term]]:
    """One column per moment: the bytes of the tensors alive then, at `item` bytes per element."""
    return [[(float(item), network.tensors[t].dims) for t in alive] for alive in moments(network)] or [[]]


@dataclass(frozen=True)
class LayerCost:
    """Costs of one layer: filters kept, weights, MACs, and bytes of its output feature map."""

    name: str
    kind: Literal["convolution", "linear"]
    filters: int
    params: int
    macs: int
    activation_bytes: int


Mode: TypeAlias = Literal["params", "macs", "memory"]
MODES: tuple[Mode, ...] = get_args(Mode)


def layer_terms(network: Network, mode: Mode) -> list[list[Term]]:
    """One column per layer: its complexity in a mode.

    The modes are the paper's three complexities (arXiv 2208.12816, section on pruning modes): weights (PA, ``params``),
    multiply-accumulates (FA, ``macs``) and elements of the feature map (MA, ``memory``). Biases and norms are left out,
    because they follow the filters. Layers that run in training only (auxiliary heads) have weights, but no MACs and no
    feature map.
    """
    if mode == "params":
        return [[(1.0, layer.weight)] for layer in network.layers]
    if mode == "macs":
        return [[(1.0, layer.factors)] if layer.operator >= 0 else [] for layer in network.layers]
    if mode == "memory":
        return [[(1.0, layer.output)] if layer.operator >= 0 else [] for layer in network.layers]
    raise UsageError(f"Expected mode to be one of {', '.join(MODES)}, but got {shown(mode)}.")


def layer_costs(network: Network, widths: ArrayLike, dtype: DType = "float32") -> tuple[LayerCost, ...]:
    """Costs of each layer at one vector of widths.

    Args:
        network: the analysed network.
        widths: channels that each group keeps (G).
        dtype: data type of the feature maps.
    """
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

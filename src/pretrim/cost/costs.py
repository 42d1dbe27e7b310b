"""What a network costs, as functions of its widths: definitions, written once.

========================= ==========================================================================================
cost                      definition, for one image
========================= ==========================================================================================
``params``                parameters (buffers such as running statistics do not count)
``macs``                  multiply-accumulates of convolutions and matrix products; ``flops = 2 * macs``
``weight_bytes``          parameters at the data type; in int8, tensors of one dimension (biases, norms) are int32
``activation_bytes``      sum of the output feature maps of convolution and linear layers, at the data type
``peak_activation_bytes`` the largest sum of activations alive at once when the operators run in order, with
                          convolution, norm and activation counted as one operator, as runtimes do
========================= ==========================================================================================

A cost is a function ``f(widths) -> values``: widths of one plan (G) or of many (n x G), one value for each. These five
are closed formulas, exact and never falling when a width grows. Costs of another kind (a tensor arena, a latency) share
the form but not those properties, so a final plan is verified against every limit (`planning.budget`).
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


def params(network: Network, dtype: DType = "float32") -> FormulaCost:
    """Parameters; the data type does not matter."""
    return FormulaCost("params", formula(network, [_parameter_terms(network, 1, 1)]))


def weight_bytes(network: Network, dtype: DType = "float32") -> FormulaCost:
    """Bytes of the parameters at a data type."""
    return FormulaCost(
        "weight_bytes", formula(network, [_parameter_terms(network, item_bytes(dtype), BIAS_BYTES[dtype])])
    )


def macs(network: Network, dtype: DType = "float32") -> FormulaCost:
    """Multiply-accumulates of convolutions and matrix products, one image; the data type does not matter."""
    terms = [(1.0, operator.factors) for operator in network.operators if operator.factors]
    return FormulaCost("macs", formula(network, [terms]))


def activation_bytes(network: Network, dtype: DType = "float32") -> FormulaCost:
    """Bytes of all output feature maps of convolution and linear layers, one image."""
    item = float(item_bytes(dtype))
    terms = [(item, layer.output) for layer in network.layers if layer.operator >= 0]
    return FormulaCost("activation_bytes", formula(network, [terms]))


def peak_activation_bytes(network: Network, dtype: DType = "float32") -> FormulaCost:
    """The largest sum of bytes of activations that are alive at once, one image."""
    return FormulaCost("peak_activation_bytes", formula(network, peak_columns(network, item_bytes(dtype))))


def costs(network: Network, dtype: DType = "float32") -> dict[CostName, FormulaCost]:
    """All five closed-form costs of a network at one data type. Raises UsageError for no network, or no data type."""
    check_is(network, Network, "network to be what pretrim.analyze(model, example) found")
    functions = (params, macs, weight_bytes, activation_bytes, peak_activation_bytes)
    return {name: function(network, dtype) for name, function in zip(COSTS, functions, strict=True)}


def cost(network: Network, name: str, dtype: DType = "float32") -> Cost:
    """One cost by its name in the table of quantities, or one that another package added there.

    Args:
        network: whose.
        name: in `quantities`.
        dtype: the data type that bytes are counted in.

    Raises UsageError for a name that is not in the table, a quantity that only a device can tell, or a data type.
    """
    item_bytes(dtype)  # checks the data type
    quantity = quantities().get(name)
    if quantity is None or quantity.factory is None:
        known = ", ".join(entry.name for entry in quantities().values() if entry.factory)
        raise UsageError(f"Expected a cost out of {known}, but got {shown(name)}.")
    made: Cost = resolve_name(quantity.factory)(network, dtype)
    return made


def _parameter_terms(network: Network, item: int, bias: int) -> list[Term]:
    return [(float(item if len(p.dims) > 1 else bias), p.dims) for p in network.parameters if not p.is_buffer]


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
    raise UsageError(f"Expected a mode out of {', '.join(MODES)}, but got {shown(mode)}.")


def layer_costs(network: Network, widths: ArrayLike, dtype: DType = "float32") -> tuple[LayerCost, ...]:
    """Costs layer by layer at one vector of widths (G).

    Args:
        network: the analysed network.
        widths: channels that each group keeps (G).
        dtype: of weights and feature maps.
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

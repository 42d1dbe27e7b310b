"""Rescaling of freshly initialised weights, so that a slim network starts with the variances of the dense one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import torch
from torch import nn

from pretrim.analysis.network import IntArray, Network, Parameter

GAINS = (2.0, 1.0, 1.0 / 3.0)
"""Variance times fan of the usual initialisations: He (2), Glorot and LeCun (1), torch's default for layers (1/3)."""


def filter_dimensions(network: Network) -> Iterator[tuple[Parameter, int]]:
    """The trained weights of all layers, each with the index of its filter dimension.

    Weights that are not trained, such as a fixed transform in a buffer, are left out.
    """
    by_name = {parameter.name: parameter for parameter in network.parameters}
    done: set[str] = set()
    for layer in network.layers:
        for name in layer.parameters:
            parameter = by_name[name]
            untrained = not parameter.is_trained or len(parameter.shape) < 2
            if name in done or untrained or layer.filters not in parameter.dims:
                continue
            done.add(name)
            yield parameter, parameter.dims.index(layer.filters)


def fan_factors(model: nn.Module, network: Network, widths: IntArray) -> dict[str, float]:
    """The factor by which the weights of each cut layer grow: the square root of dense fan over slim fan.

    The kind of fan that an initialisation used is inferred from the weights: their variance times the fan is 2 (He), 1
    (Glorot, LeCun) or 1/3 (torch's default). If several kinds fit, the one that explains the most layers of the model
    is taken; if none fits, the fan-in, which preserves the variance of the activations.

    Args:
        model: the dense model, freshly initialised.
        network: the analysed network.
        widths: number of channels that each group keeps (G).

    Returns:
        The factor by parameter name, for layers that are cut.
    """
    dense_values = dict(model.named_parameters())
    sizes = network.sizes(widths)
    groups = _convolution_groups(network)
    weights = {p.name: p for p, _ in filter_dimensions(network)}
    explained = {name: _explanations(dense_values[name], groups.get(name, 1)) for name in weights}
    votes = Counter(kind for kinds in explained.values() for kind in kinds)
    factors = {}
    for name, parameter in weights.items():
        kind = max(explained[name], key=lambda k: (votes[k], k), default=("fan_in", 0.0))[0]
        slim = tuple(int(sizes[dim]) for dim in parameter.dims)
        if slim != parameter.shape:
            before = groups.get(name, 1)
            depthwise = before > 1 and parameter.shape[1] == 1
            after = before * slim[0] / parameter.shape[0] if depthwise else before
            factors[name] = math.sqrt(fans(parameter.shape, before)[kind] / fans(slim, after)[kind])
    return factors


def fans(shape: tuple[int, ...], groups: float) -> dict[str, float]:
    """Fans of a weight: fan-in and fan-out as in torch.nn.init, fan-out per group as in timm, and Glorot's mean.

    Args:
        shape: shape of the weight (output x input x kernel).
        groups: number of groups of the convolution.
    """
    window = math.prod(shape[2:])
    into, out = shape[1] * window, shape[0] * window
    return {"fan_in": into, "fan_out": out, "fan_out_of_group": out / groups, "mean": (into + out) / 2}


def _explanations(weight: torch.Tensor, groups: int) -> list[tuple[str, float]]:
    """The (kind of fan, gain) pairs whose variance the weights have, within five standard errors but at most 25 %."""
    if weight.is_meta:
        return []
    variance = float(weight.detach().double().square().mean())
    tolerance = min(5.0 * math.sqrt(2.0 / weight.numel()), 0.25)
    return [
        (kind, gain)
        for kind, fan in fans(tuple(weight.shape), groups).items()
        for gain in GAINS
        if abs(variance * fan / gain - 1.0) <= tolerance
    ]


def _convolution_groups(network: Network) -> dict[str, int]:
    """Number of convolution groups of each parameter's layer, by parameter name."""
    return {
        name: int(network.operators[layer.operator].attributes.get("groups", 1))
        for layer in network.layers
        if layer.operator >= 0
        for name in layer.parameters
    }

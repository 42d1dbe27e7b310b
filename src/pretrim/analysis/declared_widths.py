"""Integers that modules store for their other methods (`reparameterize`, `reset_classifier`): they too are widths.

Nothing that `forward` runs reads them, so no trial can tell what they stand for. Their names and the layers inside
their module can: `in_channels` is what its first layer reads, `groups` the channels of its depthwise layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType

import numpy as np
from numpy.typing import NDArray
from torch import nn

from .named_integers import OF_WIDTHS
from .network import Layer, Network

OF_INPUTS = frozenset(["in", "inp", "inplanes", "input", "c1"])
OF_OUTPUTS = frozenset(["out", "oup", "output", "c2"])


@dataclass(frozen=True)
class DeclaredWidth:
    """An integer attribute named like a width, with the rows of the size table that it may stand for."""

    module: str
    attribute: str
    rows: tuple[int, ...]


def declared_widths(model: nn.Module, network: Network) -> list[DeclaredWidth]:
    """Every integer that is named like a width, equals one that plans change, and is not read by `forward`."""
    known = {(stored.module, stored.attribute) for stored in network.stored_integers}
    modules = dict(model.named_modules())
    sizes = network.sizes(network.dense)
    changing: NDArray[np.bool_] = np.asarray(network.coefficients.any(axis=1))
    declared = []
    for name, module in modules.items():
        if type(module).__module__.startswith("torch."):
            continue
        read = _names_read(modules[parent] for parent in _with_parents(name))
        for attribute, value in list(vars(module).items()):
            tokens = set(attribute.split("_"))
            if type(value) is not int or value < 2 or attribute in read or not tokens & OF_WIDTHS:
                continue
            if (name, attribute) not in known:
                rows = [row for row in _rows(network, name, tokens, value) if sizes[row] == value and changing[row]]
                if rows:
                    declared.append(DeclaredWidth(name, attribute, tuple(dict.fromkeys(rows))))
    return declared


def _with_parents(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


def _names_read(modules: Iterable[nn.Module]) -> set[str]:
    """Every name in the code of `forward`, and of the methods of the same class that it uses."""
    names: set[str] = set()
    for module in modules:
        methods = {n: f for kind in reversed(type(module).__mro__[:-1]) for n, f in vars(kind).items()}
        waiting = ["forward"]
        while waiting:
            method = methods.pop(waiting.pop(), None)
            if isinstance(method, property):
                method = method.fget
            if isinstance(method, FunctionType):
                inside = set(_names_in(method.__code__))
                names |= inside
                waiting += sorted(inside & methods.keys())
    return names


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _rows(network: Network, module: str, tokens: set[str], value: int) -> list[int]:
    """The rows of the size table that an integer with this name may stand for."""
    sizes = network.sizes(network.dense)
    prefix = f"{module}." if module else ""
    inside = [layer for layer in network.layers if layer.name.startswith(prefix)]
    if not inside:  # a norm alone
        return [row for p in network.parameters if p.name.startswith(prefix) for row in p.dims]
    if "groups" in tokens:
        grouped = [layer for layer in inside if _groups(network, layer) == value]
        return [row for layer in grouped for row in _reads(network, layer)]
    if tokens & OF_INPUTS:
        return [row for layer in inside for row in _reads(network, layer) if sizes[row] == value][:1]
    if tokens & OF_OUTPUTS:
        return [layer.filters for layer in inside if sizes[layer.filters] == value][-1:]
    return [row for p in network.parameters if p.name.startswith(prefix) and not p.is_buffer for row in p.dims]


def _groups(network: Network, layer: Layer) -> int:
    operator = network.operators[layer.operator] if layer.operator >= 0 else None
    return int(operator.attributes.get("groups", 1)) if operator is not None else 1


def _reads(network: Network, layer: Layer) -> list[int]:
    """The rows of the channels that a layer reads."""
    others = [row for row in layer.weight[:2] if row != layer.filters]
    groups = _groups(network, layer)
    if groups == 1:
        return others or [layer.filters]
    filters = network.members[layer.filters]
    group_channels = network.members[layer.weight[1]]  # read by one group; the other groups read channels tied to these
    is_depthwise = group_channels.size == 0  # with one or several filters per channel
    channels = filters[:: max(len(filters) // groups, 1)] if is_depthwise else np.tile(group_channels, groups)
    return [row for row, members in enumerate(network.members) if np.array_equal(members, channels)]

"""Freeze the channels of constants: untrained weights, and buffers whose values have a meaning by position.

A fixed filter bank (Sobel, SRM, a mean shift, distance bins) is part of the design, so none of its filters is removed.
Constants that are the same for every channel (a blur kernel) do not freeze their channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from .channels import Channels, Ids, Labels
from .copies import named_tensors
from .trace import Operation, Trace

SHORTEST_RAMP = 3
SHORTEST_ORDER = 6
"""Six values are in order by chance once in 360."""


def trained_names(model: nn.Module) -> frozenset[str]:
    """Parameters that training changes; all of them if none requires a gradient (a model loaded for inference)."""
    parameters = dict(model.named_parameters())
    return frozenset(name for name, p in parameters.items() if p.requires_grad) or frozenset(parameters)


def freeze_constants(
    model: nn.Module, channels: Channels, labels: Mapping[str, Labels], traces: Sequence[Trace]
) -> None:
    """Freeze the channels of constant weights, and of constants whose values are in order, with the reason.

    Args:
        model: the model that was traced.
        channels: the freezes are added to it.
        labels: channel ids of every parameter and buffer, by name.
        traces: the runs, which show what reads each constant.
    """
    trained = trained_names(model)
    constants = {name: t for name, t in named_tensors(model) if name not in trained and t.numel() > 1}
    if constants:
        layers = [o for trace in traces for o in trace.operations if o.weight_names]
        _freeze_weights(constants, channels, labels, layers)
        for name, tensor in constants.items():
            ordered = [dim for dim in range(tensor.dim()) if _is_in_order(tensor, dim)]
            reason = f"the values of {name} are ordered constants: each belongs to its position"
            _freeze_dims(channels, name, labels[name], ordered, reason)


def _freeze_weights(
    constants: Mapping[str, torch.Tensor],
    channels: Channels,
    labels: Mapping[str, Labels],
    layers: Sequence[Operation],
) -> None:
    """Freeze the channels of constant parameters, and of filter banks in buffers that read fixed channels."""
    frozen = FrozenChannels(channels)
    for layer in layers:
        if any(name not in constants for name in layer.weight_names):  # a trained weight that a constant scales
            continue
        for name in layer.weight_names:
            tensor = constants[name]
            is_buffer = not isinstance(tensor, nn.Parameter)
            if is_buffer and not _sees_fixed_channels(layer, labels[name], frozen):
                continue
            reason = f"{name} is constant ({'a buffer' if is_buffer else 'requires_grad=False'})"
            dims = [
                d for d, label in enumerate(labels[name]) if not _is_same_for_all(tensor, d, label, frozen.components)
            ]
            _freeze_dims(channels, name, labels[name], dims, reason)


class FrozenChannels:
    """Which channels are frozen so far; components are resolved only when needed."""

    def __init__(self, channels: Channels) -> None:
        self.channels = channels
        self._components: Ids | None = None
        self._frozen = np.zeros(0, dtype=bool)
        self._freezes_seen = 0

    @property
    def components(self) -> Ids:
        if self._components is None:
            self._components = self.channels.components()
            self._frozen = np.zeros(self.channels.count, dtype=bool)
        return self._components

    def covers(self, ids: Ids) -> bool:
        """Whether all of these ids are frozen."""
        root = self.components
        for freeze in self.channels.freezes[self._freezes_seen :]:
            self._frozen[root[freeze.ids]] = True
        self._freezes_seen = len(self.channels.freezes)
        return bool(self._frozen[root[ids]].all())


def _sees_fixed_channels(layer: Operation, labels: Labels, frozen: FrozenChannels) -> bool:
    """Whether a layer reads the network's input, or channels that are frozen anyway."""
    if layer.attributes.get("groups", 1) != 1 or layer.filters is None:
        return False
    root = frozen.components
    read = labels[:2] if layer.op == "convolution" else labels  # the other dimensions are its kernel
    others = [ids for ids in read if ids is not None and not np.array_equal(root[ids], root[layer.filters])]
    return all(ids.size == 1 or frozen.covers(ids) for ids in others)


def _freeze_dims(channels: Channels, name: str, labels: Labels, dims: Iterable[int], reason: str) -> None:
    for dim in dims:
        label = labels[dim]
        if label is not None and label.size > 1:
            channels.freeze(label, name.rpartition(".")[0], reason)


def _is_same_for_all(tensor: torch.Tensor, dim: int, label: Ids | None, root: Ids) -> bool:
    """Whether every channel along a dimension has the same values, so it does not matter which ones are removed."""
    if tensor.is_meta or label is None:
        return label is None
    rows = tensor.detach().movedim(dim, 0).reshape(tensor.shape[dim], -1)
    of_channel: dict[int, list[int]] = {}
    for position, channel in enumerate(root[label].tolist()):
        of_channel.setdefault(channel, []).append(position)
    first, *others = of_channel.values()
    return all(len(positions) == len(first) and torch.equal(rows[positions], rows[first]) for positions in others)


def _is_in_order(tensor: torch.Tensor, dim: int) -> bool:
    """Whether the values along a dimension are evenly spaced (bins, positions), or monotonic."""
    size = tensor.shape[dim]
    if tensor.is_meta or size < SHORTEST_RAMP or tensor.dtype == torch.bool or tensor.is_complex():
        return False
    steps = tensor.detach().movedim(dim, 0).reshape(size, -1).double().diff(dim=0)
    is_even = bool((steps != 0).all()) and torch.allclose(steps, steps[:1].expand_as(steps), rtol=1e-3)
    is_ordered = bool(((steps > 0).all(dim=0) | (steps < 0).all(dim=0)).all())
    return is_even or (is_ordered and size >= SHORTEST_ORDER)

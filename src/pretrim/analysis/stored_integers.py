"""The shapes of a narrower copy, and the integers that its modules stored at construction."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .configuration import with_entry
from .network import IntArray, Network


def cut_shapes(network: Network, widths: IntArray) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter and buffer at the given widths, by name."""
    sizes = network.sizes(widths)
    return {p.name: tuple(int(sizes[dim]) for dim in p.dims) for p in network.parameters}


def retarget_modules(slim: nn.Module, dense: nn.Module, network: Network, widths: IntArray) -> None:
    """Set the integers in the modules of a slim copy: those of torch's own layers, and those that the analysis found.

    Args:
        slim: the slim copy, which is changed.
        dense: the model from which it was cut.
        network: the analysed network.
        widths: channels that each group keeps (G).
    """
    for before, after in zip(dense.modules(), slim.modules(), strict=True):
        retarget_layer(after, before)
    sizes = network.sizes(widths)
    modules = dict(slim.named_modules())
    for stored, dim in zip(network.stored_integers, network.stored_integer_dims, strict=True):
        owner = modules[stored.module]
        value = getattr(owner, stored.attribute)
        setattr(owner, stored.attribute, with_entry(value, stored.path, int(sizes[dim])))


def retarget_layer(after: Any, before: nn.Module) -> None:
    """Make the integers of one of torch's layers (or of a subclass) agree with its cut tensors."""
    if isinstance(before, (nn.RNNBase, nn.RNNCellBase)):
        _retarget_recurrence(after)
        return
    weight = None if isinstance(before, torch.jit.ScriptModule) else own_tensor(after, "weight")
    if weight is None:
        return
    shape = tuple(weight.shape)
    if isinstance(before, _ConvNd):
        _retarget_convolution(after, before, shape)
    elif isinstance(before, nn.Linear):
        after.out_features, after.in_features = shape
    elif isinstance(before, _NormBase):
        after.num_features = shape[0]
    elif isinstance(before, nn.GroupNorm):
        after.num_channels = shape[0]
        if before.num_groups == before.num_channels:  # one group per channel
            after.num_groups = shape[0]
    elif isinstance(before, nn.PReLU):
        after.num_parameters = shape[0]
    elif isinstance(before, nn.Embedding):
        after.num_embeddings, after.embedding_dim = shape
    elif isinstance(getattr(before, "normalized_shape", None), tuple):
        after.normalized_shape = shape


def _retarget_recurrence(after: Any) -> None:
    """Set the widths of a recurrent layer or cell from its weights (`weight_ih_l0` or `weight_ih`, respectively)."""
    suffix = "_l0" if isinstance(after, nn.RNNBase) else ""
    from_input, from_state = (own_tensor(after, f"weight_{name}{suffix}") for name in ("ih", "hh"))
    projection = own_tensor(after, "weight_hr_l0")
    if from_input is None or from_state is None:
        return
    after.input_size = from_input.shape[1]
    after.hidden_size = from_state.shape[1] if projection is None else projection.shape[1]
    if projection is not None:
        after.proj_size = projection.shape[0]


def _retarget_convolution(after: Any, before: _ConvNd, shape: tuple[int, ...]) -> None:
    rows, columns = shape[:2]
    transposed = isinstance(before, _ConvTransposeNd)
    if before.groups > 1 and before.groups == before.in_channels:  # depthwise: one group per channel
        after.groups = rows if transposed else rows // (before.out_channels // before.groups)
    after.in_channels = rows if transposed else columns * after.groups
    after.out_channels = columns * after.groups if transposed else rows


def own_tensor(module: nn.Module, name: str) -> torch.Tensor | None:
    """A module's parameter by name, even if weight norm, spectral norm or a parametrization stores it elsewhere."""
    for key in (name, f"{name}_v", f"{name}_orig"):
        tensor = module._parameters.get(key)
        if tensor is not None:
            return tensor
    parametrized = getattr(getattr(module, "parametrizations", None), name, None)
    for key in ("original", "original1"):
        tensor = getattr(parametrized, key, None)
        if isinstance(tensor, torch.Tensor):
            return tensor
    return None

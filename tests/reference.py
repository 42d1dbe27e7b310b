"""An independent account of what a slim network must compute: the dense network with removed entries set to zero."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from pretrim.analysis.network import Network, Parameter

Keep = NDArray[np.bool_]
torch.set_num_threads(1)  # tests run side by side


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """All parameters and buffers random, in double precision, in place: a zero gamma would hide a wrong cut."""
    generator = torch.Generator().manual_seed(seed)

    def normal(shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    model.double()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            last = name.rsplit(".", 1)[-1]
            if last == "running_var":
                new = 0.5 + torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            elif last in ("bias", "running_mean", "shift"):
                new = 0.3 * normal(tensor.shape)
            elif tensor.numel() == max(tensor.shape, default=1):  # scales of norms and layers, of both signs
                new = (1.0 + 0.3 * normal(tensor.shape)) * normal(tensor.shape).sign()
            else:
                new = normal(tensor.shape) / math.sqrt(tensor[0].numel())
            tensor.copy_(new)
    return model


# ---------------------------------------------------------------------------------------- masking


class KeptNorm(nn.Module):
    """Layer or group norm over the kept channels only, written by hand; removed channels come out as zeros."""

    def __init__(self, norm: nn.Module, kept: Tensor) -> None:
        super().__init__()
        self.norm, self.kept = norm, kept

    def forward(self, x: Tensor) -> Tensor:
        norm, out = self.norm, torch.zeros_like(x)
        if isinstance(norm, nn.LayerNorm):
            rows = x[..., self.kept]
            centred = rows - rows.mean(-1, keepdim=True)
            scaled = centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
            out[..., self.kept] = scaled * norm.weight[self.kept] + norm.bias[self.kept]
            return out
        assert isinstance(norm, nn.GroupNorm)
        for group in torch.arange(norm.num_channels).reshape(norm.num_groups, -1):
            channels = group[self.kept[group]]
            rows = x[:, channels]
            centred = rows - rows.mean((1, 2, 3), keepdim=True)
            scaled = centred / (centred.square().mean((1, 2, 3), keepdim=True) + norm.eps).sqrt()
            out[:, channels] = scaled * norm.weight[channels, None, None] + norm.bias[channels, None, None]
        return out


def kept_at(network: Network, parameter: Parameter, keep: Keep) -> list[NDArray[np.bool_]]:
    """For every dimension of a parameter, which of its indices stay."""
    masks = []
    for size, row in zip(parameter.shape, parameter.dims, strict=True):
        channels = network.members[row]
        mask = np.ones(size, dtype=bool)
        if channels.size:
            mask = (channels < 0) | keep[channels]
        masks.append(mask)
    return masks


def masked(model: nn.Module, network: Network, keep: Keep) -> nn.Module:
    """A copy of the dense network with every entry that the plan removes set to zero.

    Norms across channels see the kept channels only (KeptNorm), because removing channels changes their statistics.
    """
    dense = copy.deepcopy(model)
    tensors = dict([*dense.named_parameters(), *dense.named_buffers()])
    norms: dict[str, Tensor] = {}
    with torch.no_grad():
        for parameter in network.parameters:
            masks = kept_at(network, parameter, keep)
            for dim, mask in enumerate(masks):
                tensors[parameter.name].index_fill_(dim, torch.from_numpy(np.flatnonzero(~mask)), 0)
            owner, _, last = parameter.name.rpartition(".")
            is_cut = not all(mask.all() for mask in masks)
            if is_cut and last == "weight" and isinstance(dense.get_submodule(owner), (nn.LayerNorm, nn.GroupNorm)):
                norms[owner] = torch.from_numpy(masks[0])
    for owner, kept in norms.items():
        parent, _, last = owner.rpartition(".")
        setattr(dense.get_submodule(parent), last, KeptNorm(dense.get_submodule(owner), kept))
    return dense


def only_norms_mix(model: nn.Module, network: Network) -> bool:
    """Whether masking tells the truth: nothing but layer and group norms reduces over prunable channels."""
    modules = dict(model.named_modules())
    mixing = [operator.module for operator in network.operators if operator.mixes]
    return all(isinstance(modules[name], (nn.LayerNorm, nn.GroupNorm)) for name in mixing)


# ---------------------------------------------------------------------------------------- running and comparing


def run(model: nn.Module, inputs: Any) -> list[Tensor]:
    """Every output of one run, in eval or train mode as the model is, with fixed random numbers."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if isinstance(inputs, dict):
            result = model(**inputs)
        else:
            result = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


def relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference, relative to the largest value of the same output; over all outputs."""
    assert [tuple(a.shape) for a in found] == [tuple(b.shape) for b in expected]
    assert all(bool(a.isfinite().all()) for a in found), "an output is not finite"
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))


def outputs_vary(model: nn.Module, inputs: Any) -> None:
    """Outputs that do not depend on the input would make every comparison worthless."""

    def other(leaf: Any) -> Any:
        return torch.roll(leaf, 3, -1).mul(-1.3).add(0.2) if isinstance(leaf, Tensor) else leaf

    for a, b in zip(run(model, inputs), run(model, tree_map(other, inputs)), strict=True):
        assert float((a - b).abs().max()) > 1e-8 * float(a.abs().max()), "an output does not vary with the input"


# ---------------------------------------------------------------------------------------- counting


def counted_macs(model: nn.Module, inputs: Any) -> int:
    """Torch's own count of the operations, halved."""
    with FlopCounterMode(display=False) as counter:
        run(model, inputs)
    return counter.get_total_flops() // 2


def counted_activation_bytes(model: nn.Module, inputs: Any, item: int = 4) -> int:
    """Output elements of every convolution and linear layer that runs, by forward hooks."""
    elements = []
    hooks = [
        module.register_forward_hook(lambda _module, _args, out: elements.append(out.numel()))
        for module in model.modules()
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
    ]
    try:
        run(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return item * sum(elements)

"""Quantisation-aware training: the forward pass rounds as int8 does, so that the weights learn to live with it.

The weights of every convolution and linear layer are rounded per output channel, symmetrically, and their inputs per
tensor, as the runtimes do (Jacob et al. 2018, section 3); gradients pass through the rounding (Bengio et al. 2013).
Norms need not be folded for that: a positive factor on a channel changes its scale and nothing else. The ranges are
those of the batch, so nothing is learnt or kept beside the weights, and what comes out is an ordinary network.

Not rounded: the inputs of sums, pools and other layers without weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear)
LEAST, MOST = -128, 127
SMALLEST = 1e-12
"""scale, of a tensor that is all zeros"""


@contextmanager
def rounded(model: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Inside, layers round their inputs; gives the rounded weights by name, for `torch.func.functional_call`."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LAYERS)}
    hooks = [layer.register_forward_pre_hook(_round_input) for layer in layers.values()]
    try:
        yield {
            f"{name}.weight" if name else "weight": round_weight(layer.weight, axis=_channels(layer))
            for name, layer in layers.items()
        }
    finally:
        for hook in hooks:
            hook.remove()


def round_weight(weight: torch.Tensor, axis: int = 0) -> torch.Tensor:
    """A weight in steps of a 127th of each channel's largest."""
    others = [place for place in range(weight.dim()) if place != axis]
    scale = (weight.detach().abs().amax(dim=others, keepdim=True) / MOST).clamp_min(SMALLEST)
    return _in_steps(weight, scale, torch.zeros_like(scale))


def round_activation(values: torch.Tensor) -> torch.Tensor:
    """An activation in steps of a 255th of its range, in which 0 has a place of its own."""
    least, most = torch.aminmax(values.detach())
    zero = torch.zeros_like(least)
    least, most = torch.minimum(least, zero), torch.maximum(most, zero)
    scale = ((most - least) / (MOST - LEAST)).clamp_min(SMALLEST)
    return _in_steps(values, scale, (LEAST - least / scale).round())


def _in_steps(values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    steps = (values.detach() / scale + zero).round().clamp(LEAST, MOST)
    return values + ((steps - zero) * scale - values).detach()


def _round_input(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (round_activation(inputs[0]), *inputs[1:])


def _channels(layer: nn.Module) -> int:
    """The dimension of a weight that its output channels are in."""
    return 1 if isinstance(layer, TRANSPOSED) and layer.groups == 1 else 0


def forward(model: nn.Module, images: torch.Tensor) -> Any:
    """The model's outputs as int8 would round them; `model` may be wrapped for several processes."""
    with rounded(model) as weights:
        return torch.func.functional_call(model, weights, (images,))

"""Quantisation-aware training: the forward pass rounds as int8 does, so that the weights learn to tolerate it.

The weights of every convolution and linear layer are rounded symmetrically per output channel, and their inputs per
tensor, as the runtimes do (Jacob et al. 2018, section 3); gradients pass straight through the rounding (Bengio et al.
2013). Norms need not be folded for that: a positive factor on a channel only changes its scale. Ranges are computed
from each batch, so nothing but the weights is learnt or stored, and the result is an ordinary network.

The inputs of sums, pools and other layers without weights are not rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear)
INT8_MIN, INT8_MAX = -128, 127
MIN_SCALE = 1e-12
"""Smallest scale, which tensors of all zeros get."""


@contextmanager
def rounded(model: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Inside, layers round their inputs; yields the rounded weights by name, for `torch.func.functional_call`."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LAYERS)}
    hooks = [layer.register_forward_pre_hook(_round_input) for layer in layers.values()]
    try:
        yield {
            f"{name}.weight" if name else "weight": round_weight(layer.weight, axis=_channel_axis(layer))
            for name, layer in layers.items()
        }
    finally:
        for hook in hooks:
            hook.remove()


def round_weight(weight: torch.Tensor, axis: int = 0) -> torch.Tensor:
    """Round a weight to multiples of 1/127 of the largest magnitude of each channel along `axis`."""
    other_axes = [other for other in range(weight.dim()) if other != axis]
    scale = (weight.detach().abs().amax(dim=other_axes, keepdim=True) / INT8_MAX).clamp_min(MIN_SCALE)
    return _round_to_steps(weight, scale, torch.zeros_like(scale))


def round_activation(values: torch.Tensor) -> torch.Tensor:
    """Round an activation to steps of 1/255 of its range, which is extended to 0 so that 0 is exact."""
    low, high = torch.aminmax(values.detach())
    zero = torch.zeros_like(low)
    low, high = torch.minimum(low, zero), torch.maximum(high, zero)
    scale = ((high - low) / (INT8_MAX - INT8_MIN)).clamp_min(MIN_SCALE)
    return _round_to_steps(values, scale, (INT8_MIN - low / scale).round())


def _round_to_steps(values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    steps = (values.detach() / scale + zero).round().clamp(INT8_MIN, INT8_MAX)
    return values + ((steps - zero) * scale - values).detach()


def _round_input(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (round_activation(inputs[0]), *inputs[1:])


def _channel_axis(layer: nn.Module) -> int:
    """The dimension of a layer's weight that indexes output channels."""
    return 1 if isinstance(layer, TRANSPOSED) and layer.groups == 1 else 0


def forward(model: nn.Module, images: torch.Tensor) -> Any:
    """Run the model with int8 rounding; `model` may be wrapped for several processes."""
    with rounded(model) as weights:
        return torch.func.functional_call(model, weights, (images,))

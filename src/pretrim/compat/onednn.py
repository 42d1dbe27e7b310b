"""Workaround for a defect of oneDNN in strided 1x1 convolutions with few channels, in channels_last, on x86 CPUs.

Their backward pass writes past its workspace if the input has fewer channels than a block (8 with AVX2, 16 with
AVX-512): wrong gradients, a hang, or a crash (github.com/uxlfoundation/oneDNN/issues/6035, open; seen with torch 2.13).
Slim networks have such layers in the shortcuts of ResNets. A strided 1x1 kernel only skips pixels, so subsampling first
and then convolving with stride 1 gives the same result.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType

import torch
from torch import nn
from torch.nn import functional

LARGEST_BLOCK = 16


def is_affected(module: nn.Module) -> bool:
    """Whether the defect may affect a layer."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.padding == (0, 0)
        and module.in_channels // module.groups < LARGEST_BLOCK
    )


@contextmanager
def subsample_first(model: nn.Module, *, active: bool) -> Iterator[None]:
    """Make the affected layers of a model subsample before they convolve, within the context; only if `active`."""
    layers = [module for module in model.modules() if active and is_affected(module)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(self: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    down, right = self.stride
    return functional.conv2d(images[:, :, ::down, ::right], self.weight, self.bias, groups=self.groups)


avoided = subsample_first  # the name that train/ uses

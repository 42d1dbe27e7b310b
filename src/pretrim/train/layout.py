"""The memory layout of feature maps and kernels: which layouts a network supports, and how to set one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from .outputs import modes_kept


def lay_out(model: nn.Module, *, channels_last: bool) -> None:
    """Convert the kernels of 2-D convolutions to a memory layout, in place; torch has no such layouts for 3-D ones."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.ndim == 4:
                # Not `contiguous`, which leaves 1x1 kernels unchanged, as they are in both layouts at once.
                tensor.data = tensor.data.to(memory_format=layout)


def takes_channels_last(model: nn.Module, input_shape: Sequence[int]) -> bool:
    """Whether a network runs in the channels-last layout; ``x.view(len(x), -1)`` of feature maps, for one, does not.

    False only if the same forward pass runs in the usual layout. The model is left unchanged.

    Args:
        model: the network.
        input_shape: (C, H, W); with another number of dimensions there is no such layout, and nothing is run.
    """
    if len(input_shape) != 3:
        return True
    parameter = next(model.parameters(), torch.zeros(()))
    images = torch.zeros(2, *input_shape, dtype=parameter.dtype, device=parameter.device)
    with _unchanged(model):
        lay_out(model, channels_last=True)
        if _runs(model, images.contiguous(memory_format=torch.channels_last)):
            return True
        lay_out(model, channels_last=False)
        return not _runs(model, images)


def _runs(model: nn.Module, images: torch.Tensor) -> bool:
    try:
        model(images)
    except Exception:  # the user's own code: training will show the error
        return False
    return True


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode without gradients; on exit values, layout, modes and RNG are restored."""
    tensors = [*model.parameters(), *model.buffers()]
    saved = [(tensor.data, tensor.detach().clone()) for tensor in tensors]
    devices = {tensor.device for tensor in tensors if tensor.is_cuda}
    with modes_kept(model), torch.random.fork_rng(devices), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training will show them
        model.eval()  # so that a module that counts its training steps does not count this one
        try:
            yield
        finally:
            for tensor, (data, values) in zip(tensors, saved, strict=True):
                tensor.data = data
                tensor.copy_(values)

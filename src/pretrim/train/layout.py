"""The memory layout of feature maps and kernels: which one a network runs in, and how it is put into it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from .outputs import modes_kept


def lay_out(model: nn.Module, *, channels_last: bool) -> None:
    """Put the kernels of 2-D convolutions in a memory layout, in place; torch has none such for volumes."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.ndim == 4:
                # Not `contiguous`, which leaves a 1x1 kernel as it was: it is in both layouts at once.
                tensor.data = tensor.data.to(memory_format=layout)


def takes_channels_last(model: nn.Module, input_shape: Sequence[int]) -> bool:
    """Whether a network runs with the channels last. ``x.view(len(x), -1)`` of feature maps does not.

    False only where the same forward runs in the usual layout. The model is left as it was.

    Args:
        model: the network.
        input_shape: (C, H, W); of any other number of dimensions there is no such layout, and nothing is run.
    """
    if len(input_shape) != 3:
        return True
    parameter = next(model.parameters(), torch.zeros(()))
    images = torch.zeros(2, *input_shape, dtype=parameter.dtype, device=parameter.device)
    with _left_alone(model):
        lay_out(model, channels_last=True)
        if _runs(model, images.contiguous(memory_format=torch.channels_last)):
            return True
        lay_out(model, channels_last=False)
        return not _runs(model, images)


def _runs(model: nn.Module, images: torch.Tensor) -> bool:
    try:
        model(images)
    except Exception:  # the user's own code: training shows it
        return False
    return True


@contextmanager
def _left_alone(model: nn.Module) -> Iterator[None]:
    """In eval mode, without gradients; after, values, layout, modes and the random state are as before."""
    tensors = [*model.parameters(), *model.buffers()]
    before = [(tensor.data, tensor.detach().clone()) for tensor in tensors]
    devices = {tensor.device for tensor in tensors if tensor.is_cuda}
    with modes_kept(model), torch.random.fork_rng(devices), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training shows them
        model.eval()  # what counts steps in train mode is not to count this one
        try:
            yield
        finally:
            for tensor, (data, values) in zip(tensors, before, strict=True):
                tensor.data = data
                tensor.copy_(values)

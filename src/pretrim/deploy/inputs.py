"""Checks of an export's inputs, in the form that every runtime takes, and the copy of the network to convert."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeAlias

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from pretrim.analysis.copies import check_eager, copy_module, describe_failure
from pretrim.errors import ModelError, UsageError

from .proof import prove
from .runtime import Outputs

Inputs: TypeAlias = tuple[torch.Tensor, ...]
Normalisation: TypeAlias = tuple[Sequence[float], Sequence[float]]
MIN_CALIBRATION_IMAGES = 2
DIMENSIONS = (2, 5)
"""Smallest and largest rank of an input with its batch: from vectors to three spatial dimensions."""


def checked_images(images: torch.Tensor | Inputs) -> Inputs:
    """Check images and return them detached, on the CPU, as one N x C x ... tensor for each input.

    Raises UsageError for images that no runtime takes.
    """
    inputs = _as_inputs(images)
    for value in inputs:
        if not DIMENSIONS[0] <= value.ndim <= DIMENSIONS[1] or not len(value) or value.dtype != torch.float32:
            raise UsageError(
                f"Expected images of N x C x H x W in float32, but got {list(value.shape)} in {value.dtype}: give one "
                f"or more, of up to three spatial dimensions (N x C x L for signals, N x C x D x H x W for volumes)."
            )
        if len(value) != len(inputs[0]):
            raise UsageError(
                f"Expected the same number of images for each input, but got {len(inputs[0])} and {len(value)}."
            )
        if not value.isfinite().all():
            raise UsageError("Expected finite images, but some hold NaN or infinity: leave those out.")
    return tuple(value.detach().cpu() for value in inputs)


def checked_calibration(calibration: torch.Tensor | Inputs | None, images: Inputs) -> Inputs | None:
    """Check calibration images and return them detached, on the CPU. Raises UsageError for other shapes or too few."""
    if calibration is None:
        return None
    inputs = _as_inputs(calibration)
    if len(inputs) != len(images):
        raise UsageError(f"Expected calibration images for {len(images)} inputs, but got them for {len(inputs)}.")
    for value, image in zip(inputs, images, strict=True):
        if value.shape[1:] != image.shape[1:] or value.dtype != torch.float32:
            raise UsageError(
                f"Expected calibration images of {list(image.shape[1:])} in float32, as the network takes, but got "
                f"{list(value.shape[1:])} in {value.dtype}: give images of that shape."
            )
        if len(value) < MIN_CALIBRATION_IMAGES or len(value) != len(inputs[0]):
            raise UsageError(f"Expected {MIN_CALIBRATION_IMAGES} or more calibration images, but got {len(value)}.")
        if not value.isfinite().all():
            raise UsageError("Expected finite calibration images, but some hold NaN or infinity: leave those out.")
    return tuple(value.detach().cpu() for value in inputs)


def _as_inputs(images: torch.Tensor | Inputs) -> Inputs:
    """Images as a tuple with one tensor for each input. Raises UsageError for anything but tensors."""
    inputs: Inputs = images if isinstance(images, tuple) and images else (images,)  # type: ignore[assignment]
    for value in inputs:
        if not isinstance(value, torch.Tensor):
            raise UsageError(
                f"Expected images as a torch.Tensor, but got a {type(value).__name__}: give a tensor, or a tuple of "
                f"one for each input."
            )
    return inputs


def check_labels(images: Inputs, labels: torch.Tensor | None) -> None:
    """Raise UsageError unless there is one label for each image."""
    if labels is not None and (not isinstance(labels, torch.Tensor) or labels.shape != images[0].shape[:1]):
        shape = list(labels.shape) if isinstance(labels, torch.Tensor) else type(labels).__name__
        raise UsageError(f"Expected labels as a torch.Tensor of [{len(images[0])}], one per image, but got {shape}.")


def checked_normalisation(images: Inputs, normalisation: Normalisation | None) -> list[list[float]] | None:
    """(means, deviations) of the first input's channels as lists. Raises UsageError unless there is one per channel."""
    if normalisation is None:
        return None
    mean_std = [[float(value) for value in part] for part in normalisation]
    channels = images[0].shape[1]
    if [len(part) for part in mean_std] != 2 * [channels] or not np.isfinite(np.array(mean_std)).all():
        raise UsageError(
            f"Expected a normalisation of {channels} finite means and as many deviations, but got {mean_std}."
        )
    return mean_std


class PlainNetwork(nn.Module):
    """A copy of a network for exporters: on the CPU, contiguous, in eval mode, returning a tensor or a flat tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        check_eager(network)
        self.network = copy_module(network).cpu().float()
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            tensor.requires_grad_(False)
            tensor.data = tensor.data.contiguous()
        self.eval()

    def forward(self, *images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        leaves = [leaf for leaf in tree_leaves(self.network(*images)) if isinstance(leaf, torch.Tensor)]
        return leaves[0] if len(leaves) == 1 else tuple(leaves)

    @torch.no_grad()
    def outputs(self, images: Inputs) -> Outputs:
        """Run N images one at a time, as the artifact takes them, and return each output (N x ...).

        Raises ModelError if the network does not run, or returns anything but tensors of one row per image.
        """
        try:
            rows = [
                tree_leaves(self(*(value[number : number + 1] for value in images))) for number in range(len(images[0]))
            ]
        except Exception as error:  # the user's own code; its error is shown
            sizes = " and ".join("x".join(map(str, value.shape[1:])) for value in images)
            raise ModelError(
                f"The network does not run on one image of {sizes}: its forward raised {describe_failure(error)}."
            ) from error
        shapes = [list(part.shape) for part in rows[0]]
        if not shapes or any(shape[:1] != [1] for shape in shapes):
            raise ModelError(f"Expected the network to return tensors of one row an image, but for one got {shapes}.")
        return [np.concatenate([part.numpy() for part in parts]) for parts in zip(*rows, strict=True)]


def own_rounding(plain: PlainNetwork, images: Inputs, wanted: Outputs) -> float | None:
    """The relative error (`Proof.relative_error`) of the network's float32 outputs against its float64 outputs.

    None if the network does not run in float64, such as one that converts to float32 itself.

    Args:
        plain: the network, with tensors in and out.
        images: one batch for each input.
        wanted: its float32 outputs.
    """
    with suppress(RuntimeError):
        exact = copy.deepcopy(plain).double().outputs(tuple(value.double() for value in images))
        return prove(exact, wanted, is_int8=False, inputs="").relative_error
    return None

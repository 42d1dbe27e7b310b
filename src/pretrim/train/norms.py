"""Recalibration: the running statistics of norms, recomputed from training images.

Batch norms keep an exponential moving average of the statistics of their training batches. After few steps, or with a
large learning rate, it still reflects what the weights *were*, and a sound network predicts one class for every image.
A forward pass over some training images gives the statistics of the weights as they *are* (Wu and Johnson 2021, arXiv
2105.07576, call it precise batch norm).

The images are augmented, mixed and drawn as in training (`BatchSource.calibration`). Otherwise the statistics would be
those of other images than the weights were trained on, such as images without the black bars of padded crops: ResNet-20
on CIFAR-10 (8 epochs of all images on a GPU) reached 81.9 % with its running averages, 81.9 % recalibrated on 2,048
augmented images, and 79.3 % recalibrated on plain ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from pretrim.data import Augmentation, DataSet, augment, cut_out, draw, normalise

from .feed import in_passes, seed_of
from .outputs import forward, modes_kept

RECALIBRATION_IMAGES = 4096
"""Enough to estimate the mean and variance of a channel to about 2 % from one value per image."""
MIN_IMAGES = 256
"""Fewest images, if there are that many. More made no measurable difference (docs/training.md), and even this is more
than the batch of a step."""
IMAGE_SHARE = 1 / 8
"""Share of the training images used for each validation: a forward pass over them costs about 1/20 of an epoch."""

Run = Callable[[nn.Module, torch.Tensor], Any]


def recalibration_images(train_images: int, most: int) -> int:
    """Number of training images to recompute the statistics from: an eighth, but at least 256 if there are that many.

    >>> [recalibration_images(count, 2048) for count in (200, 486, 8_000, 50_000)]
    [200, 256, 1000, 2048]
    """
    return min(train_images, most, max(MIN_IMAGES, int(train_images * IMAGE_SHARE)))


def tracking_norms(model: nn.Module) -> list[_NormBase]:
    """The norms that use running statistics in eval mode."""
    return [norm for norm in model.modules() if isinstance(norm, _NormBase) and norm.running_mean is not None]


def learning_norms(model: nn.Module) -> list[_NormBase]:
    """The tracking norms that training updates, without those that the model keeps in eval mode; modes are restored."""
    with modes_kept(model):
        model.train()
        return [norm for norm in tracking_norms(model) if norm.training]


def recalibrate(
    model: nn.Module,
    data: DataSet,
    *,
    images: int = RECALIBRATION_IMAGES,
    batch_size: int = 256,
    how: Augmentation | None = None,
) -> int:
    """Set the running statistics of norms **in place** to their means over batches of training images.

    The statistics of a trained network are wrong once it is pruned, as its layers get other inputs. Weights and other
    modules do not change. Every call uses the same images, drawn with the data's split seed.

    Args:
        model: the network, on the device to run on.
        data: the data set whose training images are used.
        images: largest number of images.
        batch_size: largest batch of a forward pass, at least 2; batches have nearly equal sizes, as each has the same
            weight.
        how: the augmentation of the training; None uses the images as they are.

    Returns the number of images used: 0 for a network without such norms.

    Raises ModelError with the model's own error.
    """
    how = how or Augmentation(padding=0, flip=False)
    generator = torch.Generator().manual_seed(seed_of(data.split_seed, 1))
    first = next(model.parameters(), torch.zeros(0))

    def prepare(places: torch.Tensor) -> torch.Tensor:
        pixels = data.train.images[places].to(first.device)
        params = draw(len(places), data.input_shape[1:], how, generator).to(first.device)
        batch = cut_out(normalise(augment(pixels, params, how), data.mean, data.std), params, how.cutout)
        return batch.to(first.dtype)

    return set_statistics(model, map(prepare, _index_batches(data, images, batch_size)), tracking_norms(model))


@torch.no_grad()
def set_statistics(
    model: nn.Module, batches: Iterable[torch.Tensor], norms: Sequence[_NormBase], run: Run | None = None
) -> int:
    """Set the running statistics of norms **in place** to their means over some batches; return the number of images.

    All other modules are in eval mode meanwhile; norms that the images do not reach keep their statistics.

    Args:
        model: the network, on the device of the batches.
        batches: normalised images, N x C x H x W, in batches of nearly equal size, as each has the same weight.
        norms: the model's norms to set; if there are none, no batch is drawn.
        run: called with the model and the images instead of calling the model.

    Raises ModelError with the model's own error.
    """
    if not norms:
        return 0
    images = 0
    with modes_kept(model), _averaging(norms):
        model.eval()
        for norm in norms:
            norm.training = True  # not `train()`, which would also turn on the dropout inside some norms of timm
        for batch in batches:
            forward(model, batch, run)
            images += len(batch)
    return images


@contextmanager
def statistics_kept(norms: Sequence[_NormBase]) -> Iterator[None]:
    """On exit, restore the statistics of the norms."""
    saved = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    try:
        yield
    finally:
        for buffer, value in saved:
            buffer.copy_(value)


def _index_batches(data: DataSet, images: int, batch_size: int) -> tuple[torch.Tensor, ...]:
    """Draw the image indices of each forward pass."""
    generator = torch.Generator().manual_seed(seed_of(data.split_seed))
    return in_passes(torch.randperm(len(data.train), generator=generator)[: max(images, 2)], batch_size)


@contextmanager
def _averaging(norms: Sequence[_NormBase]) -> Iterator[None]:
    """Inside, norms in train mode keep the plain mean over their calls, starting with the first one.

    A momentum of None would do so too, but torch then reads a counter of each norm, which waits for the GPU.
    """
    calls: Counter[nn.Module] = Counter()
    momenta = [norm.momentum for norm in norms]

    def update_momentum(norm: nn.Module, _: Any) -> None:
        calls[norm] += 1
        if calls[norm] == 1:
            norm.reset_running_stats()  # type: ignore[operator]
        norm.momentum = 1.0 / calls[norm]  # type: ignore[assignment]

    hooks = [norm.register_forward_pre_hook(update_momentum) for norm in norms]
    try:
        yield
    finally:
        for norm, hook, momentum in zip(norms, hooks, momenta, strict=True):
            hook.remove()
            norm.momentum = momentum

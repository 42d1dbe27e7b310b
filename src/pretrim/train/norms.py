"""Running statistics of norms, set anew from training images.

Batch norms keep an exponential average of what they see in training. After few steps, or with a large learning rate, it
is an average of what the weights *were*, and the network, which is sound, predicts one class for every image. A forward
pass over some training images gives the statistics of the weights as they *are* (Wu and Johnson 2021, arXiv 2105.07576,
call it precise batch norm).

The images are augmented, mixed and drawn as in training (`BatchSource.calibration`). Without that the statistics are
those of other images than the weights were trained on, such as ones without the black bars of padded crops: ResNet-20
on CIFAR-10 (8 epochs of all images on a GPU) had 81.9 % by its running averages, 81.9 % recalibrated on 2,048 augmented
images, and 79.3 % on plain ones.
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
"""As many as give the mean and variance of a channel to about 2 %, one value an image."""
LEAST_IMAGES = 256
"""More changed nothing that could be measured (docs/training.md), and a step's batch is smaller still."""
SHARE = 1 / 8
"""Of the training images, for each validation: a forward pass over them costs about a twentieth of an epoch."""

Run = Callable[[nn.Module, torch.Tensor], Any]


def recalibration_images(train_images: int, most: int) -> int:
    """How many training images set the statistics anew: an eighth of them, at least 256 if they are there.

    >>> [recalibration_images(count, 2048) for count in (200, 486, 8_000, 50_000)]
    [200, 256, 1000, 2048]
    """
    return min(train_images, most, max(LEAST_IMAGES, int(train_images * SHARE)))


def tracking_norms(model: nn.Module) -> list[_NormBase]:
    """The norms that predict by running statistics."""
    return [norm for norm in model.modules() if isinstance(norm, _NormBase) and norm.running_mean is not None]


def learning_norms(model: nn.Module) -> list[_NormBase]:
    """Those of them that training updates, without those that a model keeps in eval mode; its modes are restored."""
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

    The statistics of a trained network are wrong once it is cut, as its layers get other inputs. Weights do not change,
    nor do other modules. The same images are taken each time, drawn with the data's split seed.

    Args:
        model: on the device that is used.
        data: its training images are taken.
        images: at most so many.
        batch_size: of the forward passes, at most, and at least 2; they are of one size, so that each counts the same.
        how: what the training does to images; None: they are taken as they are.

    Returns the images that were used: 0 for a network without such norms.

    Raises ModelError with the model's own error.
    """
    how = how or Augmentation(padding=0, flip=False)
    generator = torch.Generator().manual_seed(seed_of(data.split_seed, 1))
    first = next(model.parameters(), torch.zeros(0))

    def prepared(places: torch.Tensor) -> torch.Tensor:
        pixels = data.train.images[places].to(first.device)
        drawn = draw(len(places), data.input_shape[1:], how, generator).to(first.device)
        batch = cut_out(normalise(augment(pixels, drawn, how), data.mean, data.std), drawn, how.cutout)
        return batch.to(first.dtype)

    return set_statistics(model, map(prepared, _parts(data, images, batch_size)), tracking_norms(model))


@torch.no_grad()
def set_statistics(
    model: nn.Module, batches: Iterable[torch.Tensor], norms: Sequence[_NormBase], run: Run | None = None
) -> int:
    """Set the running statistics of norms **in place** to their means over some batches; the images that these hold.

    All other modules are in eval mode meanwhile; norms that the images do not reach keep their values.

    Args:
        model: on the device of the batches.
        batches: normalised images, N x C x H x W, of about one size, as each counts the same.
        norms: of the model; without any, no image is asked for.
        run: calls the model with images in another way.

    Raises ModelError with the model's own error.
    """
    if not norms:
        return 0
    images = 0
    with modes_kept(model), _averaging(norms):
        model.eval()
        for norm in norms:
            norm.training = True  # not `train()`, which would wake the dropout that some norms of timm hold
        for batch in batches:
            forward(model, batch, run)
            images += len(batch)
    return images


@contextmanager
def statistics_kept(norms: Sequence[_NormBase]) -> Iterator[None]:
    """The norms have their own statistics again, after."""
    kept = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.copy_(value)


def _parts(data: DataSet, images: int, batch_size: int) -> tuple[torch.Tensor, ...]:
    """Places of the images of each pass."""
    generator = torch.Generator().manual_seed(seed_of(data.split_seed))
    return in_passes(torch.randperm(len(data.train), generator=generator)[: max(images, 2)], batch_size)


@contextmanager
def _averaging(norms: Sequence[_NormBase]) -> Iterator[None]:
    """Inside, norms in train mode keep the plain mean over their calls, from the first one on.

    A momentum of None would do that too, but torch then reads a counter of each norm, and waits for the GPU.
    """
    calls: Counter[nn.Module] = Counter()
    momenta = [norm.momentum for norm in norms]

    def before(norm: nn.Module, _: Any) -> None:
        calls[norm] += 1
        if calls[norm] == 1:
            norm.reset_running_stats()  # type: ignore[operator]
        norm.momentum = 1.0 / calls[norm]  # type: ignore[assignment]

    hooks = [norm.register_forward_pre_hook(before) for norm in norms]
    try:
        yield
    finally:
        for norm, hook, momentum in zip(norms, hooks, momenta, strict=True):
            hook.remove()
            norm.momentum = momentum

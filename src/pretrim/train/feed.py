"""The training images of each step: ordered, augmented, normalised, and divided among processes.

All chance is a function of the seed, the epoch and the place in it. So any number of processes sees the same batches,
and a training that was stopped goes on with the images that come next, without a random state to save.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from pretrim.data import AugmentParams, DataSet, Split, augment, cut_out, draw, normalise, prefetched
from pretrim.errors import DataError, UsageError

from .batch import Batch
from .recipe import Recipe
from .task import Task

ORDER, STEP = 0, 1
"""What a seed is for: an epoch's order and augmentation, or a step's dropout."""
CALIBRATION_BATCH = 256
"""Images of a forward pass that sets statistics of norms: as many as of an evaluation, which has the memory for them"""
DEVICE_SHARE = 0.5
"""Of a GPU's free memory, what the training images may take."""


@dataclass(frozen=True)
class Order:
    """One epoch: which image stands at each place, what is done to it, and what is mixed with it."""

    images: torch.Tensor
    draws: AugmentParams
    partners: torch.Tensor | None
    """steps x batch, places within the batch"""
    shares: list[float]


def seed_of(*numbers: int) -> int:
    """One seed of 63 bits from several numbers (0s at the end do not count); the same on every machine."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def in_passes(places: torch.Tensor, batch_size: int) -> tuple[torch.Tensor, ...]:
    """Places in parts as equal as can be, of at most `batch_size`, and of at least 2 where there are as many.

    >>> [len(part) for part in in_passes(torch.arange(257), 256)]
    [129, 128]
    """
    passes = min(-(-len(places) // max(batch_size, 2)), max(len(places) // 2, 1))
    return torch.tensor_split(places, passes)


class BatchSource:
    """Batches of the training split for one process of `world`."""

    def __init__(
        self,
        data: DataSet,
        recipe: Recipe,
        device: torch.device,
        *,
        rank: int = 0,
        world: int = 1,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
        task: Task | None = None,
    ) -> None:
        self.data, self.recipe, self.device, self.rank, self.dtype = data, recipe, device, rank, dtype
        self.channels_last = channels_last
        self.batch_size = _batch_size(len(data.train), recipe, world)
        self.share = self.batch_size // world
        self.steps = len(data.train) // self.batch_size
        how = recipe.augmentation(data.input_shape, data.flip)
        self.how = how if task is None else task.augmentation(how)
        self.task = task
        images, targets = data.train.images, data.train.targets
        held = _on_device(images, device) if isinstance(images, torch.Tensor) else images
        self.near = held.device if isinstance(held, torch.Tensor) else torch.device("cpu")
        self.part = Split(held, targets.to(self.near) if isinstance(targets, torch.Tensor) else targets)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[list[Batch]]:
        """For each step from `first` (counted from 0), this process's images as one batch a forward pass."""
        order = self._order(epoch)
        count = self.steps - first

        def fetch(step: int) -> list[Batch]:
            return self._step(order, first + step)

        # Decoding takes long and lets go of the lock; images in memory are ready sooner than a thread wakes up.
        if isinstance(self.part.images, torch.Tensor):
            return (fetch(step) for step in range(count))
        return prefetched(fetch, count)

    def calibration(self, images: int, batch_size: int = CALIBRATION_BATCH) -> Iterator[torch.Tensor]:
        """Training images as the training sees them, those of an epoch 0 that is never trained; the same each time.

        Every process gets all of them, in batches as equal as can be.

        Args:
            images: at most so many.
            batch_size: likewise.
        """
        order, alpha = self._order(0), self.recipe.mixup
        for places in in_passes(torch.arange(self.steps * self.batch_size)[:images], batch_size):
            batch, _ = self._prepared(order, places.to(self.near))
            if alpha:  # each image by a share of its own: one share for a whole pass would decide the variance
                draws = np.random.Generator(np.random.PCG64(int(places[0]))).beta(alpha, alpha, len(places))
                batch = batch.lerp(batch.flip(0), torch.from_numpy(draws).to(batch).view(-1, *[1] * (batch.ndim - 1)))
            yield self._laid_out(batch)

    def _order(self, epoch: int) -> Order:
        generator = torch.Generator().manual_seed(seed := seed_of(self.recipe.seed, ORDER, epoch))
        count = self.steps * self.batch_size
        images = self._chosen(count, generator)
        draws = draw(count, self.data.input_shape[1:], self.how, generator).to(self.device)
        if not self.recipe.mixup:
            return Order(images.to(self.near), draws, None, [1.0] * self.steps)
        partners = torch.rand((self.steps, self.batch_size), generator=generator).argsort(dim=1)
        shares = np.random.Generator(np.random.PCG64(seed)).beta(self.recipe.mixup, self.recipe.mixup, self.steps)
        return Order(images.to(self.near), draws, partners.to(self.near), shares.tolist())

    def _chosen(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """The images of an epoch, in order: each at most once or, with balanced sampling, drawn with replacement."""
        if self.recipe.balance != "sampling":
            return torch.randperm(len(self.part), generator=generator)[:count]
        labels = self.data.train.labels
        counts = torch.bincount(labels)
        present = torch.nonzero(counts).flatten()
        classes = present[torch.randperm(count, generator=generator).remainder(len(present))]
        draws = torch.rand(count, generator=generator, dtype=torch.float64)
        within = (draws * counts[classes]).long()
        return labels.argsort(stable=True)[counts.cumsum(0)[classes] - counts[classes] + within]

    def _step(self, order: Order, step: int) -> list[Batch]:
        own = slice(self.rank * self.share, (self.rank + 1) * self.share)
        start = step * self.batch_size
        images, targets = self._prepared(order, torch.arange(start + own.start, start + own.stop, device=self.near))
        others, share = None, order.shares[step]
        if order.partners is not None:
            mixed_in, others = self._prepared(order, start + order.partners[step, own])
            images = share * images + (1.0 - share) * mixed_in
        images = self._laid_out(images)
        size = self.share // self.recipe.accumulate
        return [
            Batch(images[part], targets[part], None if others is None else others[part], share)
            for part in (slice(at, at + size) for at in range(0, self.share, size))
        ]

    def _laid_out(self, images: torch.Tensor) -> torch.Tensor:
        """In the network's data type and memory layout; that of channels last is one of images."""
        last = self.channels_last and images.ndim == 4
        return images.to(self.dtype).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    def _prepared(self, order: Order, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The images at some places of the order, augmented and normalised, and their targets."""
        images, targets = self.part.pairs(order.images[places])
        images, targets = (values.to(self.device, non_blocking=True) for values in (images, targets))
        draws = order.draws.take(places.to(self.device))
        images = normalise(augment(images, draws, self.how), self.data.mean, self.data.std)
        if self.task is not None:
            targets = self.task.augmented(targets, draws, self.how)
        return cut_out(images, draws, self.how.cutout), targets


def _batch_size(images: int, recipe: Recipe, world: int) -> int:
    """Images a step: the recipe's, or what there is, in equal parts for every process and forward pass."""
    parts = world * recipe.accumulate
    if images < 2 * parts:
        raise DataError(f"Expected {2 * parts} or more training images, but got {images}: give more images.")
    if images < recipe.batch_size:
        return images // parts * parts
    if recipe.batch_size % parts:
        raise UsageError(
            f"Expected a batch size that {world} processes x {recipe.accumulate} forward passes divide, but got "
            f"{recipe.batch_size}: take {max(recipe.batch_size // parts, 1) * parts}."
        )
    return recipe.batch_size


def _on_device(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The images on the GPU, if they leave enough of its memory; else where they are."""
    if device.type != "cuda":
        return images
    free, _ = torch.cuda.mem_get_info(device)
    return images.to(device) if images.numel() < DEVICE_SHARE * free else images.pin_memory()

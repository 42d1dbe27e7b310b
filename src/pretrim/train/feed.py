"""The training images of each step: shuffled, augmented, normalised, and divided among processes.

All random numbers are a function of the seed, the epoch and the position in it. So any number of processes sees the
same batches, and an interrupted training resumes with the images that come next, without a random state to save.
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
"""Purposes of a seed: the order and augmentation of an epoch, or the dropout of a step."""
CALIBRATION_BATCH = 256
"""Images per forward pass when the statistics of norms are recomputed: as many as in an evaluation, so they fit."""
DEVICE_SHARE = 0.5
"""Largest share of a GPU's free memory that the training images may take."""


@dataclass(frozen=True)
class Order:
    """The order of one epoch: which image is at each position, how it is augmented, and what is mixed into it."""

    images: torch.Tensor
    draws: AugmentParams
    partners: torch.Tensor | None
    """Positions within the batch of the images that are mixed in, (steps x batch); None without mixup."""
    shares: list[float]
    """Weight of the first image in each step's mixed images; 1 without mixup."""


def seed_of(*numbers: int) -> int:
    """Derive a 63-bit seed from several numbers (trailing zeros do not count); it is the same on every machine."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def in_passes(places: torch.Tensor, batch_size: int) -> tuple[torch.Tensor, ...]:
    """Split positions into parts of nearly equal size: at most `batch_size`, and at least 2 if there are that many.

    >>> [len(part) for part in in_passes(torch.arange(257), 256)]
    [129, 128]
    """
    passes = min(-(-len(places) // max(batch_size, 2)), max(len(places) // 2, 1))
    return torch.tensor_split(places, passes)


class BatchSource:
    """The batches of the training split for process `rank` of `world` processes."""

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
        self.local_batch_size = self.batch_size // world
        self.steps = len(data.train) // self.batch_size
        how = recipe.augmentation(data.input_shape, data.flip)
        self.how = how if task is None else task.augmentation(how)
        self.task = task
        images, targets = data.train.images, data.train.targets
        loaded = _on_device(images, device) if isinstance(images, torch.Tensor) else images
        self.data_device = loaded.device if isinstance(loaded, torch.Tensor) else torch.device("cpu")
        self.split = Split(loaded, targets.to(self.data_device) if isinstance(targets, torch.Tensor) else targets)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[list[Batch]]:
        """Yield the batches of this process, one per forward pass, for each step from `first` (counted from 0)."""
        order = self._order(epoch)
        count = self.steps - first

        def fetch(step: int) -> list[Batch]:
            return self._step(order, first + step)

        # Decoding is slow and releases the GIL; images in memory are ready sooner than a thread wakes up.
        if isinstance(self.split.images, torch.Tensor):
            return (fetch(step) for step in range(count))
        return prefetched(fetch, count)

    def calibration(self, images: int, batch_size: int = CALIBRATION_BATCH) -> Iterator[torch.Tensor]:
        """Yield augmented training images in batches of nearly equal size, the same ones at every call.

        They are those of an epoch 0 that is never trained. Every process gets all of them.

        Args:
            images: largest number of images in all.
            batch_size: largest number of images per batch.
        """
        order, alpha = self._order(0), self.recipe.mixup
        for places in in_passes(torch.arange(self.steps * self.batch_size)[:images], batch_size):
            batch, _ = self._prepared(order, places.to(self.data_device))
            if alpha:  # a share for each image: a single share for a whole pass would determine the variance
                draws = np.random.Generator(np.random.PCG64(int(places[0]))).beta(alpha, alpha, len(places))
                batch = batch.lerp(batch.flip(0), torch.from_numpy(draws).to(batch).view(-1, *[1] * (batch.ndim - 1)))
            yield self._in_layout(batch)

    def _order(self, epoch: int) -> Order:
        generator = torch.Generator().manual_seed(seed := seed_of(self.recipe.seed, ORDER, epoch))
        count = self.steps * self.batch_size
        images = self._epoch_indices(count, generator)
        draws = draw(count, self.data.input_shape[1:], self.how, generator).to(self.device)
        if not self.recipe.mixup:
            return Order(images.to(self.data_device), draws, None, [1.0] * self.steps)
        partners = torch.rand((self.steps, self.batch_size), generator=generator).argsort(dim=1)
        shares = np.random.Generator(np.random.PCG64(seed)).beta(self.recipe.mixup, self.recipe.mixup, self.steps)
        return Order(images.to(self.data_device), draws, partners.to(self.data_device), shares.tolist())

    def _epoch_indices(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """The indices of an epoch's images: each at most once or, with balanced sampling, drawn with replacement."""
        if self.recipe.balance != "sampling":
            return torch.randperm(len(self.split), generator=generator)[:count]
        labels = self.data.train.labels
        counts = torch.bincount(labels)
        present = torch.nonzero(counts).flatten()
        classes = present[torch.randperm(count, generator=generator).remainder(len(present))]
        draws = torch.rand(count, generator=generator, dtype=torch.float64)
        within = (draws * counts[classes]).long()
        return labels.argsort(stable=True)[counts.cumsum(0)[classes] - counts[classes] + within]

    def _step(self, order: Order, step: int) -> list[Batch]:
        local = slice(self.rank * self.local_batch_size, (self.rank + 1) * self.local_batch_size)
        first = step * self.batch_size
        images, targets = self._prepared(
            order, torch.arange(first + local.start, first + local.stop, device=self.data_device)
        )
        others, share = None, order.shares[step]
        if order.partners is not None:
            partners, others = self._prepared(order, first + order.partners[step, local])
            images = share * images + (1.0 - share) * partners
        images = self._in_layout(images)
        size = self.local_batch_size // self.recipe.accumulate
        return [
            Batch(images[part], targets[part], None if others is None else others[part], share)
            for part in (slice(start, start + size) for start in range(0, self.local_batch_size, size))
        ]

    def _in_layout(self, images: torch.Tensor) -> torch.Tensor:
        """Convert images to the network's data type and memory layout; only 4-D batches can be channels last."""
        last = self.channels_last and images.ndim == 4
        return images.to(self.dtype).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    def _prepared(self, order: Order, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images at some positions of the order, augmented and normalised, and their targets."""
        images, targets = self.split.pairs(order.images[places])
        images, targets = (values.to(self.device, non_blocking=True) for values in (images, targets))
        draws = order.draws.take(places.to(self.device))
        images = normalise(augment(images, draws, self.how), self.data.mean, self.data.std)
        if self.task is not None:
            targets = self.task.augmented(targets, draws, self.how)
        return cut_out(images, draws, self.how.cutout), targets


def _batch_size(images: int, recipe: Recipe, world: int) -> int:
    """Images per step: the recipe's batch size or all images; a multiple of processes times forward passes."""
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
    """Move the images to the GPU if they leave enough of its memory; otherwise leave them in main memory, pinned."""
    if device.type != "cuda":
        return images
    free, _ = torch.cuda.mem_get_info(device)
    return images.to(device) if images.numel() < DEVICE_SHARE * free else images.pin_memory()

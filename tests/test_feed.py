"""The images of each step are the same for any number of processes and any starting point."""

from dataclasses import replace

import pytest
import torch

from pretrim.data import DataSet, Split, load
from pretrim.errors import DataError, UsageError
from pretrim.train import Recipe
from pretrim.train.feed import Batch, BatchSource, seed_of

CPU = torch.device("cpu")
RECIPE = Recipe(batch_size=48, mixup=0.5, cutout=0.3, resize_crop=0.5, flip=True)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load("digits", image_size=8, limit=300)


def images_of_steps(steps: list[list[Batch]]) -> list[torch.Tensor]:
    """The images of each step."""
    return [torch.cat([batch.images for batch in batches]) for batches in steps]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("recipe", [RECIPE, Recipe(batch_size=48), replace(RECIPE, accumulate=2)])
def test_processes_divide_the_batches_of_a_single_process(digits: DataSet, recipe: Recipe, world: int) -> None:
    single_process = list(BatchSource(digits, recipe, CPU).epoch(2))
    shares = [list(BatchSource(digits, recipe, CPU, rank=rank, world=world).epoch(2)) for rank in range(world)]
    assert len(single_process) == len(digits.train) // 48 == len(shares[0])
    for step, expected_images in enumerate(images_of_steps(single_process)):
        assert torch.equal(torch.cat([images_of_steps(share)[step] for share in shares]), expected_images)
        for part in ("targets", "others"):
            parts = [getattr(batch, part) for share in shares for batch in share[step]]
            expected = [getattr(batch, part) for batch in single_process[step]]
            assert parts[0] is expected[0] is None or torch.equal(torch.cat(parts), torch.cat(expected))
        assert {batch.share for share in shares for batch in share[step]} == {single_process[step][0].share}


def test_an_epoch_can_start_at_any_step(digits: DataSet) -> None:
    whole_epoch = images_of_steps(list(BatchSource(digits, RECIPE, CPU).epoch(3)))
    rest = images_of_steps(list(BatchSource(digits, RECIPE, CPU).epoch(3, first=4)))
    assert len(rest) == len(whole_epoch) - 4
    assert all(torch.equal(images, expected) for images, expected in zip(rest, whole_epoch[4:], strict=True))


def test_epochs_and_seeds_give_different_orders_with_every_image_once(digits: DataSet) -> None:
    def order_of(seed: int, epoch: int) -> torch.Tensor:
        """The order of the images, which are filled with their own number (modulo 256)."""
        count = len(digits.train)
        numbered = torch.arange(count).remainder(256).to(torch.uint8)[:, None, None, None].expand(count, 1, 8, 8)
        data = replace(digits, train=Split(numbered.clone(), digits.train.labels), mean=(0.0,), std=(1 / 255,))
        feed = BatchSource(data, Recipe(batch_size=count, crop=0, flip=False, seed=seed), CPU)
        return torch.cat(images_of_steps(list(feed.epoch(epoch))))[:, 0, 0, 0].round().long()

    orders = [order_of(seed, epoch) for seed in (0, 1) for epoch in (1, 2)]
    for order in orders:
        assert sorted(order.tolist()) == sorted(number % 256 for number in range(len(digits.train)))
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_batches_have_the_requested_layout_and_data_type(digits: DataSet) -> None:
    feed = BatchSource(digits, Recipe(batch_size=50), CPU, dtype=torch.float64, channels_last=True)
    images = next(iter(feed.epoch(1)))[0].images
    assert images.dtype == torch.float64 and images.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_is_divided_evenly_or_not_at_all(digits: DataSet) -> None:
    with pytest.raises(UsageError, match=r"that 3 processes x 2 forward passes divide, but got 100: take 96"):
        BatchSource(digits, Recipe(batch_size=100, accumulate=2), CPU, world=3)
    assert BatchSource(digits, Recipe(batch_size=1000), CPU, world=7).batch_size == 300 // 7 * 7
    with pytest.raises(DataError, match="Expected 400 or more training images, but got 300"):
        BatchSource(digits, Recipe(batch_size=1000), CPU, world=200)


def test_different_numbers_give_different_seeds() -> None:
    seeds = {seed_of(*numbers) for numbers in ((0, 1), (1, 0), (0, 2), (0, 1, 1), (0, 1, 2))}
    assert len(seeds) == 5 and all(0 <= seed < 2**63 for seed in seeds)

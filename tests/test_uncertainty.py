"""Intervals and paired tests: against published numbers, SciPy, and simulation."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from pretrim.errors import UsageError
from pretrim.train import compare, difference_interval, mcnemar, pack, unpack, wilson


@pytest.mark.parametrize(
    ("right", "images"), [(0, 1), (1, 1), (0, 10), (10, 10), (13, 60), (9_100, 10_000), (1, 10**6)]
)
@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_wilson_is_that_of_scipy(right: int, images: int, confidence: float) -> None:
    reference = scipy.stats.binomtest(right, images).proportion_ci(confidence, method="wilson")
    found = wilson(right, images, confidence)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-12)
    assert 0.0 <= found.low <= right / images <= found.high <= 1.0
    assert right / images in found


def test_wilson_by_hand() -> None:
    """Newcombe 1998, table I: 81 of 263 is 0.2553 to 0.3662, 15 of 148 is 0.0624 to 0.1605, 0 of 20 is 0 to 0.1611."""
    for right, images, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        found = wilson(right, images)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@pytest.mark.parametrize(("right", "images"), [(1, 0), (0, 0), (5, 4), (-1, 4)])
def test_counts_that_cannot_be_are_refused(right: int, images: int) -> None:
    with pytest.raises(UsageError, match=f"but got {right} of {images}"):
        wilson(right, images)


@pytest.mark.parametrize("pair", [(0, 0), (0, 1), (2, 8), (8, 2), (5, 5), (30, 50), (480, 520), (400, 600)])
def test_mcnemar_is_the_exact_binomial_test(pair: tuple[int, int]) -> None:
    total = sum(pair)
    wanted = scipy.stats.binomtest(pair[0], total).pvalue if total else 1.0
    assert mcnemar(*pair) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("pair", [(501, 500), (520, 560), (1_000, 1_100), (4_800, 5_200), (10, 2_000)])
def test_for_many_images_it_is_near_the_exact_one(pair: tuple[int, int]) -> None:
    assert mcnemar(*pair) == pytest.approx(scipy.stats.binomtest(pair[0], sum(pair)).pvalue, abs=1e-3)


def test_mcnemar_by_hand() -> None:
    """2 against 8: twice (1 + 10 + 45) of 1,024."""
    assert mcnemar(2, 8) == 112 / 1024
    with pytest.raises(UsageError, match="but got -1 and 3"):
        mcnemar(-1, 3)


def test_networks_are_compared_image_by_image() -> None:
    first = torch.tensor([True] * 90 + [False] * 10)
    second = torch.tensor([True] * 88 + [False, False] + [True] * 8 + [False] * 2)
    found = compare(first, second)
    assert (found.images, found.only_first, found.only_second) == (100, 2, 8)
    assert found.difference == pytest.approx(0.06)
    assert found.p_value == 0.109375 and not found.is_significant
    other_way = compare(second, first)
    assert other_way.difference == -found.difference
    assert (other_way.interval.low, other_way.interval.high) == pytest.approx(
        (-found.interval.high, -found.interval.low)
    )
    assert compare(first, first).p_value == 1.0
    assert found.to_json()["interval"] == [found.interval.low, found.interval.high]


def test_pairs_tell_apart_what_two_intervals_do_not() -> None:
    """80 % and 82 % of 1,000 images: the intervals overlap, the pairs are 5 against 25."""
    first = torch.arange(1000) < 800
    second = first.clone()
    second[:5] = False
    second[800:825] = True
    alone, other = wilson(800, 1000), wilson(820, 1000)
    assert alone.high > other.low
    found = compare(first, second)
    assert found.is_significant and found.interval.low > 0


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((0,), (0,)), ((2, 2), (2, 2))])
def test_other_images_are_not_compared(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(UsageError, match="Expected two networks' results on the same images"):
        compare(torch.ones(shapes[0], dtype=torch.bool), torch.ones(shapes[1], dtype=torch.bool))


def test_the_interval_of_a_difference_covers_it() -> None:
    """10,000 simulated pairs of networks, 4 points apart on 200 images: 95 % of the intervals hold the truth."""
    draws = np.random.default_rng(0).multinomial(200, (0.08, 0.12, 0.80), size=10_000)
    inside = [0.04 in difference_interval(int(a), int(b), 200) for a, b, _ in draws]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.01)
    found = difference_interval(0, 0, 50)
    assert found.low == -found.high and 0 < found.high < 0.06


def test_the_level_of_the_test_is_kept() -> None:
    """Equal networks are told apart in at most 5 % of 10,000 cases."""
    draws = np.random.default_rng(1).multinomial(500, (0.1, 0.1, 0.8), size=10_000)
    assert np.mean([mcnemar(int(a), int(b)) < 0.05 for a, b, _ in draws]) <= 0.05


@pytest.mark.parametrize("images", [1, 7, 8, 9, 5_000])
def test_which_were_right_is_small_json(images: int) -> None:
    right = torch.rand(images, generator=torch.Generator().manual_seed(images)) < 0.7
    packed = pack(right)
    assert torch.equal(unpack(packed), right)
    assert len(packed["bits"]) <= 4 * math.ceil(images / 24)


@pytest.mark.parametrize(
    "damaged", [{}, {"images": 9, "bits": "AA=="}, {"images": 8, "bits": "?"}, {"images": None, "bits": ""}]
)
def test_damaged_ones_are_refused(damaged: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="Expected which images were right"):
        unpack(damaged)

"""Augmentation: every operation compared with a loop over images or with a second implementation."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from pretrim.data import Augmentation, AugmentParams, augment, cut_out, draw


def drawn(count: int, size: tuple[int, int], augmentation: Augmentation, seed: int = 3) -> AugmentParams:
    return draw(count, size, augmentation, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crops_and_flips_equal_a_loop_over_images(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (50, 3, 9, 7), dtype=torch.uint8).to(dtype)
    augmentation = Augmentation(padding=2)
    draws = drawn(50, (9, 7), augmentation)
    assert draws.corner is not None and draws.mirrored is not None
    augmented = augment(images, draws, augmentation)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)))
    for image, padded_image, (top, left), mirrored in zip(
        augmented, padded, draws.corner.tolist(), draws.mirrored, strict=True
    ):
        crop = padded_image[:, top : top + 9, left : left + 7]
        np.testing.assert_array_equal(image.numpy(), crop[:, :, ::-1] if mirrored else crop)
    assert augmented.dtype == dtype
    assert set(draws.mirrored.tolist()) == {False, True}
    assert set(draws.corner.flatten().tolist()) == set(range(5))


def test_no_augmentation_returns_the_images_themselves() -> None:
    images, augmentation = torch.arange(72).reshape(2, 1, 6, 6), Augmentation(padding=0, flip=False)
    draws = drawn(2, (6, 6), augmentation)
    assert augment(images, draws, augmentation) is images
    assert cut_out(images, draws, 0) is images


def test_flips_without_crops() -> None:
    images, augmentation = torch.rand(20, 1, 4, 4), Augmentation(padding=0)
    draws = drawn(20, (4, 4), augmentation)
    augmented = augment(images, draws, augmentation)
    for image, before, mirrored in zip(augmented, images, draws.mirrored, strict=True):  # type: ignore[arg-type]
        assert torch.equal(image, before.flip(2) if mirrored else before)


def test_taking_some_draws_augments_their_images_alike() -> None:
    augmentation = Augmentation(padding=2, cutout=3)
    images, draws = torch.rand(8, 1, 6, 6), drawn(8, (6, 6), augmentation)
    places = torch.tensor([5, 0, 7])
    assert torch.equal(
        augment(images, draws, augmentation)[places], augment(images[places], draws.take(places), augmentation)
    )
    assert torch.equal(cut_out(images, draws, 3)[places], cut_out(images[places], draws.take(places), 3))


def test_the_same_seed_gives_the_same_draw() -> None:
    augmentation = Augmentation(resize=0.3, cutout=2)
    for first, second in zip(
        vars(drawn(9, (8, 8), augmentation)).values(), vars(drawn(9, (8, 8), augmentation)).values(), strict=True
    ):
        assert first is second is None or torch.equal(first, second)


def test_a_cut_out_is_a_square_of_zeros_around_its_centre() -> None:
    augmentation = Augmentation(padding=0, flip=False, cutout=4)
    images, draws = torch.ones(200, 2, 9, 7), drawn(200, (9, 7), augmentation)
    results = cut_out(images, draws, 4)
    for image, (y, x) in zip(results, draws.hole.tolist(), strict=True):  # type: ignore[union-attr]
        expected = torch.ones(2, 9, 7)
        expected[:, max(y - 2, 0) : y + 2, max(x - 2, 0) : x + 2] = 0
        assert torch.equal(image, expected)
    assert {y for y, _ in draws.hole.tolist()} == set(range(9))  # type: ignore[union-attr]


def test_resized_crops_stay_inside_and_have_the_requested_areas() -> None:
    augmentation = Augmentation(resize=0.25)
    box = drawn(2000, (12, 16), augmentation).box
    assert box is not None
    centre, half = box[:, :2], box[:, 2:]
    assert (centre.abs() + half <= 1 + 1e-6).all()
    areas = half.prod(dim=1)
    assert 0.2 < float(areas.min()) and float(areas.max()) <= 1 and float(areas.mean()) == pytest.approx(0.6, abs=0.05)
    aspects = half[:, 1] * 16 / (half[:, 0] * 12)
    uncut = (half < 1).all(dim=1)
    assert float(aspects[uncut].min()) > 0.749 and float(aspects[uncut].max()) < 1.334


def test_a_resized_crop_equals_cropping_and_resizing() -> None:
    images = torch.rand(1, 1, 8, 8)
    # rows 2..5 and columns 0..3: centre (y, x) = (0, -0.5), half sides 0.5
    draws = AugmentParams(None, torch.tensor([[0.0, -0.5, 0.5, 0.5]]), torch.tensor([False]), None)
    augmented = augment(images, draws, Augmentation(resize=0.25))
    expected = functional.interpolate(images[:, :, 2:6, 0:4], size=(8, 8), mode="bilinear")
    # Compared away from the edge of the crop, where `interpolate` repeats the edge but `augment` samples beyond it.
    assert torch.allclose(augmented[:, :, 1:7, 1:7], expected[:, :, 1:7, 1:7], atol=1e-6)
    mirrored = AugmentParams(None, draws.box, torch.tensor([True]), None)
    assert torch.allclose(augment(images, mirrored, Augmentation(resize=0.25)), augmented.flip(3), atol=1e-6)


def test_a_resized_crop_of_the_whole_image_is_the_image() -> None:
    images = torch.randint(0, 256, (4, 3, 6, 5), dtype=torch.uint8)
    draws = AugmentParams(None, torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(4, 4), None, None)
    assert torch.allclose(augment(images, draws, Augmentation(resize=1.0)), images.float(), atol=1e-3)

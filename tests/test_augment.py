"""Augmentation: each against a loop over images, or a second implementation."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from pretrim.data import Augmentation, AugmentParams, augment, cut_out, draw


def drawn(count: int, size: tuple[int, int], how: Augmentation, seed: int = 3) -> AugmentParams:
    return draw(count, size, how, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_crops_and_flips_are_those_of_a_loop_over_images(kind: torch.dtype) -> None:
    images = torch.randint(0, 256, (50, 3, 9, 7), dtype=torch.uint8).to(kind)
    how = Augmentation(padding=2)
    draws = drawn(50, (9, 7), how)
    assert draws.corner is not None and draws.mirrored is not None
    found = augment(images, draws, how)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)))
    for image, whole, (top, left), coin in zip(found, padded, draws.corner.tolist(), draws.mirrored, strict=True):
        crop = whole[:, top : top + 9, left : left + 7]
        np.testing.assert_array_equal(image.numpy(), crop[:, :, ::-1] if coin else crop)
    assert found.dtype == kind
    assert set(draws.mirrored.tolist()) == {False, True}
    assert set(draws.corner.flatten().tolist()) == set(range(5))


def test_nothing_wanted_changes_nothing() -> None:
    images, how = torch.arange(72).reshape(2, 1, 6, 6), Augmentation(padding=0, flip=False)
    draws = drawn(2, (6, 6), how)
    assert augment(images, draws, how) is images
    assert cut_out(images, draws, 0) is images


def test_a_flip_alone_mirrors_some() -> None:
    images, how = torch.rand(20, 1, 4, 4), Augmentation(padding=0)
    draws = drawn(20, (4, 4), how)
    found = augment(images, draws, how)
    for image, before, coin in zip(found, images, draws.mirrored, strict=True):  # type: ignore[arg-type]
        assert torch.equal(image, before.flip(2) if coin else before)


def test_draws_of_some_images_are_those_of_all_at_their_places() -> None:
    how = Augmentation(padding=2, cutout=3)
    images, draws = torch.rand(8, 1, 6, 6), drawn(8, (6, 6), how)
    places = torch.tensor([5, 0, 7])
    assert torch.equal(augment(images, draws, how)[places], augment(images[places], draws.take(places), how))
    assert torch.equal(cut_out(images, draws, 3)[places], cut_out(images[places], draws.take(places), 3))


def test_one_seed_gives_one_draw() -> None:
    how = Augmentation(resize=0.3, cutout=2)
    for one, other in zip(vars(drawn(9, (8, 8), how)).values(), vars(drawn(9, (8, 8), how)).values(), strict=True):
        assert one is other is None or torch.equal(one, other)


def test_a_cut_out_is_a_square_of_the_mean_around_its_place() -> None:
    how = Augmentation(padding=0, flip=False, cutout=4)
    images, draws = torch.ones(200, 2, 9, 7), drawn(200, (9, 7), how)
    found = cut_out(images, draws, 4)
    for image, (y, x) in zip(found, draws.hole.tolist(), strict=True):  # type: ignore[union-attr]
        wanted = torch.ones(2, 9, 7)
        wanted[:, max(y - 2, 0) : y + 2, max(x - 2, 0) : x + 2] = 0
        assert torch.equal(image, wanted)
    assert {y for y, _ in draws.hole.tolist()} == set(range(9))  # type: ignore[union-attr]


def test_resized_crops_stay_inside_and_keep_the_area_that_was_asked_for() -> None:
    how = Augmentation(resize=0.25)
    box = drawn(2000, (12, 16), how).box
    assert box is not None
    centre, half = box[:, :2], box[:, 2:]
    assert (centre.abs() + half <= 1 + 1e-6).all()
    areas = half.prod(dim=1)
    assert 0.2 < float(areas.min()) and float(areas.max()) <= 1 and float(areas.mean()) == pytest.approx(0.6, abs=0.05)
    aspects = half[:, 1] * 16 / (half[:, 0] * 12)
    uncut = (half < 1).all(dim=1)
    assert float(aspects[uncut].min()) > 0.749 and float(aspects[uncut].max()) < 1.334


def test_a_resized_crop_is_a_crop_that_is_resized() -> None:
    images = torch.rand(1, 1, 8, 8)
    # rows 2..5 and columns 0..3: centre (y, x) = (0, -0.5), half sides 0.5
    draws = AugmentParams(None, torch.tensor([[0.0, -0.5, 0.5, 0.5]]), torch.tensor([False]), None)
    found = augment(images, draws, Augmentation(resize=0.25))
    wanted = functional.interpolate(images[:, :, 2:6, 0:4], size=(8, 8), mode="bilinear")
    # Away from the crop's edge, where interpolate repeats the edge and a crop of the image sees beyond it.
    assert torch.allclose(found[:, :, 1:7, 1:7], wanted[:, :, 1:7, 1:7], atol=1e-6)
    mirrored = AugmentParams(None, draws.box, torch.tensor([True]), None)
    assert torch.allclose(augment(images, mirrored, Augmentation(resize=0.25)), found.flip(3), atol=1e-6)


def test_a_resized_crop_of_everything_is_the_image() -> None:
    images = torch.randint(0, 256, (4, 3, 6, 5), dtype=torch.uint8)
    draws = AugmentParams(None, torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(4, 4), None, None)
    assert torch.allclose(augment(images, draws, Augmentation(resize=1.0)), images.float(), atol=1e-3)

"""Parts of outputs: found where values of several kinds are joined, by whatever way the network is written."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from pretrim.deploy.parts import parts_of

IMAGES = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Joined(nn.Module):
    """Boxes (N x 4 x 64) and scores (N x 3 x 64), joined by a function."""

    def __init__(self, join: Callable[[torch.Tensor, torch.Tensor], object]) -> None:
        super().__init__()
        self.join, self.box, self.score = join, nn.Conv2d(3, 4, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> object:
        return self.join(self.box(x).flatten(2).sigmoid(), self.score(x).flatten(2).sigmoid())


def written_in_place(box: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    joined = torch.zeros(box.shape[0], 7, 64)
    joined[:, :4] = box * 640
    joined[:, 4:] = score
    return joined


def scaled_in_place(box: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    joined = torch.cat([box, score], 1)
    joined[:, :4] *= 640
    return joined


CHANNELS = [("channels 0 to 3", 4 * 64), ("channels 4 to 6", 3 * 64)]


@pytest.mark.parametrize(
    ("join", "parts"),
    [
        (lambda b, s: torch.cat([b * 640, s], 1), CHANNELS),
        (lambda b, s: torch.cat([b * 640, s], 1).sqrt() * 2 + torch.ones(64), CHANNELS),
        (
            lambda b, s: torch.cat([b, s], 1).view(-1, 7, 8, 8).permute(0, 2, 3, 1).reshape(-1, 64, 7),
            [("places 0 to 3 of dimension 2", 256), ("places 4 to 6 of dimension 2", 192)],
        ),
        (
            lambda b, s: torch.cat([torch.cat([b[:, :2], b[:, 2:] * 9], 1), s], 1)[:, 1:],
            [("channel 0", 64), ("channels 1 to 2", 128), ("channels 3 to 5", 192)],
        ),
        (lambda b, s: torch.stack([b[:, :3], s], 1), [("channel 0", 192), ("channel 1", 192)]),
        (written_in_place, CHANNELS),
        (scaled_in_place, [("channels 0 to 3", 256), ("channels 4 to 6", 192)]),
        (lambda b, s: (b, s), []),
        (lambda b, s: torch.cat([b, s], 1).mean(2), []),  # a mean of channels alone would be: its values are no copies
        (lambda b, s: torch.cat([b, s], 1).mean(1), []),
        (lambda b, s: b, []),
    ],
    ids=[
        "cat",
        "elementwise after it",
        "permuted",
        "nested and sliced",
        "stack",
        "written",
        "scaled",
        "two outputs",
        "mean",
        "mean over both",
        "one kind",
    ],
)
def test_the_parts_of_an_output(join: Callable[..., object], parts: list[tuple[str, int]]) -> None:
    class Flat(Joined):
        def forward(self, x: torch.Tensor) -> object:
            return super().forward(x)

    found = parts_of(Flat(join).eval(), (IMAGES,))
    assert [(region.name, int(region.mask.sum())) for region in found] == parts


def test_parts_cover_the_output_once() -> None:
    found = parts_of(Joined(lambda b, s: (torch.cat([b, s], 1), torch.cat([s, s], 2))).eval(), (IMAGES,))
    assert [region.output for region in found] == [0, 0, 1, 1]
    for output in (0, 1):
        masks = [region.mask for region in found if region.output == output]
        assert (np.sum(masks, axis=0) == 1).all()

"""Tasks whose answer has places in the image: semantic segmentation, and keypoints by heatmap."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from pretrim.data import Augmentation, AugmentParams, DataSet, augment
from pretrim.errors import ModelError
from pretrim.train import AUXILIARY_WEIGHT, Baseline, Metric, split_outputs

from .base import MetricTask

IGNORED = 255
"""The class of pixels that count nowhere"""
NEAR = 0.1
"""Of the image's larger side, within which a keypoint counts as found"""
SPREAD = 1.0
"""Cells of a heatmap: deviation of the Gaussian that a keypoint is drawn as"""


class Segmentation(MetricTask):
    """A class a pixel: targets N x H x W of class numbers, 255 where none is known; outputs N x classes x h x w.

    Outputs of another size are interpolated to that of the masks; auxiliary outputs count 0.3 in the loss. Metrics:
    mean over the classes of intersection over union, which chooses; the share of pixels that are right.
    """

    name = "segmentation"
    metric = Metric("mean_iou")
    judged = "a pixel of a known class"

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Cross-entropy, mean over the pixels whose class is known."""
        main, auxiliary = split_outputs(output)
        loss = self._cross_entropy(main, target)
        for other in auxiliary:
            loss = loss + AUXILIARY_WEIGHT * self._cross_entropy(other, target)
        return loss

    def _cross_entropy(self, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        mask = target.long()
        known = (mask != IGNORED).sum().clamp_min(1)
        return functional.cross_entropy(_sized(scores, mask), mask, ignore_index=IGNORED, reduction="sum") / known

    def reduced(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Pixels of each class by what is said of them, N x classes x classes."""
        return confusion(split_outputs(output)[0], target)

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Mapping[str, float]:
        """``mean_iou``, ``pixel_accuracy``, and the intersection over union of each class, ``iou_0`` ..."""
        counts = output.sum(dim=0)
        both = counts.diagonal().double()
        either = counts.sum(dim=0) + counts.sum(dim=1) - counts.diagonal()
        each = both / either  # nan where a class is nowhere
        return {
            "mean_iou": float(each[either > 0].mean()) if bool((either > 0).any()) else math.nan,
            "pixel_accuracy": float(both.sum() / counts.sum()) if int(counts.sum()) else math.nan,
            **{f"iou_{number}": float(value) for number, value in enumerate(each)},
        }

    def can_judge(self, target: torch.Tensor) -> bool:
        """Whether the class of any pixel is known."""
        return bool((target != IGNORED).any())

    def augmentation(self, how: Augmentation) -> Augmentation:
        """All of it; masks are moved with their images."""
        return how

    def augmented(self, targets: torch.Tensor, draws: AugmentParams, how: Augmentation) -> torch.Tensor:
        """Masks moved and mirrored as their images; what comes from outside is of no class."""
        # One more than the class, so that the zeros from outside become 255 again: bytes wrap round.
        shifted = targets.to(torch.uint8)[:, None] + 1
        return (augment(shifted, draws, how, mode="nearest").to(torch.uint8) - 1)[:, 0]

    def baseline(self, data: DataSet) -> Baseline | None:
        """The most common class for every pixel."""
        classes = len(data.classes)
        counts = torch.zeros(classes, dtype=torch.int64)
        for start in range(0, len(data.validation), 64):
            mask = data.validation.targets[start : start + 64].flatten().long()
            counts += torch.bincount(mask[mask < classes], minlength=classes)
        there = int((counts > 0).sum())
        if not there:
            return None
        return Baseline(float(counts.max() / counts.sum()) / there, "always the most common class")


def confusion(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Of each image its pixels of each class (rows) by the class of the largest score (columns).

    Args:
        scores: N x classes x h x w.
        target: N x H x W.

    Returns N x classes x classes, int64. Raises ModelError for masks with classes that there are no scores of.
    """
    mask = target.long()
    sized, count, classes = _sized(scores, mask), len(scores), scores.shape[1]
    known = mask != IGNORED
    image = torch.arange(count).view(-1, 1, 1).expand_as(mask)
    places = (image * classes + mask) * classes + sized.argmax(dim=1)
    return torch.bincount(places[known], minlength=count * classes * classes).view(count, classes, classes)


def _sized(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Scores in the size of the masks. Raises ModelError for what is not a map of scores, or has too few classes."""
    if scores.ndim != 4 or mask.ndim != 3:
        shapes = ["x".join(map(str, part.shape)) for part in (scores, mask)]
        raise ModelError(
            f"Expected a network for segmentation with an output N x classes x H x W for masks N x H x W, but got "
            f"{shapes[0]} for {shapes[1]}."
        )
    known = mask[mask != IGNORED]
    if len(known) and not 0 <= int(known.min()) <= int(known.max()) < scores.shape[1]:
        found = f"{int(known.min())} to {int(known.max())}"
        raise ModelError(f"Expected masks with classes below {scores.shape[1]}, the network's, but got {found}.")
    if scores.shape[2:] == mask.shape[1:]:
        return scores
    return functional.interpolate(scores, size=tuple(mask.shape[1:]), mode="bilinear", align_corners=False)


class Keypoints(MetricTask):
    """Points in an image, by heatmap: targets N x points x 2, x and y as shares of width and height, NaN where a point
    is not seen; outputs N x points x h x w.

    The loss is the cross-entropy of the softmax over the cells against a Gaussian; the answer is its mean (integral
    regression, Sun et al. 2018). Metrics: the share of points within a tenth of the image, which chooses; the mean
    distance.
    """

    name = "keypoints"
    metric = Metric("pck")
    has_unknown = True
    judged = "a point that is seen"

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Cross-entropy against a Gaussian around each point that is seen, mean over those."""
        maps = _heatmaps(output, target)
        seen = ~target.isnan().any(dim=-1)
        places = target.nan_to_num(0.0).clamp(0, 1)
        wanted = _bell(places[..., 1], maps.shape[2])[..., :, None] * _bell(places[..., 0], maps.shape[3])[..., None, :]
        logs = functional.log_softmax(maps.flatten(2), dim=2)
        losses = -(wanted.flatten(2) * logs).sum(dim=2)
        return (losses * seen).sum() / seen.sum().clamp_min(1)

    def can_judge(self, target: torch.Tensor) -> bool:
        """Whether any point is seen."""
        return bool((~target.isnan()).all(dim=-1).any())

    def postprocess(self, output: Any) -> torch.Tensor:
        """The points, N x points x 2, as the targets."""
        maps = split_outputs(output)[0].float()
        if maps.ndim != 4:
            return maps  # `metrics` says what is wrong with it
        shares = maps.flatten(2).softmax(dim=2).view_as(maps)
        rows, columns = (_centres(size, maps) for size in maps.shape[2:])
        return torch.stack([(shares.sum(dim=2) * columns).sum(dim=2), (shares.sum(dim=3) * rows).sum(dim=2)], dim=2)

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Mapping[str, float]:
        """``pck`` (percentage of correct keypoints, as a share) and ``mean_error``, in shares of the image."""
        if output.shape != target.shape:
            shapes = ["x".join(map(str, part.shape)) for part in (output, target)]
            raise ModelError(f"Expected points of {shapes[1]}, as the targets, but the network gives {shapes[0]}.")
        distance = (output - target).norm(dim=2)
        seen = distance[~target.isnan().any(dim=-1)]
        if not len(seen):
            return {"pck": math.nan, "mean_error": math.nan}
        return {"pck": float((seen <= NEAR).float().mean()), "mean_error": float(seen.mean())}


def _heatmaps(output: Any, target: torch.Tensor) -> torch.Tensor:
    maps = split_outputs(output)[0]
    if maps.ndim != 4 or maps.shape[1] != target.shape[1] or target.shape[2:] != (2,):
        shapes = ["x".join(map(str, part.shape)) for part in (maps, target)]
        raise ModelError(
            f"Expected a network for keypoints with an output N x points x H x W for targets N x points x 2, but got "
            f"{shapes[0]} for {shapes[1]}."
        )
    return maps


def _centres(size: int, like: torch.Tensor) -> torch.Tensor:
    """Of the cells of one side, as shares of it."""
    return (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) / size


def _bell(places: torch.Tensor, size: int) -> torch.Tensor:
    """A Gaussian over the cells of one side, ... x size, that sums to 1."""
    distance = (_centres(size, places) - places[..., None]) * (size / SPREAD)
    return torch.softmax(-0.5 * distance**2, dim=-1)

"""Tasks with spatial answers: semantic segmentation, and keypoints by heatmap."""

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
"""Class of pixels that are ignored in loss and metrics."""
PCK_DISTANCE = 0.1
"""Largest distance, in shares of the image's sides, at which a keypoint counts as correct."""
GAUSSIAN_CELLS = 1.0
"""Standard deviation, in cells of the heatmap, of the Gaussian target of a keypoint."""


class Segmentation(MetricTask):
    """One class per pixel: targets N x H x W of class indices, 255 where unknown; outputs N x classes x h x w.

    Outputs of another size are interpolated to that of the masks; auxiliary outputs have weight 0.3 in the loss.
    Metrics: mean intersection over union of the classes, which is the selection metric; the share of correct pixels.
    """

    name = "segmentation"
    metric = Metric("mean_iou")
    judged = "a pixel of a known class"

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy over the pixels whose class is known."""
        main, auxiliary = split_outputs(output)
        loss = self._cross_entropy(main, target)
        for scores in auxiliary:
            loss = loss + AUXILIARY_WEIGHT * self._cross_entropy(scores, target)
        return loss

    def _cross_entropy(self, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        mask = target.long()
        known = (mask != IGNORED).sum().clamp_min(1)
        return functional.cross_entropy(_resized(scores, mask), mask, ignore_index=IGNORED, reduction="sum") / known

    def reduced(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """The confusion matrix of each image's pixels, N x classes x classes."""
        return confusion(split_outputs(output)[0], target)

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Mapping[str, float]:
        """``mean_iou``, ``pixel_accuracy``, and the intersection over union of each class, ``iou_0`` ..."""
        counts = output.sum(dim=0)
        intersection = counts.diagonal().double()
        union = counts.sum(dim=0) + counts.sum(dim=1) - counts.diagonal()
        iou = intersection / union  # nan for a class that is neither present nor predicted
        return {
            "mean_iou": float(iou[union > 0].mean()) if bool((union > 0).any()) else math.nan,
            "pixel_accuracy": float(intersection.sum() / counts.sum()) if int(counts.sum()) else math.nan,
            **{f"iou_{number}": float(value) for number, value in enumerate(iou)},
        }

    def can_judge(self, target: torch.Tensor) -> bool:
        """Whether the class of any pixel is known."""
        return bool((target != IGNORED).any())

    def augmentation(self, how: Augmentation) -> Augmentation:
        """The augmentation unchanged: masks are moved with their images."""
        return how

    def augmented(self, targets: torch.Tensor, draws: AugmentParams, how: Augmentation) -> torch.Tensor:
        """Move and mirror masks like their images; pixels from outside the image get class 255."""
        # Classes are shifted by one, so that zeros from outside the image wrap around to 255 when shifted back.
        shifted = targets.to(torch.uint8)[:, None] + 1
        return (augment(shifted, draws, how, mode="nearest").to(torch.uint8) - 1)[:, 0]

    def baseline(self, data: DataSet) -> Baseline | None:
        """The score of predicting the most common class for every pixel."""
        classes = len(data.classes)
        counts = torch.zeros(classes, dtype=torch.int64)
        for start in range(0, len(data.validation), 64):
            mask = data.validation.targets[start : start + 64].flatten().long()
            counts += torch.bincount(mask[mask < classes], minlength=classes)
        present = int((counts > 0).sum())
        if not present:
            return None
        return Baseline(float(counts.max() / counts.sum()) / present, "predicting the most common class")


def confusion(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Confusion matrices: the pixels of each image by class (rows) and predicted class (columns).

    Args:
        scores: N x classes x h x w.
        target: N x H x W.

    Returns N x classes x classes, int64. Raises ModelError for masks with classes that have no scores.
    """
    mask = target.long()
    resized, count, classes = _resized(scores, mask), len(scores), scores.shape[1]
    known = mask != IGNORED
    image = torch.arange(count).view(-1, 1, 1).expand_as(mask)
    places = (image * classes + mask) * classes + resized.argmax(dim=1)
    return torch.bincount(places[known], minlength=count * classes * classes).view(count, classes, classes)


def _resized(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Resize scores to the size of the masks. Raises ModelError unless they are N x C x h x w with enough classes."""
    if scores.ndim != 4 or mask.ndim != 3:
        shapes = ["x".join(map(str, part.shape)) for part in (scores, mask)]
        raise ModelError(
            f"Expected a network for segmentation with an output N x classes x H x W for masks N x H x W, but got "
            f"{shapes[0]} for {shapes[1]}."
        )
    known = mask[mask != IGNORED]
    if len(known) and not 0 <= int(known.min()) <= int(known.max()) < scores.shape[1]:
        value_range = f"{int(known.min())} to {int(known.max())}"
        raise ModelError(f"Expected masks with classes below {scores.shape[1]}, the network's, but got {value_range}.")
    if scores.shape[2:] == mask.shape[1:]:
        return scores
    return functional.interpolate(scores, size=tuple(mask.shape[1:]), mode="bilinear", align_corners=False)


class Keypoints(MetricTask):
    """Keypoints by heatmap: targets N x points x 2, x and y as shares of width and height, NaN for points that are not
    visible; outputs N x points x h x w.

    The loss is the cross-entropy of the softmax over the cells against a Gaussian; the answer is the softmax's mean
    position (integral regression, Sun et al. 2018). Metrics: the share of points within a distance of a tenth of the
    image, which is the selection metric; the mean distance.
    """

    name = "keypoints"
    metric = Metric("pck")
    has_unknown = True
    judged = "a point that is seen"

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy over the visible points against a Gaussian around each of them."""
        maps = _heatmaps(output, target)
        visible = ~target.isnan().any(dim=-1)
        places = target.nan_to_num(0.0).clamp(0, 1)
        target_maps = (
            _gaussian(places[..., 1], maps.shape[2])[..., :, None]
            * _gaussian(places[..., 0], maps.shape[3])[..., None, :]
        )
        log_shares = functional.log_softmax(maps.flatten(2), dim=2)
        losses = -(target_maps.flatten(2) * log_shares).sum(dim=2)
        return (losses * visible).sum() / visible.sum().clamp_min(1)

    def can_judge(self, target: torch.Tensor) -> bool:
        """Whether any point is visible."""
        return bool((~target.isnan()).all(dim=-1).any())

    def postprocess(self, output: Any) -> torch.Tensor:
        """The points, N x points x 2, in the format of the targets."""
        maps = split_outputs(output)[0].float()
        if maps.ndim != 4:
            return maps  # `metrics` raises the error
        shares = maps.flatten(2).softmax(dim=2).view_as(maps)
        rows, columns = (_centres(size, maps) for size in maps.shape[2:])
        return torch.stack([(shares.sum(dim=2) * columns).sum(dim=2), (shares.sum(dim=3) * rows).sum(dim=2)], dim=2)

    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Mapping[str, float]:
        """``pck`` (percentage of correct keypoints, as a share) and ``mean_error``, in shares of the image."""
        if output.shape != target.shape:
            shapes = ["x".join(map(str, part.shape)) for part in (output, target)]
            raise ModelError(f"Expected points of {shapes[1]}, as the targets, but the network gives {shapes[0]}.")
        distance = (output - target).norm(dim=2)
        visible = distance[~target.isnan().any(dim=-1)]
        if not len(visible):
            return {"pck": math.nan, "mean_error": math.nan}
        return {"pck": float((visible <= PCK_DISTANCE).float().mean()), "mean_error": float(visible.mean())}


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
    """The centres of the cells along one side, as shares of the side."""
    return (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) / size


def _gaussian(places: torch.Tensor, size: int) -> torch.Tensor:
    """A Gaussian around each place over the cells along one side, ... x size, normalised to sum 1."""
    distance = (_centres(size, places) - places[..., None]) * (size / GAUSSIAN_CELLS)
    return torch.softmax(-0.5 * distance**2, dim=-1)

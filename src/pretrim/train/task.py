"""The interface of a task: the loss of a network, and the metrics that it is judged and selected by.

Training, studies, reports and exports use this interface and know no particular task. `classification.py` is the
default; the package `tasks` has the others and accepts those of users.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from pretrim.data import Augmentation, AugmentParams, DataSet, Split
from pretrim.errors import UsageError

from .batch import Batch
from .diagnosis import no_better, still_climbing
from .metric import Baseline, Metric
from .recipe import Recipe
from .state import EpochRecord
from .teacher import Teacher

TARGETS_PER_READ = 256
"""Images whose targets are read at a time."""


class Assessment(Protocol):
    """The performance of a network on a split, for any task."""

    @property
    def score(self) -> float:
        """The value of the selection metric."""

    @property
    def loss(self) -> float:
        """The mean loss over the images; may be infinite."""

    @property
    def n(self) -> int:
        """The number of images."""

    @property
    def ends(self) -> tuple[float, float] | None:
        """The 95 % interval of the score; None if it is not known."""

    @property
    def plain_loss(self) -> float | None:
        """The loss as JSON can hold it: None if it is not finite."""

    def details(self, names: Sequence[str]) -> dict[str, Any]:
        """Further results as plain JSON; `names` are the names of the outputs."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""


class Objective(Protocol):
    """The loss of a training and, where it is cheap, a score of the training images."""

    def __call__(self, outputs: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the mean loss of a batch, and the sum of the score over its images; None if there is no such score."""


class Task(ABC):
    """The task of a network: its loss and its metrics.

    Attributes:
        name: its name in records and for ``--task``.
        metric: the metric that networks are selected by.
        divides: whether the score is the share of correct images, so that processes can divide a split among them.
        has_unknown: whether targets may be NaN, where they are unknown.
    """

    name: str
    metric: Metric
    divides: bool = False
    has_unknown: bool = False

    @abstractmethod
    def objective(self, recipe: Recipe, data: DataSet, device: torch.device, teacher: Teacher | None) -> Objective:
        """Return the loss of a training. Raises UsageError if the recipe requires something the task does not support.

        Args:
            recipe: the recipe of the training.
            data: the train, validation and test splits.
            device: the device to train on.
            teacher: the teacher to distil from, if there is one.
        """

    @abstractmethod
    def assess(
        self, model: nn.Module, split: Split, mean: Sequence[float], std: Sequence[float], *, is_final: bool = True
    ) -> Assessment:
        """Compute loss and metrics on a split, in eval mode, on the model's device; the model's modes are restored.

        Args:
            model: a network.
            split: images and targets; not empty.
            mean: per-channel mean of pixel values in 0..1, to normalise by.
            std: per-channel standard deviation of them.
            is_final: whether to compute the interval as well; validations during a training skip it.

        Raises:
            DataError: the split is empty.
            ModelError: the task cannot judge the outputs.
        """

    def augmentation(self, how: Augmentation) -> Augmentation:
        """Return the part of an augmentation that keeps targets valid; by default no moving or mirroring of images."""
        return Augmentation(padding=0, flip=False, cutout=how.cutout)

    def augmented(self, targets: torch.Tensor, draws: AugmentParams, how: Augmentation) -> torch.Tensor:
        """Return the targets, N x ..., of augmented images.

        Args:
            targets: the targets before augmentation, N x ...
            draws: the random parameters of each image's augmentation.
            how: the augmentation that they were drawn for.
        """
        return targets

    def baseline(self, data: DataSet) -> Baseline | None:
        """Return the validation score of an answer that ignores the image; None if there is no obvious one."""
        return None

    def warnings(self, records: Sequence[EpochRecord], data: DataSet, recipe: Recipe) -> tuple[str, ...]:
        """Return warnings to read before trusting a finished training, one sentence each.

        Args:
            records: the records of all epochs.
            data: the train, validation and test splits.
            recipe: the recipe of the training.
        """
        findings = (
            no_better(records, self.metric, self.baseline(data)),
            still_climbing(records, recipe, self.metric),
        )
        return tuple(finding for finding in findings if finding is not None)

    def write_details(self, folder: Path, test: Assessment, data: DataSet, title: str, worst: int = 0) -> None:
        """Write files that show the mistakes of a trained network on the test images.

        Args:
            folder: the folder of the run.
            test: the assessment on the test images.
            data: the data set of the test images.
            title: the title of the pictures.
            worst: number of worst images to list.

        Raises UsageError if the task cannot list the worst images.
        """
        if worst:
            raise UsageError(f"--worst lists images by their class, which the task {self.name} does not have.")

    def check(self, model: nn.Module, data: DataSet) -> None:
        """Try the task on a few images before anything is written. Raises UsageError or ModelError in one line."""
        return

    @abstractmethod
    def proof_material(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        """Return the arguments of `deploy.export` by which it judges an artifact of the network.

        Args:
            model: the network.
            images: normalised images to judge the artifact on, N x C x ...
            targets: the targets of the images.
        """

    def answer(self, outputs: torch.Tensor, names: Sequence[str], top: int) -> list[list[dict[str, Any]]]:
        """Return the predictions for single images as plain JSON, one list per image.

        Args:
            outputs: the main outputs, N x ...
            names: the names of the outputs.
            top: number of entries per image, if they are ranked.

        Raises UsageError if the predictions of the task do not fit in a few words.
        """
        raise UsageError(f"The answers of the task {self.name} are more than a few words: use the network in Python.")


def odd_targets(task: Task, split: Split) -> int:
    """Count the images of a split whose targets hold NaN or infinity, which makes the loss non-finite.

    Args:
        task: the task; if it allows NaN, the count is 0.
        split: the split; all its targets are read.
    """
    count = 0
    for start in range(0, len(split), TARGETS_PER_READ):
        targets = split.targets[start : start + TARGETS_PER_READ]
        if not targets.is_floating_point() or task.has_unknown:
            return 0
        count += int((~targets.isfinite()).view(len(targets), -1).any(dim=1).sum())
    return count

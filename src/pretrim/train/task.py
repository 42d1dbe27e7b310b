"""What a network is trained for: its loss, and the metrics that it is judged and chosen by.

Training, studies, reports and exports ask a `Task` and know of no particular one. `classification.py` is the default;
the package `tasks` has the others, and takes those of users.
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

PIECE = 256
"""Targets that are read at once"""


class Assessment(Protocol):
    """How well a network does on a split, whatever its task."""

    @property
    def score(self) -> float:
        """The metric that chooses."""

    @property
    def loss(self) -> float:
        """Mean over the images; may be infinite."""

    @property
    def n(self) -> int:
        """Images."""

    @property
    def ends(self) -> tuple[float, float] | None:
        """95 % interval of the score; None where it is not known."""

    @property
    def plain_loss(self) -> float | None:
        """The loss as JSON has it: None where it is not finite."""

    def details(self, names: Sequence[str]) -> dict[str, Any]:
        """What there is beside the score, as plain JSON; `names` are those of the outputs."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""


class Objective(Protocol):
    """The loss of a training, and a score of the training images where that is cheap."""

    def __call__(self, outputs: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The mean loss of a batch, and the sum over its images of the score; None where there is no such score."""


class Task(ABC):
    """What a network is trained for.

    Attributes:
        name: in records, and as ``--task`` takes it.
        metric: the one that chooses.
        divides: whether the score of a split is its share of images that are right, so that processes can divide them.
        has_unknown: whether a target may be NaN, for what is not known.
    """

    name: str
    metric: Metric
    divides: bool = False
    has_unknown: bool = False

    @abstractmethod
    def objective(self, recipe: Recipe, data: DataSet, device: torch.device, teacher: Teacher | None) -> Objective:
        """The loss of a training. Raises UsageError where the recipe asks for what the task does not have.

        Args:
            recipe: of the training.
            data: train, validation and test.
            device: to train on.
            teacher: to distil from, if there is one.
        """

    @abstractmethod
    def assess(
        self, model: nn.Module, split: Split, mean: Sequence[float], std: Sequence[float], *, is_final: bool = True
    ) -> Assessment:
        """Loss and metrics on a split, in eval mode, on the model's device; the model's modes are restored.

        Args:
            model: a network.
            split: images and targets; not empty.
            mean: per channel, that images scaled to 0..1 are normalised by.
            std: likewise.
            is_final: whether the interval is wanted as well; validations during a training do without.

        Raises:
            DataError: the split is empty.
            ModelError: outputs that the task cannot judge.
        """

    def augmentation(self, how: Augmentation) -> Augmentation:
        """What of an augmentation keeps the targets true; moving and mirroring images does not, in general."""
        return Augmentation(padding=0, flip=False, cutout=how.cutout)

    def augmented(self, targets: torch.Tensor, draws: AugmentParams, how: Augmentation) -> torch.Tensor:
        """The targets, N x ..., of images that were augmented.

        Args:
            targets: N x ..., of the images as they were.
            draws: what was done to each image.
            how: what the draws were made for.
        """
        return targets

    def baseline(self, data: DataSet) -> Baseline | None:
        """What an answer without looking reaches on the validation images; None where there is none to name."""
        return None

    def warnings(self, records: Sequence[EpochRecord], data: DataSet, recipe: Recipe) -> tuple[str, ...]:
        """What to know before believing a finished training, a sentence each.

        Args:
            records: of all epochs.
            data: train, validation and test.
            recipe: of the training.
        """
        findings = (
            no_better(records, self.metric, self.baseline(data)),
            still_climbing(records, recipe, self.metric),
        )
        return tuple(finding for finding in findings if finding is not None)

    def write_details(self, folder: Path, test: Assessment, data: DataSet, title: str, worst: int = 0) -> None:
        """Files that show where a trained network errs on the test images.

        Args:
            folder: of the run.
            test: of the test images.
            data: they are its.
            title: of pictures.
            worst: how many of the worst images are asked for.

        Raises UsageError where the task has no such list of images.
        """
        if worst:
            raise UsageError(f"--worst lists images by their class, which the task {self.name} does not have.")

    def check(self, model: nn.Module, data: DataSet) -> None:
        """Try the task on a few images before anything is written. Raises UsageError or ModelError in one line."""
        return

    @abstractmethod
    def proof_material(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        """What `deploy.export` judges an artifact of the network by, as its arguments.

        Args:
            model: the network.
            images: that it is proved on, normalised, N x C x ...
            targets: theirs.
        """

    def answer(self, outputs: torch.Tensor, names: Sequence[str], top: int) -> list[list[dict[str, Any]]]:
        """What a network says of single images, N entries; `outputs` are its main ones, N x ...

        Args:
            outputs: of the images.
            names: of the outputs.
            top: entries an image, where they are ranked.

        Raises UsageError where the task cannot say it in a few words.
        """
        raise UsageError(f"The answers of the task {self.name} are more than a few words: use the network in Python.")


def odd_targets(task: Task, split: Split) -> int:
    """The images of a split whose targets hold NaN or infinity, of which a loss comes out that is not finite.

    Args:
        task: in which NaN may be right.
        split: of which all targets are read.
    """
    found = 0
    for start in range(0, len(split), PIECE):
        targets = split.targets[start : start + PIECE]
        if not targets.is_floating_point() or task.has_unknown:
            return 0
        found += int((~targets.isfinite()).view(len(targets), -1).any(dim=1).sum())
    return found

"""Tasks that have a loss and metrics over a whole split: all but classification are such."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from pretrim.analysis.copies import describe_failure
from pretrim.data import DataSet, Split, batches, normalise
from pretrim.deploy import Judge
from pretrim.errors import DataError, ModelError, PretrimError, UsageError
from pretrim.train import Batch, Metric, Objective, Recipe, Task, Teacher, forward, modes_kept, odd_targets

RESAMPLES, FEWEST = 200, 50
"""Draws of images with replacement for an interval; with fewer than 50 none is given"""
MOST_WORK, MOST_SECONDS = 400_000_000, 30.0
"""Elements of outputs and targets that these draws may count again, about; seconds of a processor that they may take"""
BATCH = 64
TRIED = 4
"""Images that a task is tried on before anything is written"""


@dataclass(frozen=True)
class Scores:
    """How well a network does on a split, by the metrics of its task.

    Attributes:
        metric: the one that chooses.
        values: all of them, by name.
        loss: mean over the images.
        n: images.
        ends: 95 % interval of the score, from images drawn with replacement (percentile bootstrap, Efron 1979); None
            where that would take long.
    """

    metric: Metric
    values: Mapping[str, float]
    loss: float
    n: int
    ends: tuple[float, float] | None = None

    @property
    def score(self) -> float:
        """The metric that chooses."""
        return self.values[self.metric.name]

    @property
    def plain_loss(self) -> float | None:
        """The loss as JSON has it: None where it is not finite."""
        return self.loss if math.isfinite(self.loss) else None

    def details(self, names: Sequence[str]) -> dict[str, Any]:
        """All metrics; those that are not finite are null."""
        return {"metrics": {name: _finite(value) for name, value in self.values.items()}}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        interval = None if self.ends is None else list(self.ends)
        own = {self.metric.name: self.score, "interval_95": interval, "images": self.n, "loss": self.plain_loss}
        return {**own, **self.details(())}


class MetricTask(Task):
    """A task by its loss and metrics.

    Attributes:
        largest_loss: of the metric that chooses, that int8 may cost: a difference for shares, a part of the value for
            other metrics.
    """

    largest_loss: float = 0.02
    judged: str = "a target"
    """what of an image `can_judge` looks for, in words"""

    @abstractmethod
    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch: a scalar that gradients flow from. `output` is what the network returns."""

    @abstractmethod
    def metrics(self, output: Any, target: torch.Tensor) -> Mapping[str, float]:
        """Every metric of a whole split. `output` is what `reduced` made of all its batches, concatenated."""

    def can_judge(self, target: torch.Tensor) -> bool:
        """Whether the metrics are defined on these targets, whatever a network says of the images."""
        return True

    def postprocess(self, output: Any) -> Any:
        """From the network's output of a batch to an answer, with a row an image: points of a heatmap."""
        return output

    def reduced(self, output: Any, target: torch.Tensor) -> Any:
        """What `metrics` needs of a batch, with a row an image: the answer, or something smaller."""
        return self.postprocess(output)

    def objective(self, recipe: Recipe, data: DataSet, device: torch.device, teacher: Teacher | None) -> Objective:
        """The task's own loss, mixed where images are."""
        if teacher is not None:
            raise UsageError(f"A teacher's class scores teach a classification, not the task {self.name}.")
        if recipe.label_smoothing or recipe.balance != "none":
            name = "label_smoothing" if recipe.label_smoothing else "balance"
            raise UsageError(f"The recipe's {name} is of classes, which the task {self.name} does not have.")
        return self._mixed

    def _mixed(self, outputs: Any, batch: Batch) -> tuple[torch.Tensor, None]:
        outputs = tree_map(_as_float, outputs)
        loss = self._loss(outputs, batch.targets)
        if batch.others is not None:
            loss = batch.share * loss + (1.0 - batch.share) * self._loss(outputs, batch.others)
        return loss, None

    def _loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        try:
            loss = self.loss(output, target)
        except PretrimError:
            raise
        except Exception as error:  # the user's own code, or shapes that do not fit; its error is shown
            raise self._failed("loss", output, target, error) from error
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            got = _shown(loss) if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise ModelError(f"Expected {self.name}.loss to return the mean loss, one number as a tensor, got {got}.")
        return loss.reshape(())

    def _failed(self, what: str, output: Any, target: torch.Tensor, error: Exception) -> ModelError:
        shapes = " and ".join(_shown(leaf) for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor))
        return ModelError(
            f"Expected {self.name}.{what} to take an output of {shapes or 'no tensor'} and a target of "
            f"{_shown(target)}, but it raised {describe_failure(error)}"
        )

    def measured(self, output: Any, target: torch.Tensor) -> dict[str, float]:
        """The metrics, checked.

        Raises:
            DataError: none of the images has what they are counted by.
            ModelError: the one that chooses is missing or no finite number.
        """
        if not self.can_judge(target):
            raise DataError(
                f"Expected images to judge a network by, but none of {len(target):,} has {self.judged}: give the "
                f"validation and the test part some that have."
            )
        try:
            found = {str(name): float(value) for name, value in dict(self.metrics(output, target)).items()}
        except PretrimError:
            raise
        except Exception as error:
            raise self._failed("metrics", output, target, error) from error
        chosen = self.metric.name
        if chosen not in found:
            raise ModelError(f"Expected {self.name}.metrics to give {chosen}, which chooses, but got {sorted(found)}.")
        if not math.isfinite(found[chosen]):
            raise ModelError(
                f"Expected a finite {chosen} from {self.name}.metrics, but got {found[chosen]}: check its targets and "
                f"what it divides by."
            )
        return found

    def assess(
        self, model: nn.Module, split: Split, mean: Sequence[float], std: Sequence[float], *, is_final: bool = True
    ) -> Scores:
        """Loss and metrics on a split; the interval where it is final. See `train.Task.assess`."""
        if not len(split):
            raise DataError("No images to evaluate on: the split is empty.")
        loss, answers, targets = self._answers(model, split, mean, std)
        answer, target = _joined(answers), torch.cat(targets)
        values, seconds = self._timed(answer, target)
        ends = self._interval(answer, target, seconds) if is_final else None
        return Scores(self.metric, values, loss / len(split), len(split), ends)

    @torch.no_grad()
    def _answers(
        self, model: nn.Module, split: Split, mean: Sequence[float], std: Sequence[float]
    ) -> tuple[float, list[Any], list[torch.Tensor]]:
        """The summed loss; answers and targets by batch."""
        first = next(model.parameters(), torch.zeros(0))
        loss, answers, targets = 0.0, [], []
        with modes_kept(model):
            model.eval()
            for images, target in batches(split, BATCH):
                ready = normalise(images.to(first.device), mean, std).to(first.dtype)
                output = tree_map(_at_home, forward(model, ready))
                loss += float(self._loss(output, target)) * len(images)
                answers.append(self.reduced(output, target))
                targets.append(target)
        return loss, answers, targets

    def _timed(self, answer: Any, target: torch.Tensor) -> tuple[dict[str, float], float]:
        """The metrics, and the seconds of a processor that they took."""
        started = time.process_time()
        return self.measured(answer, target), time.process_time() - started

    def _interval(self, answer: Any, target: torch.Tensor, seconds: float) -> tuple[float, float] | None:
        """Of the score, by drawing the images again; `seconds` is what the metrics took once."""
        draws = _draws(answer, target, seconds)
        values = [value for chosen in draws if (value := self._score_of(answer, target, chosen)) is not None]
        if len(values) < FEWEST:
            return None
        low, high = np.percentile(values, [2.5, 97.5])
        return float(low), float(high)

    def _score_of(self, answer: Any, target: torch.Tensor, places: torch.Tensor) -> float | None:
        """The score of some images; None where it is not defined on them, as without any object."""
        value = float(self.metrics(tree_map(lambda leaf: leaf[places], answer), target[places])[self.metric.name])
        return _finite(value)

    def check(self, model: nn.Module, data: DataSet) -> None:
        """Loss and metrics of a few training images."""
        some = data.train.take(np.arange(min(TRIED, len(data.train))))
        _, answers, targets = self._answers(model, some, data.mean, data.std)
        value = self.loss_is_finite(model, some, data)
        if not math.isfinite(value):
            odd = ": targets hold NaN or infinity, mend them or leave them out" if odd_targets(self, some) else ""
            raise ModelError(f"Expected a finite loss from {self.name}.loss on new weights, but got {value}{odd}.")
        if self.can_judge(torch.cat(targets)):  # few images may have no label, of which there are more
            self.measured(_joined(answers), torch.cat(targets))

    def loss_is_finite(self, model: nn.Module, split: Split, data: DataSet) -> float:
        """The mean loss of some images."""
        return self._answers(model, split, data.mean, data.std)[0] / len(split)

    def proof_material(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        """The score, as a judge of artifacts."""
        restore, drawn = _restorer(model, images[:1]), list[list[torch.Tensor]]()

        def scores(outputs: Sequence[NDArray[Any]]) -> list[float]:
            answer = self.reduced(restore([torch.from_numpy(part) for part in outputs]), targets)
            values, seconds = self._timed(answer, targets)
            if not drawn:  # the same ones for PyTorch and for the artifact
                drawn.append(_draws(answer, targets, seconds))
            again = [self._score_of(answer, targets, places) for places in drawn[0]]
            return [values[self.metric.name], *(math.nan if value is None else value for value in again)]

        return {
            "judge": Judge(
                metric=self.metric.name,
                higher_is_better=self.metric.higher_is_better,
                is_share=self.metric.is_share,
                largest_loss=self.largest_loss,
                scores=scores,
            )
        }


def _draws(answer: Any, target: torch.Tensor, seconds: float) -> list[torch.Tensor]:
    """Places of images drawn with replacement, the same each time; none where counting them again would take long.

    Args:
        answer: of all images.
        target: theirs.
        seconds: that the metrics took once.
    """
    elements = sum(leaf.numel() for leaf in tree_leaves((answer, target)))
    count = min(RESAMPLES, MOST_WORK // max(elements, 1))
    if count < FEWEST or count * seconds > MOST_SECONDS:
        return []
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, len(target), (len(target),), generator=generator) for _ in range(count)]


@torch.no_grad()
def _restorer(model: nn.Module, image: torch.Tensor) -> Callable[[list[torch.Tensor]], Any]:
    """From the flat outputs of an artifact to what the network returns."""
    with modes_kept(model):
        model.eval()
        leaves, spec = tree_flatten(model(image))
    is_tensor = [isinstance(leaf, torch.Tensor) for leaf in leaves]

    def restore(outputs: list[torch.Tensor]) -> Any:
        left = iter(outputs)
        return tree_unflatten([next(left) if is_one else None for is_one in is_tensor], spec)

    return restore


def _joined(answers: Sequence[Any]) -> Any:
    """Answers of batches as one. Raises ModelError for what is not a structure of tensors."""
    flat = [tree_flatten(answer) for answer in answers]
    leaves, spec = [part[0] for part in flat], flat[0][1]
    if not all(isinstance(leaf, torch.Tensor) for part in leaves for leaf in part):
        raise ModelError("Expected the answers of a task as tensors with a row an image: return those in postprocess.")
    return tree_unflatten([torch.cat(parts) for parts in zip(*leaves, strict=True)], spec)


def _as_float(value: Any) -> Any:
    """Half precision is too coarse for a loss."""
    is_half = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_half else value


def _at_home(value: Any) -> Any:
    return _as_float(value.detach()).cpu() if isinstance(value, torch.Tensor) else value


def _shown(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""The base class of tasks with a loss and metrics over a whole split: all tasks but classification."""

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

RESAMPLES, MIN_RESAMPLES = 200, 50
"""Bootstrap resamples for an interval, and the fewest for which one is given."""
MAX_ELEMENTS, MOST_SECONDS = 400_000_000, 30.0
"""Limits for all resamples of an interval: elements of outputs and targets (approximate), and seconds of CPU time."""
BATCH = 64
"""Images per forward pass of an evaluation."""
TRIAL_IMAGES = 4
"""Training images that a task is tried on before anything is written."""


@dataclass(frozen=True)
class Scores:
    """The performance of a network on a split by the metrics of its task.

    Attributes:
        metric: the metric that networks are selected by.
        values: the values of all metrics by name.
        loss: mean loss over the images.
        n: number of images.
        ends: 95 % interval of the score by the percentile bootstrap over images (Efron 1979); None if that would take
            too long.
    """

    metric: Metric
    values: Mapping[str, float]
    loss: float
    n: int
    ends: tuple[float, float] | None = None

    @property
    def score(self) -> float:
        """The value of the selection metric."""
        return self.values[self.metric.name]

    @property
    def plain_loss(self) -> float | None:
        """The loss as JSON can hold it: None if it is not finite."""
        return self.loss if math.isfinite(self.loss) else None

    def details(self, names: Sequence[str]) -> dict[str, Any]:
        """All metrics; values that are not finite are None."""
        return {"metrics": {name: _finite(value) for name, value in self.values.items()}}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        interval = None if self.ends is None else list(self.ends)
        summary = {self.metric.name: self.score, "interval_95": interval, "images": self.n, "loss": self.plain_loss}
        return {**summary, **self.details(())}


class MetricTask(Task):
    """A task defined by its loss and metrics.

    Attributes:
        largest_loss: largest loss of the selection metric that int8 may cost: absolute for shares, relative to the
            value for other metrics.
    """

    largest_loss: float = 0.02
    judged: str = "a target"
    """What `can_judge` looks for in the targets of an image, in words."""

    @abstractmethod
    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch as a differentiable scalar. `output` is what the network returns."""

    @abstractmethod
    def metrics(self, output: Any, target: torch.Tensor) -> Mapping[str, float]:
        """Return all metrics of a whole split. `output` is the concatenated result of `reduced` for its batches."""

    def can_judge(self, target: torch.Tensor) -> bool:
        """Whether the metrics are defined on these targets, whatever the network predicts."""
        return True

    def postprocess(self, output: Any) -> Any:
        """Convert the network's output of a batch to an answer, one row per image, such as the points of heatmaps."""
        return output

    def reduced(self, output: Any, target: torch.Tensor) -> Any:
        """Reduce a batch to what `metrics` needs, one row per image: the answer, or something smaller."""
        return self.postprocess(output)

    def objective(self, recipe: Recipe, data: DataSet, device: torch.device, teacher: Teacher | None) -> Objective:
        """The task's loss, mixed between the targets of mixed images."""
        if teacher is not None:
            raise UsageError(f"A teacher's class scores teach a classification, not the task {self.name}.")
        if recipe.label_smoothing or recipe.balance != "none":
            name = "label_smoothing" if recipe.label_smoothing else "balance"
            raise UsageError(f"The recipe's {name} needs classes, which the task {self.name} does not have.")
        return self._mixed_loss

    def _mixed_loss(self, outputs: Any, batch: Batch) -> tuple[torch.Tensor, None]:
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
            raise self._failure("loss", output, target, error) from error
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            description = _shape_text(loss) if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise ModelError(
                f"Expected {self.name}.loss to return the mean loss, one number as a tensor, got {description}."
            )
        return loss.reshape(())

    def _failure(self, method: str, output: Any, target: torch.Tensor, error: Exception) -> ModelError:
        shapes = " and ".join(_shape_text(leaf) for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor))
        return ModelError(
            f"Expected {self.name}.{method} to take an output of {shapes or 'no tensor'} and a target of "
            f"{_shape_text(target)}, but it raised {describe_failure(error)}"
        )

    def measured(self, output: Any, target: torch.Tensor) -> dict[str, float]:
        """Compute and check the metrics.

        Raises:
            DataError: the metrics are defined on none of the images.
            ModelError: `metrics` fails, or the selection metric is missing or not finite.
        """
        if not self.can_judge(target):
            raise DataError(
                f"Expected images to evaluate a network on, but none of {len(target):,} has {self.judged}: give the "
                f"validation and the test split some that have."
            )
        try:
            values = {str(name): float(value) for name, value in dict(self.metrics(output, target)).items()}
        except PretrimError:
            raise
        except Exception as error:
            raise self._failure("metrics", output, target, error) from error
        metric = self.metric.name
        if metric not in values:
            raise ModelError(
                f"Expected {self.name}.metrics to return {metric}, by which networks are compared, but got "
                f"{sorted(values)}."
            )
        if not math.isfinite(values[metric]):
            raise ModelError(
                f"Expected a finite {metric} from {self.name}.metrics, but got {values[metric]}: check its targets and "
                f"what it divides by."
            )
        return values

    def assess(
        self, model: nn.Module, split: Split, mean: Sequence[float], std: Sequence[float], *, is_final: bool = True
    ) -> Scores:
        """Compute loss and metrics on a split and, if `is_final`, the interval. See `train.Task.assess`."""
        if not len(split):
            raise DataError("No images to evaluate on: the split is empty.")
        loss, answers, targets = self._evaluate(model, split, mean, std)
        answer, target = _concatenated(answers), torch.cat(targets)
        values, seconds = self._timed_metrics(answer, target)
        ends = self._interval(answer, target, seconds) if is_final else None
        return Scores(self.metric, values, loss / len(split), len(split), ends)

    @torch.no_grad()
    def _evaluate(
        self, model: nn.Module, split: Split, mean: Sequence[float], std: Sequence[float]
    ) -> tuple[float, list[Any], list[torch.Tensor]]:
        """Return the summed loss, and the reduced answers and targets of each batch."""
        first = next(model.parameters(), torch.zeros(0))
        loss, answers, targets = 0.0, [], []
        with modes_kept(model):
            model.eval()
            for images, target in batches(split, BATCH):
                ready = normalise(images.to(first.device), mean, std).to(first.dtype)
                output = tree_map(_to_cpu, forward(model, ready))
                loss += float(self._loss(output, target)) * len(images)
                answers.append(self.reduced(output, target))
                targets.append(target)
        return loss, answers, targets

    def _timed_metrics(self, answer: Any, target: torch.Tensor) -> tuple[dict[str, float], float]:
        """Compute the metrics; return them and the seconds of CPU time that they took."""
        started = time.process_time()
        return self.measured(answer, target), time.process_time() - started

    def _interval(self, answer: Any, target: torch.Tensor, seconds: float) -> tuple[float, float] | None:
        """Bootstrap the interval of the score; `seconds` is the CPU time of computing the metrics once."""
        resamples = _resamples(answer, target, seconds)
        values = [value for indices in resamples if (value := self._score_of(answer, target, indices)) is not None]
        if len(values) < MIN_RESAMPLES:
            return None
        low, high = np.percentile(values, [2.5, 97.5])
        return float(low), float(high)

    def _score_of(self, answer: Any, target: torch.Tensor, indices: torch.Tensor) -> float | None:
        """The score on some images; None if it is not defined on them, for example without any object."""
        value = float(self.metrics(tree_map(lambda leaf: leaf[indices], answer), target[indices])[self.metric.name])
        return _finite(value)

    def check(self, model: nn.Module, data: DataSet) -> None:
        """Compute loss and metrics of a few training images. Raises ModelError if they fail or are not finite."""
        images = data.train.take(np.arange(min(TRIAL_IMAGES, len(data.train))))
        _, answers, targets = self._evaluate(model, images, data.mean, data.std)
        value = self._mean_loss(model, images, data)
        if not math.isfinite(value):
            hint = ": targets hold NaN or infinity, correct them or leave them out" if odd_targets(self, images) else ""
            raise ModelError(f"Expected a finite loss from {self.name}.loss on new weights, but got {value}{hint}.")
        if self.can_judge(torch.cat(targets)):  # so few images may have no label, although others do
            self.measured(_concatenated(answers), torch.cat(targets))

    def _mean_loss(self, model: nn.Module, split: Split, data: DataSet) -> float:
        """The mean loss on a split."""
        return self._evaluate(model, split, data.mean, data.std)[0] / len(split)

    def proof_material(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        """The score and its bootstrap resamples, as a judge of artifacts."""
        restore, resamples = _restorer(model, images[:1]), list[list[torch.Tensor]]()

        def scores(outputs: Sequence[NDArray[Any]]) -> list[float]:
            answer = self.reduced(restore([torch.from_numpy(part) for part in outputs]), targets)
            values, seconds = self._timed_metrics(answer, targets)
            if not resamples:  # the same resamples for PyTorch and for the artifact
                resamples.append(_resamples(answer, targets, seconds))
            resampled = [self._score_of(answer, targets, indices) for indices in resamples[0]]
            return [values[self.metric.name], *(math.nan if value is None else value for value in resampled)]

        return {
            "judge": Judge(
                metric=self.metric.name,
                higher_is_better=self.metric.higher_is_better,
                is_share=self.metric.is_share,
                largest_loss=self.largest_loss,
                scores=scores,
            )
        }


def _resamples(answer: Any, target: torch.Tensor, seconds: float) -> list[torch.Tensor]:
    """Draw bootstrap resamples as image indices, the same at every call; none if their metrics would take too long.

    Args:
        answer: the answers for all images.
        target: the targets of all images.
        seconds: CPU time of computing the metrics once.
    """
    elements = sum(leaf.numel() for leaf in tree_leaves((answer, target)))
    count = min(RESAMPLES, MAX_ELEMENTS // max(elements, 1))
    if count < MIN_RESAMPLES or count * seconds > MOST_SECONDS:
        return []
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, len(target), (len(target),), generator=generator) for _ in range(count)]


@torch.no_grad()
def _restorer(model: nn.Module, image: torch.Tensor) -> Callable[[list[torch.Tensor]], Any]:
    """Return a function that restores the structure that the network returns from the flat outputs of an artifact."""
    with modes_kept(model):
        model.eval()
        leaves, spec = tree_flatten(model(image))
    is_tensor = [isinstance(leaf, torch.Tensor) for leaf in leaves]

    def restore(outputs: list[torch.Tensor]) -> Any:
        remaining = iter(outputs)
        return tree_unflatten([next(remaining) if is_output else None for is_output in is_tensor], spec)

    return restore


def _concatenated(answers: Sequence[Any]) -> Any:
    """Concatenate the answers of batches. Raises ModelError for anything that is not a structure of tensors."""
    flat = [tree_flatten(answer) for answer in answers]
    leaves, spec = [part[0] for part in flat], flat[0][1]
    if not all(isinstance(leaf, torch.Tensor) for part in leaves for leaf in part):
        raise ModelError("Expected postprocess of a task to return tensors with one row per image, but it did not.")
    return tree_unflatten([torch.cat(parts) for parts in zip(*leaves, strict=True)], spec)


def _as_float(value: Any) -> Any:
    """Convert half precision, which is too coarse for a loss, to float32."""
    is_half = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_half else value


def _to_cpu(value: Any) -> Any:
    return _as_float(value.detach()).cpu() if isinstance(value, torch.Tensor) else value


def _shape_text(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

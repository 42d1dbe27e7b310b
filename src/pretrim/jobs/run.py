"""A finished run: evaluate it, classify images with it, export it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pretrim.errors import CheckpointError, UsageError
from pretrim.wording import in_words_of_python

from .data import DataSource, data_to_evaluate
from .predict import predict_images
from .reporter import Reporter, Silent

if TYPE_CHECKING:
    from torch import nn

    from pretrim.data import DataSet
    from pretrim.models.dense import ModelSource
    from pretrim.planning.plan import Plan
    from pretrim.runs.classifier import TrainedClassifier
    from pretrim.runs.record import RunRecord
    from pretrim.train import Comparison, Metric, Task

    from .delivered import Delivered


@dataclass(frozen=True, repr=False)
class Run:
    """A trained slim network with its record.

    Attributes:
        path: folder of the run.
        model: the slim network, trained, in eval mode.
        record: contents of ``run.json``; None in processes of a distributed training that write nothing.
        data: the data it was trained on, if available.
        artifact: the artifact that `compress` exported, if any.
        is_fetched: whether the folder is the hub's cache, in which nothing is written.
        task: the task of the network; None: as recorded.
    """

    path: Path
    model: nn.Module
    record: RunRecord | None
    data: DataSet | None = None
    artifact: Delivered | None = None
    is_fetched: bool = False
    task: Task | None = None

    export: ClassVar[Callable[..., Delivered]]
    """Exports to a runtime or for a board (``device=``): `jobs.export.export_run`, attached by `jobs.calls`."""

    def __repr__(self) -> str:
        """Show the folder and a short summary, as full records have thousands of characters."""
        return f"Run({str(self.path)!r}: {self._summary()})"

    def _summary(self) -> str:
        if self.record is None:
            return f"{type(self.model).__name__}, in a process that wrote no run"
        reference, plan, metric = self.record.reference, self.plan, self.metric
        scores = [(metric.title, self.score), (f"{metric.title} of the dense network", self.dense_score)]
        parts = [
            type(self.model).__name__ if reference is None else reference.name,
            *(f"{title} {metric.show(score, 1)}" for title, score in scores if score is not None),
            *(f"{kept_text(plan.slim[name], plan.dense[name])} {name}" for name in ("params", "macs")),
            *([] if self.artifact is None else [f"exported to {self.artifact.path}"]),
        ]
        return ", ".join(parts)

    @classmethod
    def opened(cls, path: Path, model: nn.Module, data: DataSet | None = None, task: Task | None = None) -> Run:
        """Make a run whose network is already in memory.

        Args:
            path: folder of the run.
            model: the trained slim network.
            data: the data it was trained on, if available.
            task: the task of the network, if available.
        """
        from pretrim.runs.load import read

        return cls(path, model.eval(), read(path), data, task=task)

    @property
    def plan(self) -> Plan:
        """The plan: which filters of the dense network were kept."""
        return self._record.plan

    @property
    def purpose(self) -> Task:
        """The task of the network. Raises UsageError for a user-defined task that was not named again."""
        from pretrim.tasks import BUILTIN, find

        name = (self._record.data or {}).get("task", "classification")
        if self.task is None and name not in BUILTIN:
            raise UsageError(f"The run is of a task of your own: name it again, --task {name}, which runs that file.")
        return self.task or find(name)

    @property
    def metric(self) -> Metric:
        """The metric of the scores."""
        from pretrim.train import Metric

        return Metric.from_json(self.results.get("metric"))

    @property
    def score(self) -> float | None:
        """Test score by the task's main metric; None if the run was saved without one."""
        score = self.results.get(f"test_{self.metric.name}")
        return None if score is None else float(score)

    @property
    def dense_score(self) -> float | None:
        """Test score of the dense network, if that was trained too or its weights were inherited."""
        name = self.metric.name
        trained = self.results.get("dense", {}).get(f"test_{name}")
        score = trained if trained is not None else self.results.get("inherited", {}).get(f"dense_test_{name}")
        return None if score is None else float(score)

    @property
    def accuracy(self) -> float | None:
        """Test accuracy of a classification, 0..1; None for other tasks, or if the run was saved without one."""
        return self.score if self.metric.name == "accuracy" else None

    @property
    def dense_accuracy(self) -> float | None:
        """Test accuracy of the dense network, 0..1, if that was trained too or its weights were inherited."""
        return self.dense_score if self.metric.name == "accuracy" else None

    @property
    def dense_test(self) -> dict[str, Any] | None:
        """The dense network's evaluation on the test images (`train.Evaluation.to_json`), if there is one."""
        dense: dict[str, Any] | None = self.results.get("dense", {}).get("test")
        return dense if dense is not None else self.results.get("inherited", {}).get("dense_test")

    @property
    def comparison(self) -> Comparison | None:
        """Comparison of the slim network with the dense one on the same test images; None if one of them was not
        tested, or if the task does not judge single images as right or wrong."""
        from pretrim.train import compare, unpack

        slim, dense = self.results.get("test"), self.dense_test
        if slim is None or dense is None or "right" not in slim or "right" not in dense:
            return None
        return compare(unpack(dense["right"]), unpack(slim["right"]))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings to consider before trusting the accuracy, a sentence each."""
        return tuple(self.results.get("warnings", ()))

    @property
    def results(self) -> dict[str, Any]:
        """Scores and the training log, as plain JSON."""
        return dict(self._record.results or {})

    @property
    def _record(self) -> RunRecord:
        if self.record is None:
            raise CheckpointError("This process of the training wrote no run: use the main process.")
        return self.record

    @cached_property
    def classifier(self) -> TrainedClassifier:
        """The network with its input shape and normalisation. Raises CheckpointError if they are not recorded."""
        from pretrim.runs.classifier import as_classifier

        return as_classifier(self.path, self._record, self.model)

    @in_words_of_python(("data", "reporter"))
    def evaluate(self, data: DataSource | None = None, reporter: Reporter | None = None) -> Evaluated:
        """Evaluate on the test part of the run's data, or on all images of other data; see `evaluate_run`."""
        return evaluate_run(self, data, reporter)

    @in_words_of_python(("images", "top"))
    def predict(self, images: Any, top: int = 3) -> list[dict[str, Any]]:
        """Return the most likely classes of each image, with their probabilities, as plain JSON.

        Args:
            images: one or a list of: paths or PIL images, which are resized to the network's input size; uint8 tensors
                or arrays of that size, C x H x W. A tensor or array N x C x H x W stands for N images. A run trained
                on float tensors of your own data set only takes such tensors, as the data set yields them.
            top: number of classes to return per image.

        Raises:
            UsageError: no image.
            DataError: a file that is not an image, or images of another kind or shape.
            ModelError: scores that are not finite.
        """
        return predict_images(self.classifier, self.purpose, images, top)

    def to_json(self) -> dict[str, Any]:
        """Return the output of `pretrim compress --json`."""
        plan, record = self.plan, self._record
        comparison, name = self.comparison, f"test_{self.metric.name}"
        return {
            "run": str(self.path),
            "model": record.reference.name if record.reference is not None else type(self.model).__name__,
            "data": dict(record.data or {}),
            "metric": self.metric.to_json(),
            "dense": {**plan.dense, name: self.dense_score, **_interval_of(self.dense_test)},
            "slim": {**plan.slim, name: self.score, **_interval_of(self.results.get("test"))},
            "device": None if plan.device is None else dict(plan.device),
            "comparison": None if comparison is None else comparison.to_json(),
            "warnings": list(self.warnings),
            "results": self.results,
            **({"artifact": self.artifact.to_json()} if self.artifact is not None else {}),
        }


def kept_text(slim: int, dense: int) -> str:
    """Format how much of the dense network's cost is left.

    >>> kept_text(500, 2_000)
    '500 of 2,000 (25 %)'
    """
    return f"{slim:,} of {dense:,} ({slim / max(dense, 1):.0%})".replace("%", " %")


def _interval_of(evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the 95 % interval of a test score, and the number of test images."""
    if evaluation is None:
        return {"test_interval_95": None, "test_images": None}
    return {"test_interval_95": evaluation["interval_95"], "test_images": evaluation["images"]}


@dataclass(frozen=True, repr=False)
class Evaluated:
    """The evaluation of a run on the test images of a data set.

    Attributes:
        run: folder of the run.
        data: description of the data set.
        metric: metric of the score.
        score: score over all images.
        loss: mean loss over the images; None if it is not finite.
        images: number of images.
        interval: 95 % interval of the score; None if unknown.
        details: further results of the task: each class and the confusion matrix for a classification, all metrics for
            other tasks.
    """

    run: str
    data: dict[str, Any]
    metric: Metric
    score: float
    loss: float | None
    images: int
    interval: tuple[float, float] | None
    details: dict[str, Any]

    def __repr__(self) -> str:
        """Show the score only, as the details have a row for each class."""
        return (
            f"Evaluated({self.run!r}: {self.metric.title} {self.metric.show(self.score, 2)} of {self.images:,} images)"
        )

    @property
    def accuracy(self) -> float | None:
        """The score of a classification, 0..1; None for other tasks."""
        return self.score if self.metric.name == "accuracy" else None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "run": self.run,
            "data": self.data,
            "metric": self.metric.to_json(),
            self.metric.name: self.score,
            "loss": self.loss,
            "images": self.images,
            "interval_95": None if self.interval is None else list(self.interval),
            **self.details,
        }


def open_run(
    path: str | Path, model: ModelSource | None = None, task: Any = None, reporter: Reporter | None = None
) -> Run:
    """Open a run folder and load its network.

    Args:
        path: the folder, or ``hf:OWNER/NAME``: then record and weights are fetched from the hub.
        model: how to rebuild the dense network, for a network of your own; never taken from the run itself.
        task: the network's task, if it is a task of your own: ``"FILE.py:CLASS"``, or an object.
        reporter: told what is fetched from where; without one, that is printed to stderr.

    Raises:
        CheckpointError: the run is missing, truncated, edited or not from pretrim.
        UsageError: `model` is needed, or does not exist.
    """
    from pretrim.errors import check_is
    from pretrim.runs.load import load, read
    from pretrim.tasks import find

    check_is(path, str | Path, "path to be the name of a run's folder")
    from .hub import fetch, is_on_hub

    is_fetched = is_on_hub(path)
    folder = fetch(path, reporter) if is_fetched else Path(path)
    record = read(folder)
    own_task = None if task is None else find(task)
    return Run(folder, load(folder, model=model), record, is_fetched=is_fetched, task=own_task)


def evaluate_run(run: Run, data: DataSource | None, reporter: Reporter | None = None) -> Evaluated:
    """Evaluate a run on the test part of the data it was trained on, or on all images of other data.

    Other data, a folder or a table, may have fewer classes than the run; if they have a test part, only that is used.

    Args:
        run: a run that records its network's input shape and normalisation.
        data: name, folder, or data sets; None: the task's own data.
        reporter: told where the data come from.

    Raises:
        DataError: data with other classes or another shape, or pixels for a run that was trained on float tensors.
        CheckpointError: the network's number of outputs is not the run's number of classes.
    """
    classifier, task = run.classifier, run.purpose
    dataset = data_to_evaluate(data, classifier.record, task, reporter or Silent())
    evaluation = task.assess(classifier.network, dataset.test, *classifier.normalisation)
    return Evaluated(
        run=str(run.path),
        data=dataset.to_json(),
        metric=task.metric,
        score=evaluation.score,
        loss=evaluation.plain_loss,
        images=evaluation.n,
        interval=evaluation.ends,
        details=evaluation.details(classifier.classes),
    )

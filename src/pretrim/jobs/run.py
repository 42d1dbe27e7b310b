"""A finished run, to work on: evaluate it, classify images with it, export it."""

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
    """A trained slim network and what is known of it.

    Attributes:
        path: its folder.
        model: the slim network, trained, in eval mode.
        record: what ``run.json`` says; None in processes of a distributed training that write nothing.
        data: what it was trained on, where it is at hand.
        artifact: what `compress` exported, if it did.
        is_fetched: whether the folder is the hub's cache, in which nothing is written.
        task: what the network is for; None: as the record says.
    """

    path: Path
    model: nn.Module
    record: RunRecord | None
    data: DataSet | None = None
    artifact: Delivered | None = None
    is_fetched: bool = False
    task: Task | None = None

    export: ClassVar[Callable[..., Delivered]]
    """Export to a runtime or for a board (``device=``): `jobs.export.export_run`, attached by `jobs.calls`."""

    def __repr__(self) -> str:
        """The folder, and what matters most of what is in it: its records have thousands of characters."""
        return f"Run({str(self.path)!r}: {self._told()})"

    def _told(self) -> str:
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
        """A run whose network is in memory already.

        Args:
            path: its folder.
            model: the trained slim network.
            data: what it was trained on, if it is at hand.
            task: what it is for, likewise.
        """
        from pretrim.runs.load import read

        return cls(path, model.eval(), read(path), data, task=task)

    @property
    def plan(self) -> Plan:
        """What stayed of the dense network."""
        return self._record.plan

    @property
    def purpose(self) -> Task:
        """What the network is for. Raises UsageError for a task of a user's file that was not named again."""
        from pretrim.tasks import BUILTIN, find

        name = (self._record.data or {}).get("task", "classification")
        if self.task is None and name not in BUILTIN:
            raise UsageError(f"The run is of a task of your own: name it again, --task {name}, which runs that file.")
        return self.task or find(name)

    @property
    def metric(self) -> Metric:
        """That the scores are by."""
        from pretrim.train import Metric

        return Metric.from_json(self.results.get("metric"))

    @property
    def score(self) -> float | None:
        """Of the test images, by the metric that chooses; None where the run was saved without."""
        found = self.results.get(f"test_{self.metric.name}")
        return None if found is None else float(found)

    @property
    def dense_score(self) -> float | None:
        """The same of the dense network, where it was trained or given."""
        name = self.metric.name
        dense = self.results.get("dense", {}).get(f"test_{name}")
        found = dense if dense is not None else self.results.get("inherited", {}).get(f"dense_test_{name}")
        return None if found is None else float(found)

    @property
    def accuracy(self) -> float | None:
        """Test accuracy of a classification, 0..1; None for other tasks, and where the run was saved without."""
        return self.score if self.metric.name == "accuracy" else None

    @property
    def dense_accuracy(self) -> float | None:
        """Test accuracy of the dense network, where it was trained or given; 0..1."""
        return self.dense_score if self.metric.name == "accuracy" else None

    @property
    def dense_test(self) -> dict[str, Any] | None:
        """The dense network's evaluation on the test images (`train.Evaluation.to_json`), where there is one."""
        dense: dict[str, Any] | None = self.results.get("dense", {}).get("test")
        return dense if dense is not None else self.results.get("inherited", {}).get("dense_test")

    @property
    def comparison(self) -> Comparison | None:
        """The slim network against the dense one on the same test images; None where one of them was
        not tested, or the task has no images that are right or wrong."""
        from pretrim.train import compare, unpack

        slim, dense = self.results.get("test"), self.dense_test
        if slim is None or dense is None or "right" not in slim or "right" not in dense:
            return None
        return compare(unpack(dense["right"]), unpack(slim["right"]))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before believing the accuracy, a sentence each."""
        return tuple(self.results.get("warnings", ()))

    @property
    def results(self) -> dict[str, Any]:
        """Accuracies and the training log, plain JSON."""
        return dict(self._record.results or {})

    @property
    def _record(self) -> RunRecord:
        if self.record is None:
            raise CheckpointError("This process of the training wrote no run: use the main process.")
        return self.record

    @cached_property
    def classifier(self) -> TrainedClassifier:
        """The network with what images have to look like. Raises CheckpointError where the run does not say."""
        from pretrim.runs.classifier import as_classifier

        return as_classifier(self.path, self._record, self.model)

    @in_words_of_python(("data", "reporter"))
    def evaluate(self, data: DataSource | None = None, reporter: Reporter | None = None) -> Evaluated:
        """Metrics on the test part of the run's data, or on all of other data; see `evaluate_run`."""
        return evaluate_run(self, data, reporter)

    @in_words_of_python(("images", "top"))
    def predict(self, images: Any, top: int = 3) -> list[dict[str, Any]]:
        """The likeliest classes of each image, with their probabilities, as plain JSON.

        Args:
            images: one or a list of: a path or PIL image, which gets the network's size; a uint8 tensor or array of
                that size, C x H x W. A tensor or array N x C x H x W is N of them. A run that was trained on floats of
                a data set of one's own takes those, as the data set gives them, and nothing else.
            top: classes to give for each.

        Raises:
            UsageError: no image.
            DataError: a file that is not an image, or images of another kind or shape.
            ModelError: scores that are not finite.
        """
        return predict_images(self.classifier, self.purpose, images, top)

    def to_json(self) -> dict[str, Any]:
        """What `pretrim compress --json` prints."""
        plan, record = self.plan, self._record
        comparison, name = self.comparison, f"test_{self.metric.name}"
        return {
            "run": str(self.path),
            "model": record.reference.name if record.reference is not None else type(self.model).__name__,
            "data": dict(record.data or {}),
            "metric": self.metric.to_json(),
            "dense": {**plan.dense, name: self.dense_score, **_sureness(self.dense_test)},
            "slim": {**plan.slim, name: self.score, **_sureness(self.results.get("test"))},
            "device": None if plan.device is None else dict(plan.device),
            "comparison": None if comparison is None else comparison.to_json(),
            "warnings": list(self.warnings),
            "results": self.results,
            **({"artifact": self.artifact.to_json()} if self.artifact is not None else {}),
        }


def kept_text(slim: int, dense: int) -> str:
    """How much of a dense network's cost is left.

    >>> kept_text(500, 2_000)
    '500 of 2,000 (25 %)'
    """
    return f"{slim:,} of {dense:,} ({slim / max(dense, 1):.0%})".replace("%", " %")


def _sureness(evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """The 95 % interval of a test accuracy, and of how many images it is."""
    if evaluation is None:
        return {"test_interval_95": None, "test_images": None}
    return {"test_interval_95": evaluation["interval_95"], "test_images": evaluation["images"]}


@dataclass(frozen=True, repr=False)
class Evaluated:
    """How well a run does on the test images of a data set.

    Attributes:
        run: its folder.
        data: the data set, as it describes itself.
        metric: that the score is by.
        score: of all images.
        loss: mean over the images; None where it is not finite.
        images: how many.
        interval: 95 %, of the score; None where it is not known.
        details: what the task tells beside: of a classification each class and the confusion matrix, of others all
            metrics.
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
        """The score; the details have a row for each class."""
        return (
            f"Evaluated({self.run!r}: {self.metric.title} {self.metric.show(self.score, 2)} of {self.images:,} images)"
        )

    @property
    def accuracy(self) -> float | None:
        """The score of a classification."""
        return self.score if self.metric.name == "accuracy" else None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
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
    """A run folder, with its network.

    Args:
        path: of the folder, or ``hf:OWNER/NAME``: then its record and its weights are fetched from the hub.
        model: what rebuilds the dense network, for a network of your own; never taken from the run itself.
        task: what the network is for, where that is a task of your own: ``"FILE.py:CLASS"``, or an object.
        reporter: told what is fetched from where; without one it is said on stderr.

    Raises:
        CheckpointError: the run is missing, truncated, edited or foreign.
        UsageError: `model` is needed, or names nothing.
    """
    from pretrim.errors import check_is
    from pretrim.runs.load import load, read
    from pretrim.tasks import find

    check_is(path, str | Path, "path to be the name of a run's folder")
    from .hub import fetch, is_on_hub

    is_fetched = is_on_hub(path)
    folder = fetch(path, reporter) if is_fetched else Path(path)
    record = read(folder)
    named = None if task is None else find(task)
    return Run(folder, load(folder, model=model), record, is_fetched=is_fetched, task=named)


def evaluate_run(run: Run, data: DataSource | None, reporter: Reporter | None = None) -> Evaluated:
    """Evaluate a run on the test part of the data that it was trained on, or on all images of other data.

    Other data, a folder or a table, may have fewer classes than the run; if they bring a test part, it is that.

    Args:
        run: a run that says what its network takes.
        data: name, folder, or data sets; None: those of the task.
        reporter: told where the data are from.

    Raises:
        DataError: data with other classes or another shape, or pixels where the run was trained on floats as they are.
        CheckpointError: the network has other outputs than the run has classes.
    """
    opened, task = run.classifier, run.purpose
    dataset = data_to_evaluate(data, opened.record, task, reporter or Silent())
    found = task.assess(opened.network, dataset.test, *opened.normalisation)
    return Evaluated(
        run=str(run.path),
        data=dataset.to_json(),
        metric=task.metric,
        score=found.score,
        loss=found.plain_loss,
        images=found.n,
        interval=found.ends,
        details=found.details(opened.classes),
    )

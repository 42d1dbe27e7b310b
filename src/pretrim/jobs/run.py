"""A finished run, to work on: evaluate it, classify images with it, export it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pretrim.errors import CheckpointError, ModelError

from .data import DataSource, load_like_run
from .reporter import Reporter, Silent

if TYPE_CHECKING:
    from torch import nn

    from pretrim.data import DataSet
    from pretrim.models.dense import ModelSource
    from pretrim.planning.plan import Plan
    from pretrim.runs.classifier import TrainedClassifier
    from pretrim.runs.record import RunRecord
    from pretrim.train import Comparison

    from .delivered import Delivered

BATCH = 64


@dataclass(frozen=True)
class Run:
    """A trained slim network and what is known of it.

    Attributes:
        path: its folder.
        model: the slim network, trained, in eval mode.
        record: what ``run.json`` says; None in processes of a distributed training that write nothing.
        data: what it was trained on, where it is at hand.
        artifact: what `compress` exported, if it did.
        is_fetched: whether the folder is the hub's cache, in which nothing is written.
    """

    path: Path
    model: nn.Module
    record: RunRecord | None
    data: DataSet | None = None
    artifact: Delivered | None = None
    is_fetched: bool = False

    export: ClassVar[Callable[..., Delivered]]
    """Export to a runtime or for a board (``device=``): `jobs.export.export_run`, attached by `jobs.calls`."""

    @classmethod
    def opened(cls, path: Path, model: nn.Module, data: DataSet | None = None) -> Run:
        """A run whose network is in memory already."""
        from pretrim.runs.load import read

        return cls(path, model.eval(), read(path), data)

    @property
    def plan(self) -> Plan:
        """What stayed of the dense network."""
        return self._record.plan

    @property
    def accuracy(self) -> float | None:
        """Test accuracy, 0..1; None where the run was saved without."""
        found = self.results.get("test_accuracy")
        return None if found is None else float(found)

    @property
    def dense_accuracy(self) -> float | None:
        """Test accuracy of the dense network, where it was trained or given; 0..1."""
        dense = self.results.get("dense", {}).get("test_accuracy")
        found = dense if dense is not None else self.results.get("inherited", {}).get("dense_test_accuracy")
        return None if found is None else float(found)

    @property
    def dense_test(self) -> dict[str, Any] | None:
        """The dense network's evaluation on the test images (`train.Evaluation.to_json`), where there is one."""
        dense: dict[str, Any] | None = self.results.get("dense", {}).get("test")
        return dense if dense is not None else self.results.get("inherited", {}).get("dense_test")

    @property
    def comparison(self) -> Comparison | None:
        """The slim network against the dense one on the same test images; None where one of them was not tested."""
        from pretrim.train import compare, unpack

        slim, dense = self.results.get("test"), self.dense_test
        return None if slim is None or dense is None else compare(unpack(dense["right"]), unpack(slim["right"]))

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

    def evaluate(self, data: DataSource, reporter: Reporter | None = None) -> Evaluated:
        """Accuracy on the test images of a data set; see `evaluate_run`."""
        return evaluate_run(self, data, reporter)

    def predict(self, images: Sequence[str | Path], top: int = 3) -> list[dict[str, Any]]:
        """The likeliest classes of image files; see `predict_images`."""
        return predict_images(self, [Path(image) for image in images], top)

    def to_json(self) -> dict[str, Any]:
        """What `pretrim compress --json` prints."""
        plan, record = self.plan, self._record
        comparison = self.comparison
        return {
            "run": str(self.path),
            "model": record.reference.name if record.reference is not None else type(self.model).__name__,
            "data": dict(record.data or {}),
            "dense": {**plan.dense, "test_accuracy": self.dense_accuracy, **_sureness(self.dense_test)},
            "slim": {**plan.slim, "test_accuracy": self.accuracy, **_sureness(self.results.get("test"))},
            "device": None if plan.device is None else dict(plan.device),
            "comparison": None if comparison is None else comparison.to_json(),
            "warnings": list(self.warnings),
            "results": self.results,
            **({"artifact": self.artifact.to_json()} if self.artifact is not None else {}),
        }


def _sureness(evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """The 95 % interval of a test accuracy, and of how many images it is."""
    if evaluation is None:
        return {"test_interval_95": None, "test_images": None}
    return {"test_interval_95": evaluation["interval_95"], "test_images": evaluation["images"]}


@dataclass(frozen=True)
class Evaluated:
    """Accuracy of a run on the test images of a data set.

    Attributes:
        run: its folder.
        data: the data set, as it describes itself.
        accuracy: of all images, 0..1.
        loss: cross-entropy; None where it is not finite.
        images: how many.
        interval: 95 %, of the accuracy (Wilson).
        classes: of each its name, images, accuracy and the interval of that.
        confusion: images of each class (rows), by the class that the network says (columns).
    """

    run: str
    data: dict[str, Any]
    accuracy: float
    loss: float | None
    images: int
    interval: tuple[float, float]
    classes: tuple[dict[str, Any], ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        plain = {name: value for name, value in vars(self).items() if name != "interval"}
        confusion = [list(row) for row in self.confusion]
        return {**plain, "interval_95": list(self.interval), "classes": list(self.classes), "confusion": confusion}


def open_run(path: str | Path, model: ModelSource | None = None, reporter: Reporter | None = None) -> Run:
    """A run folder, with its network.

    Args:
        path: of the folder, or ``hf:OWNER/NAME``: then its record and its weights are fetched from the hub.
        model: what rebuilds the dense network, for a network of your own; never taken from the run itself.
        reporter: told what is fetched from where; without one it is said on stderr.

    Raises:
        CheckpointError: the run is missing, truncated, edited or foreign.
        UsageError: `model` is needed, or names nothing.
    """
    from pretrim.runs.load import load, read

    from .hub import fetch, is_on_hub

    is_fetched = is_on_hub(path)
    folder = fetch(path, reporter) if is_fetched else Path(path)
    record = read(folder)
    return Run(folder, load(folder, model=model), record, is_fetched=is_fetched)


def evaluate_run(run: Run, data: DataSource, reporter: Reporter | None = None) -> Evaluated:
    """Evaluate a run on the test images of a data set, which must have its classes and its shape.

    Args:
        run: a run with a classifier.
        data: name, folder, or data sets.
        reporter: told where the data are from.

    Raises:
        DataError: data with other classes or another shape.
        CheckpointError: the network has other outputs than the run has classes.
    """
    from pretrim.train import confusion_json, evaluate

    opened = run.classifier
    dataset = load_like_run(data, opened.record, reporter or Silent())
    found = evaluate(opened.network, dataset.test, *opened.normalisation)
    if len(found.per_class) != len(opened.classes):
        raise CheckpointError(
            f"Expected a network with {len(opened.classes)} outputs, one a class, but got {len(found.per_class)}: "
            f"the run is edited, or was saved with other classes."
        )
    return Evaluated(
        run=str(run.path),
        data=dataset.to_json(),
        accuracy=found.accuracy,
        loss=found.plain_loss,
        images=found.n,
        interval=(found.interval.low, found.interval.high),
        classes=tuple(
            {"name": entry.pop("class"), **entry} for entry in confusion_json(found, opened.classes)["classes"]
        ),
        confusion=found.confusion,
    )


def predict_images(run: Run, images: Sequence[Path], top: int = 3) -> list[dict[str, Any]]:
    """For each image file its likeliest classes with their probabilities, as plain JSON.

    Args:
        run: a run with a classifier.
        images: files.
        top: classes to give for each.

    Raises:
        DataError: a file that is no image.
        ModelError: scores that are not finite.
    """
    import torch

    from pretrim.data import decode_image
    from pretrim.train import check_logits, scores

    opened = run.classifier
    decoded = [decode_image(path, opened.input_shape, opened.padding) for path in images]
    parts = [torch.stack(decoded[start : start + BATCH]) for start in range(0, len(decoded), BATCH)]
    logits = torch.cat([scores(opened.network, part, *opened.normalisation) for part in parts])
    check_logits(logits, len(opened.classes))
    for path, some in zip(images, logits, strict=True):
        if not some.isfinite().all():
            raise ModelError(f"Expected finite scores for {path}, but the network gives others: train it again.")
    likeliest = logits.softmax(dim=1).topk(min(top, len(opened.classes)), dim=1)
    return [
        {
            "image": str(path),
            "predictions": [
                {"class": opened.classes[place], "probability": probability}
                for probability, place in zip(values, places, strict=True)
            ],
        }
        for path, values, places in zip(images, likeliest.values.tolist(), likeliest.indices.tolist(), strict=True)
    ]

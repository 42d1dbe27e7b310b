"""Trained networks that can classify images: runs with classes, input shape and normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pretrim.data import FITS, Fit
from pretrim.errors import CheckpointError

from .load import ModelSource, load, read
from .record import Normalisation, RunRecord, Shape


@dataclass(frozen=True)
class TrainedClassifier:
    """A run that can classify images, with everything that this needs."""

    record: RunRecord
    network: nn.Module
    classes: tuple[str, ...]
    input_shape: Shape
    normalisation: Normalisation

    @property
    def padding(self) -> int:
        """Zero padding around the training images; 0 for older runs that did not record it."""
        padding = (self.record.data or {}).get("padding", 0)
        limit = min(self.input_shape[1:]) - 1
        return padding if isinstance(padding, int) and 0 <= 2 * padding <= limit else 0

    @property
    def fit(self) -> Fit:
        """How images of other aspect ratios were fitted to the input shape."""
        recorded = (self.record.data or {}).get("fit")
        return next((fit for fit in FITS if fit == recorded), "crop")


def open_classifier(path: Path, model: ModelSource | None = None) -> TrainedClassifier:
    """Load a run's network.

    Raises:
        CheckpointError: the run is truncated, edited or foreign, or does not describe its inputs and outputs.
        UsageError: `model` is needed, or does not name a model.
    """
    record = read(path)
    _check(path, record)
    return as_classifier(path, record, load(path, model=model))


def as_classifier(path: Path, record: RunRecord, network: nn.Module) -> TrainedClassifier:
    """Wrap a network that is already loaded. Raises CheckpointError if its record is incomplete.

    Args:
        path: the run folder.
        record: the record of the run.
        network: the trained network.
    """
    _check(path, record)
    assert record.classes is not None and record.input_shape is not None and record.normalisation is not None
    return TrainedClassifier(record, network, record.classes, record.input_shape, record.normalisation)


def _check(path: Path, record: RunRecord) -> None:
    missing = [name for name in ("classes", "input_shape", "normalisation") if getattr(record, name) is None]
    if missing:
        raise CheckpointError(
            f"Expected a run with classes, input_shape and normalisation, but {path} has no {missing[0]}: "
            f"give them to pretrim.save."
        )

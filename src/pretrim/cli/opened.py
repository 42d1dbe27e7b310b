"""A run folder that a command is about: its record, and its network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pretrim.errors import CheckpointError

from .options import Shape

if TYPE_CHECKING:
    from torch import nn

    from pretrim.runs.record import Normalisation, RunRecord


@dataclass(frozen=True)
class Opened:
    """A run that can classify images: what it needs is there."""

    record: RunRecord
    network: nn.Module
    classes: tuple[str, ...]
    input_shape: Shape
    normalisation: Normalisation

    @property
    def padding(self) -> int:
        """Of zeros round the images that it was trained on; runs of before it was recorded have none."""
        padding = (self.record.data or {}).get("padding", 0)
        inside = min(self.input_shape[1:]) - 1
        return padding if isinstance(padding, int) and 0 <= 2 * padding <= inside else 0


def open_run(path: Path, model: str | None) -> Opened:
    """Load a run's network.

    Raises:
        CheckpointError: the run is truncated, edited or foreign, or it does not say what its inputs and outputs are.
        UsageError: `model` is needed, or names nothing.
    """
    from pretrim.runs.load import load, read

    record = read(path)
    missing = [name for name in ("classes", "input_shape", "normalisation") if getattr(record, name) is None]
    if record.classes is None or record.input_shape is None or record.normalisation is None:
        raise CheckpointError(
            f"Expected a run with classes, input_shape and normalisation, but {path} has no {missing[0]}: "
            f"give them to pretrim.save."
        )
    return Opened(record, load(path, model=model), record.classes, record.input_shape, record.normalisation)

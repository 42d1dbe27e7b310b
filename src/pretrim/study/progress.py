"""Progress of running trials: written by the processes that train them, read by whoever watches the study.

It has a table of its own that nothing else depends on: if a row is damaged, old or missing, the trial's progress is
simply unknown.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec
import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from pretrim import records
from pretrim.errors import StudyError

from .rows import PROGRESS, TRIALS, Trial

if TYPE_CHECKING:
    from pretrim.train import Progress

    from .store import Store

EVERY_S = 1.0
"""Seconds between two reports of a trial's progress."""


@dataclass(frozen=True)
class Position:
    """The progress of a training.

    Attributes:
        epoch: current epoch, counted from 1.
        epochs: number of epochs of the whole training.
        done: fraction of all steps that are done, 0..1.
        seconds_left: estimated remaining time at the time of the report.
        score: validation score of the last finished epoch; None before the first.
    """

    epoch: Annotated[int, msgspec.Meta(ge=1, le=10**9)]
    epochs: Annotated[int, msgspec.Meta(ge=1, le=10**9)]
    done: Annotated[float, msgspec.Meta(ge=0, le=1)]
    seconds_left: Annotated[float, msgspec.Meta(ge=0, le=1e12)]
    score: Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)] | None = None

    @classmethod
    def of(cls, progress: Progress) -> Position:
        """Convert the progress that a training reports after a step."""
        done = (progress.epoch - 1 + progress.step / max(progress.steps, 1)) / progress.epochs
        score = progress.validation_score
        is_known = score is not None and math.isfinite(score)
        return cls(
            progress.epoch,
            progress.epochs,
            min(done, 1.0),
            max(progress.seconds_left, 0.0),
            score if is_known else None,
        )


@dataclass(frozen=True)
class Running:
    """A trial that is being trained.

    Attributes:
        trial: the trial.
        position: its progress; None before its first report.
    """

    trial: Trial
    position: Position | None = None


def tell(store: Store, key: str, position: Position) -> None:
    """Store a trial's progress. Raises StudyError if the database cannot be used.

    Args:
        store: the study's trials.
        key: the trial's key.
        position: its progress.
    """
    text = json.dumps(asdict(position), allow_nan=False)
    identity = {"study": store.name, "key": key}
    update = sql.update(PROGRESS).where(PROGRESS.c.study == store.name, PROGRESS.c.key == key)

    def write(connection: sql.Connection) -> None:
        if connection.execute(update.values(told=text)).rowcount:
            return
        try:
            connection.execute(sql.insert(PROGRESS).values(**identity, told=text))
        except IntegrityError:
            pass  # a process that took the trial over has just inserted it

    store.database.run(write)


def running(store: Store) -> list[Running]:
    """Trials that are being trained, with their progress, in the order in which they were added."""
    trials = store.running()
    if not trials:
        return []
    query = sql.select(PROGRESS.c.key, PROGRESS.c.told).where(
        PROGRESS.c.study == store.name,
        PROGRESS.c.key.in_(sql.select(TRIALS.c.key).where(TRIALS.c.study == store.name, TRIALS.c.state == "running")),
    )
    rows = store.database.run(lambda connection: connection.execute(query).all())
    positions = {key: _read(text) for key, text in rows}
    return [Running(trial, positions.get(trial.key)) for trial in trials]


def _read(text: object) -> Position | None:
    """The stored progress; None if it is damaged."""
    try:
        plain = records.load(str(text), source="progress", error=StudyError, remedy="")
        return records.convert(plain, Position, source="progress", error=StudyError, remedy="")
    except StudyError:
        return None


class Teller:
    """Passes a training's latest progress to another thread, which stores it."""

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key
        self._last: Progress | None = None

    def on_step(self, progress: Progress) -> None:
        """Remember the latest progress, at no cost to the training."""
        self._last = progress

    def tell(self) -> None:
        """Store the latest progress if it is new. Raises StudyError if the database cannot be used."""
        progress, self._last = self._last, None
        if progress is not None:
            tell(self.store, self.key, Position.of(progress))

"""How far the trials are that are being trained: told by those who train them, read by whoever watches the study.

It lies in a table of its own, which nothing depends on: a row that is damaged, old or missing is a trial of which
nothing is known yet.
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
"""How often a trial tells where it is"""


@dataclass(frozen=True)
class Place:
    """Where a training is.

    Attributes:
        epoch: that it is in, from 1.
        epochs: of the whole training.
        done: of all its steps, 0..1.
        seconds_left: by its own speed, when it told.
        score: validation score of the last epoch that ended; None before the first.
    """

    epoch: Annotated[int, msgspec.Meta(ge=1, le=10**9)]
    epochs: Annotated[int, msgspec.Meta(ge=1, le=10**9)]
    done: Annotated[float, msgspec.Meta(ge=0, le=1)]
    seconds_left: Annotated[float, msgspec.Meta(ge=0, le=1e12)]
    score: Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)] | None = None

    @classmethod
    def of(cls, progress: Progress) -> Place:
        """What a training says after a step."""
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
        trial: its row.
        place: where it is; None before its first step.
    """

    trial: Trial
    place: Place | None = None


def tell(store: Store, key: str, place: Place) -> None:
    """Keep where a trial is. Raises StudyError if the database cannot be used.

    Args:
        store: of the study.
        key: of the trial.
        place: its epoch, score and speed.
    """
    text = json.dumps(asdict(place), allow_nan=False)
    row = {"study": store.name, "key": key}
    mine = sql.update(PROGRESS).where(PROGRESS.c.study == store.name, PROGRESS.c.key == key)

    def write(connection: sql.Connection) -> None:
        if connection.execute(mine.values(told=text)).rowcount:
            return
        try:
            connection.execute(sql.insert(PROGRESS).values(**row, told=text))
        except IntegrityError:
            pass  # somebody who took the trial over has just told

    store.database.run(write)


def running(store: Store) -> list[Running]:
    """Trials that are being trained, in the order they were asked for."""
    trials = store.running()
    if not trials:
        return []
    wanted = sql.select(PROGRESS.c.key, PROGRESS.c.told).where(
        PROGRESS.c.study == store.name,
        PROGRESS.c.key.in_(sql.select(TRIALS.c.key).where(TRIALS.c.study == store.name, TRIALS.c.state == "running")),
    )
    rows = store.database.run(lambda connection: connection.execute(wanted).all())
    told = {key: _read(text) for key, text in rows}
    return [Running(trial, told.get(trial.key)) for trial in trials]


def _read(text: object) -> Place | None:
    try:
        plain = records.load(str(text), source="progress", error=StudyError, mend="")
        return records.convert(plain, Place, source="progress", error=StudyError, mend="")
    except StudyError:
        return None


class Teller:
    """Keeps the last thing that a training said, for another thread to tell."""

    def __init__(self, store: Store, key: str) -> None:
        self.store, self.key = store, key
        self._last: Progress | None = None

    def on_step(self, progress: Progress) -> None:
        """Costs the training nothing."""
        self._last = progress

    def tell(self) -> None:
        """Write it, if there is something new. Raises StudyError if the database cannot be used."""
        progress, self._last = self._last, None
        if progress is not None:
            tell(self.store, self.key, Place.of(progress))

"""The trials of a study, stored in one table with one row per trial, in any database that SQLAlchemy supports.

Optuna's own tables are in the same database (`optuna_export.py`), for its dashboard and samplers, but this table is
authoritative. Every change is a single statement whose conditions state the expected current values, so any number of
processes and machines can work on a study, and a killed process leaves nothing half done.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError, IntegrityError

from pretrim import records
from pretrim.errors import StudyError
from pretrim.runs.owner import is_dead, new_owner

from .database import Database, hidden
from .rows import (
    BY_NUMBER,
    BY_STATE,
    FINISHED,
    PUBLISHED,
    PUBLISHING,
    STATES,
    STUDIES,
    TRIALS,
    State,
    Trial,
    read_trial,
    tables,
)
from .settings import LATER, StudyConfig, TrialSpec, question_key

VERSION = 1
GRACE_S = 60.0
"""A running trial whose heartbeat has not changed for this long is taken over."""
BEAT_S = 5.0
"""Seconds between two heartbeats."""
MOST_TRIES = 3
"""A trial whose process dies this many times without finishing an epoch in between is recorded as failed."""


class Store:
    """The trials of one study."""

    def __init__(self, url: str, name: str, *, is_known: bool = False) -> None:
        """Open a database; nothing is written.

        Args:
            url: SQLAlchemy database URL.
            name: the study's name.
            is_known: whether the database was reached before, so that waiting for it is worthwhile.

        Raises StudyError if it cannot be opened.
        """
        self.url, self.name = url, name
        self.owner = new_owner()
        self.damaged: dict[str, str] = {}
        """Why rows could not be read as trials of this study, by key."""
        self._seen: dict[str, tuple[tuple[str, int], float]] = {}
        self._settings: Mapping[str, Any] | None = None
        self.database = Database(url, is_known=is_known)

    @property
    def engine(self) -> sql.Engine:
        """The database's SQLAlchemy engine."""
        return self.database.engine

    def close(self) -> None:
        """Close pooled connections."""
        self.engine.dispose()

    # ------------------------------------------------------------------------------------ the study

    def create(self, settings: StudyConfig) -> None:
        """Create the study, or check that the existing one has the same settings.

        Raises StudyError if the existing study has other settings or a newer version.
        """
        text = json.dumps(settings.to_json(), sort_keys=True)

        def insert(connection: sql.Connection) -> None:
            _make_tables(connection)
            try:
                connection.execute(sql.insert(STUDIES).values(name=self.name, version=VERSION, settings=text))
            except IntegrityError:
                pass  # it already exists

        self.database.run(insert)
        stored, requested = self.config().to_json(), settings.to_json()
        for field in {**stored, **requested}:
            stored_value, value = stored.get(field, LATER.get(field)), requested.get(field, LATER.get(field))
            if stored_value != value:
                difference = _difference(stored_value, value)
                raise StudyError(
                    f"Expected the study's own {field}, but {difference}: all trials of a study share it; "
                    f"give what was given then, or another folder."
                )

    def config(self) -> StudyConfig:
        """Read the settings that all trials share. Raises StudyError if the study is missing or has a newer version."""
        row = self._study_row()
        if row is None:
            raise StudyError(f"No study called {self.name} in {hidden(self.url)}.")
        source, remedy = f"The settings of study {self.name}", "take a copy of the study"
        if type(row.version) is not int:
            raise StudyError(f"{source} are damaged: the version is {row.version!r}. Take a copy of the study.")
        if row.version > VERSION:
            raise StudyError(
                f"Expected a study of version {VERSION}, but it is of version {row.version}: update pretrim."
            )
        plain = records.load(row.settings, source=source, error=StudyError, remedy=remedy)
        self._settings = records.convert(plain, dict, source=source, error=StudyError, remedy=remedy)
        return StudyConfig.from_json(self._settings)

    def _study_row(self) -> Any:
        if not self.database.exists():
            return None
        try:
            query = sql.select(STUDIES).where(STUDIES.c.name == self.name)
            return self.database.run(lambda connection: connection.execute(query).one_or_none())
        except StudyError as error:
            if "no such table" in str(error) or "does not exist" in str(error):
                return None
            raise

    @property
    def _stored_settings(self) -> Mapping[str, Any]:
        """The settings in stored form, read only once because a study's settings never change."""
        if self._settings is None:
            self.config()
        assert self._settings is not None  # config() has read them, or raised
        return self._settings

    def add(self, asked: Sequence[TrialSpec], optuna: int | None = None) -> list[str]:
        """Queue trials and return the keys of all of them. Trials that are already in the study are not added again."""
        keys = [question_key(self._stored_settings, spec) for spec in asked]

        def insert(connection: sql.Connection) -> None:
            in_study = TRIALS.c.study == self.name
            query = sql.select(TRIALS.c.key).where(in_study)
            if len(keys) < 100:  # a search adds trials one at a time: do not read the keys of all others for each
                query = query.where(TRIALS.c.key.in_(keys))
            existing = set(connection.execute(query).scalars())
            last_number = connection.execute(sql.select(sql.func.max(TRIALS.c.number)).where(in_study)).scalar()
            next_number = 0 if last_number is None else last_number + 1
            for key, spec in zip(keys, asked, strict=True):
                if key in existing:
                    continue
                existing.add(key)
                text = json.dumps(spec.to_json(), sort_keys=True)
                row = {"study": self.name, "key": key, "number": next_number, "asked": text, "state": "waiting"}
                try:
                    connection.execute(sql.insert(TRIALS).values(**row, beat=0, tries=0, published=0, optuna=optuna))
                    next_number += 1
                except IntegrityError:
                    pass  # another sweep has just added it

        self.database.run(insert)
        return keys

    # ------------------------------------------------------------------------------------ working on trials

    def claim(self) -> Trial | None:
        """Take the next waiting trial, or one whose process is gone; None if there is none right now."""
        return self.database.run(self._claim)

    def _claim(self, connection: sql.Connection) -> Trial | None:
        in_study = TRIALS.c.study == self.name
        waiting = sql.select(TRIALS).where(in_study, TRIALS.c.state == "waiting").order_by(TRIALS.c.number).limit(1)
        while (row := connection.execute(waiting).one_or_none()) is not None:
            if (trial := self._take(connection, row)) is not None:
                return trial
        for row in connection.execute(sql.select(TRIALS).where(in_study, TRIALS.c.state == "running")).all():
            if not self._is_gone(row):
                continue
            if row.tries >= MOST_TRIES:
                self._give_up(connection, row)
            elif (trial := self._take(connection, row)) is not None:
                return trial
        return None

    def _take(self, connection: sql.Connection, row: Any) -> Trial | None:
        """Claim a row that is unchanged since it was read; a row whose spec cannot be read is marked as failed."""
        unchanged = [TRIALS.c.state == row.state, TRIALS.c.beat == row.beat]
        unchanged.append(TRIALS.c.owner == row.owner if row.owner is not None else TRIALS.c.owner.is_(None))
        values = {"state": "running", "owner": self.owner, "beat": row.beat + 1, "tries": row.tries + 1}
        if connection.execute(self._update(row.key, *unchanged).values(**values)).rowcount != 1:
            return None
        trial = self._read(row)
        if trial is None:
            connection.execute(self._update_owned(row.key).values(state="failed", error=self.damaged[row.key]))
        return trial

    def _read(self, row: Any) -> Trial | None:
        """The trial in a row; None for a damaged row, with the reason noted in `damaged`."""
        try:
            return read_trial(row, self._stored_settings)
        except StudyError as error:
            self.damaged[str(row.key)] = str(error)
            return None

    def _update(self, key: str, *conditions: Any) -> Any:
        """An UPDATE of one trial's row, under further conditions."""
        return sql.update(TRIALS).where(TRIALS.c.study == self.name, TRIALS.c.key == key, *conditions)

    def _update_owned(self, key: str) -> Any:
        """An UPDATE of one trial's row while this process is running it."""
        return self._update(key, TRIALS.c.state == "running", TRIALS.c.owner == self.owner)

    def _is_gone(self, row: Any) -> bool:
        """Whether the process of a trial is dead, or its heartbeat has been still for `GRACE_S` by our own clock."""
        if is_dead(row.owner or ""):
            return True
        beat, now = (row.owner, row.beat), time.monotonic()
        seen = self._seen.get(row.key)
        if seen is None or seen[0] != beat:
            self._seen[row.key] = (beat, now)
            return False
        return now - seen[1] > GRACE_S

    def _give_up(self, connection: sql.Connection, row: Any) -> None:
        message = f"its process died {row.tries} times: see the logs of the study"
        update = self._update(row.key, TRIALS.c.owner == row.owner, TRIALS.c.beat == row.beat)
        connection.execute(update.values(state="failed", error=message))

    def _execute(self, statement: Any) -> int:
        """Execute one statement and return the number of rows that it changed."""
        return int(self.database.run(lambda connection: connection.execute(statement).rowcount))

    def beat(self, key: str) -> bool:
        """Record a heartbeat for a trial; returns whether the trial is still ours."""
        return bool(self._execute(self._update_owned(key).values(beat=TRIALS.c.beat + 1)))

    def advance(self, key: str) -> bool:
        """Record a finished epoch and reset `tries`: a trial that makes progress is not to blame for earlier crashes.

        Returns whether the trial is still ours.
        """
        return bool(self._execute(self._update_owned(key).values(beat=TRIALS.c.beat + 1, tries=0)))

    def finish(self, key: str, record: Mapping[str, Any], state: State = "done") -> bool:
        """Store a trial's results. If the trial is no longer ours, nothing is stored and the result is False.

        Args:
            key: the trial's key.
            record: its results, as plain JSON.
            state: its final state.
        """
        values = {"state": state, "record": json.dumps(dict(record), allow_nan=False)}
        return bool(self._execute(self._update_owned(key).values(**values)))

    def fail(self, key: str, error: str) -> bool:
        """Mark a trial as failed with an error message, so that it is not run again."""
        return bool(self._execute(self._update_owned(key).values(state="failed", error=error[:2000])))

    def release(self, key: str) -> None:
        """Return a trial to the queue without counting the try: an interruption is not the trial's fault."""
        tries = sql.case((TRIALS.c.tries > 0, TRIALS.c.tries - 1), else_=0)
        self._execute(self._update_owned(key).values(state="waiting", owner=None, tries=tries))

    def retry(self, keys: Sequence[str]) -> int:
        """Queue failed trials again, including those with a damaged result; returns how many."""
        values = {"state": "waiting", "owner": None, "tries": 0, "error": None, "record": None, "published": 0}
        failed = [trial.key for trial in self._trials(TRIALS.c.key.in_(keys)) if trial.state == "failed"]
        finished = TRIALS.c.state.not_in(("waiting", "running"))
        return sum(self._execute(self._update(key, finished).values(**values)) for key in failed)

    def measured(self, key: str, measurement: Mapping[str, Any]) -> None:
        """Store the measurement of a trial's artifact on a machine."""
        text = json.dumps(dict(measurement), allow_nan=False)
        self._execute(self._update(key, TRIALS.c.state == "done").values(measured=text))

    # ------------------------------------------------------------------------------------ publishing to Optuna

    def publish(self, key: str) -> bool:
        """Claim the task of telling Optuna a result; False if another process is doing so or has done so."""
        unpublished = self._update(key, TRIALS.c.published == 0, TRIALS.c.state.in_(FINISHED))
        return bool(self._execute(unpublished.values(published=PUBLISHING)))

    def settle(self, key: str, *, is_known: bool) -> None:
        """Record whether Optuna did receive a result that it was being told."""
        publishing = self._update(key, TRIALS.c.published == PUBLISHING)
        self._execute(publishing.values(published=PUBLISHED if is_known else 0))

    def half_published(self) -> list[Trial]:
        """Trials whose result is being told to Optuna, or was when a process died."""
        return self._trials(TRIALS.c.published == PUBLISHING)

    # ------------------------------------------------------------------------------------ reading

    def trials(self) -> list[Trial]:
        """All trials, in the order in which they were added; damaged rows are noted in `damaged`."""
        return self._trials()

    def _trials(self, *conditions: Any) -> list[Trial]:
        query = sql.select(TRIALS).where(TRIALS.c.study == self.name, *conditions)
        query = query.order_by(TRIALS.c.number, TRIALS.c.key)
        rows = self.database.run(lambda connection: connection.execute(query).all())
        return [trial for row in rows if (trial := self._read(row)) is not None]

    def running(self) -> list[Trial]:
        """Trials that are being trained, in the order in which they were added."""
        return self._trials(TRIALS.c.state == "running")

    def counts(self) -> dict[State, int]:
        """Number of trials in each state."""
        query = sql.select(TRIALS.c.state, sql.func.count()).where(TRIALS.c.study == self.name)
        rows = self.database.run(lambda connection: connection.execute(query.group_by(TRIALS.c.state)).all())
        totals: dict[State, int] = dict.fromkeys(STATES, 0)
        for state, count in rows:
            totals[state if state in STATES else "failed"] += count
        return totals

    def suggested(self) -> set[int]:
        """Optuna's numbers of the trials that its sampler suggested."""
        query = sql.select(TRIALS.c.optuna).where(TRIALS.c.study == self.name, TRIALS.c.optuna.is_not(None))
        return set(self.database.run(lambda connection: connection.execute(query).scalars().all()))


class Finished:
    """Reports each trial once as it finishes. The cost of a look does not grow with the number of finished trials."""

    def __init__(self, store: Store) -> None:
        self.store, self._from, self._known = store, 0, set[str]()

    def new(self) -> list[Trial]:
        """Trials that finished since the last call, in the order in which they were added."""
        keys = self.store.database.run(self._keys)
        trials: list[Trial] = []
        for start in range(0, len(keys), 500):
            trials += self.store._trials(TRIALS.c.key.in_(keys[start : start + 500]))
        self._known.update(keys)
        return trials

    def __len__(self) -> int:
        return len(self._known)

    def _keys(self, connection: sql.Connection) -> list[str]:
        """Keys of newly finished trials. All before the first unfinished one of the last call are known already."""
        in_study, number = TRIALS.c.study == self.store.name, TRIALS.c.number
        is_open = TRIALS.c.state.in_(("waiting", "running"))
        last_number = connection.execute(sql.select(sql.func.max(number)).where(in_study)).scalar()
        first_open = connection.execute(sql.select(sql.func.min(number)).where(in_study, is_open)).scalar()
        query = sql.select(TRIALS.c.key).where(in_study, number >= self._from, ~is_open)
        keys = [key for key in connection.execute(query).scalars() if key not in self._known]
        self._from = first_open if first_open is not None else (0 if last_number is None else last_number + 1)
        return keys


def _make_tables(connection: sql.Connection) -> None:
    """Create the tables, and the indexes that studies of earlier versions lack."""
    for wait_s in (1.0, 2.0, None):
        try:
            tables.create_all(connection)
            for index in (BY_STATE, BY_NUMBER):
                index.create(connection, checkfirst=True)
            return
        except DBAPIError:
            if wait_s is None:
                raise
            time.sleep(wait_s)  # another sweep is creating them


def _difference(stored: Any, requested: Any) -> str:
    """The first difference between two values of a setting, in words."""
    if isinstance(stored, dict) and isinstance(requested, dict):
        name = next(key for key in {**stored, **requested} if stored.get(key) != requested.get(key))
        return f"its {name} is {stored.get(name)!r}, not {requested.get(name)!r}"
    return f"it is {stored!r}, not {requested!r}"

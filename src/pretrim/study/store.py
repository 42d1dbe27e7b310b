"""Where a study's trials are: one table, in SQLite or any database of SQLAlchemy's, that a trial is in once.

Optuna's own tables lie in the same database (`optuna_export.py`), for its dashboard and samplers; this table counts.
Every change is one statement that says what it expects to find, so that any number of processes and machines can work
on a study, and one that is killed leaves nothing half done.
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
"""A running trial whose beat has not changed for so long is taken over."""
BEAT_S = 5.0
MOST_TRIES = 3
"""A trial whose process died so often, without finishing an epoch in between, is recorded as failed."""


class Store:
    """The trials of one study."""

    def __init__(self, url: str, name: str, *, is_known: bool = False) -> None:
        """Open a database; nothing is written.

        Args:
            url: as SQLAlchemy writes it.
            name: of the study.
            is_known: that the database was reached before, so that it is worth waiting for.

        Raises StudyError if it cannot be opened.
        """
        self.url, self.name = url, name
        self.owner = new_owner()
        self.damaged: dict[str, str] = {}
        """Rows that are not trials of this study, by their key: why"""
        self._seen: dict[str, tuple[tuple[str, int], float]] = {}
        self._settings: Mapping[str, Any] | None = None
        self.database = Database(url, is_known=is_known)

    @property
    def engine(self) -> sql.Engine:
        """Of the database."""
        return self.database.engine

    def close(self) -> None:
        """Close connections that are kept for the next use."""
        self.engine.dispose()

    # ------------------------------------------------------------------------------------ the study

    def create(self, settings: StudyConfig) -> None:
        """Make the study, or check that it is the one that is there.

        Raises StudyError if it has other settings, or is of a newer version.
        """
        text = json.dumps(settings.to_json(), sort_keys=True)

        def make(connection: sql.Connection) -> None:
            _make_tables(connection)
            try:
                connection.execute(sql.insert(STUDIES).values(name=self.name, version=VERSION, settings=text))
            except IntegrityError:
                pass  # it is there

        self.database.run(make)
        there, asked = self.config().to_json(), settings.to_json()
        for part in {**there, **asked}:
            before, value = there.get(part, LATER.get(part)), asked.get(part, LATER.get(part))
            if before != value:
                inner = _difference(before, value)
                raise StudyError(
                    f"Expected the study's own {part}, but {inner}: all trials of a study share it; "
                    f"give what was given then, or another folder."
                )

    def config(self) -> StudyConfig:
        """What all trials share. Raises StudyError if there is no such study, or it is of a newer version."""
        row = self._study_row()
        if row is None:
            raise StudyError(f"No study called {self.name} in {hidden(self.url)}.")
        source, mend = f"The settings of study {self.name}", "take a copy of the study"
        if type(row.version) is not int:
            raise StudyError(f"{source} are damaged: the version is {row.version!r}. Take a copy of the study.")
        if row.version > VERSION:
            raise StudyError(
                f"Expected a study of version {VERSION}, but it is of version {row.version}: update pretrim."
            )
        plain = records.load(row.settings, source=source, error=StudyError, mend=mend)
        self._settings = records.convert(plain, dict, source=source, error=StudyError, mend=mend)
        return StudyConfig.from_json(self._settings)

    def _study_row(self) -> Any:
        if not self.database.exists():
            return None
        try:
            wanted = sql.select(STUDIES).where(STUDIES.c.name == self.name)
            return self.database.run(lambda connection: connection.execute(wanted).one_or_none())
        except StudyError as error:
            if "no such table" in str(error) or "does not exist" in str(error):
                return None
            raise

    @property
    def _stored(self) -> Mapping[str, Any]:
        """The settings as they are stored, read once: a study's settings never change."""
        if self._settings is None:
            self.config()
        assert self._settings is not None  # config() has read them, or raised
        return self._settings

    def add(self, asked: Sequence[TrialSpec], optuna: int | None = None) -> list[str]:
        """Ask for trials; the keys of all. What was asked for before is not asked for again."""
        keys = [question_key(self._stored, one) for one in asked]

        def insert(connection: sql.Connection) -> None:
            mine = TRIALS.c.study == self.name
            wanted = sql.select(TRIALS.c.key).where(mine)
            if len(keys) < 100:  # one at a time in a search: not all of the others are read for it
                wanted = wanted.where(TRIALS.c.key.in_(keys))
            known = set(connection.execute(wanted).scalars())
            last = connection.execute(sql.select(sql.func.max(TRIALS.c.number)).where(mine)).scalar()
            number = 0 if last is None else last + 1
            for key, one in zip(keys, asked, strict=True):
                if key in known:
                    continue
                known.add(key)
                text = json.dumps(one.to_json(), sort_keys=True)
                row = {"study": self.name, "key": key, "number": number, "asked": text, "state": "waiting"}
                try:
                    connection.execute(sql.insert(TRIALS).values(**row, beat=0, tries=0, published=0, optuna=optuna))
                    number += 1
                except IntegrityError:
                    pass  # another sweep has just asked for it

        self.database.run(insert)
        return keys

    # ------------------------------------------------------------------------------------ working on trials

    def claim(self) -> Trial | None:
        """Take the next trial that waits, or one whose process is gone; None if there is none now."""
        return self.database.run(self._claim)

    def _claim(self, connection: sql.Connection) -> Trial | None:
        mine = TRIALS.c.study == self.name
        waiting = sql.select(TRIALS).where(mine, TRIALS.c.state == "waiting").order_by(TRIALS.c.number).limit(1)
        while (row := connection.execute(waiting).one_or_none()) is not None:
            if (trial := self._taken(connection, row)) is not None:
                return trial
        for row in connection.execute(sql.select(TRIALS).where(mine, TRIALS.c.state == "running")).all():
            if not self._is_gone(row):
                continue
            if row.tries >= MOST_TRIES:
                self._give_up(connection, row)
            elif (trial := self._taken(connection, row)) is not None:
                return trial
        return None

    def _taken(self, connection: sql.Connection, row: Any) -> Trial | None:
        """Make a row ours if it is still as we saw it; one that asks for nothing that can be read has failed."""
        same = [TRIALS.c.state == row.state, TRIALS.c.beat == row.beat]
        same.append(TRIALS.c.owner == row.owner if row.owner is not None else TRIALS.c.owner.is_(None))
        change = {"state": "running", "owner": self.owner, "beat": row.beat + 1, "tries": row.tries + 1}
        if connection.execute(self._of(row.key, *same).values(**change)).rowcount != 1:
            return None
        trial = self._read(row)
        if trial is None:
            connection.execute(self._mine(row.key).values(state="failed", error=self.damaged[row.key]))
        return trial

    def _read(self, row: Any) -> Trial | None:
        """The trial of a row; None, and a note of why, for a damaged one."""
        try:
            return read_trial(row, self._stored)
        except StudyError as error:
            self.damaged[str(row.key)] = str(error)
            return None

    def _of(self, key: str, *conditions: Any) -> Any:
        return sql.update(TRIALS).where(TRIALS.c.study == self.name, TRIALS.c.key == key, *conditions)

    def _mine(self, key: str) -> Any:
        return self._of(key, TRIALS.c.state == "running", TRIALS.c.owner == self.owner)

    def _is_gone(self, row: Any) -> bool:
        """Whether the process that runs a trial is dead, or its beat has not changed for long, by our own clock."""
        if is_dead(row.owner or ""):
            return True
        beat, now = (row.owner, row.beat), time.monotonic()
        before = self._seen.get(row.key)
        if before is None or before[0] != beat:
            self._seen[row.key] = (beat, now)
            return False
        return now - before[1] > GRACE_S

    def _give_up(self, connection: sql.Connection, row: Any) -> None:
        said = f"its process died {row.tries} times: see the logs of the study"
        mine = self._of(row.key, TRIALS.c.owner == row.owner, TRIALS.c.beat == row.beat)
        connection.execute(mine.values(state="failed", error=said))

    def _change(self, statement: Any) -> int:
        """Do one statement; how many rows it changed."""
        return int(self.database.run(lambda connection: connection.execute(statement).rowcount))

    def beat(self, key: str) -> bool:
        """Say that a trial is being worked on; whether it is still ours."""
        return bool(self._change(self._mine(key).values(beat=TRIALS.c.beat + 1)))

    def advance(self, key: str) -> bool:
        """Say that an epoch is finished: deaths from before are no sign of a trial that cannot be run."""
        return bool(self._change(self._mine(key).values(beat=TRIALS.c.beat + 1, tries=0)))

    def finish(self, key: str, record: Mapping[str, Any], state: State = "done") -> bool:
        """Keep what a trial found; False, and nothing, if it is not ours any more.

        Args:
            key: the trial's.
            record: its results, as plain JSON.
            state: how it ended.
        """
        change = {"state": state, "record": json.dumps(dict(record), allow_nan=False)}
        return bool(self._change(self._mine(key).values(**change)))

    def fail(self, key: str, error: str) -> bool:
        """Record why a trial failed; it is not run again."""
        return bool(self._change(self._mine(key).values(state="failed", error=error[:2000])))

    def release(self, key: str) -> None:
        """Give a trial back: whoever stopped it is not the trial's fault."""
        tries = sql.case((TRIALS.c.tries > 0, TRIALS.c.tries - 1), else_=0)
        self._change(self._mine(key).values(state="waiting", owner=None, tries=tries))

    def retry(self, keys: Sequence[str]) -> int:
        """Let failed trials wait again, those with a damaged result too; how many."""
        change = {"state": "waiting", "owner": None, "tries": 0, "error": None, "record": None, "published": 0}
        failed = [trial.key for trial in self._trials(TRIALS.c.key.in_(keys)) if trial.state == "failed"]
        finished = TRIALS.c.state.not_in(("waiting", "running"))
        return sum(self._change(self._of(key, finished).values(**change)) for key in failed)

    def measured(self, key: str, measurement: Mapping[str, Any]) -> None:
        """Keep what a trial's artifact takes on a machine."""
        text = json.dumps(dict(measurement), allow_nan=False)
        self._change(self._of(key, TRIALS.c.state == "done").values(measured=text))

    # ------------------------------------------------------------------------------------ what Optuna knows

    def publish(self, key: str) -> bool:
        """Say that Optuna is told a result by us at this moment; whether nobody else does, or did."""
        fresh = self._of(key, TRIALS.c.published == 0, TRIALS.c.state.in_(FINISHED))
        return bool(self._change(fresh.values(published=PUBLISHING)))

    def settle(self, key: str, *, is_known: bool) -> None:
        """Say that Optuna was told a result that it was being told, or was not."""
        half = self._of(key, TRIALS.c.published == PUBLISHING)
        self._change(half.values(published=PUBLISHED if is_known else 0))

    def half_published(self) -> list[Trial]:
        """Trials whose result Optuna is being told, or was when a process died."""
        return self._trials(TRIALS.c.published == PUBLISHING)

    # ------------------------------------------------------------------------------------ reading

    def trials(self) -> list[Trial]:
        """All of them, in the order they were asked for; damaged rows are noted in `damaged`."""
        return self._trials()

    def _trials(self, *conditions: Any) -> list[Trial]:
        wanted = sql.select(TRIALS).where(TRIALS.c.study == self.name, *conditions)
        wanted = wanted.order_by(TRIALS.c.number, TRIALS.c.key)
        rows = self.database.run(lambda connection: connection.execute(wanted).all())
        return [trial for row in rows if (trial := self._read(row)) is not None]

    def running(self) -> list[Trial]:
        """Those that are being trained, in the order they were asked for."""
        return self._trials(TRIALS.c.state == "running")

    def counts(self) -> dict[State, int]:
        """How many are in each state."""
        wanted = sql.select(TRIALS.c.state, sql.func.count()).where(TRIALS.c.study == self.name)
        rows = self.database.run(lambda connection: connection.execute(wanted.group_by(TRIALS.c.state)).all())
        found: dict[State, int] = dict.fromkeys(STATES, 0)
        for state, count in rows:
            found[state if state in STATES else "failed"] += count
        return found

    def suggested(self) -> set[int]:
        """Optuna's numbers of the trials that it asked for."""
        wanted = sql.select(TRIALS.c.optuna).where(TRIALS.c.study == self.name, TRIALS.c.optuna.is_not(None))
        return set(self.database.run(lambda connection: connection.execute(wanted).scalars().all()))


class Finished:
    """Trials as they finish, each once. What is read for the next one does not grow with those that are there."""

    def __init__(self, store: Store) -> None:
        self.store, self._from, self._known = store, 0, set[str]()

    def new(self) -> list[Trial]:
        """Those that finished since the last call, in the order they were asked for."""
        keys = self.store.database.run(self._keys)
        found: list[Trial] = []
        for start in range(0, len(keys), 500):
            found += self.store._trials(TRIALS.c.key.in_(keys[start : start + 500]))
        self._known.update(keys)
        return found

    def __len__(self) -> int:
        return len(self._known)

    def _keys(self, connection: sql.Connection) -> list[str]:
        """Of trials that are finished and not known: all before the first unfinished one of the last call are known."""
        mine, number = TRIALS.c.study == self.store.name, TRIALS.c.number
        is_open = TRIALS.c.state.in_(("waiting", "running"))
        last = connection.execute(sql.select(sql.func.max(number)).where(mine)).scalar()
        first_open = connection.execute(sql.select(sql.func.min(number)).where(mine, is_open)).scalar()
        wanted = sql.select(TRIALS.c.key).where(mine, number >= self._from, ~is_open)
        keys = [key for key in connection.execute(wanted).scalars() if key not in self._known]
        self._from = first_open if first_open is not None else (0 if last is None else last + 1)
        return keys


def _make_tables(connection: sql.Connection) -> None:
    """The tables and their indexes, which studies of earlier versions lack."""
    for wait_s in (1.0, 2.0, None):
        try:
            tables.create_all(connection)
            for index in (BY_STATE, BY_NUMBER):
                index.create(connection, checkfirst=True)
            return
        except DBAPIError:
            if wait_s is None:
                raise
            time.sleep(wait_s)  # another sweep makes them at this moment


def _difference(there: Any, now: Any) -> str:
    if isinstance(there, dict) and isinstance(now, dict):
        name = next(key for key in {**there, **now} if there.get(key) != now.get(key))
        return f"its {name} is {there.get(name)!r}, not {now.get(name)!r}"
    return f"it is {there!r}, not {now!r}"

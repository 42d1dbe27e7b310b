"""Where a study's trials are: one table, in SQLite or any database of SQLAlchemy's, that a trial is in once.

Optuna's own tables lie in the same database (`mirror.py`), for its dashboard and samplers; what counts is this table.
Every change is one statement that says what it expects to find, so that any number of processes and machines can work
on a study, and one that is killed leaves nothing half done.
"""

from __future__ import annotations

import json
import math
import os
import platform
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from pretrim.cost.costs import COSTS
from pretrim.errors import PretrimError, StudyError
from pretrim.train import Metric

from .settings import LATER, StudyConfig, TrialSpec, key_of

VERSION = 1
GRACE_S = 60.0
"""A running trial whose beat has not changed for so long is taken over."""
BEAT_S = 5.0
MOST_TRIES = 3
"""A trial whose process died so often is recorded as failed."""
State: TypeAlias = Literal["waiting", "running", "done", "failed", "stopped"]
SQLITE = "sqlite:///"

_tables = sql.MetaData()
_studies = sql.Table(
    "pretrim_studies",
    _tables,
    sql.Column("name", sql.String(200), primary_key=True),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("settings", sql.Text, nullable=False),
)
_trials = sql.Table(
    "pretrim_trials",
    _tables,
    sql.Column("study", sql.String(200), primary_key=True),
    sql.Column("key", sql.String(16), primary_key=True),
    sql.Column("number", sql.Integer, nullable=False),
    sql.Column("asked", sql.Text, nullable=False),
    sql.Column("state", sql.String(10), nullable=False),
    sql.Column("owner", sql.String(200)),
    sql.Column("beat", sql.Integer, nullable=False, default=0),
    sql.Column("tries", sql.Integer, nullable=False, default=0),
    sql.Column("record", sql.Text),
    sql.Column("measured", sql.Text),
    sql.Column("error", sql.Text),
    sql.Column("optuna", sql.Integer),
    sql.Column("published", sql.Integer, nullable=False, default=0),
)


@dataclass(frozen=True)
class Trial:
    """A row.

    Attributes:
        key: see `settings.key_of`.
        number: the order in which it was asked for.
        spec: what was asked for.
        state: waiting, running, done, failed, or stopped as hopeless.
        record: what it found, if it is done or stopped (`trial.py`).
        measured: what its artifact takes on a machine, if it was measured.
        error: why it failed.
        optuna: the number of its row in the Optuna study, where that asked for it.
        published: whether the Optuna study knows the result.
    """

    key: str
    number: int
    spec: TrialSpec
    state: State
    record: Mapping[str, Any] | None = None
    measured: Mapping[str, Any] | None = None
    error: str | None = None
    optuna: int | None = None
    published: bool = False

    @property
    def metric(self) -> Metric:
        """That the scores are by."""
        return Metric.from_json((self.record or {}).get("metric"))

    @property
    def validation(self) -> float:
        """Score of the validation images. Raises KeyError where nothing is known."""
        return float((self.record or {})[f"validation_{self.metric.name}"])

    @property
    def test(self) -> float:
        """Score of the test images, likewise."""
        return float((self.record or {})[f"test_{self.metric.name}"])


class Store:
    """The trials of one study."""

    def __init__(self, url: str, name: str) -> None:
        """Open a database; nothing is written. Raises StudyError if it cannot be opened."""
        self.url, self.name = url, name
        self.owner = f"{_machine()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._seen: dict[str, tuple[tuple[str, int], float]] = {}
        if url.startswith(SQLITE):
            _check_sqlite(Path(url.removeprefix(SQLITE)))
        arguments = {"timeout": 60} if url.startswith("sqlite") else {}
        try:
            # Every change is one statement, so nothing has to be kept together by a transaction.
            self.engine = sql.create_engine(url, connect_args=arguments, isolation_level="AUTOCOMMIT")
        except (SQLAlchemyError, ImportError, ValueError) as error:
            raise StudyError(
                f"Expected a database as SQLAlchemy names it, such as postgresql+psycopg://USER@HOST/NAME, but got "
                f"{_hidden(url)} ({_first_line(error)})."
            ) from error

    @contextmanager
    def _connection(self) -> Iterator[sql.Connection]:
        try:
            with self.engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            said = _first_line(error.orig or error)
            raise StudyError(f"Expected to use the database {_hidden(self.url)}, but got: {said}.") from error
        except SQLAlchemyError as error:
            said = _first_line(error)
            raise StudyError(f"Expected to use the database {_hidden(self.url)}, but got: {said}.") from error

    def close(self) -> None:
        """Close connections that are kept for the next use."""
        self.engine.dispose()

    # ------------------------------------------------------------------------------------ the study

    def create(self, settings: StudyConfig) -> None:
        """Make the study, or check that it is the one that is there.

        Raises StudyError if it has other settings, or is of a newer version.
        """
        text = json.dumps(settings.to_json(), sort_keys=True)
        with self._connection() as connection:
            self._make_tables(connection)
            try:
                connection.execute(sql.insert(_studies).values(name=self.name, version=VERSION, settings=text))
            except IntegrityError:
                pass  # it is there
        there, asked = self.config().to_json(), settings.to_json()
        for part in {**there, **asked}:
            before, value = there.get(part, LATER.get(part)), asked.get(part, LATER.get(part))
            if before != value:
                inner = _difference(before, value)
                raise StudyError(
                    f"Expected the study's own {part}, but {inner}: all trials of a study share it; "
                    f"give what was given then, or another folder."
                )

    def _make_tables(self, connection: sql.Connection) -> None:
        try:
            _tables.create_all(connection)
        except DBAPIError:
            time.sleep(1)  # another sweep makes them at this moment
            _tables.create_all(connection)

    def config(self) -> StudyConfig:
        """What all trials share. Raises StudyError if there is no such study, or it is of a newer version."""
        try:
            with self._connection() as connection:
                row = connection.execute(sql.select(_studies).where(_studies.c.name == self.name)).one_or_none()
        except StudyError as error:
            if "no such table" in str(error) or "does not exist" in str(error):
                row = None
            else:
                raise
        if row is None:
            raise StudyError(f"Expected a study called {self.name} in {_hidden(self.url)}, but there is none.")
        if row.version > VERSION:
            raise StudyError(
                f"Expected a study of version {VERSION}, but it is of version {row.version}: update pretrim."
            )
        try:
            return StudyConfig.from_json(json.loads(row.settings))
        except (KeyError, TypeError, ValueError, PretrimError) as error:
            raise StudyError(f"Expected the settings of a study, but they are damaged ({error!r}).") from error

    def add(self, asked: Sequence[TrialSpec], optuna: int | None = None) -> list[str]:
        """Ask for trials; the keys of all. What was asked for before is not asked for again."""
        settings = self.config()
        keys = [key_of(settings, one) for one in asked]
        with self._connection() as connection:
            mine = _trials.c.study == self.name
            known = set(connection.execute(sql.select(_trials.c.key).where(mine)).scalars())
            last = connection.execute(sql.select(sql.func.max(_trials.c.number)).where(mine)).scalar()
            number = 0 if last is None else last + 1
            for key, one in zip(keys, asked, strict=True):
                if key in known:
                    continue
                known.add(key)
                text = json.dumps(one.to_json(), sort_keys=True)
                row = {"study": self.name, "key": key, "number": number, "asked": text, "state": "waiting"}
                try:
                    connection.execute(sql.insert(_trials).values(**row, beat=0, tries=0, published=0, optuna=optuna))
                    number += 1
                except IntegrityError:
                    pass  # another sweep has just asked for it
        return keys

    # ------------------------------------------------------------------------------------ working on trials

    def claim(self) -> Trial | None:
        """Take the next trial that waits, or one whose process is gone; None if there is none now."""
        with self._connection() as connection:
            mine = _trials.c.study == self.name
            while True:
                waiting = sql.select(_trials).where(mine, _trials.c.state == "waiting").order_by(_trials.c.number)
                row = connection.execute(waiting.limit(1)).one_or_none()
                if row is None:
                    break
                if self._take(connection, row):
                    return _trial(row)
            for row in connection.execute(sql.select(_trials).where(mine, _trials.c.state == "running")).all():
                if not self._is_gone(row):
                    continue
                if row.tries >= MOST_TRIES:
                    self._give_up(connection, row)
                elif self._take(connection, row):
                    return _trial(row)
        return None

    def _take(self, connection: sql.Connection, row: Any) -> bool:
        """Make a row ours if it is still as we saw it."""
        same = [_trials.c.state == row.state, _trials.c.beat == row.beat]
        same.append(_trials.c.owner == row.owner if row.owner is not None else _trials.c.owner.is_(None))
        change = {"state": "running", "owner": self.owner, "beat": row.beat + 1, "tries": row.tries + 1}
        return connection.execute(self._of(row.key, *same).values(**change)).rowcount == 1

    def _of(self, key: str, *conditions: Any) -> Any:
        return sql.update(_trials).where(_trials.c.study == self.name, _trials.c.key == key, *conditions)

    def _mine(self, key: str) -> Any:
        return self._of(key, _trials.c.state == "running", _trials.c.owner == self.owner)

    def _is_gone(self, row: Any) -> bool:
        """Whether the process that runs a trial is dead, or its beat has not changed for long, by our own clock."""
        machine, process, _ = row.owner.rsplit(":", 2)
        if machine == _machine() and not _is_alive(int(process)):
            return True
        beat, now = (row.owner, row.beat), time.monotonic()
        before = self._seen.get(row.key)
        if before is None or before[0] != beat:
            self._seen[row.key] = (beat, now)
            return False
        return now - before[1] > GRACE_S

    def _give_up(self, connection: sql.Connection, row: Any) -> None:
        said = f"its process died {row.tries} times: see the logs of the study"
        mine = self._of(row.key, _trials.c.owner == row.owner, _trials.c.beat == row.beat)
        connection.execute(mine.values(state="failed", error=said))

    def beat(self, key: str) -> bool:
        """Say that a trial is being worked on; whether it is still ours."""
        with self._connection() as connection:
            return bool(connection.execute(self._mine(key).values(beat=_trials.c.beat + 1)).rowcount)

    def finish(self, key: str, record: Mapping[str, Any], state: State = "done") -> bool:
        """Keep what a trial found; False, and nothing, if it is no longer ours."""
        change = {"state": state, "record": json.dumps(dict(record), allow_nan=False)}
        with self._connection() as connection:
            return bool(connection.execute(self._mine(key).values(**change)).rowcount)

    def fail(self, key: str, error: str) -> bool:
        """Record why a trial failed; it is not run again."""
        with self._connection() as connection:
            return bool(connection.execute(self._mine(key).values(state="failed", error=error[:2000])).rowcount)

    def release(self, key: str) -> None:
        """Give a trial back: whoever stopped it is not the trial's fault."""
        change = {"state": "waiting", "owner": None, "tries": _trials.c.tries - 1}
        with self._connection() as connection:
            connection.execute(self._mine(key).values(**change))

    def retry(self, keys: Sequence[str]) -> int:
        """Let failed trials wait again; how many."""
        count = 0
        with self._connection() as connection:
            for key in keys:
                again = self._of(key, _trials.c.state == "failed")
                change = {"state": "waiting", "owner": None, "tries": 0, "error": None}
                count += connection.execute(again.values(**change)).rowcount
        return count

    def measured(self, key: str, measurement: Mapping[str, Any]) -> None:
        """Keep what a trial's artifact takes on a machine."""
        done = self._of(key, _trials.c.state == "done")
        with self._connection() as connection:
            connection.execute(done.values(measured=json.dumps(dict(measurement), allow_nan=False)))

    def publish(self, key: str) -> bool:
        """Mark a result as known to Optuna; whether it was not before."""
        fresh = self._of(key, _trials.c.published == 0)
        with self._connection() as connection:
            return bool(connection.execute(fresh.values(published=1)).rowcount)

    # ------------------------------------------------------------------------------------ reading

    def trials(self) -> list[Trial]:
        """All of them, in the order they were asked for."""
        with self._connection() as connection:
            wanted = sql.select(_trials).where(_trials.c.study == self.name).order_by(_trials.c.number, _trials.c.key)
            return [_trial(row) for row in connection.execute(wanted)]

    def counts(self) -> dict[State, int]:
        """How many are in each state."""
        found: dict[State, int] = {"waiting": 0, "running": 0, "done": 0, "failed": 0, "stopped": 0}
        with self._connection() as connection:
            wanted = sql.select(_trials.c.state, sql.func.count()).where(_trials.c.study == self.name)
            for state, count in connection.execute(wanted.group_by(_trials.c.state)):
                found[state] = count
        return found


def _trial(row: Any) -> Trial:
    """Raises StudyError for a row that pretrim did not write."""
    try:
        record: Any = None if row.record is None else json.loads(row.record)
        if row.state == "done" and not all(name in record["costs"] for name in COSTS):
            raise ValueError("costs are missing")
        trial = Trial(
            key=row.key,
            number=row.number,
            spec=TrialSpec.from_json(json.loads(row.asked)),
            state=row.state,
            record=record,
            measured=None if row.measured is None else json.loads(row.measured),
            error=row.error,
            optuna=row.optuna,
            published=bool(row.published),
        )
        if row.state == "done" and not all(map(math.isfinite, (trial.validation, trial.test))):
            raise ValueError("scores are no numbers")
        return trial
    except (KeyError, TypeError, ValueError, PretrimError) as error:
        raise StudyError(f"Expected a trial in row {row.key}, but it is damaged ({error!r}).") from error


def _check_sqlite(path: Path) -> None:
    """Raises StudyError for a file that is no database, before anything could write to it."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StudyError(f"Expected a study in {path}, but it cannot be read ({error.strerror}).") from error
    if head and head != b"SQLite format 3\0":
        raise StudyError(f"Expected a study in {path}, but it is no SQLite database: it is damaged, take a copy of it.")


def _machine() -> str:
    """This machine, and its space of process numbers: containers of one host have several."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    return f"{platform.node()}/{space}"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def _difference(there: Any, now: Any) -> str:
    if isinstance(there, dict) and isinstance(now, dict):
        name = next(key for key in {**there, **now} if there.get(key) != now.get(key))
        return f"its {name} is {there.get(name)!r}, not {now.get(name)!r}"
    return f"it is {there!r}, not {now!r}"


def _hidden(url: str) -> str:
    """A database's address without the password."""
    try:
        return sql.make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "what was given"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")

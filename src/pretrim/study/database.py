"""A database of SQLAlchemy's, opened with care: looking makes nothing, and a server that restarts is waited for."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from pretrim.errors import StudyError

T = TypeVar("T")
BUSY_S = 60
"""How long SQLite waits for another writer"""
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Between attempts to reach a server again that was there before: a restart, or a network that is gone for a minute"""


def sqlite_url(path: Path) -> str:
    """The address of an SQLite file; its name may have any character.

    >>> sqlite_url(Path("/a b/what?.db"))
    'sqlite:////a b/what%3F.db'
    """
    return sql.URL.create("sqlite", database=str(path.resolve())).render_as_string(hide_password=False)


def without_password(url: str) -> str:
    """An address that may be kept."""
    return sql.make_url(url).set(password=None).render_as_string(hide_password=False)


def hidden(url: str) -> str:
    """A database's address without the password, for people."""
    try:
        return sql.make_url(url).render_as_string(hide_password=True)
    except (SQLAlchemyError, ValueError):
        return "what was given" if "@" in url else repr(url)  # without a user there is no password


def engine_options(url: str) -> dict[str, Any]:
    """Of `sqlalchemy.create_engine`, for our tables and Optuna's alike."""
    if not url.startswith("sqlite"):
        return {"pool_pre_ping": True}  # connections of before a restart are dead
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_S}}
    if _sqlite_file(url) is not None:
        options["poolclass"] = sql.NullPool  # each is closed after its use: from Python 3.13 on an open one is reported
    return options


class Database:
    """An engine whose every use is one piece of work that may be repeated."""

    def __init__(self, url: str, *, is_known: bool = False) -> None:
        """Open it; nothing is written.

        Args:
            url: as SQLAlchemy writes it.
            is_known: that it was reached before, so that it is worth waiting for.

        Raises StudyError if it cannot be opened.
        """
        self.url, self._known = url, is_known
        try:
            self._file = _sqlite_file(url)
            # Every change is one statement, so nothing has to be kept together by a transaction.
            self.engine = sql.create_engine(url, isolation_level="AUTOCOMMIT", **engine_options(url))
        except (SQLAlchemyError, ImportError, ValueError, TypeError) as error:
            raise StudyError(
                f"Expected a database as SQLAlchemy names it, such as postgresql+psycopg://USER@HOST/NAME, but got "
                f"{hidden(url)} ({first_line(error)})."
            ) from error
        weakref.finalize(self, self.engine.dispose)
        if self._file is not None:
            _check_sqlite(self._file)

    def exists(self) -> bool:
        """Whether there is something to read; a file that is missing is not made by looking."""
        return self._file is None or self._file.exists()

    def run(self, work: Callable[[sql.Connection], T]) -> T:
        """Do a piece of work on a connection; again, where a server that was there is away for a moment.

        Raises StudyError if the database cannot be used.
        """
        for wait_s in (*WAITS_S, None):
            try:
                with self.engine.connect() as connection:
                    found = work(connection)
                self._known = True
                return found
            except SQLAlchemyError as error:
                if wait_s is None or not self._is_away(error):
                    said = first_line(getattr(error, "orig", None) or error)
                    raise StudyError(f"Cannot use the database {hidden(self.url)}: {said}.") from error
                time.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def _is_away(self, error: SQLAlchemyError) -> bool:
        if self._file is not None or not self._known:
            return False
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        return lost or isinstance(error, OperationalError | InterfaceError)


def first_line(error: BaseException) -> str:
    """The first line of an error of a database driver, which have many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")


def _sqlite_file(url: str) -> Path | None:
    """The file of an SQLite address; None for other databases."""
    parsed = sql.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    return Path(parsed.database) if parsed.database and parsed.database != ":memory:" else None


def _check_sqlite(path: Path) -> None:
    """Raises StudyError for a file that is not a database, before anything could write to it."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise StudyError(f"Cannot read the study in {path} ({said}).") from error
    if head and head != b"SQLite format 3\0":
        raise StudyError(f"{path} is not an SQLite database: it is damaged, restore it from a copy.")

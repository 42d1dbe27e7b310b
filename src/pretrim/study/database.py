"""Careful access to an SQLAlchemy database: reading creates no file, and a restarting server is waited for."""

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
"""Seconds that SQLite waits for another writer."""
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between attempts to reach a known server again, long enough for a restart or a minute without network."""


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite file, whose name may contain any character.

    >>> sqlite_url(Path("/a b/what?.db"))
    'sqlite:////a b/what%3F.db'
    """
    return sql.URL.create("sqlite", database=str(path.resolve())).render_as_string(hide_password=False)


def without_password(url: str) -> str:
    """A database URL without its password, which is safe to store."""
    return sql.make_url(url).set(password=None).render_as_string(hide_password=False)


def hidden(url: str) -> str:
    """A database URL with its password masked, for display."""
    try:
        return sql.make_url(url).render_as_string(hide_password=True)
    except (SQLAlchemyError, ValueError):
        return "what was given" if "@" in url else repr(url)  # without a user name there is no password


def engine_options(url: str) -> dict[str, Any]:
    """Arguments of `sqlalchemy.create_engine`, for our tables and Optuna's alike."""
    if not url.startswith("sqlite"):
        return {"pool_pre_ping": True}  # connections from before a server restart are dead
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_S}}
    if _sqlite_file(url) is not None:
        options["poolclass"] = sql.NullPool  # close connections after use: Python 3.13 and later report open ones
    return options


class Database:
    """An engine that runs pieces of work, each of which may be repeated if the server goes away."""

    def __init__(self, url: str, *, is_known: bool = False) -> None:
        """Open the database; nothing is written.

        Args:
            url: SQLAlchemy database URL.
            is_known: whether the database was reached before, so that waiting for it is worthwhile.

        Raises StudyError if it cannot be opened.
        """
        self.url, self._known = url, is_known
        try:
            self._file = _sqlite_file(url)
            # Every change is one statement, so no transactions are needed.
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
        """Whether the database may exist; always True for servers. The check does not create a missing SQLite file."""
        return self._file is None or self._file.exists()

    def run(self, work: Callable[[sql.Connection], T]) -> T:
        """Run `work` on a connection, and repeat it if a known server is unreachable for a moment.

        Raises StudyError if the database cannot be used.
        """
        for wait_s in (*WAITS_S, None):
            try:
                with self.engine.connect() as connection:
                    result = work(connection)
                self._known = True
                return result
            except SQLAlchemyError as error:
                if wait_s is None or not self._is_away(error):
                    message = first_line(getattr(error, "orig", None) or error)
                    raise StudyError(f"Cannot use the database {hidden(self.url)}: {message}.") from error
                time.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def _is_away(self, error: SQLAlchemyError) -> bool:
        """Whether an error means that a server which was reached before is unreachable."""
        if self._file is not None or not self._known:
            return False
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        return lost or isinstance(error, OperationalError | InterfaceError)


def first_line(error: BaseException) -> str:
    """The first line of an error: database drivers write many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")


def _sqlite_file(url: str) -> Path | None:
    """The file of an SQLite URL; None for other databases and for one in memory."""
    parsed = sql.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    return Path(parsed.database) if parsed.database and parsed.database != ":memory:" else None


def _check_sqlite(path: Path) -> None:
    """Raises StudyError if an existing file is not an SQLite database, before anything can write to it."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        message = error.strerror if isinstance(error, OSError) else error
        raise StudyError(f"Cannot read the study in {path} ({message}).") from error
    if head and head != b"SQLite format 3\0":
        raise StudyError(f"{path} is not an SQLite database: it is damaged, restore it from a copy.")

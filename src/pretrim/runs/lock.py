"""One training in a run folder at a time: a lock file with an owner, touched every few seconds while it works.

The file is created exclusively: of several processes, on network folders too, one gets it. A lock is stale when its
owner's process is gone from this machine, or when it was not touched for a minute by the clock of the folder's own file
system: clocks of two machines are never compared.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pretrim.errors import CheckpointError

from .owner import is_dead, new_owner, shown
from .record import LOCK

BEAT_S = 5.0
GRACE_S = 60.0
"""A lock that was not touched for so long is stale."""


class Lock:
    """The lock of a folder, held by this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.owner, self._lost = folder, new_owner(), False

    def check(self) -> None:
        """Raises CheckpointError if another training took the folder over, as this process stood still for long."""
        if self._lost:
            raise CheckpointError(
                f"Another training took {self.folder} over, as this one stood still: it writes nothing more there."
            )

    def is_held(self) -> bool:
        """Whether the file is still ours."""
        return _owner_of(self.folder / LOCK) == self.owner

    def beat(self) -> bool:
        """Touch the file; whether it is still ours."""
        if not self.is_held():
            self._lost = True
            return False
        with suppress(OSError):  # the disk is away for a moment; whoever finds it so for a minute takes over
            os.utime(self.folder / LOCK)
        return True


def holder(folder: Path) -> str | None:
    """Who trains in a folder now, for people; None where nobody does."""
    owner = _owner_of(folder / LOCK)
    if owner is None or _is_silent(folder):
        return None
    if not owner:
        return "a process that starts at this moment"
    return None if is_dead(owner) else shown(owner)


def check_free(folder: Path, shown_as: Path) -> None:
    """Raises CheckpointError if a training runs in a folder.

    Args:
        folder: of the run; it need not be there.
        shown_as: its name for the error.
    """
    who = holder(folder)
    if who is not None:
        raise CheckpointError(
            f"A training is running in {shown_as} ({who}): wait until it ends, stop it, or choose another folder."
        )


@contextmanager
def locked(folder: Path, shown_as: Path) -> Iterator[Lock]:
    """Hold the lock of a folder that exists.

    Args:
        folder: of the run.
        shown_as: its name for errors.

    Raises CheckpointError if a training runs there.
    """
    lock = Lock(folder)
    _take(lock, shown_as)
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT_S) and lock.beat():
            pass

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield lock
    finally:
        done.set()
        thread.join()
        with _alone(folder):
            if lock.is_held():
                (folder / LOCK).unlink(missing_ok=True)


def _take(lock: Lock, shown_as: Path) -> None:
    """Create the file. Raises CheckpointError if a live one is there."""
    file = lock.folder / LOCK
    with _alone(lock.folder):
        check_free(lock.folder, shown_as)
        file.unlink(missing_ok=True)  # stale
        try:
            with file.open("x", encoding="utf-8") as made:
                made.write(lock.owner)
        except FileExistsError:  # of another machine, at this moment
            check_free(lock.folder, shown_as)
            raise
        except OSError:  # a full disk: an empty file would stop whoever comes next for a minute
            file.unlink(missing_ok=True)
            raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No two processes of this machine are inside at once: both might take one stale lock over."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # network folders that do not lock: there the file's exclusive creation has to do
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _owner_of(file: Path) -> str | None:
    """What a lock file says, nothing where it was just created or is not for us to read; None where there is none."""
    try:
        return file.read_bytes()[:1000].decode("utf-8", "replace").strip()
    except PermissionError:
        return ""
    except OSError:  # there is no such file or folder, or a link that leads in a circle
        return None


def _is_silent(folder: Path) -> bool:
    """Whether a lock was not touched for long. A new file in the same folder says what time it is there."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{LOCK}.", suffix=".tmp") as now:
            return os.stat(now.name).st_mtime - (folder / LOCK).stat().st_mtime > GRACE_S
    except OSError:
        return False  # a folder that cannot be written: nobody can take it over

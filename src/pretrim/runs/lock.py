"""Allow one training at a time in a run folder, by a lock file that names its owner and is touched every few seconds.

The file is created exclusively, so only one of several processes gets it, on network folders too. A lock is stale if
its owner's process no longer exists on this machine, or if it has not been touched for a minute by the clock of the
folder's file system: the clocks of two machines are never compared.
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
"""A lock that has not been touched for this long is stale."""


class Lock:
    """The lock of a folder, held by this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.owner, self._lost = folder, new_owner(), False

    def check(self) -> None:
        """Raises CheckpointError if another training took over the folder while this process was suspended."""
        if self._lost:
            raise CheckpointError(
                f"Another training took {self.folder} over, as this one stalled: this one no longer writes there."
            )

    def is_held(self) -> bool:
        """Whether this process still owns the file."""
        return _owner_of(self.folder / LOCK) == self.owner

    def beat(self) -> bool:
        """Touch the file. Returns whether this process still owns it."""
        if not self.is_held():
            self._lost = True
            return False
        with suppress(OSError):  # the disk may be away for a moment; after a minute another process takes over
            os.utime(self.folder / LOCK)
        return True


def holder(folder: Path) -> str | None:
    """A readable name of the process that trains in a folder; None if there is none."""
    owner = _owner_of(folder / LOCK)
    if owner is None or _is_silent(folder):
        return None
    if not owner:
        return "a process that starts at this moment"
    return None if is_dead(owner) else shown(owner)


def check_free(folder: Path, shown_as: Path) -> None:
    """Raises CheckpointError if training runs in a folder.

    Args:
        folder: the run folder; it need not exist.
        shown_as: the folder's name in the error.
    """
    process = holder(folder)
    if process is not None:
        raise CheckpointError(
            f"A training is running in {shown_as} ({process}): wait until it ends, stop it, or choose another folder."
        )


@contextmanager
def locked(folder: Path, shown_as: Path) -> Iterator[Lock]:
    """Hold the lock of an existing folder.

    Args:
        folder: the run folder.
        shown_as: the folder's name in errors.

    Raises CheckpointError if training runs in the folder.
    """
    lock = Lock(folder)
    _acquire(lock, shown_as)
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
        with _exclusive(folder):
            if lock.is_held():
                (folder / LOCK).unlink(missing_ok=True)


def _acquire(lock: Lock, shown_as: Path) -> None:
    """Create the lock file. Raises CheckpointError if there is one that is not stale."""
    file = lock.folder / LOCK
    with _exclusive(lock.folder):
        check_free(lock.folder, shown_as)
        file.unlink(missing_ok=True)  # stale
        try:
            with file.open("x", encoding="utf-8") as stream:
                stream.write(lock.owner)
        except FileExistsError:  # created by another machine at this moment
            check_free(lock.folder, shown_as)
            raise
        except OSError:  # a full disk: an empty file would block the next process for a minute
            file.unlink(missing_ok=True)
            raise


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Exclude other processes of this machine: two of them might both take over the same stale lock."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # network folders without locks must rely on exclusive creation
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _owner_of(file: Path) -> str | None:
    """The owner in a lock file: empty if it was just created or is unreadable, None if there is no file."""
    try:
        return file.read_bytes()[:1000].decode("utf-8", "replace").strip()
    except PermissionError:
        return ""
    except OSError:  # no such file or folder, or a loop of symbolic links
        return None


def _is_silent(folder: Path) -> bool:
    """Whether a lock has not been touched for too long, by the file system's clock, which a new file reveals."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{LOCK}.", suffix=".tmp") as now:
            return os.stat(now.name).st_mtime - (folder / LOCK).stat().st_mtime > GRACE_S
    except OSError:
        return False  # an unwritable folder: no process can take it over

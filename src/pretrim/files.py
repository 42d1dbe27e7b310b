"""Files are written whole or not at all: to a temporary file beside the target, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from errno import EACCES, EISDIR, ENOTDIR
from functools import partial
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file in the same folder, then rename it to `path`. Nothing is left on failure.

    What is there and no file (/dev/null, /dev/stdout, a pipe) is written to as it is: a rename would put a file there.
    """
    if path.exists() and not path.is_file():
        write(path)
        return
    temporary = _filled(path, write)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_together(contents: Mapping[Path, bytes], before: Callable[[], None]) -> None:
    """Write several files, in their order, once there is room for all: a full disk leaves what was there.

    Args:
        contents: of each file.
        before: called when all of them are on the disk, and none is in its place yet.
    """
    waiting: list[tuple[Path, Path]] = []
    try:
        for path, content in contents.items():
            waiting.append((_filled(path, partial(Path.write_bytes, data=content)), path))
        before()
        for temporary, path in waiting:
            temporary.replace(path)
    except BaseException:
        for temporary, _ in waiting:
            temporary.unlink(missing_ok=True)
        raise


def _filled(path: Path, write: Callable[[Path], object]) -> Path:
    """A temporary file beside a target, written and on the disk. Nothing is left on failure."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def check_writable(path: Path) -> None:
    """Raise OSError, before long work, where a file could not be written to `path`."""
    if path.is_dir():
        raise IsADirectoryError(EISDIR, "it is a folder")
    if path.exists() and not path.is_file():  # a pipe or device is written to as it is
        return
    if not path.parent.is_dir():
        raise NotADirectoryError(ENOTDIR, "its folder is missing")
    if not os.access(path.parent, os.W_OK | os.X_OK):  # the file is made beside its place, and renamed
        raise PermissionError(EACCES, "its folder is read-only")


def check_folder_writable(path: Path) -> None:
    """Raise OSError, before long work, where a folder, or the nearest one above it that is there, cannot be written."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(ENOTDIR, f"{there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(EACCES, os.strerror(EACCES))


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current

"""Atomic writing of files: to a temporary file beside the target, which is then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from errno import EACCES, EISDIR, ENOTDIR
from functools import partial
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file in the same folder, then rename it to `path`. Nothing is left on failure.

    An existing path that is not a regular file (/dev/null, /dev/stdout, a pipe) is written to directly: renaming would
    replace it by a file.
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
    """Write several files in order, once there is room for all of them: a full disk leaves the old files untouched.

    Args:
        contents: content of each file.
        before: called when all temporary files are on disk, before the first one is renamed.
    """
    pending: list[tuple[Path, Path]] = []
    try:
        for path, content in contents.items():
            pending.append((_filled(path, partial(Path.write_bytes, data=content)), path))
        before()
        for temporary, path in pending:
            temporary.replace(path)
    except BaseException:
        for temporary, _ in pending:
            temporary.unlink(missing_ok=True)
        raise


def _filled(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a temporary file beside a target and flush it to disk. Nothing is left on failure."""
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
    """Raise OSError, before any long computation, if `path` could not be written as a file."""
    if path.is_dir():
        raise IsADirectoryError(EISDIR, "it is a folder")
    if path.exists() and not path.is_file():  # a pipe or device is written to directly
        return
    if not path.parent.is_dir():
        raise NotADirectoryError(ENOTDIR, "its folder is missing")
    if not os.access(path.parent, os.W_OK | os.X_OK):  # the temporary file is created beside its target
        raise PermissionError(EACCES, "its folder is read-only")


def check_folder_writable(path: Path) -> None:
    """Raise OSError, before any long computation, if a folder (or its closest existing parent) is not writable."""
    folder = path.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(ENOTDIR, f"{folder} is a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(EACCES, os.strerror(EACCES))


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a binary file atomically."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current

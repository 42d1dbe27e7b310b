"""Writing a folder of source files: all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pretrim.errors import UsageError
from pretrim.files import check_folder_writable, write_text

MARK = "Made by pretrim"
"""Text in the first line of every source file that pretrim writes."""


def check_sources(folder: Path) -> None:
    """Check, before long work, that `folder` can be written. Raises UsageError if not."""
    try:
        check_folder_writable(folder)
    except OSError as error:
        raise _not_written(folder, error) from error


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write text files into a folder, which is created if necessary; files of an earlier export are replaced.

    Args:
        folder: the folder to write into.
        texts: text by file name; each has the mark in its first line.

    Raises UsageError if the folder cannot be written, or has files of these names that pretrim did not make.
    """
    try:
        for name in texts:
            _check_own(folder / name)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_text(folder / name, text)
    except OSError as error:
        raise _not_written(folder, error) from error
    return [folder / name for name in texts]


def _not_written(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"Cannot write in {folder}: {error.strerror}. Choose another.")


def _check_own(file: Path) -> None:
    """Raise UsageError for an existing file that pretrim did not make."""
    if not file.exists():
        return
    with file.open("rb") as opened:
        if MARK.encode() not in opened.readline():
            raise UsageError(f"{file} is not pretrim's own and would be replaced: choose an empty folder.")

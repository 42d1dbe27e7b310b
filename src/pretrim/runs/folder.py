"""The folder of a run: made, taken over, replaced."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOTDIR
from pathlib import Path

from pretrim.errors import CheckpointError

from .record import (
    ARTIFACT,
    DENSE,
    OWN,
    RECORD,
    STATE,
)


def prepare_output(path: str | Path, overwrite: bool = False, resume: bool = False) -> Path:
    """Check, before long work, that a run folder can be written at `path`; its parents are made.

    Raises:
        CheckpointError: it exists (or, with `overwrite` or `resume`, is no run folder), or cannot be written.
    """
    target = Path(path).resolve()
    try:
        if target.exists() or target.is_symlink():
            _check_replaceable(Path(path), target, overwrite, resume)
        _make_parent(target)
        trial = _sibling(target)
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        raise _not_writable(Path(path), error) from error
    return target


@contextmanager
def output_folder(path: str | Path, *, resume: bool = False) -> Iterator[Path]:
    """Make the folder of a training, or take the one that is there. A run in it stays until the new one is finished.

    Unless `resume`, the state of a training that was stopped is removed: this one starts anew. If nothing was written
    when an error ends the work, the folder goes again.
    """
    target = Path(path)
    try:
        target.mkdir(exist_ok=True)
        for entry in filter(_is_temporary, target.iterdir()):
            entry.unlink()
        if not resume:
            for state in (target / STATE, target / DENSE / STATE):
                state.unlink(missing_ok=True)
            for artifact in filter(_is_artifact, target.iterdir()):
                artifact.unlink()
    except OSError as error:
        raise _not_writable(target, error) from error
    try:
        yield target
    except BaseException:
        with suppress(OSError):  # it is not empty
            target.rmdir()
        raise


def is_finished(path: str | Path) -> bool:
    """Whether a folder holds a run, and no training that was stopped."""
    folder = Path(path)
    return (folder / RECORD).exists() and not any((folder / part / STATE).exists() for part in ("", DENSE))


def _make_parent(target: Path) -> None:
    if target.parent.exists() and not target.parent.is_dir():
        raise NotADirectoryError(ENOTDIR, f"{target.parent} is a file")
    target.parent.mkdir(parents=True, exist_ok=True)


def _check_replaceable(shown: Path, target: Path, overwrite: bool, resume: bool) -> None:
    if not overwrite and not resume:
        stopped = target.is_dir() and any((target / part / STATE).exists() for part in ("", DENSE))
        if stopped:
            raise CheckpointError(
                f"Expected a new folder, but {shown} holds a training that was stopped: --resume goes on with it, "
                f"--overwrite starts anew."
            )
        raise CheckpointError(f"Expected a new folder, but {shown} exists: choose another, or --overwrite.")
    if not target.is_dir():
        raise CheckpointError(f"Expected a run folder to overwrite, but {shown} is a file: choose another.")
    others = sorted(entry.name for entry in target.iterdir() if not _is_ours(entry))
    if others:
        raise CheckpointError(
            f"Expected a run folder to overwrite, but {shown} also holds {others[0]}: choose another, or remove it."
        )


def _is_ours(entry: Path) -> bool:
    return entry.name in OWN or _is_temporary(entry) or _is_artifact(entry)


def _is_artifact(entry: Path) -> bool:
    return entry.name.startswith(f"{ARTIFACT}.") and entry.is_file()


def _is_temporary(entry: Path) -> bool:
    """A file that was being written when the process was killed (`files.write_atomically`)."""
    return entry.name.startswith(".") and entry.suffix == ".tmp"


def _sibling(target: Path) -> Path:
    """A new name in the same folder: a rename within one folder is atomic."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")


def _not_writable(path: Path, error: OSError) -> CheckpointError:
    why = error.strerror or type(error).__name__
    return CheckpointError(f"Expected to write the folder {path}, but got: {why}. Choose one that can be written.")


def _rename(temporary: Path, target: Path) -> None:
    """Put the new folder in the place of the old one, which is put back if that fails."""
    if not target.exists():
        temporary.rename(target)
        return
    old = _sibling(target)
    target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)

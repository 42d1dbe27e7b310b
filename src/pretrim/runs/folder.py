"""Run folders: creating, reusing and replacing them."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import ENAMETOOLONG
from pathlib import Path

from pretrim.errors import CheckpointError
from pretrim.files import check_folder_writable

from .lock import Lock, check_free, locked
from .record import ARTIFACT, DENSE, LOCK, OWN, RECORD, STATE


def prepare_output(path: str | Path, overwrite: bool = False, resume: bool = False) -> Path:
    """Check, before long work, that a run folder can be written at `path`, without creating anything. Return its path.

    Args:
        path: the run folder.
        overwrite: whether an earlier run may be replaced.
        resume: whether an earlier training is resumed.

    Raises:
        CheckpointError: the folder exists (or, with `overwrite` or `resume`, is not a run folder), training runs in it,
            or it cannot be written.
    """
    try:
        target = Path(path).resolve()
        if target.exists() or target.is_symlink():
            check_free(target, Path(path))
            _check_replaceable(Path(path), target, overwrite, resume)
        check_folder_writable(target)
        _check_name(target)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links, before Python 3.13
        raise not_writable(Path(path), error) from error
    return target


@contextmanager
def output_folder(path: str | Path, *, overwrite: bool = False, resume: bool = False) -> Iterator[Lock]:
    """Create the folder of a training or reuse an existing one, and hold its lock so that no other training uses it.

    A run in the folder stays until the new one is finished. Unless `resume` is set, the state of a stopped training is
    removed, since training starts over. If an error occurs before anything is written, the folder is removed again.

    Args:
        path: the folder.
        overwrite: reuse a folder that holds a run, and start over.
        resume: reuse a folder that holds a stopped training, and continue it.

    Raises CheckpointError if it cannot be written, another process has created it meanwhile, or training runs in it.
    """
    target = Path(path).resolve()
    with ExitStack() as stack:
        stack.callback(_remove_empty, target)
        try:
            target.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(locked(target, Path(path)))
            if not overwrite and not resume and any(entry.name != LOCK for entry in target.iterdir()):
                _check_replaceable(Path(path), target, overwrite, resume)
            _clean(target, resume)
        except OSError as error:
            raise not_writable(Path(path), error) from error
        yield lock


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # not empty
        folder.rmdir()


def remove_temporaries(folder: Path) -> None:
    """Remove files that a killed process left half-written. Raises OSError if that is not allowed."""
    for entry in filter(_is_temporary, folder.iterdir()):
        entry.unlink(missing_ok=True)


def _clean(target: Path, resume: bool) -> None:
    remove_temporaries(target)
    if not resume:
        for state in (target / STATE, target / DENSE / STATE):
            state.unlink(missing_ok=True)
        for artifact in filter(_is_artifact, target.iterdir()):
            artifact.unlink()


def is_finished(path: str | Path) -> bool:
    """Whether a folder holds a run, and no stopped training."""
    folder = Path(path)
    return (folder / RECORD).exists() and not any((folder / part / STATE).exists() for part in ("", DENSE))


def _check_name(target: Path) -> None:
    """Raises OSError for a name that is too long for the file system."""
    parent = next(folder for folder in target.parents if folder.exists())
    if len(os.fsencode(target.name)) > os.pathconf(parent, "PC_NAME_MAX"):
        raise OSError(ENAMETOOLONG, os.strerror(ENAMETOOLONG))


def _check_replaceable(shown: Path, target: Path, overwrite: bool, resume: bool) -> None:
    if not overwrite and not resume:
        stopped = target.is_dir() and any((target / part / STATE).exists() for part in ("", DENSE))
        if stopped:
            raise CheckpointError(
                f"{shown} holds an interrupted training: --resume continues it, --overwrite starts over."
            )
        raise CheckpointError(f"{shown} exists: choose another folder, or --overwrite.")
    if not target.is_dir():
        raise CheckpointError(f"{shown} is a file, not a run folder: choose another.")
    others = sorted(entry.name for entry in target.iterdir() if not _is_ours(entry))
    if others:
        raise CheckpointError(
            f"{shown} also holds {others[0]}, which does not belong to a run: choose another, or remove it."
        )


def _is_ours(entry: Path) -> bool:
    return entry.name in OWN or _is_temporary(entry) or _is_artifact(entry)


def _is_artifact(entry: Path) -> bool:
    return entry.name.startswith(f"{ARTIFACT}.") and entry.is_file()


def _is_temporary(entry: Path) -> bool:
    """Whether this is a file that a killed process left half-written (`files.write_atomically`)."""
    return entry.name.startswith(".") and entry.suffix == ".tmp"


def temporary_beside(target: Path) -> Path:
    """An unused name in the same folder, since a rename within a folder is atomic."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")


def not_writable(path: Path, error: OSError | RuntimeError) -> CheckpointError:
    """The error to raise if a run folder cannot be written."""
    reason = getattr(error, "strerror", None) or "links that lead in a circle"
    return CheckpointError(f"Cannot write the folder {path}: {reason}. Choose one that can be written.")


def replace_folder(temporary: Path, target: Path) -> None:
    """Replace the old folder by the new one; the old one is restored if that fails."""
    if not target.exists():
        temporary.rename(target)
        return
    old = temporary_beside(target)
    target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)

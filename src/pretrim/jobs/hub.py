"""Runs on the Hugging Face hub: `pretrim push`, and ``hf:OWNER/NAME`` in place of a run's folder.

Safetensors, JSON, pictures, artifacts and the model card are uploaded; only safetensors and JSON are downloaded. The
package `huggingface_hub` reads ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HOME`` as usual.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrim.errors import CheckpointError, UsageError, shown

from .reporter import Reporter

PREFIX = "hf:"
REQUIRED_FILES = ("run.json", "weights.safetensors")
"""Files needed to open a run; no others are fetched"""
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Pushed:
    """A run that was pushed to the hub.

    Attributes:
        name: ``hf:OWNER/NAME``.
        url: web page of the run.
        files: names of the uploaded files.
    """

    name: str
    url: str
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {"name": self.name, "url": self.url, "files": list(self.files)}


def is_on_hub(path: str | Path) -> bool:
    """Whether a run is named by its hub name, ``hf:OWNER/NAME``."""
    return str(path).startswith(PREFIX)


def fetch(name: str | Path, reporter: Reporter | None = None) -> Path:
    """Return the hub cache folder that holds a run, downloading it if necessary.

    Args:
        name: ``hf:OWNER/NAME``.
        reporter: told what is fetched from where; without one, that is printed to stderr.

    Raises:
        UsageError: the name is malformed, or the package is missing.
        CheckpointError: the run cannot be fetched, or is not a run.
    """
    repository = _repository(name)
    hub = _package()
    endpoint = _endpoint(hub)
    say: Callable[[str], None] = reporter.say if reporter is not None else lambda line: print(line, file=sys.stderr)
    say(f"fetching {' and '.join(REQUIRED_FILES)} of {repository} from {endpoint}, or from its cache")
    try:
        folder = hub.snapshot_download(repository, allow_patterns=list(REQUIRED_FILES), endpoint=endpoint)
    except Exception as error:  # many kinds: no network, no such repository, no access to it
        raise CheckpointError(
            f"Cannot fetch {PREFIX}{repository} ({_first_line(error)}): check the name and the network."
        ) from error
    missing = [file for file in REQUIRED_FILES if not (Path(folder) / file).is_file()]
    if missing:
        raise CheckpointError(f"{PREFIX}{repository} is not a run of pretrim: it has no {missing[0]}.")
    return Path(folder)


def push(run: str | Path, name: str, *, private: bool = False, reporter: Reporter | None = None) -> Pushed:
    """Upload a run to the hub, with its model card and the artifacts in its folder.

    Args:
        run: folder of the run.
        name: ``hf:OWNER/NAME``; the repository is created if it does not exist.
        private: whether to make a new repository private.
        reporter: told what is pushed where.

    Raises:
        UsageError: the name is malformed, or the package is missing.
        CheckpointError: the run is damaged, or the hub refuses it.
    """
    from pretrim.runs.load import read

    repository, folder = _repository(name), Path(run)
    read(folder)
    hub = _package()
    endpoint = _endpoint(hub)
    contents = {file.name: _pushed_content(file, name) for file in _files(folder)}
    if reporter is not None:
        reporter.say(f"pushing {len(contents)} files of {folder} to {repository} at {endpoint}")
    try:
        api = hub.HfApi(endpoint=endpoint)
        api.create_repo(repository, private=private, exist_ok=True)
        operations = [hub.CommitOperationAdd(name, content) for name, content in contents.items()]
        api.create_commit(repository, operations, commit_message="A run of pretrim")
    except Exception as error:  # as above
        raise CheckpointError(
            f"Cannot push to {PREFIX}{repository} ({_first_line(error)}): check the name, the network, and that you "
            f"are logged in (`hf auth login`)."
        ) from error
    return Pushed(f"{PREFIX}{repository}", f"{endpoint}/{repository}", tuple(sorted(contents)))


def _files(folder: Path) -> Iterator[Path]:
    """List the files of a run to push: record, weights, card, log, pictures, and artifacts with their records."""
    from pretrim.runs.record import ARTIFACT, CARD, CURVE, LOG
    from pretrim.train import CONFUSION, CONFUSION_PICTURE

    for name in (*REQUIRED_FILES, CARD, LOG, CURVE, CONFUSION, CONFUSION_PICTURE):
        if (folder / name).is_file():
            yield folder / name
    yield from (file for file in sorted(folder.glob(f"{ARTIFACT}.*")) if file.is_file())


def _pushed_content(file: Path, name: str) -> bytes:
    """Return a file's content as it is pushed: the card names the run's new location."""
    from pretrim.runs.card import HERE
    from pretrim.runs.record import CARD

    content = file.read_bytes()
    if file.name != CARD:
        return content
    return content.replace(f'pretrim.open_run("{HERE}"'.encode(), f'pretrim.open_run("{name}"'.encode())


def _repository(name: str | Path) -> str:
    """Parse the OWNER/NAME of a hub name. Raises UsageError for anything else."""
    repository = str(name).removeprefix(PREFIX)
    if not is_on_hub(name) or not _NAME.fullmatch(repository):
        raise UsageError(f"Expected hf:OWNER/NAME, but got {shown(str(name))}.")
    return repository


def _package() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        raise UsageError("hf: names need the package huggingface_hub: pip install 'pretrim[hub]'.") from None
    disable_progress_bars()
    return huggingface_hub


def _endpoint(hub: Any) -> str:
    return (os.environ.get("HF_ENDPOINT") or str(hub.constants.ENDPOINT)).rstrip("/")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")

"""Runs on the Hugging Face hub: `pretrim push`, and ``hf:OWNER/NAME`` in the place of a run's folder.

Safetensors, JSON, pictures and the model card go up; safetensors and JSON alone come down. ``HF_ENDPOINT``,
``HF_TOKEN`` and ``HF_HOME`` are read by the package `huggingface_hub` as ever.
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
NEEDED = ("run.json", "weights.safetensors")
"""Files of a run that it cannot be opened without; no others are fetched"""
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Pushed:
    """What was pushed.

    Attributes:
        name: ``hf:OWNER/NAME``.
        url: where it is seen.
        files: that went there.
    """

    name: str
    url: str
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"name": self.name, "url": self.url, "files": list(self.files)}


def is_on_hub(path: str | Path) -> bool:
    """Whether a run is named by its place on the hub."""
    return str(path).startswith(PREFIX)


def fetch(name: str | Path, reporter: Reporter | None = None) -> Path:
    """The folder of the hub's cache that holds a run, fetched if it is not there.

    Args:
        name: ``hf:OWNER/NAME``.
        reporter: told what is fetched from where; without one it is said on stderr.

    Raises:
        UsageError: no such name, or the package is missing.
        CheckpointError: it cannot be had, or is not a run.
    """
    repository = _repository(name)
    hub = _package()
    endpoint = _endpoint(hub)
    say: Callable[[str], None] = reporter.say if reporter is not None else lambda line: print(line, file=sys.stderr)
    say(f"fetching {' and '.join(NEEDED)} of {repository} from {endpoint}, or from its cache")
    try:
        folder = hub.snapshot_download(repository, allow_patterns=list(NEEDED), endpoint=endpoint)
    except Exception as error:  # it raises many kinds: no network, no such repository, no right to it
        raise CheckpointError(
            f"Cannot fetch {PREFIX}{repository} ({_first_line(error)}): check the name and the network."
        ) from error
    missing = [file for file in NEEDED if not (Path(folder) / file).is_file()]
    if missing:
        raise CheckpointError(f"{PREFIX}{repository} is not a run of pretrim: it has no {missing[0]}.")
    return Path(folder)


def push(run: str | Path, name: str, *, private: bool = False, reporter: Reporter | None = None) -> Pushed:
    """Upload a run to the hub, with its card and what was exported in its folder.

    Args:
        run: the folder.
        name: ``hf:OWNER/NAME``; it is made where there is none.
        private: whether a new repository is.
        reporter: told what is pushed where.

    Raises:
        UsageError: no such name, or the package is missing.
        CheckpointError: the run is damaged, or the hub refuses it.
    """
    from pretrim.runs.load import read

    repository, folder = _repository(name), Path(run)
    read(folder)
    hub = _package()
    endpoint = _endpoint(hub)
    contents = {file.name: _content(file, name) for file in _files(folder)}
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
    """What is pushed of a run: its record, weights, card, log, pictures, and artifacts with theirs."""
    from pretrim.runs.record import ARTIFACT, CARD, CURVE, LOG
    from pretrim.train import CONFUSION, CONFUSION_PICTURE

    for name in (*NEEDED, CARD, LOG, CURVE, CONFUSION, CONFUSION_PICTURE):
        if (folder / name).is_file():
            yield folder / name
    yield from (file for file in sorted(folder.glob(f"{ARTIFACT}.*")) if file.is_file())


def _content(file: Path, name: str) -> bytes:
    """A file as it is pushed: the card says where its run is now."""
    from pretrim.runs.card import HERE
    from pretrim.runs.record import CARD

    content = file.read_bytes()
    if file.name != CARD:
        return content
    return content.replace(f'pretrim.open_run("{HERE}"'.encode(), f'pretrim.open_run("{name}"'.encode())


def _repository(name: str | Path) -> str:
    """OWNER/NAME. Raises UsageError for anything else."""
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

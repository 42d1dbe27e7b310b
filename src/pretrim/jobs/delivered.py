"""An exported run: the artifact, and what its board says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pretrim.deploy import Artifact


@dataclass(frozen=True, repr=False)
class Delivered:
    """An artifact, and what its board says of it.

    Attributes:
        artifact: the file and its record.
        board: flash and RAM on a microcontroller, as plain JSON; None where none was named.
        sources: files in C or C++ that were written.
    """

    artifact: Artifact
    board: Mapping[str, Any] | None = None
    sources: tuple[Path, ...] = ()

    measure: ClassVar[Callable[..., Any]]
    """Latency, memory and energy, here or over ssh: `jobs.measure.measure_file`, attached by `jobs.calls`."""

    def __repr__(self) -> str:
        """The file, and what it is."""
        about = f"{self.artifact.runtime}, {self.artifact.data_type}, {self.artifact.file_bytes:,} bytes"
        board = "" if self.board is None else f", on {self.board['name']}"
        return f"Delivered({str(self.path)!r}: {about}{board})"

    @property
    def path(self) -> Path:
        """The file."""
        return self.artifact.path

    def to_json(self) -> dict[str, Any]:
        """What `pretrim export --json` prints."""
        return {**self.artifact.to_json(), "path": str(self.path), "board": self.board}

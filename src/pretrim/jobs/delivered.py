"""An exported run: the artifact, and how it fits its board."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pretrim.deploy import Artifact


@dataclass(frozen=True, repr=False)
class Delivered:
    """An artifact, and how it fits its board.

    Attributes:
        artifact: the file and its record.
        board: flash and RAM use on a microcontroller, as plain JSON; None if none was named.
        sources: C or C++ source files that were written.
    """

    artifact: Artifact
    board: Mapping[str, Any] | None = None
    sources: tuple[Path, ...] = ()

    measure: ClassVar[Callable[..., Any]]
    """Measures latency, memory and energy, here or over ssh: `jobs.measure.measure_file`, attached by `jobs.calls`."""

    def __repr__(self) -> str:
        """Show the file, its runtime, data type and size."""
        description = f"{self.artifact.runtime}, {self.artifact.data_type}, {self.artifact.file_bytes:,} bytes"
        board = "" if self.board is None else f", on {self.board['name']}"
        return f"Delivered({str(self.path)!r}: {description}{board})"

    @property
    def path(self) -> Path:
        """Path of the exported file."""
        return self.artifact.path

    def to_json(self) -> dict[str, Any]:
        """Return the output of `pretrim export --json`."""
        return {**self.artifact.to_json(), "path": str(self.path), "board": self.board}

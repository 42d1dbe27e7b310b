"""Records of a benchmark, one JSON object per line, written as soon as they are measured so that none is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """All records; an empty list if the file does not exist yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, *records: dict[str, Any]) -> None:
    """Append the records in a single write."""
    with path.open("a") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records))

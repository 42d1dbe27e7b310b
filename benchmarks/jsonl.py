"""Records of a benchmark, a JSON object on each line: kept as soon as they are measured, so that a stop loses none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """All records; none where there is no file yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, *records: dict[str, Any]) -> None:
    """Add records, all of one call or none."""
    with path.open("a") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records))

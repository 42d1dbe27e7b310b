"""The notebooks of examples/ run as they are, and show what they say."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SHOWN = {
    "own_network.ipynb": ["Channel groups", "Filters kept", "test accuracy"],
    "trade_off.ipynb": ["uniform", "on validation images"],
}
"""What the outputs hold"""


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.ipynb")))
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    book = nbformat.read(EXAMPLES / name, as_version=4)
    assert all(not cell.get("outputs") for cell in book.cells)  # none that nobody ran today
    place = {"metadata": {"path": tmp_path}}
    done = NotebookClient(book, timeout=600, kernel_name="python3", resources=place).execute()
    shown = str([cell.get("outputs") for cell in done.cells])
    assert all(words in shown for words in SHOWN[name])
    nbformat.write(done, tmp_path / name)

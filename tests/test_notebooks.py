"""The notebooks of examples/ run as they are and show the expected output."""

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
"""Texts that the outputs of each notebook contain"""


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.ipynb")))
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # committed notebooks hold no outputs
    resources = {"metadata": {"path": tmp_path}}
    executed = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    outputs = str([cell.get("outputs") for cell in executed.cells])
    assert all(words in outputs for words in SHOWN[name])
    nbformat.write(executed, tmp_path / name)

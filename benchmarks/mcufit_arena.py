"""The tensor arena in 32 bits, without a board: TensorFlow Lite for Microcontrollers as wasm32, shipped with mcufit.

mcufit (MIT) is on PyPI (`pip install --no-deps mcufit`); its interpreter runs in Node.js. It was built on commit
18b9e6f of TensorFlow Lite for Microcontrollers. mcufit's author measured that it takes `MORE_THAN_A_BOARD` bytes more
than an ESP32, the same number for each of four networks.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from pretrim.deploy.micro import Arena

MORE_THAN_A_BOARD = 2128
_ROW = re.compile(r"^\s*(Total|NonPersistent|Persistent) \|\s*(\d+)", re.MULTILINE)


def missing() -> str | None:
    """A message that names what is not installed; None if nothing is missing."""
    if shutil.which("node") is None:
        return "Node.js is not installed"
    return None if importlib.util.find_spec("mcufit") else "mcufit is not installed (pip install --no-deps mcufit)"


def arena(content: bytes) -> Arena | None:
    """The arena of a ``.tflite`` as recorded by the interpreter; None if the interpreter could not run it."""
    spec = importlib.util.find_spec("mcufit")
    assert spec is not None and spec.origin is not None
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        file.write(content)
        file.flush()
        command = ["node", str(Path(spec.origin).parent / "wasm" / "run_benchmark.mjs"), file.name]
        output = subprocess.run(command, capture_output=True, text=True).stdout
    sizes = {name: int(number) for name, number in _ROW.findall(output)}
    if len(sizes) != 3:
        return None
    return Arena(sizes["Total"], sizes["NonPersistent"], sizes["Persistent"])

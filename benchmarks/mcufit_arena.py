"""The tensor arena in 32 bits, without a board: TensorFlow Lite for Microcontrollers as wasm32, as mcufit brings it.

mcufit (MIT) is on PyPI (`pip install --no-deps mcufit`); its interpreter runs in Node.js. It was built on commit
18b9e6f of TensorFlow Lite for Microcontrollers. mcufit's author measured that it takes `MORE_THAN_A_BOARD` bytes more
than an ESP32, the same for each of four networks.
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
    """What is not here, in words; None where all is."""
    if shutil.which("node") is None:
        return "Node.js is not installed"
    return None if importlib.util.find_spec("mcufit") else "mcufit is not installed (pip install --no-deps mcufit)"


def arena(content: bytes) -> Arena | None:
    """Of a ``.tflite``, as the interpreter recorded it; None where it could not run it."""
    spec = importlib.util.find_spec("mcufit")
    assert spec is not None and spec.origin is not None
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        file.write(content)
        file.flush()
        call = ["node", str(Path(spec.origin).parent / "wasm" / "run_benchmark.mjs"), file.name]
        said = subprocess.run(call, capture_output=True, text=True).stdout
    found = {name: int(number) for name, number in _ROW.findall(said)}
    if len(found) != 3:
        return None
    return Arena(found["Total"], found["NonPersistent"], found["Persistent"])

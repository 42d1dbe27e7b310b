"""Optional packages: imported where they are used, with an error that says what to install.

ONNX Runtime 1.29 and later send usage data to Microsoft, and mark the machine, unless an environment variable that is
set before the import forbids it (github.com/microsoft/onnxruntime/pull/27379); it is set here.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType

from pretrim.errors import UsageError

from .signals import vendors_code
from .silence import silence

EXTRAS = {
    "onnxruntime": "onnx",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "litert_torch": "litert",
    "ai_edge_quantizer": "litert",
    "ai_edge_litert": "litert",
    "flatbuffers": "litert",
    "executorch": "executorch",
    "torchao": "executorch",
    "tflite_micro": "mcu",
}
"""The extra of pretrim that contains a package (pyproject.toml), by import name."""
NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"


def need(module: str, requirement: str | None = None) -> ModuleType:
    """Import an optional package or one of its modules. Raises UsageError, which says what to install.

    Args:
        module: full name of the module.
        requirement: pip requirement of the package; by default the extra of pretrim that contains it.
    """
    package = module.partition(".")[0]
    os.environ.setdefault(NO_TELEMETRY, "1")
    try:
        with vendors_code(), silence():
            return importlib.import_module(module)
    except ImportError as error:
        problem = f"{package} is not installed"
        if (error.name or "").partition(".")[0] != package:
            problem = f"{package} does not work ({' '.join(str(error).split())})"
        raise UsageError(f"{problem}: pip install '{requirement or requirement_of(package)}'.") from None


def requirement_of(package: str) -> str:
    """The pip requirement of an optional package: the extra of pretrim that contains it, or the package itself."""
    return f"pretrim[{EXTRAS[package]}]" if package in EXTRAS else package


def is_installed(module: str) -> bool:
    """Whether an optional package is installed, without importing it."""
    return importlib.util.find_spec(module) is not None

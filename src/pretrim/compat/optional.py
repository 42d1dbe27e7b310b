"""The vendors' converters print much, from Python and from C++; users want to see errors alone."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import IO

from pretrim.errors import UsageError

NOISY = ("torchao", "torch", "torch.onnx", "absl", "jax", "root", "onnxscript", "executorch")
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
"""Which extra of pretrim brings a package (pyproject.toml), by its import name"""
NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""ONNX Runtime reports its use to Microsoft and marks the machine, unless this is set before it is loaded (1.32)."""


def need(module: str, requirement: str | None = None) -> ModuleType:
    """Import an optional package, or a module of one. Raises UsageError, which says what to install.

    Args:
        module: its full name.
        requirement: what pip installs for it; by default the extra of pretrim that has it.
    """
    package = module.partition(".")[0]
    os.environ.setdefault(NO_TELEMETRY, "1")
    try:
        with silence():
            return importlib.import_module(module)
    except ImportError as error:
        what = f"Expected {package} to be installed, but it is missing"
        if (error.name or "").partition(".")[0] != package:
            what = f"Expected {package} to work, but it does not ({' '.join(str(error).split())})"
        raise UsageError(f"{what}: pip install '{requirement or requirement_of(package)}'.") from None


def requirement_of(package: str) -> str:
    """What pip installs to get an optional package: the extra of pretrim that has it, or the package itself."""
    return f"pretrim[{EXTRAS[package]}]" if package in EXTRAS else package


def is_installed(module: str) -> bool:
    """Whether an optional package is there; it is not imported."""
    return importlib.util.find_spec(module) is not None


@contextmanager
def silence() -> Iterator[None]:
    """Nothing of what happens inside is shown: warnings, loggers, prints, and what C++ writes to the same files."""
    levels = {name: logging.getLogger(name).level for name in NOISY}
    with warnings.catch_warnings(), _no_output():
        warnings.simplefilter("ignore")
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextmanager
def _no_output() -> Iterator[None]:
    _flush()
    saved = [(number, os.dup(number)) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number, _ in saved:
            os.dup2(nowhere, number)
        with open(os.devnull, "w") as text, _streams(text):
            yield
    finally:
        _flush()
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


@contextmanager
def _streams(text: IO[str]) -> Iterator[None]:
    """Python's own streams, which a test or a notebook may have put elsewhere."""
    before = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = text
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(ValueError, OSError, AttributeError):  # closed, or none
            stream.flush()

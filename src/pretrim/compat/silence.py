"""Silence the vendors' converters, which print a lot from Python and C++ while users only need to see errors.

Seen with torch 2.13's exporters (their own deprecation warnings), torchao (libraries that the CPU does not support),
LiteRT (progress), and ExecuTorch (C++ log).
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

NOISY_LOGGERS = ("torchao", "torch", "torch.onnx", "absl", "jax", "root", "onnxscript", "executorch")


@contextmanager
def silence() -> Iterator[None]:
    """Suppress all output inside: warnings, loggers, prints, and what C++ writes to stdout and stderr."""
    levels = {name: logging.getLogger(name).level for name in NOISY_LOGGERS}
    with warnings.catch_warnings(), _no_output():
        warnings.simplefilter("ignore")
        for name in NOISY_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextmanager
def _no_output() -> Iterator[None]:
    _flush()
    saved = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2)]
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor, _ in saved:
            os.dup2(null, descriptor)
        with open(os.devnull, "w") as null_text, _streams(null_text):
            yield
    finally:
        _flush()
        for descriptor, copy in saved:
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(null)


@contextmanager
def _streams(text: IO[str]) -> Iterator[None]:
    """Redirect Python's own streams, which a test or a notebook may already have replaced."""
    previous = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = text
    try:
        yield
    finally:
        sys.stdout, sys.stderr = previous


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(ValueError, OSError, AttributeError):  # a stream that is closed or None
            stream.flush()

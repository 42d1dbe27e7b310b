"""The vendors' converters print much, from Python and from C++; users want to see errors alone.

Seen with torch 2.13's exporters (warnings of their own deprecations),
torchao's loading of libraries that a CPU does not have, LiteRT's progress, and ExecuTorch's C++ log.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

NOISY = ("torchao", "torch", "torch.onnx", "absl", "jax", "root", "onnxscript", "executorch")


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

"""TensorFlow Lite for Microcontrollers (``pretrim[mcu]``): the interpreter of the board, run on this machine.

It shows whether every operator has a kernel, how large the arena must be, and whether the outputs match LiteRT's.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pretrim.compat.optional import is_installed, need
from pretrim.compat.silence import silence
from pretrim.cost.micro_operators import FLOAT_ONLY, METHODS
from pretrim.errors import ExportError

from .runtime import ones
from .tflite import int8_operators, operators

LARGE_ARENA = 256 << 20
"""Arena size for recording: the recorded allocations equal the smallest arena that works, as bisection showed."""
_ALLOCATION = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_MISSING = re.compile(r"op for builtin opcode '?([A-Z0-9_]+)'?")


class MissingOperators(ExportError):
    """Raised for a file with operators that TensorFlow Lite for Microcontrollers has no kernel for.

    Attributes:
        names: names of the operators; those with a kernel only for float32 appear as "SQRT in int8".
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        is_are, it = ("is", "it") if len(names) == 1 else ("are", "them")
        super().__init__(
            f"Expected operators that TensorFlow Lite for Microcontrollers has, but {', '.join(names)} {is_are} not "
            f"among them: replace {it} in the network."
        )


def missing_operators(content: bytes) -> tuple[str, ...]:
    """Operators of a ``.tflite`` without a kernel in TFLM, by the table of its release; the interpreter is not run."""
    unknown = [name for name in operators(content) if name not in METHODS]
    return (*unknown, *(f"{name} in int8" for name in sorted(FLOAT_ONLY & int8_operators(content))))


def check_operators(content: bytes) -> None:
    """Raise ExportError if the interpreter for microcontrollers does not run a ``.tflite``.

    The interpreter decides where it is installed; otherwise the table of its operators does.
    """
    if is_installed("tflite_micro"):
        arena(content)
    elif missing := missing_operators(content):
        raise MissingOperators(missing)


@dataclass(frozen=True)
class Arena:
    """The interpreter's tensor arena on this 64-bit host.

    Attributes:
        total_bytes: size of the smallest arena that works.
        head_bytes: bytes of activations and scratch buffers, placed by the greedy planner.
        tail_bytes: bytes of the interpreter's persistent structures, which are smaller on a 32-bit board.
    """

    total_bytes: int
    head_bytes: int
    tail_bytes: int


def arena(content: bytes) -> Arena:
    """Measure the arena of an int8 or float32 ``.tflite`` with TensorFlow Lite for Microcontrollers itself.

    Raises:
        UsageError: the package is missing.
        ExportError: the interpreter lacks an operator, or cannot run the model.
    """

    def invoke_and_report(interpreter: Any) -> None:
        interpreter.invoke()
        interpreter.print_allocations()

    log = _interpret(content, invoke_and_report)[1]
    sizes = {part: int(number) for part, number in _ALLOCATION.findall(log)}
    if sorted(sizes) != ["head", "tail", "total"]:
        raise ExportError("Expected the interpreter for microcontrollers to report its allocations, but it did not.")
    return Arena(sizes["total"], sizes["head"], sizes["tail"])


def run(content: bytes, images: NDArray[Any]) -> NDArray[Any]:
    """Run images through a model with one input and return its first output.

    Args:
        content: the model's bytes.
        images: N x ... x C, in the model's own data type and layout.
    """
    return run_all(content, [images], outputs=1)[0]


def run_all(content: bytes, inputs: Sequence[NDArray[Any]], outputs: int) -> list[NDArray[Any]]:
    """Run images through a model and return every output.

    Args:
        content: the model's bytes.
        inputs: N x ... x C for each input, in the model's own data type and layout.
        outputs: number of the model's outputs.
    """

    def run_images(interpreter: Any) -> list[NDArray[Any]]:
        rows = []
        for image in ones(inputs):
            for number, value in enumerate(image):
                interpreter.set_input(value, number)
            interpreter.invoke()
            rows.append([interpreter.get_output(number).copy() for number in range(outputs)])
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    result: list[NDArray[Any]] = _interpret(content, run_images)[0]
    return result


def _interpret(content: bytes, use: Callable[[Any], Any]) -> tuple[Any, str]:
    """Load a model and call `use` with its interpreter; returns the result and the text written to stderr meanwhile."""
    runtime = need("tflite_micro").runtime
    with tempfile.TemporaryFile() as log:
        try:
            with silence(), _redirected_stderr(log):
                interpreter = runtime.Interpreter.from_bytes(content, arena_size=LARGE_ARENA)
                details = interpreter.get_input_details(0)
                interpreter.set_input(np.zeros(details["shape"], details["dtype"]), 0)
                result = use(interpreter)
        except (RuntimeError, ValueError) as error:
            raise _not_runnable(content, _text(log), error) from error
        return result, _text(log)


def _not_runnable(content: bytes, log: str, error: Exception) -> ExportError:
    """The error for a model that the interpreter rejected.

    The interpreter names only the first operator that it lacks; the others come from the table.
    """
    match, missing = _MISSING.search(log), missing_operators(content)
    if match is not None:
        return MissingOperators(list(dict.fromkeys([match[1], *missing])))
    if missing:
        return MissingOperators(missing)
    lines = [line.strip().rstrip(".") for line in log.splitlines() if line.strip()]
    return ExportError(
        f"The model does not run on TensorFlow Lite for Microcontrollers: {lines[0] if lines else error}."
    )


@contextmanager
def _redirected_stderr(file: IO[bytes]) -> Iterator[None]:
    """Redirect stderr, including what C++ writes to it, into a file."""
    saved = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")

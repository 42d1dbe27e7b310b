"""TensorFlow Lite for Microcontrollers (``pretrim[mcu]``): the same interpreter as on the board, on this machine.

It answers what a board would: is every operator there, how large must the arena be, are the outputs those of LiteRT.
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
"""Recorded in a large arena, the allocations are those of the smallest one that works (found by bisection)."""
_ALLOCATION = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_MISSING = re.compile(r"op for builtin opcode '?([A-Z0-9_]+)'?")


class MissingOperators(ExportError):
    """A file has operators that TensorFlow Lite for Microcontrollers has no kernel for.

    Attributes:
        names: of the operators; those that it has in float32 alone as "SQRT in int8".
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        is_are, it = ("is", "it") if len(names) == 1 else ("are", "them")
        super().__init__(
            f"Expected operators that TensorFlow Lite for Microcontrollers has, but {', '.join(names)} {is_are} not "
            f"among them: replace {it} in the network."
        )


def missing_operators(content: bytes) -> tuple[str, ...]:
    """Operators of a ``.tflite`` that the interpreter has not, by the table of its release; it is not run."""
    unknown = [name for name in operators(content) if name not in METHODS]
    return (*unknown, *(f"{name} in int8" for name in sorted(FLOAT_ONLY & int8_operators(content))))


def check_operators(content: bytes) -> None:
    """Raises ExportError where the interpreter for microcontrollers does not run a ``.tflite``: by itself where it is
    installed, and else by the table of its operators."""
    if is_installed("tflite_micro"):
        arena(content)
    elif missing := missing_operators(content):
        raise MissingOperators(missing)


@dataclass(frozen=True)
class Arena:
    """The RAM that the interpreter takes.

    Attributes:
        total_bytes: the smallest arena that works.
        head_bytes: activations and scratch, placed by the greedy planner.
        tail_bytes: what stays: structures of the interpreter. They are of a 64-bit host; a board's are smaller.
    """

    total_bytes: int
    head_bytes: int
    tail_bytes: int


def arena(content: bytes) -> Arena:
    """The arena of an int8 or float32 ``.tflite``, by TensorFlow Lite for Microcontrollers itself.

    Raises:
        UsageError: the package is missing.
        ExportError: an operator is missing there, or the model cannot be run.
    """

    def allocations(interpreter: Any) -> None:
        interpreter.invoke()
        interpreter.print_allocations()

    said = _interpret(content, allocations)[1]
    found = {part: int(number) for part, number in _ALLOCATION.findall(said)}
    if sorted(found) != ["head", "tail", "total"]:
        raise ExportError("Expected the interpreter for microcontrollers to tell its allocations, but it did not.")
    return Arena(found["total"], found["head"], found["tail"])


def run(content: bytes, images: NDArray[Any]) -> NDArray[Any]:
    """The first output of a model with one input, for images in its own data type and layout, N x ... x C."""
    return run_all(content, [images], outputs=1)[0]


def run_all(content: bytes, inputs: Sequence[NDArray[Any]], outputs: int) -> list[NDArray[Any]]:
    """Every output for images in the model's own data type and layout.

    Args:
        content: the model's.
        inputs: N x ... x C for each of its inputs.
        outputs: how many it has.
    """

    def answers(interpreter: Any) -> list[NDArray[Any]]:
        found = []
        for image in ones(inputs):
            for number, value in enumerate(image):
                interpreter.set_input(value, number)
            interpreter.invoke()
            found.append([interpreter.get_output(number).copy() for number in range(outputs)])
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    result: list[NDArray[Any]] = _interpret(content, answers)[0]
    return result


def _interpret(content: bytes, use: Callable[[Any], Any]) -> tuple[Any, str]:
    """Load a model and use its interpreter: what that gave, and what was written to the error stream meanwhile."""
    runtime = need("tflite_micro").runtime
    with tempfile.TemporaryFile() as said:
        try:
            with silence(), _errors_to(said):
                interpreter = runtime.Interpreter.from_bytes(content, arena_size=LARGE_ARENA)
                shape = interpreter.get_input_details(0)
                interpreter.set_input(np.zeros(shape["shape"], shape["dtype"]), 0)
                result = use(interpreter)
        except (RuntimeError, ValueError) as error:
            raise _not_runnable(content, _text(said), error) from error
        return result, _text(said)


def _not_runnable(content: bytes, said: str, error: Exception) -> ExportError:
    """What to raise for a model that the interpreter refused; it names the first operator that it misses alone."""
    refused, known = _MISSING.search(said), missing_operators(content)
    if refused is not None:
        return MissingOperators(list(dict.fromkeys([refused[1], *known])))
    if known:
        return MissingOperators(known)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return ExportError(
        f"The model does not run on TensorFlow Lite for Microcontrollers: {lines[0] if lines else error}."
    )


@contextmanager
def _errors_to(file: IO[bytes]) -> Iterator[None]:
    """What C++ writes to the error stream."""
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

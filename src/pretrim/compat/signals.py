"""Ctrl-C and SIGTERM while a vendor's C++ is imported or converts.

Python's answer is an exception at whatever line is next. Inside LiteRT's converter (litert-torch 0.10, MLIR) that line
is in a callback whose C++ does not expect one: the process ended by SIGSEGV or SIGABRT, without a word, or went on as
if nothing had been asked. So no exception is raised there: a program leaves at once, and a caller in Python gets its
exception where the vendor's code has ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ANSWERED = (signal.SIGINT, signal.SIGTERM)


class _Process:
    """This process: where its errors go if it is a program of ours, which may be ended; and where it is."""

    stderr: int | None = None
    is_in_vendors_code = False


@contextmanager
def program() -> Iterator[None]:
    """The command line runs inside: a signal that comes in a vendor's code ends the process."""
    _Process.stderr = os.dup(2)  # what is silenced meanwhile is the other one
    try:
        yield
    finally:
        os.close(_Process.stderr)
        _Process.stderr = None


@contextmanager
def vendors_code() -> Iterator[None]:
    """Answer signals without an exception inside. Does nothing outside the main thread, and in itself."""
    if _Process.is_in_vendors_code or threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    folder, before = tempfile.mkdtemp(prefix="pretrim-"), tempfile.tempdir

    def answer(number: int, frame: FrameType | None) -> None:
        if _Process.stderr is not None:
            _leave(number, _Process.stderr, folder)
        asked.append(number)

    # A handler that is not Python's raises no exception: it stays.
    handlers = {number: signal.getsignal(number) for number in ANSWERED if callable(signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, answer)
    _Process.is_in_vendors_code, tempfile.tempdir = True, folder
    try:
        yield
    finally:
        _Process.is_in_vendors_code, tempfile.tempdir = False, before
        for number, handler in handlers.items():
            signal.signal(number, handler)
        shutil.rmtree(folder, ignore_errors=True)
        if asked:
            signal.raise_signal(asked[0])


def _leave(number: int, stderr: int, folder: str) -> None:
    """End the process as the command line does, without its exception: the vendors' temporary files go, too."""
    shutil.rmtree(folder, ignore_errors=True)
    os.write(stderr, b"error: Interrupted.\n")
    os._exit(128 + number)

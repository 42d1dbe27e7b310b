"""Handle Ctrl-C and SIGTERM while a vendor's C++ code is imported or converts a network.

By default, Python raises an exception at whatever line comes next. Inside LiteRT's converter (litert-torch 0.10, MLIR)
that line is in a callback whose C++ does not expect one: the process silently died of SIGSEGV or SIGABRT, or went on as
if there had been no signal. So no exception is raised inside: the command-line program exits at once, and a Python
caller gets the exception after the vendor's code has returned.
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

HANDLED_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _ProcessState:
    """State of this process: its stderr if it is pretrim's program, which may exit, and whether vendor code runs."""

    stderr: int | None = None
    is_in_vendors_code = False


@contextmanager
def program() -> Iterator[None]:
    """The context of the command-line program, in which a signal during a vendor's code ends the process."""
    _ProcessState.stderr = os.dup(2)  # a copy that silence() does not redirect
    try:
        yield
    finally:
        os.close(_ProcessState.stderr)
        _ProcessState.stderr = None


@contextmanager
def vendors_code() -> Iterator[None]:
    """Handle signals without raising an exception inside. Does nothing outside the main thread, or when nested."""
    if _ProcessState.is_in_vendors_code or threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    folder, previous_tempdir = tempfile.mkdtemp(prefix="pretrim-"), tempfile.tempdir

    def handle(number: int, frame: FrameType | None) -> None:
        if _ProcessState.stderr is not None:
            _leave(number, _ProcessState.stderr, folder)
        received.append(number)

    # A handler that is not a Python function raises no exception, so it is kept.
    handlers = {number: signal.getsignal(number) for number in HANDLED_SIGNALS if callable(signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, handle)
    _ProcessState.is_in_vendors_code, tempfile.tempdir = True, folder
    try:
        yield
    finally:
        _ProcessState.is_in_vendors_code, tempfile.tempdir = False, previous_tempdir
        for number, handler in handlers.items():
            signal.signal(number, handler)
        shutil.rmtree(folder, ignore_errors=True)
        if received:
            signal.raise_signal(received[0])


def _leave(number: int, stderr: int, folder: str) -> None:
    """Exit like the interrupted command line, but without an exception; removes the vendor's temporary files."""
    shutil.rmtree(folder, ignore_errors=True)
    os.write(stderr, b"error: Interrupted.\n")
    os._exit(128 + number)

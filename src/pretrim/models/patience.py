"""A time limit on importing, building and tracing a user's network, whose `forward` may never return."""

from __future__ import annotations

import math
import os
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pretrim.errors import ModelError, UsageError

VARIABLE = "PRETRIM_TIME_LIMIT"
"""Environment variable that sets the limit in seconds."""
LIMIT_S = 900.0
STILL_S = 15.0
"""Interval between progress messages in seconds."""
_LIBRARY_FOLDERS = tuple(
    str(Path(folder).resolve())
    for folder in (Path(__file__).parent.parent, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
)

_OUTERMOST_FILE = str(Path(__file__).with_name("dense.py"))


class _Expired(BaseException):
    """Raised when the limit has passed.

    Not an Exception, so that neither the user's code nor the analysis handles it as a failure of its own.
    """


@contextmanager
def limited(name: str) -> Iterator[None]:
    """Report now and then that a network is still being waited for, and where; stop the body at the time limit.

    The body runs in this process and is interrupted by SIGALRM, between two bytecodes: a single endless call of a
    compiled function is not. There is no limit outside of the main thread, on Windows, or if the caller's program uses
    SIGALRM itself.

    Args:
        name: name of the network, for messages.

    Raises:
        ModelError: the limit has passed.
        UsageError: the limit in the environment is invalid.
    """
    limit = _limit()
    if not _is_alarm_free():
        yield
        return
    start, where = time.monotonic(), [""]

    def on_alarm(number: int, frame: FrameType | None) -> None:
        elapsed = time.monotonic() - start
        where[0] = _place(frame)
        signal.setitimer(signal.ITIMER_REAL, min(STILL_S, max(limit - elapsed, 0.001)) if elapsed < limit else STILL_S)
        if elapsed >= limit:
            raise _Expired
        _print(f"still waiting for {name}{where[0]} ({elapsed:.0f} s)")

    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, min(STILL_S, limit))
    try:
        yield
    except _Expired:
        raise ModelError(
            f"Expected {name} to be built and traced within {limit:g} s, but it did not end{where[0]}: look for a loop "
            f"without an end there, or raise the limit by {VARIABLE}=SECONDS if it is only slow."
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _limit() -> float:
    text = os.environ.get(VARIABLE, "")
    try:
        limit = float(text) if text else LIMIT_S
    except ValueError:
        limit = math.nan
    if not 0 < limit < threading.TIMEOUT_MAX:
        raise UsageError(f"Expected {VARIABLE} to be more than 0 seconds, but got {text!r}.")
    return limit


def _is_alarm_free() -> bool:
    """Whether SIGALRM exists and is unused."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        return False
    return signal.getsignal(signal.SIGALRM) is signal.SIG_DFL and signal.getitimer(signal.ITIMER_REAL)[0] == 0


def _place(frame: FrameType | None) -> str:
    """Return the innermost line of the user's own files that is being run within the limit."""
    while frame is not None and frame.f_code.co_filename != _OUTERMOST_FILE:
        file = frame.f_code.co_filename
        if not file.startswith(("<", *_LIBRARY_FOLDERS)) and "site-packages" not in file:
            shown = Path(file)
            shown = shown.relative_to(Path.cwd()) if shown.is_relative_to(Path.cwd()) else shown
            return f", at {shown}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _print(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except RuntimeError:  # the network was printing to stderr at that moment
        pass

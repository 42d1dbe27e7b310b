"""A limit on how long a user's file may take to be imported, built and looked at: its `forward` may never return."""

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
"""Of the environment: seconds"""
LIMIT_S = 900.0
STILL_S = 15.0
"""Between two remarks that it is waited for"""
_OF_OTHERS = tuple(
    str(Path(folder).resolve())
    for folder in (Path(__file__).parent.parent, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
)

_LIMITED = str(Path(__file__).with_name("dense.py"))


class _Expired(BaseException):
    """The limit passed. No Exception: neither the user's code nor an attempt of the analysis takes it for a failure."""


@contextmanager
def limited(name: str) -> Iterator[None]:
    """Say now and then that a network is still waited for, and where it is; end what is inside at the limit.

    The code runs in this process, so it is interrupted by SIGALRM, between two steps of the interpreter: one endless
    call of a compiled function is not. Outside of the main thread, on Windows, and where the caller's program has an
    alarm of its own, nothing is watched.

    Args:
        name: of the network, for people.

    Raises:
        ModelError: the limit passed.
        UsageError: the limit in the environment is none.
    """
    limit = _limit()
    if not _is_free():
        yield
        return
    began, place = time.monotonic(), [""]

    def look(number: int, frame: FrameType | None) -> None:
        waited = time.monotonic() - began
        place[0] = _place(frame)
        signal.setitimer(signal.ITIMER_REAL, min(STILL_S, max(limit - waited, 0.001)) if waited < limit else STILL_S)
        if waited >= limit:
            raise _Expired
        _say(f"still waiting for {name}{place[0]} ({waited:.0f} s)")

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, min(STILL_S, limit))
    try:
        yield
    except _Expired:
        raise ModelError(
            f"Expected {name} to be built and traced within {limit:g} s, but it did not end{place[0]}: look for a loop "
            f"without an end there, or raise the limit by {VARIABLE}=SECONDS if it only takes long."
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


def _is_free() -> bool:
    """Whether there is an alarm, and it is nobody's."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        return False
    return signal.getsignal(signal.SIGALRM) is signal.SIG_DFL and signal.getitimer(signal.ITIMER_REAL)[0] == 0


def _place(frame: FrameType | None) -> str:
    """The innermost line of the user's own files that is being run, inside of what is limited."""
    while frame is not None and frame.f_code.co_filename != _LIMITED:
        file = frame.f_code.co_filename
        if not file.startswith(("<", *_OF_OTHERS)) and "site-packages" not in file:
            shown = Path(file)
            shown = shown.relative_to(Path.cwd()) if shown.is_relative_to(Path.cwd()) else shown
            return f", at {shown}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _say(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except RuntimeError:  # the network was printing to it at this moment
        pass

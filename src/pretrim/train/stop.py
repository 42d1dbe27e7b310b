"""Ctrl-C and SIGTERM during training: noted, answered after the step, when the state can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pretrim.errors import PretrimError

ASKED_BY = (signal.SIGINT, signal.SIGTERM)


class Interrupted(PretrimError):
    """A training that a signal stopped, after its state was saved. The exit code is a shell's: 128 + signal."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopRequest:
    """Whether, and by which signal, a stop was asked for."""

    number: int = 0


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Note the first of these signals; a second one acts as it does elsewhere. Does nothing outside the main thread."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in ASKED_BY}

    def note(number: int, frame: FrameType | None) -> None:
        request.number = number
        signal.signal(number, before[signal.Signals(number)])

    for number in ASKED_BY:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

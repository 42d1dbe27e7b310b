"""Ctrl-C and SIGTERM during training: they are noted and acted on after the step, when the state can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pretrim.errors import PretrimError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(PretrimError):
    """A signal stopped a training, whose state was saved. The exit code follows the shell: 128 + signal number."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopRequest:
    """A request to stop the training."""

    number: int = 0
    """Number of the signal that requested it; 0 if none did."""


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Inside, note the first signal; a second one has its usual effect. Does nothing outside the main thread."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        request.number = number
        signal.signal(number, previous[signal.Signals(number)])

    for number in STOP_SIGNALS:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

"""A time limit for processes: a model may loop forever, and a host may stop responding."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pretrim.errors import MeasureError, UsageError

STILL_S = 15.0
"""Seconds between two messages that the process is still running."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a measuring process.

    Attributes:
        limit_s: time limit in seconds, after which the process is killed.
        say: called from time to time with a message that the process is still running.
    """

    limit_s: float = 900.0
    say: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        if not 0 < self.limit_s < threading.TIMEOUT_MAX:
            raise UsageError(f"Expected the time limit to be more than 0 seconds, but got {self.limit_s:g}.")


@contextmanager
def awaited(process: subprocess.Popen[bytes], patience: Patience, name: str) -> Iterator[None]:
    """Enforce the time limit of a process while the caller reads its output, which ends with the process.

    Args:
        process: the running process; it has always ended on exit.
        patience: how long to wait.
        name: name of the process for messages and the error.

    Raises MeasureError if the time limit was exceeded.
    """
    done, expired = threading.Event(), threading.Event()
    start = time.monotonic()

    def watch() -> None:
        while (left := start + patience.limit_s - time.monotonic()) > 0:
            if done.wait(min(left, STILL_S)):
                return
            patience.say(f"still waiting for {name} ({time.monotonic() - start:.0f} s)")
        expired.set()
        process.kill()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    grace_s = 1.0  # if a signal interrupts the reading
    try:
        yield
        grace_s = 10.0
    finally:
        done.set()
        watcher.join()
        if not _ends(process, grace_s):
            process.kill()
            process.wait()
    if expired.is_set():
        raise MeasureError(
            f"{name} did not end within {patience.limit_s:g} s, and was stopped. Raise --time-limit if it is only slow."
        )


def _ends(process: subprocess.Popen[bytes], within_s: float) -> bool:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True

"""A limit on how long a process may take: a model may have a loop without an end, and a host may fall silent."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pretrim.errors import MeasureError, UsageError

STILL_S = 15.0
"""Between two remarks that it is waited for"""


@dataclass(frozen=True)
class Patience:
    """How long a measuring process is waited for.

    Attributes:
        limit_s: after that it is ended.
        say: is told now and then that it is still waited for.
    """

    limit_s: float = 900.0
    say: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        if not 0 < self.limit_s < threading.TIMEOUT_MAX:
            raise UsageError(f"Expected the time limit to be more than 0 seconds, but got {self.limit_s:g}.")


@contextmanager
def awaited(process: subprocess.Popen[bytes], patience: Patience, name: str) -> Iterator[None]:
    """Watch a process while its answer is read; its end, at the latest by the limit, ends the reading.

    Args:
        process: it; on the way out it has ended, whatever happened.
        patience: for how long.
        name: what it is, for remarks and the error.

    Raises MeasureError if the limit passed.
    """
    done, expired = threading.Event(), threading.Event()
    began = time.monotonic()

    def watch() -> None:
        while (left := began + patience.limit_s - time.monotonic()) > 0:
            if done.wait(min(left, STILL_S)):
                return
            patience.say(f"still waiting for {name} ({time.monotonic() - began:.0f} s)")
        expired.set()
        process.kill()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    ends_within_s = 1.0  # where a signal ends the reading
    try:
        yield
        ends_within_s = 10.0
    finally:
        done.set()
        watcher.join()
        if not _ends(process, ends_within_s):
            process.kill()
            process.wait()
    if expired.is_set():
        raise MeasureError(
            f"{name} did not end within {patience.limit_s:g} s, and was stopped. "
            f"Raise --time-limit if it only takes long."
        )


def _ends(process: subprocess.Popen[bytes], within_s: float) -> bool:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True

"""How a job reports remarks and progress while it works. The command line shows them as text and progress bars."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from pretrim.planning.plan import Plan
    from pretrim.study.sweep import Status
    from pretrim.train import Progress

Training: TypeAlias = "Callable[[Progress], None]"
Counting: TypeAlias = Callable[[int, int], None]
Watching: TypeAlias = "Callable[[Status], None]"


class Reporter(Protocol):
    """Receives a job's remarks and progress. Each context manager spans one piece of work and yields its callback."""

    def say(self, line: str) -> None:
        """Receive a one-line remark."""

    def planned(self, plan: Plan) -> None:
        """Receive the plan once the widths are chosen, before any training."""

    def training(self, name: str) -> AbstractContextManager[Training]:
        """Span the training of a network; the callback is called after every step."""

    def counting(self, name: str) -> AbstractContextManager[Counting]:
        """Span the processing of several items; the callback is called with the number done and the total."""

    def watching(self, name: str) -> AbstractContextManager[Watching]:
        """Span the run of a study's trials; the callback is called with its status a few times a second."""


class Silent:
    """A reporter that ignores everything."""

    def say(self, line: str) -> None:
        """Do nothing."""

    def planned(self, plan: Plan) -> None:
        """Do nothing."""

    def training(self, name: str) -> AbstractContextManager[Training]:
        """Do nothing."""
        return nullcontext(lambda progress: None)

    def counting(self, name: str) -> AbstractContextManager[Counting]:
        """Do nothing."""
        return nullcontext(lambda done, of: None)

    def watching(self, name: str) -> AbstractContextManager[Watching]:
        """Do nothing."""
        return nullcontext(lambda status: None)


class Kept(Silent):
    """Collects remarks until it is known whether to report them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Collect a remark."""
        self.lines.append(line)

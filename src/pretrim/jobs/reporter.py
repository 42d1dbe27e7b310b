"""What a job tells while it works: remarks, and how far it is. The command line draws bars from it, a notebook may."""

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
    """Told what a job does. Each context manager spans one piece of work and yields what is called as it goes on."""

    def say(self, line: str) -> None:
        """A remark, one line."""

    def planned(self, plan: Plan) -> None:
        """The widths are chosen; nothing is trained yet."""

    def training(self, name: str) -> AbstractContextManager[Training]:
        """A network is trained: called after every step."""

    def counting(self, name: str) -> AbstractContextManager[Counting]:
        """Things are done one by one: called with how many are done, and of how many."""

    def watching(self, name: str) -> AbstractContextManager[Watching]:
        """A study's trials are run: called with its status a few times a second."""


class Silent:
    """Says nothing."""

    def say(self, line: str) -> None:
        """Nothing."""

    def planned(self, plan: Plan) -> None:
        """Nothing."""

    def training(self, name: str) -> AbstractContextManager[Training]:
        """Nothing."""
        return nullcontext(lambda progress: None)

    def counting(self, name: str) -> AbstractContextManager[Counting]:
        """Nothing."""
        return nullcontext(lambda done, of: None)

    def watching(self, name: str) -> AbstractContextManager[Watching]:
        """Nothing."""
        return nullcontext(lambda status: None)


class Kept(Silent):
    """Keeps what is said, until it is known whether it is to be told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Kept."""
        self.lines.append(line)

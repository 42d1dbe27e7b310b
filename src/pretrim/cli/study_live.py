"""A study on a terminal while it is trained: all trials, each one that runs, and the front so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Group
from rich.live import Live
from rich.table import Table as Grid
from rich.text import Text

from pretrim.present.layout import Table, fitted
from pretrim.present.study import titled
from pretrim.present.text import count, size

from . import render
from .bars import LEAST_BAR, clock, line, room_for_bar, that_fit

if TYPE_CHECKING:
    from pretrim.study.progress import Running
    from pretrim.study.recommend import Candidate
    from pretrim.study.rows import Trial
    from pretrim.study.sweep import Status

MOST_ROWS = 12
"""of the front, and of the trials that run"""


@contextmanager
def live() -> Iterator[Callable[[Status], None]]:
    """What is drawn goes when the study is left: its table follows. In a pipe, a line for each trial."""
    console = render.status()
    if not console.is_terminal:
        yield _Lines().show
        return
    watched = Watched()
    with Live(console=console, refresh_per_second=4, transient=True) as view:

        def drawn(status: Status) -> None:
            watched.see(status)
            view.update(watched.drawn(console.width))

        yield drawn


class _Lines:
    """For a pipe: what finished before is not told again."""

    def __init__(self) -> None:
        self.is_first, self.told = True, 0

    def show(self, status: Status) -> None:
        new, self.is_first = (() if self.is_first else status.finished), False
        total = sum(status.counts.values())
        done = total - status.counts["waiting"] - status.counts["running"]
        for place, trial in enumerate(new, start=done - len(new) + 1):
            render.say(f"[{place}/{total}] {_said(trial)}")


def _said(trial: Trial) -> str:
    name = _name(trial)
    if trial.state == "failed":
        return f"{name}: failed: {trial.error}"
    score = trial.metric.show(trial.validation)
    return f"{name}: validation {score}{' (stopped: hopeless)' if trial.state == 'stopped' else ''}"


def _name(trial: Trial) -> str:
    return f"{trial.spec.name}, seed {trial.spec.seed}"


@dataclass
class Watched:
    """What was seen of a study, and what is to come.

    Attributes:
        found: trials that are finished.
        status: the last one.
    """

    found: list[Trial] = field(default_factory=list)
    status: Status | None = None
    forecast: Forecast = field(default_factory=lambda: Forecast())

    def see(self, status: Status) -> None:
        """The next status."""
        self.found.extend(status.finished)
        self.forecast.see(status)
        self.status = status

    def drawn(self, width: int) -> Group:
        """For a terminal of so many columns."""
        from pretrim.study.recommend import candidates

        assert self.status is not None
        parts: list[Any] = [self._head(width), *_bars(self.status.running, width)]
        if there := candidates(self.found):
            parts.append(fitted(_front_table(there), width))
        return Group(*parts)

    def _head(self, width: int) -> Grid:
        """The bar of the whole study; a trial that runs counts by how far it is."""
        assert self.status is not None
        counts = self.status.counts
        total = sum(counts.values())
        done = total - counts["waiting"] - counts["running"]
        left = self.forecast.seconds_left()
        words = f"{done} of {total} trials, {counts['running']} running"
        words += f", {counts['failed']} failed" if counts["failed"] else ""
        words += f", {clock(left)} left" if left is not None else ""
        return line("", done + sum(map(_share, self.status.running)), max(total, 1), words, width)


@dataclass
class Forecast:
    """The time that a study still takes, by how long its trials take; it counts down between two looks.

    Attributes:
        now: a clock, in seconds.
    """

    now: Callable[[], float] = time.monotonic
    _durations: list[float] = field(default_factory=list)
    """Of the trials that are done, in seconds"""
    _seen: object = None
    _ends: float | None = None

    def see(self, status: Status) -> None:
        """The next status."""
        records = [trial.record or {} for trial in status.finished]
        self._durations += [record["seconds"] for record in records if "seconds" in record]
        seen = (len(self._durations), status.left, [one.place for one in status.running])
        if seen != self._seen:
            left = self._left(status)
            self._seen, self._ends = seen, None if left is None else self.now() + left

    def _left(self, status: Status) -> float | None:
        """As many trials at a time as now; None where nothing is known of how long one takes."""
        places = [one.place for one in status.running if one.place is not None]
        whole = self._durations + [place.seconds_left / (1 - place.done) for place in places if place.done < 1]
        if not status.left or not whole:
            return None if status.left else 0.0
        each = sum(whole) / len(whole)
        known = [place.seconds_left for place in places]
        total = sum(known) + each * (status.left - len(places))
        return max([total / max(len(status.running), 1), *known])

    def seconds_left(self) -> float | None:
        """From now; None where it is not known yet."""
        return None if self._ends is None else max(self._ends - self.now(), 0.0)


def _share(one: Running) -> float:
    return 0.0 if one.place is None else one.place.done


def _bars(running: Sequence[Running], width: int) -> list[Any]:
    """A line for each trial that runs; where name and bar have no room in one, two lines."""
    shown = running[:MOST_ROWS]
    longest = max((cell_len(_name(one.trial)) for one in shown), default=0)
    is_narrow = any(room_for_bar(" " * longest, _where(one, "", 0), width) < LEAST_BAR for one in shown)
    names = ["" if is_narrow else _name(one.trial).ljust(longest) for one in shown]
    words = [_where(one, name, width) for one, name in zip(shown, names, strict=True)]
    most = max(map(cell_len, words), default=0)
    parts: list[Any] = []
    for one, name, said in zip(shown, names, words, strict=True):
        parts += [Text(_name(one.trial), overflow="fold")] if is_narrow else []
        parts.append(line(name, _share(one), 1.0, said.ljust(most), width))
    return [*parts, *([Text(f"and {len(running) - len(shown)} more")] if len(running) > len(shown) else [])]


def _where(one: Running, name: str, width: int) -> str:
    """Epoch, the last validation score if it has room, and the time left."""
    place = one.place
    if place is None:
        return "starting"
    score = [] if place.score is None else [(f"validation {one.trial.metric.show(place.score)}", 2)]
    left = (f"{clock(place.seconds_left)} left", 1)
    return that_fit(name, [(f"epoch {place.epoch}/{place.epochs}", 0), *score, left], width)


def _front_table(there: Sequence[Candidate]) -> Table:
    from pretrim.study.pareto import front

    chosen = front([one.takes["macs"] for one in there], [one.worth for one in there])
    rows = sorted((one for one, on in zip(there, chosen, strict=True) if on), key=lambda one: one.takes["macs"])
    table = Table("<front so far", "?MACs", "parameters", "?RAM", titled("validation", there[0].metric))
    for one in rows[-MOST_ROWS:]:
        takes = one.takes
        cells = [count(takes["macs"]), count(takes["params"]), size(takes["ram"])]
        table.add_row(one.name, *cells, one.metric.show(one.validation))
    return table

"""Live view of a study during training: overall progress, the running trials, and the front so far."""

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

MAX_ROWS = 12
"""Maximum number of rows for the front, and for the running trials."""


@contextmanager
def live() -> Iterator[Callable[[Status], None]]:
    """Draw the progress of a study until the context ends; in a pipe, print a line for each trial."""
    console = render.status()
    if not console.is_terminal:
        yield _Lines().show
        return
    watched = Watched()
    with Live(console=console, refresh_per_second=4, transient=True) as view:

        def update(status: Status) -> None:
            watched.see(status)
            view.update(watched.drawn(console.width))

        yield update


class _Lines:
    """Output for a pipe: a line for each trial that finishes, without those that had finished before."""

    def __init__(self) -> None:
        self.is_first = True

    def show(self, status: Status) -> None:
        new, self.is_first = (() if self.is_first else status.finished), False
        total = sum(status.counts.values())
        done = total - status.counts["waiting"] - status.counts["running"]
        for number, trial in enumerate(new, start=done - len(new) + 1):
            render.say(f"[{number}/{total}] {_outcome(trial)}")


def _outcome(trial: Trial) -> str:
    name = _name(trial)
    if trial.state == "failed":
        return f"{name}: failed: {trial.error}"
    score = trial.metric.show(trial.validation)
    return f"{name}: validation {score}{' (stopped: hopeless)' if trial.state == 'stopped' else ''}"


def _name(trial: Trial) -> str:
    return f"{trial.spec.name}, seed {trial.spec.seed}"


@dataclass
class Watched:
    """The state of a study as seen so far.

    Attributes:
        found: finished trials.
        status: the latest status.
        forecast: estimate of the remaining time.
    """

    found: list[Trial] = field(default_factory=list)
    status: Status | None = None
    forecast: Forecast = field(default_factory=lambda: Forecast())

    def see(self, status: Status) -> None:
        """Take in the next status."""
        self.found.extend(status.finished)
        self.forecast.see(status)
        self.status = status

    def drawn(self, width: int) -> Group:
        """Render the view for a terminal of `width` columns."""
        from pretrim.study.recommend import candidates

        assert self.status is not None
        parts: list[Any] = [self._head(width), *_bars(self.status.running, width)]
        if finished := candidates(self.found):
            parts.append(fitted(_front_table(finished), width))
        return Group(*parts)

    def _head(self, width: int) -> Grid:
        """The progress bar of the whole study; a running trial counts by the fraction that is done."""
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
    """Estimate of a study's remaining time from the durations of its trials; it counts down between updates.

    Attributes:
        now: a clock in seconds.
    """

    now: Callable[[], float] = time.monotonic
    _durations: list[float] = field(default_factory=list)
    """Durations of the finished trials in seconds."""
    _seen: object = None
    _ends: float | None = None

    def see(self, status: Status) -> None:
        """Take in the next status."""
        records = [trial.record or {} for trial in status.finished]
        self._durations += [record["seconds"] for record in records if "seconds" in record]
        seen = (len(self._durations), status.left, [running.position for running in status.running])
        if seen != self._seen:
            left = self._left(status)
            self._seen, self._ends = seen, None if left is None else self.now() + left

    def _left(self, status: Status) -> float | None:
        """Seconds left if as many trials run in parallel as now; None if no trial's duration is known."""
        positions = [running.position for running in status.running if running.position is not None]
        durations = self._durations + [
            position.seconds_left / (1 - position.done) for position in positions if position.done < 1
        ]
        if not status.left or not durations:
            return None if status.left else 0.0
        mean = sum(durations) / len(durations)
        known = [position.seconds_left for position in positions]
        total = sum(known) + mean * (status.left - len(positions))
        return max([total / max(len(status.running), 1), *known])

    def seconds_left(self) -> float | None:
        """Seconds left from now; None if not known yet."""
        return None if self._ends is None else max(self._ends - self.now(), 0.0)


def _share(running: Running) -> float:
    return 0.0 if running.position is None else running.position.done


def _bars(running: Sequence[Running], width: int) -> list[Any]:
    """A line for each running trial, or two lines if its name and bar do not fit into one."""
    shown = running[:MAX_ROWS]
    name_length = max((cell_len(_name(row.trial)) for row in shown), default=0)
    is_narrow = any(room_for_bar(" " * name_length, _where(row, "", 0), width) < LEAST_BAR for row in shown)
    names = ["" if is_narrow else _name(row.trial).ljust(name_length) for row in shown]
    texts = [_where(row, name, width) for row, name in zip(shown, names, strict=True)]
    text_length = max(map(cell_len, texts), default=0)
    parts: list[Any] = []
    for row, name, text in zip(shown, names, texts, strict=True):
        parts += [Text(_name(row.trial), overflow="fold")] if is_narrow else []
        parts.append(line(name, _share(row), 1.0, text.ljust(text_length), width))
    return [*parts, *([Text(f"and {len(running) - len(shown)} more")] if len(running) > len(shown) else [])]


def _where(running: Running, name: str, width: int) -> str:
    """Epoch, the last validation score if there is room, and the time left."""
    position = running.position
    if position is None:
        return "starting"
    score = [] if position.score is None else [(f"validation {running.trial.metric.show(position.score)}", 2)]
    left = (f"{clock(position.seconds_left)} left", 1)
    return that_fit(name, [(f"epoch {position.epoch}/{position.epochs}", 0), *score, left], width)


def _front_table(candidates: Sequence[Candidate]) -> Table:
    from pretrim.study.pareto import front

    mask = front([candidate.costs["macs"] for candidate in candidates], [candidate.worth for candidate in candidates])
    on_front = (candidate for candidate, is_on in zip(candidates, mask, strict=True) if is_on)
    rows = sorted(on_front, key=lambda candidate: candidate.costs["macs"])
    table = Table("<front so far", "?MACs", "parameters", "?RAM", titled("validation", candidates[0].metric))
    for candidate in rows[-MAX_ROWS:]:
        costs = candidate.costs
        cells = [count(costs["macs"]), count(costs["params"]), size(costs["ram"])]
        table.add_row(candidate.name, *cells, candidate.metric.show(candidate.validation))
    return table

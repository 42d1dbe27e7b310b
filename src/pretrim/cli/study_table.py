"""A study on a terminal while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid
from rich.text import Text

from pretrim.present.layout import Table
from pretrim.present.study import titled
from pretrim.present.text import count, size

from . import render

if TYPE_CHECKING:
    from pretrim.study.recommend import Candidate
    from pretrim.study.rows import Trial
    from pretrim.study.sweep import Status

MOST_ROWS = 12
"""of the front, in the live view"""


@contextmanager
def live() -> Iterator[Callable[[Status], None]]:
    """Trials done and to come, time left, and the front so far. In a pipe, a line for each trial."""
    console, before, first = render.status(), [0], [True]

    def lines(status: Status) -> None:
        new, first[0] = ([] if first[0] else status.finished), False
        total = sum(status.counts.values())
        for trial in new:
            before[0] += 1
            done = total - status.counts["waiting"] - status.counts["running"]
            render.say(f"[{done}/{total}] {_said(trial)}")

    if not console.is_terminal:
        yield lines
        return
    found: list[Trial] = []
    started_with: list[int] = []
    with Live(console=console, refresh_per_second=4) as view:

        def drawn(status: Status) -> None:
            found.extend(status.finished)
            if not started_with:
                started_with.append(len(found))
            view.update(_view(status, found, len(found) - started_with[0]))

        yield drawn


def _said(trial: Trial) -> str:
    name = f"{trial.spec.name}, seed {trial.spec.seed}"
    if trial.state == "failed":
        return f"{name}: failed: {trial.error}"
    score = trial.metric.show(trial.validation)
    return f"{name}: validation {score}{' (stopped: hopeless)' if trial.state == 'stopped' else ''}"


def _view(status: Status, found: Sequence[Trial], since: int) -> Group:
    from pretrim.study.recommend import candidates

    counts = status.counts
    total = sum(counts.values())
    done = total - counts["waiting"] - counts["running"]
    left = f", {_clock(status.seconds / since * status.left)} left" if since and status.left else ""
    words = f"{done} of {total} trials, {counts['running']} running{left}"
    if counts["failed"]:
        words += f", {counts['failed']} failed"
    head = Grid.grid(padding=(0, 2))
    head.add_row(ProgressBar(total=max(total, 1), completed=done, width=40), Text(words))
    parts: list[Any] = [head]
    if there := candidates(found):
        parts.append(_front_table(there))
    return Group(*parts)


def _front_table(there: Sequence[Candidate]) -> Any:
    from pretrim.study.pareto import front

    chosen = front([one.takes["macs"] for one in there], [one.worth for one in there])
    rows = sorted((one for one, on in zip(there, chosen, strict=True) if on), key=lambda one: one.takes["macs"])
    table = Table("<front so far", "?MACs", "parameters", "?RAM", titled("validation", there[0].metric))
    for one in rows[-MOST_ROWS:]:
        takes = one.takes
        cells = [count(takes["macs"]), count(takes["params"]), size(takes["ram"])]
        table.add_row(one.name, *cells, one.metric.show(one.validation))
    return table


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

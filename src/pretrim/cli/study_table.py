"""A study on a terminal: while it runs, and its trials as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid
from rich.text import Text

from . import render
from .layout import Table, show_table

if TYPE_CHECKING:
    from pretrim.study.recommend import Candidate
    from pretrim.study.rows import Trial
    from pretrim.study.sweep import Status
    from pretrim.train import Metric

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
        cells = [render.count(takes["macs"]), render.count(takes["params"]), render.size(takes["ram"])]
        table.add_row(one.name, *cells, one.metric.show(one.validation))
    return table


def titled(part: str, metric: Metric) -> str:
    """The heading of a column of scores: accuracies are not named, as they are the rule."""
    return part if metric.name == "accuracy" else f"{part} {metric.title}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def show_trials(console: Console, trials: Sequence[Trial]) -> None:
    """Every trial by its share of MACs; the mean over seeds is the report's. A narrow terminal has fewer columns."""
    from pretrim.study.recommend import place_of
    from pretrim.train import ACCURACY

    is_wide = console.width >= render.WIDE
    metric = next((trial.metric for trial in trials if trial.record), ACCURACY)
    has_latency = is_wide or any(trial.measured for trial in trials)
    more = [*(["flash"] if is_wide else []), "RAM", *(["latency"] if has_latency else [])]
    table = Table(
        "<trial",
        "?seed",
        "MACs",
        "parameters",
        *more,
        titled("validation", metric),
        *(["?95 %"] if is_wide else []),
        "?s",
        "<?",
    )
    there = [trial for trial in trials if trial.record is not None]
    for trial in sorted(there, key=lambda trial: -(trial.record or {})["costs"]["macs"]):
        record = trial.record or {}
        costs, latency = record["costs"], (trial.measured or {}).get("latency_s")
        table.add_row(
            trial.spec.name,
            str(trial.spec.seed),
            render.count(costs["macs"]),
            render.count(costs["params"]),
            *([render.size(costs["weight_bytes"])] if is_wide else []),
            render.size(costs["peak_activation_bytes"]),
            *(["-" if latency is None else f"{1e3 * latency:.2f} ms"] if has_latency else []),
            metric.show(trial.validation),
            *([render.interval(record.get("validation", {}).get("interval_95"), metric=metric)] if is_wide else []),
            f"{record['seconds']:.0f}" if "seconds" in record else "-",
            "stopped" if trial.state == "stopped" else "",
        )
    show_table(console, f"{len(there)} trial{'s' if len(there) != 1 else ''}", table)
    for place in dict.fromkeys(place_of(trial.measured) for trial in there if trial.measured):
        console.print(Text(f"latency: {place}"), soft_wrap=True)
    for trial in trials:
        if trial.state == "failed":
            console.print(Text(f"failed: {trial.spec.name}, seed {trial.spec.seed}: {trial.error}"), soft_wrap=True)
    _show_warnings(console, there)


def _show_warnings(console: Console, trials: Sequence[Trial]) -> None:
    """What to know before believing the accuracies: the first trial's words, and how many more have any."""
    warned = [trial for trial in trials if (trial.record or {}).get("warnings")]
    if not warned:
        return
    first = warned[0]
    for text in (first.record or {})["warnings"]:
        console.print(Text(f"warning: {first.spec.name}, seed {first.spec.seed}: {text}"), soft_wrap=True)
    if len(warned) > 1:
        console.print(Text(f"{len(warned) - 1} more trials have warnings: --json shows them"))


def amount(unit: str, value: float) -> str:
    """A resource in its unit."""
    if unit == "B":
        return render.size(value)
    return f"{1e3 * value:.3g} m{unit}" if unit in ("s", "J") else render.count(value)

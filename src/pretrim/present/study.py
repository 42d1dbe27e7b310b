"""The trials of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from .device import energy_text, time_label, time_text
from .layout import Table, show_table
from .text import count, interval, show_line, size

if TYPE_CHECKING:
    from pretrim.study.rows import Trial
    from pretrim.train import Metric

SHORTEST_S = 0.5
"""Of a training whose seconds are said"""


def show_trials(console: Console, trials: Sequence[Trial]) -> None:
    """Every trial by its share of MACs; the mean over seeds is the report's. A narrow terminal has fewer columns."""
    from pretrim.study.predicted import predicted
    from pretrim.study.recommend import place_of
    from pretrim.train import ACCURACY

    on_boards = {trial.key: predicted(trial) for trial in trials}
    has_board = any(on_boards.values())
    has_energy = any((found or {}).get("slim_uj") is not None for found in on_boards.values())
    metric = next((trial.metric for trial in trials if trial.record), ACCURACY)
    has_latency = any(trial.measured for trial in trials)
    more = ["?flash", "RAM", *(["latency"] if has_latency else [])]
    more += [*(["on its board"] if has_board else []), *(["?energy"] if has_energy else [])]
    table = Table(
        "<trial", "?seed", "MACs", "parameters", *more, titled("validation", metric), "?95 %", "?seconds", "<?"
    )
    there = [trial for trial in trials if trial.record is not None]
    for trial in sorted(there, key=lambda trial: -(trial.record or {})["costs"]["macs"]):
        record = trial.record or {}
        costs, latency = record["costs"], (trial.measured or {}).get("latency_s")
        table.add_row(
            trial.spec.name,
            str(trial.spec.seed),
            count(costs["macs"]),
            count(costs["params"]),
            size(costs["weight_bytes"]),
            size(costs["peak_activation_bytes"]),
            *(["-" if latency is None else f"{1e3 * latency:.2f} ms"] if has_latency else []),
            *_board_cells(on_boards[trial.key], has_board=has_board, has_energy=has_energy),
            metric.show(trial.validation),
            interval(record.get("validation", {}).get("interval_95"), metric=metric),
            f"{record['seconds']:.0f}" if record.get("seconds", 0.0) >= SHORTEST_S else "-",
            "stopped" if trial.state == "stopped" else "",
        )
    show_table(console, f"{len(there)} trial{'s' if len(there) != 1 else ''}", table)
    for place in dict.fromkeys(place_of(trial.measured) for trial in there if trial.measured):
        show_line(console, f"latency: {place}")
    for label in dict.fromkeys(time_label(found) for found in on_boards.values() if found is not None):
        show_line(console, f"on its board, {label}")
    for trial in trials:
        if trial.state == "failed":
            show_line(console, f"failed: {trial.spec.name}, seed {trial.spec.seed}: {trial.error}")
    _show_warnings(console, there)


def _board_cells(found: Mapping[str, Any] | None, *, has_board: bool, has_energy: bool) -> list[str]:
    """Time and energy on the board that a trial was planned for."""
    time = ["-" if found is None else time_text(found, "slim")] if has_board else []
    return [*time, *(["-" if found is None else energy_text(found, "slim")] if has_energy else [])]


def _show_warnings(console: Console, trials: Sequence[Trial]) -> None:
    """What to know before believing the accuracies: the first trial's words, and how many more have any."""
    warned = [trial for trial in trials if (trial.record or {}).get("warnings")]
    if not warned:
        return
    first = warned[0]
    for text in (first.record or {})["warnings"]:
        show_line(console, f"warning: {first.spec.name}, seed {first.spec.seed}: {text}")
    if len(warned) > 1:
        others = "1 more trial has" if len(warned) == 2 else f"{len(warned) - 1} more trials have"
        show_line(console, f"{others} warnings: --json shows them")


def titled(part: str, metric: Metric) -> str:
    """The heading of a column of scores: accuracies are not named, as they are the rule."""
    return part if metric.name == "accuracy" else f"{part} {metric.title}"

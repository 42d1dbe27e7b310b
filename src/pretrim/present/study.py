"""The table of a study's trials."""

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
"""Shortest training whose duration is shown."""


def show_trials(console: Console, trials: Sequence[Trial]) -> None:
    """Print every trial, most MACs first; the report has the means over seeds. A narrow terminal gets fewer columns."""
    from pretrim.study.predicted import predicted
    from pretrim.study.recommend import machine_of
    from pretrim.train import ACCURACY

    on_boards = {trial.key: predicted(trial) for trial in trials}
    has_board = any(on_boards.values())
    has_energy = any((prediction or {}).get("slim_uj") is not None for prediction in on_boards.values())
    metric = next((trial.metric for trial in trials if trial.record), ACCURACY)
    has_latency = any(trial.measured for trial in trials)
    cost_columns = ["?flash", "RAM", *(["latency"] if has_latency else [])]
    cost_columns += [*(["on its board"] if has_board else []), *(["?energy"] if has_energy else [])]
    table = Table(
        "<trial", "?seed", "MACs", "parameters", *cost_columns, titled("validation", metric), "?95 %", "?seconds", "<?"
    )
    finished = [trial for trial in trials if trial.record is not None]
    for trial in sorted(finished, key=lambda trial: -(trial.record or {})["costs"]["macs"]):
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
    if finished:
        show_table(console, f"{len(finished)} trial{'s' if len(finished) != 1 else ''}", table)
    for machine in dict.fromkeys(machine_of(trial.measured) for trial in finished if trial.measured):
        show_line(console, f"latency: {machine}")
    for label in dict.fromkeys(time_label(prediction) for prediction in on_boards.values() if prediction is not None):
        show_line(console, f"on its board, {label}")
    for trial in trials:
        if trial.state == "failed":
            show_line(console, f"failed: {trial.spec.name}, seed {trial.spec.seed}: {trial.error}")
    _show_warnings(console, finished)


def _board_cells(prediction: Mapping[str, Any] | None, *, has_board: bool, has_energy: bool) -> list[str]:
    """Cells for the predicted time and energy on the board that a trial was planned for."""
    time = ["-" if prediction is None else time_text(prediction, "slim")] if has_board else []
    return [*time, *(["-" if prediction is None else energy_text(prediction, "slim")] if has_energy else [])]


def _show_warnings(console: Console, trials: Sequence[Trial]) -> None:
    """Print the warnings of the first trial that has any, and how many more trials have some."""
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
    """The heading of a score column; accuracy, the usual metric, is not named."""
    return part if metric.name == "accuracy" else f"{part} {metric.title}"

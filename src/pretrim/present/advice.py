"""A study's recommendation: the best network within the limits, the next best, and what more of a resource buys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from .layout import Table, show_table
from .study import titled
from .text import compared, interval, resource, show_line

if TYPE_CHECKING:
    from pretrim.jobs.study import Advice
    from pretrim.study.recommend import Candidate
    from pretrim.train import Metric

ON_BOARD = {"flash": "file", "ram": "arena"}
"""The resources that replace the formulas' bytes if they are limited by a board."""


def show_advice(console: Console, advice: Advice) -> None:
    """Print the best network, the next best, and what more of a resource would buy."""
    from pretrim.study.recommend import BY_NAME

    found, limits = advice.found, advice.limits
    if found.best is None:
        return
    metric = found.best.metric
    title = f"{found.fitting} of {found.of} networks fit{f' ({_limits_text(limits)})' if limits else ''}"
    names = _columns(found.best, limits)
    is_known = found.best.validated is not None  # studies of older versions do not say
    columns = [f"{'' if name == 'macs' or name in limits else '?'}{BY_NAME[name].title}" for name in names]
    table = Table("<", "<network", "?seed", *columns, titled("validation", metric), *(["?95 %"] if is_known else []))
    for rank, candidate in (("best", found.best), ("next best", found.next_best)):
        if candidate is not None:
            cells = [
                resource(BY_NAME[name].unit, candidate.costs[name]) if name in candidate.costs else "-"
                for name in names
            ]
            interval_cells = [_interval(candidate.validated, metric)] if is_known else []
            table.add_row(
                rank, candidate.name, str(candidate.seed), *cells, metric.show(candidate.validation), *interval_cells
            )
    show_table(console, title, table)
    if found.comparison is not None:
        comparison = compared(found.comparison.to_json())
        show_line(console, f"best against next best: {comparison}")
    interval_text = f" ({_interval(found.best.tested, metric)})" if found.best.tested is not None else ""
    score = metric.show(found.best.test, 2 if metric.is_share else 1)
    console.print(Text(f"test {metric.title} of the best, on images that influenced no choice: {score}{interval_text}"))
    for buy in found.buys:
        more = resource(buy.resource.unit, buy.more)
        gain = f"+{100 * buy.gain:.1f} points" if metric.is_share else f"{metric.title} better by {buy.gain:.3g}"
        text = f"{gain} for +{more} {buy.resource.title}: {_candidate_text(buy.candidate)}"
        if buy.comparison is not None and not buy.comparison.is_significant:
            text += f" (McNemar p = {buy.comparison.p_value:.2g}: no significant difference)"
        show_line(console, text)
    if advice.latency_of is not None:
        show_line(console, f"latency: {advice.latency_of}")
    console.print(Text(f"run: {advice.path}"), soft_wrap=True)


def _limits_text(limits: Mapping[str, float]) -> str:
    """Describe the limits with the column titles."""
    from pretrim.study.recommend import BY_NAME

    named = {BY_NAME[name].title: resource(BY_NAME[name].unit, value) for name, value in limits.items()}
    return ", ".join(f"{title} at most {value}" for title, value in named.items())


def _interval(evaluation: Mapping[str, Any] | None, metric: Metric) -> str:
    """The 95 % interval and the number of images; a dash in studies of older versions."""
    if evaluation is None:
        return "-"
    return f"{interval(evaluation['interval_95'], metric=metric)}, n = {evaluation['images']:,}"


def _columns(best: Candidate, limits: Mapping[str, float]) -> list[str]:
    """Names of the resources that have a column.

    If a board's own flash or RAM is limited, its column replaces that of the formula.
    """
    replacements = {
        name: on_board for name, on_board in ON_BOARD.items() if on_board in limits and on_board in best.costs
    }
    names = [replacements.get(name, name) for name in ("params", "macs", "flash", "ram", "latency", "energy")]
    return [name for name in names if name in best.costs]


def _candidate_text(candidate: Candidate) -> str:
    return f"{candidate.name}, seed {candidate.seed}"

"""What a study recommends: the best network within limits, the next best, and what a little more would buy."""

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
"""What a board's own limits are on, in the place of the formulas' bytes"""


def show_advice(console: Console, advice: Advice) -> None:
    """The choice, the next best, and what more would buy."""
    from pretrim.study.recommend import BY_NAME

    found, limits = advice.found, advice.limits
    if found.best is None:
        return
    metric = found.best.metric
    title = f"{found.fitting} of {found.of} networks fit{f' ({_asked(limits)})' if limits else ''}"
    shown = _shown(found.best, limits)
    is_known = found.best.validated is not None  # studies of older versions do not say
    columns = [f"{'' if name == 'macs' or name in limits else '?'}{BY_NAME[name].title}" for name in shown]
    table = Table("<", "<network", "?seed", *columns, titled("validation", metric), *(["?95 %"] if is_known else []))
    for rank, one in (("best", found.best), ("next best", found.next_best)):
        if one is not None:
            cells = [resource(BY_NAME[name].unit, one.takes[name]) if name in one.takes else "-" for name in shown]
            sure = [_interval(one.validated, metric)] if is_known else []
            table.add_row(rank, one.name, str(one.seed), *cells, metric.show(one.validation), *sure)
    show_table(console, title, table)
    if found.comparison is not None:
        pair = compared(found.comparison.to_json())
        show_line(console, f"best against next best: {pair}")
    of_test = f" ({_interval(found.best.tested, metric)})" if found.best.tested is not None else ""
    of_best = metric.show(found.best.test, 2 if metric.is_share else 1)
    console.print(Text(f"test {metric.title} of the best, on images that nothing was chosen by: {of_best}{of_test}"))
    for buy in found.buys:
        more = resource(buy.resource.unit, buy.more)
        gain = f"+{100 * buy.gain:.1f} points" if metric.is_share else f"{metric.title} better by {buy.gain:.3g}"
        said = f"{gain} for +{more} {buy.resource.title}: {_named(buy.candidate)}"
        if buy.comparison is not None and not buy.comparison.is_significant:
            said += f" (McNemar p = {buy.comparison.p_value:.2g}: cannot be told apart)"
        show_line(console, said)
    if advice.latency_of is not None:
        show_line(console, f"latency: {advice.latency_of}")
    console.print(Text(f"run: {advice.path}"), soft_wrap=True)


def _asked(limits: Mapping[str, float]) -> str:
    """The limits, in the words of the columns."""
    from pretrim.study.recommend import BY_NAME

    named = {BY_NAME[name].title: resource(BY_NAME[name].unit, value) for name, value in limits.items()}
    return ", ".join(f"{title} at most {value}" for title, value in named.items())


def _interval(evaluation: Mapping[str, Any] | None, metric: Metric) -> str:
    """The 95 % interval, and of how many images; a dash in studies of older versions."""
    if evaluation is None:
        return "-"
    return f"{interval(evaluation['interval_95'], metric=metric)}, n = {evaluation['images']:,}"


def _shown(best: Candidate, limits: Mapping[str, float]) -> list[str]:
    """Resources that have a column.

    Where a board's own flash and RAM are limits, what the network takes of these stands there, not the formulas.
    """
    limited = {name: of for name, of in ON_BOARD.items() if of in limits and of in best.takes}
    names = [limited.get(name, name) for name in ("params", "macs", "flash", "ram", "latency", "energy")]
    return [name for name in names if name in best.takes]


def _named(one: Candidate) -> str:
    return f"{one.name}, seed {one.seed}"

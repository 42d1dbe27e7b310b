"""`pretrim recommend`: the best measured network of a study within some limits, and what more would buy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from pretrim.errors import InfeasibleBudget
from pretrim.jobs.options import TARGET, GoalOptions, Limits

from . import render
from .arguments import Json, Storage, Study
from .layout import Table, show_table

if TYPE_CHECKING:
    from rich.console import Console

    from pretrim.jobs.study import Advice
    from pretrim.study.recommend import Candidate, Recommendation
    from pretrim.train import Metric


def recommend(
    study: Study,
    /,
    *,
    device: Annotated[str | None, Parameter(group=TARGET, help="Board whose flash and RAM become limits.")] = None,
    application: Annotated[
        float | None,
        Parameter(group=TARGET, help="Share of flash and RAM reserved for your application (default: 0.25)."),
    ] = None,
    runtime: Annotated[
        str | None,
        Parameter(group=TARGET, help="Runtime on a microcontroller, whose time is predicted: st-edge-ai, tflm, ..."),
    ] = None,
    storage: Storage = None,
    json: Json = False,
    limits: Limits | None = None,
    goal: GoalOptions | None = None,
) -> None:
    """Choose the most accurate network of a study within limits.

    By validation accuracy, or the metric of the task; it also says what a little more of each resource would buy.
    """
    from pretrim.jobs.study import open_study
    from pretrim.jobs.study import recommend as choose

    advice = choose(open_study(study, storage), limits or Limits(), device, application, runtime, goal)
    if json:
        render.print_json(advice.to_json())
    else:
        show(render.output(), advice)
    if advice.found.best is None:
        raise InfeasibleBudget(_nothing(advice.found))


def _nothing(found: Recommendation) -> str:
    if not found.relax:
        return f"None of {found.of} networks is within the limits, whichever limit is relaxed."
    parts = [f"{one.resource.title} to {enough(one.resource.unit, one.needed)}" for one in found.relax]
    return f"None of {found.of} networks is within the limits: relax {', or '.join(parts)}."


def enough(unit: str, value: float) -> str:
    """An amount that is a limit to type: never less than the value.

    >>> enough("B", 29_000.0), enough("s", 0.005_000_4), enough("", 2_842_368)
    ('29,000 bytes', '5.001 ms', '2,842,368')
    """
    if unit in ("s", "J"):
        return f"{Decimal(1000 * value).quantize(Decimal('0.001'), ROUND_CEILING)} m{unit}"
    return f"{math.ceil(value):,}{' bytes' if unit == 'B' else ''}"


def show(console: Console, advice: Advice) -> None:
    """The choice, the next best, and what more would buy."""
    from pretrim.study.recommend import BY_NAME

    from .study_table import amount, titled

    found, limits = advice.found, advice.limits
    if found.best is None:
        return
    metric = found.best.metric
    asked = ", ".join(f"{BY_NAME[name].title} {amount(BY_NAME[name].unit, value)}" for name, value in limits.items())
    title = f"{found.fitting} of {found.of} networks fit{f' ({asked})' if asked else ''}"
    shown = _shown(found.best, limits, is_wide=console.width >= render.WIDE)
    is_known = found.best.validated is not None  # studies of older versions do not say
    columns = [BY_NAME[name].title for name in shown]
    table = Table("<", "<network", "?seed", *columns, titled("validation", metric), *(["?95 %"] if is_known else []))
    for rank, one in (("best", found.best), ("next best", found.next_best)):
        if one is not None:
            cells = [amount(BY_NAME[name].unit, one.takes[name]) if name in one.takes else "-" for name in shown]
            sure = [_interval(one.validated, metric)] if is_known else []
            table.add_row(rank, one.name, str(one.seed), *cells, metric.show(one.validation), *sure)
    show_table(console, title, table)
    if found.comparison is not None:
        pair = render.compared(found.comparison.to_json())
        console.print(Text(f"best against next best: {pair}"), soft_wrap=True)
    of_test = f" ({_interval(found.best.tested, metric)})" if found.best.tested is not None else ""
    of_best = f"{found.best.test:.2%}" if metric.is_share else metric.show(found.best.test)
    console.print(Text(f"test {metric.title} of the best, on images that nothing was chosen by: {of_best}{of_test}"))
    for buy in found.buys:
        more = amount(buy.resource.unit, buy.more)
        gain = f"+{100 * buy.gain:.1f} points" if metric.is_share else f"{metric.title} better by {buy.gain:.3g}"
        said = f"{gain} for +{more} {buy.resource.title}: {_named(buy.candidate)}"
        if buy.comparison is not None and not buy.comparison.is_significant:
            said += f" (McNemar p = {buy.comparison.p_value:.2g}: cannot be told apart)"
        console.print(Text(said), soft_wrap=True)
    if advice.latency_of is not None:
        console.print(Text(f"latency: {advice.latency_of}"), soft_wrap=True)
    console.print(Text(f"run: {advice.path}"), soft_wrap=True)


def _interval(evaluation: Mapping[str, Any] | None, metric: Metric) -> str:
    """The 95 % interval, and of how many images; a dash in studies of older versions."""
    if evaluation is None:
        return "-"
    return f"{render.interval(evaluation['interval_95'], metric=metric)}, n = {evaluation['images']:,}"


def _shown(best: Candidate, limits: Mapping[str, float], *, is_wide: bool) -> list[str]:
    """Resources that have a column; on a narrow terminal, where the names would have no room, MACs and the limited."""
    there = [name for name in ("params", "macs", "flash", "ram", "latency") if name in best.takes]
    return there if is_wide else [name for name in there if name == "macs" or name in limits]


def _named(one: Candidate) -> str:
    return f"{one.name}, seed {one.seed}"

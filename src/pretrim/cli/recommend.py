"""`pretrim recommend`: the best measured network of a study within some limits, and what more would buy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from pretrim.errors import InfeasibleBudget

from . import options, render

if TYPE_CHECKING:
    from rich.console import Console

    from pretrim.study.recommend import Candidate, Recommendation
    from pretrim.study.store import Trial

StudyFolder = Annotated[Path, typer.Argument(metavar="STUDY", help="A folder of `pretrim sweep`.", show_default=False)]
StorageOption = Annotated[
    str | None, typer.Option("--storage", metavar="URL", help="The study's database, if it needs a password.")
]

MeasuredLatency = Annotated[
    str | None,
    typer.Option(
        "--latency",
        metavar="LIMIT",
        help="Longest measured time of one image (`pretrim sweep --to`): 5ms, 0.5x.",
        rich_help_panel=options.LIMITS,
    ),
]


def recommend(
    study: StudyFolder,
    params: options.Params = None,
    macs: options.Macs = None,
    flash: options.Flash = None,
    ram: options.Ram = None,
    activation: options.Activation = None,
    latency: MeasuredLatency = None,
    device: options.Device = None,
    application: options.Application = None,
    storage: StorageOption = None,
    json: options.Json = False,
) -> None:
    """Choose the most accurate network of a study within limits.

    By validation accuracy; it says too what a little more of each resource would buy.
    """
    from pretrim.study import recommend as choosing
    from pretrim.study.sweep import open_study

    store = open_study(study, storage)
    store.settings()
    trials = store.trials()
    texts = {"params": params, "macs": macs, "flash": flash, "ram": ram, "activation": activation, "latency": latency}
    limits = limits_of({name: text for name, text in texts.items() if text is not None}, trials, device, application)
    found = choosing.recommend(choosing.candidates(trials), limits)
    if found.best is None and not found.relax and not found.of:
        raise InfeasibleBudget(f"Expected trials that are done, but {study} has none yet: run `pretrim sweep`.")
    if json:
        render.print_json({**choosing.to_json(found), "limits": limits})
    else:
        show(render.output(), study, found, limits)
    if found.best is None:
        raise InfeasibleBudget(_nothing(found))


def limits_of(
    texts: dict[str, str], trials: list[Trial], device: str | None, application: float | None
) -> dict[str, float]:
    """Limits in the units of `recommend.RESOURCES`; shares are of the dense network.

    Raises UsageError for what is no limit, or a share where no trial says what the dense network takes.
    """
    from pretrim.devices import APPLICATION_SHARE, board
    from pretrim.errors import UsageError
    from pretrim.planning.budget import Limit

    dense = _dense(trials)
    found: dict[str, float] = {}
    for name, text in texts.items():
        limit = Limit.parse(name, text)
        if limit.is_share and name not in dense:
            raise UsageError(f"Expected --{name} as an amount, but got {text!r}: what it is a share of is not known.")
        value = limit.resolve(dense.get(name, 0))
        found[name] = value * 1e-9 if name == "latency" else float(value)
    if device is not None:
        own = board(device).limits(APPLICATION_SHARE if application is None else application)
        names = {"artifact_bytes": "file", "arena_bytes": "arena"}
        found |= {names[cost]: float(value) for cost, value in own.items() if cost in names}
    elif application is not None:
        raise UsageError("Expected --device with --application, but got none: name the board.")
    return found


def _dense(trials: list[Trial]) -> dict[str, int]:
    """What the dense network takes of each resource, as far as it is known; its measured latency in ns."""
    from pretrim.study.recommend import COST_OF
    from pretrim.study.settings import DENSE

    records = [trial.record for trial in trials if trial.record and "dense" in trial.record]
    costs: dict[str, int] = records[0]["dense"] if records else {}
    found = {name: int(costs[cost]) for name, cost in COST_OF.items() if cost in costs}
    times = [trial.measured["latency_s"] for trial in trials if trial.asked.mode == DENSE and trial.measured]
    return found | ({"latency": round(1e9 * median(times))} if times else {})


def _nothing(found: Recommendation) -> str:
    if not found.relax:
        return f"Expected one of {found.of} networks within the limits, but none is, whichever limit is relaxed."
    from .study_view import amount

    parts = [f"{one.resource.title} to {amount(one.resource.unit, one.needed)}" for one in found.relax]
    return f"Expected one of {found.of} networks within the limits, but none is: relax {', or '.join(parts)}."


def show(console: Console, study: Path, found: Recommendation, limits: dict[str, float]) -> None:
    """The choice, the next best, and what more would buy."""
    if found.best is None:
        return
    from pretrim.study.recommend import BY_NAME

    from .study_view import amount

    asked = ", ".join(f"{BY_NAME[name].title} {amount(BY_NAME[name].unit, value)}" for name, value in limits.items())
    console.print(Text(f"{found.fitting} of {found.of} networks fit{f' ({asked})' if asked else ''}", style="bold"))
    shown = _shown(found.best, limits, is_wide=console.width >= render.WIDE)
    table = render._table("<", "<network", "seed", *[BY_NAME[name].title for name in shown], "validation")
    for title, one in (("best", found.best), ("next best", found.next_best)):
        if one is not None:
            cells = [amount(BY_NAME[name].unit, one.takes[name]) if name in one.takes else "-" for name in shown]
            table.add_row(title, one.name, str(one.seed), *cells, render.percent(one.validation))
    console.print(table)
    console.print(Text(f"test accuracy of the best, on images that nothing was chosen by: {found.best.test:.2%}"))
    for buy in found.buys:
        more = amount(buy.resource.unit, buy.more)
        console.print(
            Text(f"+{100 * buy.gain:.1f} points for +{more} {buy.resource.title}: {_named(buy.candidate)}"),
            soft_wrap=True,
        )
    console.print(Text(f"run: {study / 'trials' / found.best.key}"), soft_wrap=True)


def _shown(best: Candidate, limits: Mapping[str, float], *, is_wide: bool) -> list[str]:
    """Resources that have a column; on a narrow terminal, where the names would have no room, MACs and the limited."""
    there = [name for name in ("params", "macs", "flash", "ram", "latency") if name in best.takes]
    return there if is_wide else [name for name in there if name == "macs" or name in limits]


def _named(one: Candidate) -> str:
    return f"{one.name}, seed {one.seed}"

"""Figures of a study for papers: accuracy against each resource, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from textwrap import fill
from typing import Any

from pretrim.files import write_atomically
from pretrim.study.pareto import front
from pretrim.study.recommend import RESOURCES, Candidate, Resource, candidates, of_one_machine, title_of
from pretrim.study.rows import Trial
from pretrim.study.settings import DENSE
from pretrim.train.lettering import lettering

# The palette of Okabe and Ito (2008), as on the page.
COLOURS = {
    DENSE: "#7f7f7f",
    "balanced": "#000000",
    "params": "#0072b2",
    "macs": "#d55e00",
    "memory": "#009e73",
    "latency": "#cc79a7",
    "joint": "#e69f00",
    "uniform": "#56b4e9",
    "random": "#999933",
    "waterfill": "#aa4499",
}
MARKERS = {
    "balanced": "P",
    "params": "o",
    "macs": "s",
    "memory": "D",
    "latency": "^",
    "joint": "v",
    "uniform": "X",
    DENSE: "*",
}
TITLES = {"params": "PA", "macs": "FA", "memory": "MA", "latency": "LA"}
SIZE_INCHES = (4.8, 3.4)
AXES = {"B": (1 / 1024, "KiB"), "s": (1e3, "ms"), "J": (1e3, "mJ")}
"""Axis scale and axis unit, by the unit of a resource; as on the page."""
LONGEST_LINE = 64
"""Maximum number of characters in a line of an axis label."""
NARROW = 8
"""Ratio of largest to smallest value below which ticks at 1, 2, 5 would leave only one or two on a log axis."""


def write_figures(folder: Path, trials: Sequence[Trial]) -> list[Path]:
    """Write ``METRIC-RESOURCE.png`` and ``.svg`` for each resource that differs between trials; returns their paths."""
    from matplotlib.figure import Figure

    found = of_one_machine(candidates(trials))
    modes = {trial.key: trial.spec.mode for trial in trials}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for resource in RESOURCES:
        known = [candidate for candidate in found if resource.name in candidate.costs]
        if len({candidate.costs[resource.name] for candidate in known}) < 2:
            continue
        figure = Figure(figsize=SIZE_INCHES, layout="constrained", dpi=200)
        _draw(figure.add_subplot(), known, resource, modes)
        for suffix in ("png", "svg"):
            path = folder / f"{found[0].metric.name}-{resource.name}.{suffix}"

            def write(temporary: Path, kind: str = suffix, figure_to_save: Any = figure) -> None:
                figure_to_save.savefig(temporary, format=kind)

            write_atomically(path, write)
            written.append(path)
    return written


def _draw(axes: Any, known: Sequence[Candidate], resource: Resource, modes: dict[str, str]) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    scale, unit = AXES.get(resource.unit, (1.0, ""))

    def x(candidate: Candidate) -> float:
        return scale * candidate.costs[resource.name]

    metric = known[0].metric
    share = 100.0 if metric.is_share else 1.0
    on_front = front([x(candidate) for candidate in known], [candidate.worth for candidate in known])
    best = sorted((candidate for candidate, is_on_front in zip(known, on_front, strict=True) if is_on_front), key=x)
    axes.step(
        [x(candidate) for candidate in best],
        [share * candidate.validation for candidate in best],
        where="post",
        color="0.5",
        lw=0.8,
        ls=":",
    )
    for mode in dict.fromkeys(modes[candidate.key] for candidate in known):
        groups: dict[str, list[Candidate]] = {}
        for candidate in known:
            if modes[candidate.key] == mode:
                groups.setdefault(candidate.name, []).append(candidate)
        rows = sorted(groups.values(), key=lambda group: fmean(map(x, group)))
        axes.errorbar(
            [fmean(map(x, group)) for group in rows],
            [share * fmean(candidate.validation for candidate in group) for group in rows],
            xerr=[stdev(map(x, group)) if len(group) > 1 else 0 for group in rows],
            yerr=[
                share * stdev(candidate.validation for candidate in group) if len(group) > 1 else 0 for group in rows
            ],
            color=COLOURS.get(mode, "0.3"),
            marker=MARKERS.get(mode, "."),
            ls="--" if mode == "uniform" else "-" if mode != DENSE else "",
            lw=0.9,
            ms=5,
            elinewidth=0.7,
            label=TITLES.get(mode, mode),
        )
    axes.set_xscale("log")
    if max(map(x, known)) > NARROW * min(map(x, known)):
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_minor_locator(NullLocator())
    # Where the label names a unit, ticks are plain numbers in it: no "200m" of milliseconds.
    plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
    axes.xaxis.set_major_formatter(plain if unit else EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    (label,), look = lettering(fill(f"{title_of(resource, known)}{unit and f', {unit}'}", LONGEST_LINE))
    axes.set_xlabel(label, **look)
    (label,), look = lettering(f"validation {metric.title}{' (%)' if metric.is_share else ''}")
    axes.set_ylabel(label, **look)
    axes.grid(alpha=0.25, lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)

"""What the page shows of a study, as plain JSON: computed here once, drawn by the script."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from pretrim.devices import APPLICATION_SHARE, RUNTIME_FLASH_BYTES, boards
from pretrim.planning.budget import Limit
from pretrim.study.command import own_command, shared_command
from pretrim.study.goal import Goal, dense_score, good_enough
from pretrim.study.pareto import front
from pretrim.study.recommend import (
    COST_OF,
    MEASURED,
    RESOURCES,
    Candidate,
    candidates,
    compared,
    of_one_machine,
    places_of,
)
from pretrim.study.rows import Trial
from pretrim.study.settings import DENSE, StudyConfig
from pretrim.train import ACCURACY, wilson

DETAILED = 400
"""Trials whose curves and widths are in the page: those of the front first, then the most accurate ones."""
PAIRED = 60
"""Of those, the ones that are compared with each other image by image: their number of pairs grows with its square."""
MOST_CELLS = 400_000
"""Entries of all confusion matrices and lists of classes together, which is about a megabyte"""
STATES = ("done", "running", "waiting", "failed", "stopped")
CONFUSION = "confusion.json"
DROPS = (0.5, 1.0, 2.0)
"""Points below the dense network, within which the smallest network is named"""
LIMIT_OF = {cost: name for name, cost in COST_OF.items()} | {"latency_ns": "latency", "latency": "latency"}


@dataclass(frozen=True)
class Shown:
    """A study, as a page shows it.

    Attributes:
        name: of the study.
        trials: all of them.
        network: what `study.network` kept of the network.
        folder: with the run folders of trials, for their confusion matrices; None without.
        config: what all trials share, for the command that trains one again; None without.
    """

    name: str
    trials: Sequence[Trial]
    network: Mapping[str, Any] | None
    folder: Path | None = None
    config: StudyConfig | None = None


def contents(shown: Shown) -> dict[str, Any]:
    """What the script draws: a row for each trial, details of some, the dense network."""
    trials, found = shown.trials, of_one_machine(candidates(shown.trials))
    by_key = {trial.key: trial for trial in trials}
    names = [one.name for one in RESOURCES if any(one.name in candidate.takes for candidate in found)]
    limits, device = study_limits(trials)
    place = next(iter(places_of(found)), "")
    detailed = _detailed(found)
    return {
        "kind": "study",
        "study": shown.name,
        "resources": [
            {**vars(one), "detail": place if one.name in MEASURED else ""} for one in RESOURCES if one.name in names
        ],
        "network": shown.network,
        "metric": (found[0].metric if found else ACCURACY).to_json(),
        "trials": [_row(one, by_key[one.key], names) for one in found],
        "details": details([by_key[key] for key in detailed], shown.folder),
        "pairs": pairs(found),
        "smallest": smallest(found),
        "dense": _dense(trials, names),
        "limits": {name: value for name, value in limits.items() if name in names},
        "board": device if {"file", "arena"} <= set(names) else "",
        "boards": board_menu() if {"file", "arena"} <= set(names) else [],
        "command": "" if shown.config is None else shared_command(shown.config),
        "counts": {state: sum(trial.state == state for trial in trials) for state in STATES},
        "failed": [{"name": t.spec.name, "seed": t.spec.seed, "error": t.error} for t in trials if t.state == "failed"],
    }


def _row(one: Candidate, trial: Trial, names: Iterable[str]) -> dict[str, Any]:
    return {
        "key": one.key,
        "name": one.name,
        "mode": trial.spec.mode,
        "keep": trial.spec.budget_fraction,
        "seed": one.seed,
        "accuracy": float(f"{one.validation:.7g}"),
        "test": float(f"{one.test:.7g}"),
        "takes": [short(one.takes.get(resource)) for resource in names],
        "interval": _ends(one.validated),
        "images": None if one.validated is None else one.validated["images"],
        "testInterval": _ends(one.tested),
        "testImages": None if one.tested is None else one.tested["images"],
        "command": own_command(trial.spec),
    }


def short(value: float | None) -> float | int | None:
    """A count as a whole number, a measured value with as many digits as it has any meaning.

    >>> short(270000.0), short(0.00012345678912)
    (270000, 0.000123456789)
    """
    if value is None or value.is_integer():
        return None if value is None else int(value)
    return float(f"{value:.9g}")


def _ends(evaluation: Mapping[str, Any] | None) -> list[float] | None:
    """The 95 % interval, as exactly as anybody reads it; None where there is none."""
    ends = None if evaluation is None else evaluation.get("interval_95")
    return None if ends is None else [float(f"{end:.6g}") for end in ends]


def _detailed(found: Sequence[Candidate]) -> list[str]:
    """Keys: dense networks first, which others are compared with, then the fronts, then the most accurate ones."""
    dense = [one.key for one in found if one.name == DENSE]
    on_front: set[str] = set()
    for cost in COST_OF:
        there = [one for one in found if cost in one.takes]
        if there:
            chosen = front([one.takes[cost] for one in there], [one.worth for one in there])
            on_front |= {one.key for one, on in zip(there, chosen, strict=True) if on}
    best = sorted(found, key=lambda one: -one.worth)
    return list(dict.fromkeys([*dense, *sorted(on_front), *(one.key for one in best)]))[:DETAILED]


def pairs(found: Sequence[Candidate]) -> dict[str, dict[str, list[float]]]:
    """The second network against the first on the same validation images: difference, interval, p-value, by keys.

    Only of the first networks of those with details, and of those that recorded which images they were right about.
    """
    by_key = {one.key: one for one in found}
    chosen = [by_key[key] for key in _detailed(found)[:PAIRED] if by_key[key].validated is not None]
    rows: dict[str, dict[str, list[float]]] = {}
    for first, second in combinations(chosen, 2):
        if (comparison := compared(first, second)) is not None:
            values = (comparison.difference, *comparison.interval.to_json(), comparison.p_value)
            rows.setdefault(first.key, {})[second.key] = [float(f"{value:.4g}") for value in values]
    return rows


def smallest(found: Sequence[Candidate]) -> list[dict[str, str]]:
    """The network with the fewest MACs within some points of the dense one; nothing without a dense one."""
    dense = dense_score(found)
    rows = []
    for drop in DROPS if dense is not None else ():
        goal = Goal(drop=drop)
        reached = good_enough(found, goal.threshold(found[0].metric, dense))
        if reached:
            rows.append({"words": goal.words(found[0].metric), "key": reached[0].key})
    return rows


def details(trials: Iterable[Trial], folder: Path | None) -> dict[str, dict[str, Any]]:
    """Widths, training curve, and where it errs, by key; matrices as far as there is room."""
    found, cells = {}, 0
    for trial in trials:
        record = trial.record or {}
        entry = {"widths": record.get("widths"), "curve": record.get("epochs")}
        classes = class_rows(record.get("test"))
        matrix = None if folder is None or classes is None else read_confusion(folder / trial.key)
        needed = len(classes or ()) * (len(matrix or ()) + 1)
        if classes is not None and cells + needed <= MOST_CELLS:
            cells += needed
            entry |= {"classes": classes, "confusion": matrix}
        found[trial.key] = entry
    return found


def class_rows(test: Mapping[str, Any] | None) -> list[list[float | None]] | None:
    """Accuracy, images, and the 95 % interval of each class of an evaluation; None where it does not say."""
    if test is None or not test.get("per_class"):
        return None
    rows: list[list[float | None]] = []
    for accuracy, images in zip(test["per_class"], test["images_per_class"], strict=True):
        if accuracy is None:
            rows.append([None, 0, None, None])
            continue
        low, high = wilson(round(accuracy * images), images).to_json()
        rows.append([round(accuracy, 4), images, round(low, 4), round(high, 4)])
    return rows


def read_confusion(run: Path) -> list[list[int]] | None:
    """The confusion matrix of a run; None where it is missing or damaged."""
    try:
        found = json.loads((run / CONFUSION).read_text(encoding="utf-8"))
        return [[int(count) for count in row] for row in found["confusion"]]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def study_limits(trials: Sequence[Trial]) -> tuple[dict[str, float], str]:
    """The limits that all slim networks of a study were made for, by resource, and their board; none where they differ.

    >>> study_limits([])
    ({}, '')
    """
    asked = {(trial.spec.limits, trial.spec.device) for trial in trials if trial.spec.mode != DENSE}
    if len(asked) != 1:
        return {}, ""
    ((texts, device),) = asked
    costs: Mapping[str, int] = next((t.record["dense"] for t in trials if t.record and "dense" in t.record), {})
    found: dict[str, float] = {}
    for option, text in texts:
        limit, name = Limit.parse(option, text), LIMIT_OF.get(option, option)
        whole = costs.get(COST_OF.get(name, ""), 0)
        if not limit.is_share or whole:
            found[name] = limit.resolve(whole) * (1e-9 if name == "latency" else 1.0)
    return found, device


def board_menu() -> list[dict[str, Any]]:
    """Boards whose flash and RAM limit a network: what they have, and what is left for it."""
    return [
        {
            "name": board.name,
            "title": board.title,
            "flash": board.flash_bytes,
            "ram": board.ram_bytes,
            "file": limits["artifact_bytes"],
            "arena": limits["arena_bytes"],
            "application": APPLICATION_SHARE,
            "runtime": RUNTIME_FLASH_BYTES,
        }
        for board in boards()
        if {"artifact_bytes", "arena_bytes"} <= set(limits := board.limits())
    ]


def _dense(trials: Sequence[Trial], names: Sequence[str]) -> list[float | None] | None:
    """What the dense network takes."""
    costs = next((trial.record["dense"] for trial in trials if trial.record and "dense" in trial.record), None)
    return None if costs is None else [costs.get(COST_OF.get(name, "")) for name in names]

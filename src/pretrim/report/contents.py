"""The contents of a study's page as plain JSON, which the page's script draws."""

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
    machines_of,
    of_one_machine,
)
from pretrim.study.rows import Trial
from pretrim.study.settings import DENSE, StudyConfig
from pretrim.train import ACCURACY, wilson

DETAILED = 400
"""Maximum number of trials whose curves and widths are in the page: fronts first, then the most accurate ones."""
PAIRED = 60
"""Maximum number of these that are compared pairwise, image by image: the number of pairs grows quadratically."""
MAX_CELLS = 400_000
"""Maximum number of entries of all confusion matrices and class lists together, about a megabyte."""
STATES = ("done", "running", "waiting", "failed", "stopped")
CONFUSION = "confusion.json"
DROPS = (0.5, 1.0, 2.0)
"""Allowed drops below the dense network, in points, for each of which the page names the smallest network."""
LIMIT_OF = {cost: name for name, cost in COST_OF.items()} | {"latency_ns": "latency", "latency": "latency"}


@dataclass(frozen=True)
class Shown:
    """The study that a page shows.

    Attributes:
        name: the study's name.
        trials: all its trials.
        network: the stored description of its network (`study.description`).
        folder: folder with the trials' run folders, for their confusion matrices; None leaves these out.
        config: the study's settings, for the command that trains a network again; None leaves it out.
    """

    name: str
    trials: Sequence[Trial]
    network: Mapping[str, Any] | None
    folder: Path | None = None
    config: StudyConfig | None = None


def contents(shown: Shown) -> dict[str, Any]:
    """The JSON that the script draws: a row for each trial, details of some, and the dense network."""
    trials, found = shown.trials, of_one_machine(candidates(shown.trials))
    by_key = {trial.key: trial for trial in trials}
    names = [resource.name for resource in RESOURCES if any(resource.name in candidate.costs for candidate in found)]
    limits, device = study_limits(trials)
    machine = next(iter(machines_of(found)), "")
    detailed = _detailed(found)
    return {
        "kind": "study",
        "study": shown.name,
        "resources": [
            {**vars(resource), "detail": machine if resource.name in MEASURED else ""}
            for resource in RESOURCES
            if resource.name in names
        ],
        "network": shown.network,
        "metric": (found[0].metric if found else ACCURACY).to_json(),
        "trials": [_row(candidate, by_key[candidate.key], names) for candidate in found],
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


def _row(candidate: Candidate, trial: Trial, names: Iterable[str]) -> dict[str, Any]:
    return {
        "key": candidate.key,
        "name": candidate.name,
        "mode": trial.spec.mode,
        "keep": trial.spec.budget_fraction,
        "seed": candidate.seed,
        "accuracy": float(f"{candidate.validation:.7g}"),
        "test": float(f"{candidate.test:.7g}"),
        "costs": [short(candidate.costs.get(resource)) for resource in names],
        "interval": _ends(candidate.validated),
        "images": None if candidate.validated is None else candidate.validated["images"],
        "testInterval": _ends(candidate.tested),
        "testImages": None if candidate.tested is None else candidate.tested["images"],
        "command": own_command(trial.spec),
    }


def short(value: float | None) -> float | int | None:
    """Shorten a number for the page: a count as an integer, a measured value with 9 significant digits.

    >>> short(270000.0), short(0.00012345678912)
    (270000, 0.000123456789)
    """
    if value is None or value.is_integer():
        return None if value is None else int(value)
    return float(f"{value:.9g}")


def _ends(evaluation: Mapping[str, Any] | None) -> list[float] | None:
    """The 95 % interval with 6 significant digits; None if there is none."""
    ends = None if evaluation is None else evaluation.get("interval_95")
    return None if ends is None else [float(f"{end:.6g}") for end in ends]


def _detailed(found: Sequence[Candidate]) -> list[str]:
    """Keys of trials with details: dense networks, as the baseline, then the fronts, then the most accurate ones."""
    dense = [candidate.key for candidate in found if candidate.name == DENSE]
    on_front: set[str] = set()
    for cost in COST_OF:
        known = [candidate for candidate in found if cost in candidate.costs]
        if known:
            mask = front([candidate.costs[cost] for candidate in known], [candidate.worth for candidate in known])
            on_front |= {candidate.key for candidate, is_on_front in zip(known, mask, strict=True) if is_on_front}
    best = sorted(found, key=lambda candidate: -candidate.worth)
    return list(dict.fromkeys([*dense, *sorted(on_front), *(candidate.key for candidate in best)]))[:DETAILED]


def pairs(found: Sequence[Candidate]) -> dict[str, dict[str, list[float]]]:
    """Pairwise comparisons on the same validation images, by the keys of the first and the second network.

    Each holds the difference (second minus first), the ends of its interval and the p-value. Only the first `PAIRED`
    networks with details are compared, and of these only the ones that recorded which images they were right about.
    """
    by_key = {candidate.key: candidate for candidate in found}
    chosen = [by_key[key] for key in _detailed(found)[:PAIRED] if by_key[key].validated is not None]
    rows: dict[str, dict[str, list[float]]] = {}
    for first, second in combinations(chosen, 2):
        if (comparison := compared(first, second)) is not None:
            values = (comparison.difference, *comparison.interval.to_json(), comparison.p_value)
            rows.setdefault(first.key, {})[second.key] = [float(f"{value:.4g}") for value in values]
    return rows


def smallest(found: Sequence[Candidate]) -> list[dict[str, str]]:
    """The network with the fewest MACs for each drop in `DROPS` from the dense one; empty without a dense network."""
    dense = dense_score(found)
    rows = []
    for drop in DROPS if dense is not None else ():
        goal = Goal(drop=drop)
        reached = good_enough(found, goal.threshold(found[0].metric, dense))
        if reached:
            rows.append({"words": goal.words(found[0].metric), "key": reached[0].key})
    return rows


def details(trials: Iterable[Trial], folder: Path | None) -> dict[str, dict[str, Any]]:
    """Widths, training curve and errors per class of trials, by key; the latter only up to `MAX_CELLS` entries."""
    entries, cells = {}, 0
    for trial in trials:
        record = trial.record or {}
        entry = {"widths": record.get("widths"), "curve": record.get("epochs")}
        classes = class_rows(record.get("test"))
        matrix = None if folder is None or classes is None else read_confusion(folder / trial.key)
        needed = len(classes or ()) * (len(matrix or ()) + 1)
        if classes is not None and cells + needed <= MAX_CELLS:
            cells += needed
            entry |= {"classes": classes, "confusion": matrix}
        entries[trial.key] = entry
    return entries


def class_rows(test: Mapping[str, Any] | None) -> list[list[float | None]] | None:
    """Accuracy, number of images and 95 % interval of each class of an evaluation; None if it has no classes."""
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
    """The confusion matrix of a run; None if it is missing or damaged."""
    try:
        stored = json.loads((run / CONFUSION).read_text(encoding="utf-8"))
        return [[int(count) for count in row] for row in stored["confusion"]]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def study_limits(trials: Sequence[Trial]) -> tuple[dict[str, float], str]:
    """The common limits of a study's slim networks, by resource, and their board; empty if they differ.

    >>> study_limits([])
    ({}, '')
    """
    requested = {(trial.spec.limits, trial.spec.device) for trial in trials if trial.spec.mode != DENSE}
    if len(requested) != 1:
        return {}, ""
    ((texts, device),) = requested
    costs: Mapping[str, int] = next((t.record["dense"] for t in trials if t.record and "dense" in t.record), {})
    limits: dict[str, float] = {}
    for option, text in texts:
        limit, name = Limit.parse(option, text), LIMIT_OF.get(option, option)
        dense_cost = costs.get(COST_OF.get(name, ""), 0)
        if not limit.is_share or dense_cost:
            limits[name] = limit.resolve(dense_cost) * (1e-9 if name == "latency" else 1.0)
    return limits, device


def board_menu() -> list[dict[str, Any]]:
    """Boards with limits on flash and RAM: their memory, and the part of it that a network may use."""
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
    """The dense network's amount of each resource in `names`; None if no trial recorded it."""
    costs = next((trial.record["dense"] for trial in trials if trial.record and "dense" in trial.record), None)
    return None if costs is None else [costs.get(COST_OF.get(name, "")) for name in names]

"""The contents of a single run's page: the same card as in a study's, for one network beside the dense one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretrim.runs.record import RunRecord
from pretrim.study.recommend import COST_OF, RESOURCES
from pretrim.train import Metric, compare, unpack

from .contents import board_menu, class_rows, read_confusion

SLIM, DENSE = "slim", "dense"


def run_contents(folder: Path, record: RunRecord, artifacts: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON that the script draws for a run.

    Args:
        folder: the run's folder, with its confusion matrix.
        record: contents of ``run.json``.
        artifacts: descriptions of the exported artifacts.
    """
    plan, results = record.plan, dict(record.results or {})
    costs = {SLIM: costs_of(record, SLIM), DENSE: costs_of(record, DENSE)}
    shown = [resource for resource in RESOURCES if resource.name in costs[SLIM]]
    names = [resource.name for resource in shown]
    menu, device = board_menu(), str((plan.device or {}).get("name", ""))
    is_known = {"file", "arena"} <= set(names)
    exported = f" Exported: {'; '.join(artifacts)}." if artifacts else ""
    return {
        "kind": "run",
        "study": f"{model_name(record)}, slim and dense",
        "about": f"Trained {_epochs(results)}.{exported}",
        "resources": [{**vars(resource), "detail": _detail(record, resource.name)} for resource in shown],
        "network": _network(record),
        "metric": _metric(results).to_json(),
        "smallest": [],
        "trials": [
            *([_row(DENSE, dense, costs[DENSE], names)] if (dense := dense_results(results)) else []),
            _row(SLIM, results, costs[SLIM], names),
        ],
        "details": {
            SLIM: {
                "widths": [group.kept for group in plan.groups],
                "curve": _curve(results),
                "classes": class_rows(results.get("test")),
                "confusion": read_confusion(folder),
            }
        },
        "pairs": _pairs(results),
        "times": times_of(record),
        "dense": [costs[DENSE].get(name) for name in names],
        "limits": {},
        "board": device if is_known and any(board["name"] == device for board in menu) else "",
        "boards": menu if is_known else [],
        "command": "",
        "counts": {},
        "failed": [],
    }


def model_name(record: RunRecord) -> str:
    """The name of the dense network."""
    return "A network" if record.reference is None else record.reference.name


def dense_results(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """The dense network's scores, if it was trained beside the slim one or given with its weights; else None."""
    if results.get("dense"):
        return dict(results["dense"])
    test = results.get("inherited", {}).get("dense_test")
    name = _metric(results).name
    return None if test is None else {"test": test, f"test_{name}": test[name], "metric": results.get("metric")}


def _metric(results: Mapping[str, Any]) -> Metric:
    """The metric of the scores."""
    return Metric.from_json(results.get("metric"))


def costs_of(record: RunRecord, which: str) -> dict[str, float]:
    """Amount of each resource (`study.recommend.RESOURCES`) that the slim or the dense network takes, by name."""
    device = record.plan.device or {}
    costs = {**(record.plan.slim if which == SLIM else record.plan.dense), **device.get(which, {})}
    amounts = {name: float(costs[cost]) for name, cost in COST_OF.items() if cost in costs}
    times = device.get("times")  # timed entries say what they hold for and have rows of their own
    return amounts | ({"latency": costs["latency_ns"] * 1e-9} if "latency_ns" in costs and not times else {})


def times_of(record: RunRecord) -> list[dict[str, Any]]:
    """Measured or predicted times and energies on the plan's board, one row each; `detail` says what it holds for."""
    rows: list[dict[str, Any]] = []
    for entry in (record.plan.device or {}).get("times", ()):
        source, label = str(entry.get("source", "predicted")), str(entry.get("label", ""))
        for kind, unit, suffix, scale in (("Latency", "s", "ns", 1e-9), ("Energy", "J", "uj", 1e-6)):
            values = [entry.get(f"{which}_{suffix}") for which in (DENSE, SLIM)]
            if values[1] is not None:
                dense, slim = (None if value is None else value * scale for value in values)
                rows.append({"title": f"{kind}, {source}", "detail": label, "unit": unit, "dense": dense, "slim": slim})
    return rows


def _detail(record: RunRecord, name: str) -> str:
    """What a device's latency or arena size holds for; empty for other resources."""
    field = {"latency": "latency_on", "arena": "arena_text"}.get(name, "")
    return str((record.plan.device or {}).get(field, ""))


def _network(record: RunRecord) -> dict[str, Any] | None:
    if record.classes is None or record.input_shape is None:
        return None
    return {
        "model": model_name(record),
        "input_shape": list(record.input_shape),
        "classes": list(record.classes),
        "data": str((record.data or {}).get("name", "its data")),
        "groups": [group.name for group in record.plan.groups],
        "channels": [group.channels for group in record.plan.groups],
        "layers": [],
        "shares": None,
    }


def _row(which: str, results: Mapping[str, Any], costs: Mapping[str, float], names: Sequence[str]) -> dict[str, Any]:
    validated, tested = results.get("validation") or {}, results.get("test") or {}
    metric = _metric(results)
    return {
        "key": which,
        "name": f"the {which} network",
        "mode": which,
        "keep": 1.0,
        "seed": 0,
        "accuracy": results.get(f"validation_{metric.name}"),
        "test": results.get(f"test_{metric.name}"),
        "costs": [costs.get(name) for name in names],
        "interval": validated.get("interval_95"),
        "images": validated.get("images"),
        "testInterval": tested.get("interval_95"),
        "testImages": tested.get("images"),
        "command": "",
    }


def _pairs(results: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Comparison of the slim with the dense network on the same test images; see `contents.pairs`."""
    dense, slim = (dense_results(results) or {}).get("test"), results.get("test")
    if dense is None or slim is None or "right" not in dense or "right" not in slim:
        return {}
    comparison = compare(unpack(dense["right"]), unpack(slim["right"]))
    values = (comparison.difference, *comparison.interval.to_json(), comparison.p_value)
    return {DENSE: {SLIM: [float(f"{value:.4g}") for value in values]}}


def _curve(results: Mapping[str, Any]) -> list[list[float | None]] | None:
    metric = _metric(results).name
    names = ("train_loss", f"train_{metric}", f"validation_{metric}")
    epochs = results.get("epochs")
    return [[epoch.get(name) for name in names] for epoch in epochs] if epochs else None


def _epochs(results: Mapping[str, Any]) -> str:
    count = len(results.get("epochs") or ())
    return f"for {count} epoch{'' if count == 1 else 's'}" if count else "elsewhere"

"""One HTML file of a study: data, styles, script and Plotly inside; it loads nothing and sends nothing.

Names come from outside (classes, layers, models, errors of other people's code). They reach the page as JSON in which
``<``, ``>`` and ``&`` are escapes, and the script sets them as text, never as markup. A content security policy names
the hashes of the two scripts, and allows no request.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

from pretrim.errors import UsageError
from pretrim.files import write_text
from pretrim.study.goal import Goal, dense_score, good_enough
from pretrim.study.pareto import front
from pretrim.study.recommend import COST_OF, RESOURCES, Candidate, candidates, compared
from pretrim.study.rows import Trial
from pretrim.train import ACCURACY

DETAILED = 400
"""Trials whose curves and widths are in the page: those of the front first, then the most accurate ones."""
PAIRED = 60
"""Of those, the ones that are compared with each other image by image: their number of pairs grows with its square."""
LARGEST_BYTES = 8 * 2**20
REFRESH_S = 5
DROPS = (0.5, 1.0, 2.0)
"""Points below the dense network, within which the smallest network is named"""


def write_page(
    path: Path, name: str, trials: Sequence[Trial], network: dict[str, Any] | None, *, refresh: bool = False
) -> None:
    """Write the report of a study.

    Args:
        path: the file, ending in ``.html``.
        name: of the study.
        trials: all of them.
        network: what `study.network` kept of the network.
        refresh: let the page load itself again every five seconds, for a study that runs.

    Raises UsageError without Plotly.
    """
    write_text(path, page(name, trials, network, refresh=refresh))


def page(name: str, trials: Sequence[Trial], network: dict[str, Any] | None, *, refresh: bool = False) -> str:
    """The same, as text."""
    own = files("pretrim.report")
    plotly, script = _plotly(), own.joinpath("app.js").read_text(encoding="utf-8")
    style = own.joinpath("style.css").read_text(encoding="utf-8")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(plotly)} {_hash(script)}",
            "style-src 'unsafe-inline'",  # Plotly writes styles of its own
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    again = f'<meta http-equiv="refresh" content="{REFRESH_S}">' if refresh else ""
    text = own.joinpath("page.html").read_text(encoding="utf-8")
    parts = {
        "POLICY": policy,
        "REFRESH": again,
        "TITLE": html.escape(f"{name}: trade-off"),
        "STYLE": style,
        "DATA": embedded(contents(name, trials, network)),
        "PLOTLY": plotly,
        "SCRIPT": script,
    }
    pieces = text.split("@@")  # text and names of parts in turns; what is put in is not searched again
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def embedded(value: Any) -> str:
    """JSON that can stand in a script element, whatever the texts in it.

    >>> embedded(["</script><!--", "\\u2028"])
    '["\\\\u003c/script\\\\u003e\\\\u003c!--","\\\\u2028"]'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UsageError(
            "Expected plotly for a report, but it is not installed: pip install 'pretrim[study]'."
        ) from error
    script: str = get_plotlyjs()
    return script


def contents(name: str, trials: Sequence[Trial], network: dict[str, Any] | None) -> dict[str, Any]:
    """What the script draws: a row for each trial, details of some, the dense network."""
    found = candidates(trials)
    by_key = {trial.key: trial for trial in trials}
    names = [one.name for one in RESOURCES if any(one.name in candidate.takes for candidate in found)]
    return {
        "study": name,
        "resources": [vars(one) for one in RESOURCES if one.name in names],
        "network": network,
        "metric": (found[0].metric if found else ACCURACY).to_json(),
        "trials": [
            {
                "key": one.key,
                "name": one.name,
                "mode": by_key[one.key].spec.mode,
                "keep": by_key[one.key].spec.budget_fraction,
                "seed": one.seed,
                "accuracy": one.validation,
                "worth": one.worth,
                "test": one.test,
                "takes": [one.takes.get(resource) for resource in names],
                "interval": None if one.validated is None else one.validated["interval_95"],
                "images": None if one.validated is None else one.validated["images"],
                "testInterval": None if one.tested is None else one.tested["interval_95"],
            }
            for one in found
        ],
        "details": {key: _detail(by_key[key]) for key in _detailed(found)},
        "pairs": pairs(found),
        "smallest": smallest(found),
        "dense": _dense(trials, names),
        "counts": {state: sum(trial.state == state for trial in trials) for state in STATES},
        "failed": [{"name": t.spec.name, "seed": t.spec.seed, "error": t.error} for t in trials if t.state == "failed"],
    }


STATES = ("done", "running", "waiting", "failed", "stopped")


def _detailed(found: Sequence[Candidate]) -> list[str]:
    on_front: set[str] = set()
    for cost in COST_OF:
        there = [one for one in found if cost in one.takes]
        if there:
            chosen = front([one.takes[cost] for one in there], [one.worth for one in there])
            on_front |= {one.key for one, on in zip(there, chosen, strict=True) if on}
    others = sorted((one for one in found if one.key not in on_front), key=lambda one: -one.worth)
    return [*sorted(on_front), *(one.key for one in others)][:DETAILED]


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


def smallest(found: Sequence[Candidate]) -> list[dict[str, Any]]:
    """The network with the fewest MACs within some points of the dense one; nothing without a dense one."""
    dense = dense_score(found)
    rows = []
    for drop in DROPS if dense is not None else ():
        goal = Goal(drop=drop)
        reached = good_enough(found, goal.threshold(found[0].metric, dense))
        if reached:
            rows.append({"words": goal.words(found[0].metric), "key": reached[0].key})
    return rows


def _detail(trial: Trial) -> dict[str, Any]:
    record = trial.record or {}
    return {"widths": record.get("widths"), "curve": record.get("epochs")}


def _dense(trials: Sequence[Trial], names: Sequence[str]) -> list[float | None] | None:
    """What the dense network takes."""
    costs = next((trial.record["dense"] for trial in trials if trial.record and "dense" in trial.record), None)
    return None if costs is None else [costs.get(COST_OF.get(name, "")) for name in names]

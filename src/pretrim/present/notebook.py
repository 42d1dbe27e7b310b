"""Notebook views of networks, plans, runs and studies: the same tables as in the terminal.

They are preformatted text in the notebook's own colours, readable in light and dark themes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from html import escape
from typing import Any

from rich.console import Console

from pretrim.analysis.network import Network
from pretrim.jobs.calls import Run, Study
from pretrim.jobs.plan import profile_network
from pretrim.planning.plan import Plan

from .plan import show_plan
from .profile import show_profile
from .run import show_comparison
from .study import show_trials

WIDTH = 110
STYLE = "font-family: monospace; line-height: 1.2; white-space: pre; overflow-x: auto; color: inherit"


def html(show: Callable[[Console], None]) -> str:
    """Render what `show` prints to a console as preformatted HTML."""
    text = io.StringIO()
    options = {"highlight": False, "markup": False, "emoji": False, "color_system": None, "force_jupyter": False}
    show(Console(file=text, width=WIDTH, **options))  # type: ignore[arg-type]
    lines = "\n".join(line.rstrip() for line in text.getvalue().splitlines())
    return f'<pre class="pretrim" style="{STYLE}">{escape(lines)}</pre>'


def _network(self: Network) -> str:
    return html(lambda console: show_profile(console, profile_network(self).to_json()))


def _plan(self: Plan) -> str:
    return html(lambda console: show_plan(console, self))


def _run(self: Run) -> str:
    return html(lambda console: show_comparison(console, self.to_json()))


def _study(self: Study) -> str:
    return html(lambda console: show_trials(console, self.trials))


def attach() -> None:
    """Set `_repr_html_` of each record type to its view."""
    views: dict[type[Any], Callable[[Any], str]] = {Network: _network, Plan: _plan, Run: _run, Study: _study}
    for kind, view in views.items():
        kind._repr_html_ = view

"""A study or a run as one self-contained HTML file with data, styles, script and Plotly; it makes no network requests.

Names (of classes, layers, models) and error messages come from outside and are not trusted. They reach the page as JSON
in which ``<``, ``>`` and ``&`` are escaped, and the script sets them as text, never as markup. A content security
policy allows the two scripts by their hashes and forbids all requests.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pretrim.errors import UsageError
from pretrim.files import write_text

LARGEST_BYTES = 8 * 2**20
REFRESH_S = 5
SCRIPTS = ("numbers.js", "choose.js", "card.js", "plots.js", "table.js", "app.js")
"""Parts of the page's one script, in the order of their dependencies."""


def write_page(path: Path, title: str, contents: dict[str, Any], *, refresh: bool = False) -> None:
    """Write a report.

    Args:
        path: the file, ending in ``.html``.
        title: the page's title.
        contents: contents of a study (`contents.contents`) or a run (`run.run_contents`).
        refresh: whether the page reloads itself every five seconds, for a running study.

    Raises UsageError if Plotly is not installed.
    """
    write_text(path, page(title, contents, refresh=refresh))


def page(title: str, contents: dict[str, Any], *, refresh: bool = False) -> str:
    """The HTML text of a report.

    Args:
        title: the page's title.
        contents: the JSON that the script draws.
        refresh: whether the page reloads itself.
    """
    assets = files("pretrim.report").joinpath("page")
    plotly = _plotly()
    script = "\n".join(assets.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS)
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
    refresh_tag = f'<meta http-equiv="refresh" content="{REFRESH_S}">' if refresh else ""
    parts = {
        "POLICY": policy,
        "REFRESH": refresh_tag,
        "TITLE": html.escape(title),
        "STYLE": assets.joinpath("style.css").read_text(encoding="utf-8"),
        "DATA": embedded({**contents, "trials": packed(contents["trials"])}),
        "PLOTLY": plotly,
        "SCRIPT": script,
    }
    # Text and part names alternate; inserted parts are not searched for further names.
    pieces = assets.joinpath("page.html").read_text(encoding="utf-8").split("@@")
    return "".join(parts[piece] if index % 2 else piece for index, piece in enumerate(pieces))


def packed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Store column names once for all rows: repeating them for 10,000 trials would take 1.5 MB.

    >>> packed([{"key": "a", "seed": 0}, {"key": "b", "seed": 1}])
    {'columns': ['key', 'seed'], 'rows': [['a', 0], ['b', 1]]}
    """
    columns = list(rows[0]) if rows else []
    return {"columns": columns, "rows": [[row[column] for column in columns] for row in rows]}


def embedded(value: Any) -> str:
    """JSON that is safe inside a script element, whatever its strings contain.

    >>> embedded(["</script><!--", "\\u2028"])
    '["\\\\u003c/script\\\\u003e\\\\u003c!--","\\\\u2028"]'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _hash(script: str) -> str:
    """The hash of a script as a content security policy source."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _plotly() -> str:
    """Plotly's JavaScript. Raises UsageError if Plotly is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UsageError("A report needs plotly: pip install 'pretrim[study]'.") from error
    script: str = get_plotlyjs()
    return script

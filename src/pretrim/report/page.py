"""One HTML file of a study or a run: data, styles, script and Plotly inside; it loads nothing and sends nothing.

Names come from outside (classes, layers, models, errors of other people's code). They reach the page as JSON in which
``<``, ``>`` and ``&`` are escapes, and the script sets them as text, never as markup. A content security policy names
the hashes of the two scripts, and allows no request.
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
"""In the order in which they need each other; the page has them as one"""


def write_page(path: Path, title: str, contents: dict[str, Any], *, refresh: bool = False) -> None:
    """Write a report.

    Args:
        path: the file, ending in ``.html``.
        title: of the page.
        contents: of a study (`contents.contents`) or a run (`run.contents`).
        refresh: let the page load itself again every five seconds, for a study that runs.

    Raises UsageError without Plotly.
    """
    write_text(path, page(title, contents, refresh=refresh))


def page(title: str, contents: dict[str, Any], *, refresh: bool = False) -> str:
    """The same, as text.

    Args:
        title: of the page.
        contents: what the script draws.
        refresh: whether the page loads itself again.
    """
    own = files("pretrim.report").joinpath("page")
    plotly = _plotly()
    script = "\n".join(own.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS)
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
    parts = {
        "POLICY": policy,
        "REFRESH": again,
        "TITLE": html.escape(title),
        "STYLE": own.joinpath("style.css").read_text(encoding="utf-8"),
        "DATA": embedded({**contents, "trials": packed(contents["trials"])}),
        "PLOTLY": plotly,
        "SCRIPT": script,
    }
    # Text and names of parts in turns; what is put in is not searched again.
    pieces = own.joinpath("page.html").read_text(encoding="utf-8").split("@@")
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def packed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows with the same names, which are written once: 10,000 trials would repeat them for a megabyte and a half.

    >>> packed([{"key": "a", "seed": 0}, {"key": "b", "seed": 1}])
    {'columns': ['key', 'seed'], 'rows': [['a', 0], ['b', 1]]}
    """
    columns = list(rows[0]) if rows else []
    return {"columns": columns, "rows": [[row[column] for column in columns] for row in rows]}


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
        raise UsageError("A report needs plotly: pip install 'pretrim[study]'.") from error
    script: str = get_plotlyjs()
    return script

"""Tables of a lossless slimming: what was removed from a trained network, and how equality was verified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from .layout import Table, show_table
from .text import COSTS, amount, percent, show_line

Record = Mapping[str, Any]


def show_slimmed(console: Console, record: Record) -> None:
    """Print what was removed without loss, per layer, which constant filters stay, and how equality was verified."""
    removed, total = record["removed"], record["filters"]
    if not removed:
        show_line(console, f"{record['network']}: no filter is dead, of {total:,}. Nothing was written.")
    else:
        table = Table("<", "before", "after", "kept")
        for name in ("params", "macs", "activation_bytes", "peak_activation_bytes"):
            before, after = record["before"][name], record["after"][name]
            table.add_row(COSTS[name][0], amount(name, before), amount(name, after), percent(after / before))
        show_table(console, f"{record['network']}: {removed:,} of {total:,} filters are dead", table)
        layers = Table("<layer", "filters", "zero", "constant", "unread", "left")
        for group in record["groups"]:
            dead_counts = [group[kind] for kind in ("zero", "constant", "unread")]
            if sum(dead_counts):
                layers.add_row(
                    Text(group["group"]),
                    *map(str, (group["channels"], *dead_counts, group["channels"] - sum(dead_counts))),
                )
        show_table(console, "Removed", layers)
    for group in record["groups"]:
        for number, reason in group["spared"]:
            show_line(console, f"note: {group['group']} keeps {number} constant filter{'s' * (number > 1)}: {reason}")
    if removed:
        show_line(console, f"Outputs on {record['difference']['images']} random images: {_equal(record)}")
        console.print(Text(f"Saved in {record['run']}"), soft_wrap=True)


def _equal(record: Record) -> str:
    """Describe the largest difference of the outputs."""
    exact, stored = (record["difference"][name] for name in ("exact", "stored"))
    in_double = "" if exact is None else f"{exact:.1e} of the largest apart in double precision, "
    return f"{in_double}{stored:.1e} as stored"

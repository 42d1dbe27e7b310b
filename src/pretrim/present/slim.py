"""What went from a trained network without loss, and how that was proved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from .layout import Table, show_table
from .text import COSTS, amount, percent, show_line

Record = Mapping[str, Any]


def show_slimmed(console: Console, record: Record) -> None:
    """What went without loss, layer by layer, what stays though it is constant, and how equality was proved."""
    removed, of = record["removed"], record["filters"]
    if not removed:
        show_line(console, f"{record['network']}: no filter is dead, of {of:,}. Nothing was written.")
    else:
        table = Table("<", "before", "after", "kept")
        for name in ("params", "macs", "activation_bytes", "peak_activation_bytes"):
            before, after = record["before"][name], record["after"][name]
            table.add_row(COSTS[name][0], amount(name, before), amount(name, after), percent(after / before))
        show_table(console, f"{record['network']}: {removed:,} of {of:,} filters are dead", table)
        layers = Table("<layer", "filters", "zero", "constant", "unread", "left")
        for group in record["groups"]:
            kinds = [group[kind] for kind in ("zero", "constant", "unread")]
            if sum(kinds):
                layers.add_row(
                    Text(group["group"]), *map(str, (group["channels"], *kinds, group["channels"] - sum(kinds)))
                )
        show_table(console, "Removed", layers)
    for group in record["groups"]:
        for count, why in group["spared"]:
            show_line(console, f"note: {group['group']} keeps {count} constant filter{'s' * (count > 1)}: {why}")
    if removed:
        show_line(console, f"Outputs on {record['difference']['images']} random images: {_equal(record)}")
        console.print(Text(f"Saved in {record['run']}"), soft_wrap=True)


def _equal(record: Record) -> str:
    """How far the outputs are apart, in words."""
    exact, stored = (record["difference"][name] for name in ("exact", "stored"))
    in_double = "" if exact is None else f"{exact:.1e} of the largest apart in double precision, "
    return f"{in_double}{stored:.1e} as stored"

"""Tables of a network: layers with their shares of the complexity, channel groups, and frozen layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from pretrim.errors import first_of

from .layout import Table, show_table
from .text import BAR_WIDTH, COSTS, MODE_TITLES, WIDE, amount, bar, count, percent, show_notes, size


def show_profile(console: Console, record: Mapping[str, Any]) -> None:
    """Print the layers, totals, groups, frozen layers and notes of one network."""
    title = f"{record['model']}, one image of {'x'.join(map(str, record['input']))}, {record['dtype']}"
    show_table(console, title, _layers(record["layers"], console), [] if console.width >= WIDE else ["kind"])
    console.print(
        Text("PA, FA, MA: share of all weights, MACs and feature maps, by which the modes params, macs and memory")
    )
    console.print(Text("Weights of layers exclude biases and norms; the total includes them."))
    totals = Table("<cost", "", "exact")
    for name, value in record["totals"].items():
        totals.add_row(COSTS[name][0], amount(name, value), f"{value:,}")
    show_table(console, "Total", totals)
    has_minimum = any(group["min_width"] > 1 for group in record["groups"])
    groups = Table("<group", "channels", *(["at least"] if has_minimum else []), "<~layers")
    for group in record["groups"]:
        numbers = [group["channels"], *([group["min_width"]] if has_minimum else [])]
        groups.add_row(Text(group["name"]), *map(str, numbers), Text(first_of(group["layers"], most=4)))
    show_table(console, "Channel groups: filters that are kept or removed together", groups)
    if record["frozen"]:
        show_table(console, "Frozen: filters that no plan removes", _frozen(record["frozen"]))
    show_notes(console, record["notes"])


def _layers(layers: Sequence[Mapping[str, Any]], console: Console) -> Table:
    """The table of layers; on a wide console with kinds and bars."""
    is_wide = console.width >= WIDE
    table = Table(
        "<layer", *(["<kind"] if is_wide else []), "filters", "?weights", "MACs", "?output", *MODE_TITLES.values()
    )
    max_shares = {mode: max((layer["shares"][mode] for layer in layers), default=0.0) or 1.0 for mode in MODE_TITLES}
    for layer in layers:
        shares = [percent(layer["shares"][mode]).rjust(7 if is_wide else 0) for mode in MODE_TITLES]
        if is_wide:
            relative = [layer["shares"][mode] / max_shares[mode] for mode in MODE_TITLES]
            bars = [bar(part, BAR_WIDTH, ascii_only=console.options.ascii_only) for part in relative]
            shares = [f"{bar_text} {share}" for bar_text, share in zip(bars, shares, strict=True)]
        names = [Text(layer["name"]), *([Text(_short_kind(layer["kind"]))] if is_wide else [])]
        numbers = (str(layer["filters"]), count(layer["params"]), count(layer["macs"]), size(layer["activation_bytes"]))
        table.add_row(*names, *numbers, *shares)
    return table


def _short_kind(kind: str) -> str:
    return "conv" if kind == "convolution" else kind


def _frozen(entries: Sequence[Mapping[str, Any]]) -> Table:
    has_places = any(entry["source_line"] for entry in entries)
    table = Table("<layer", "filters", "<~reason", *(["<?seen at"] if has_places else []))
    for entry in entries:
        places = [Text(entry["source_line"])] if has_places else []
        table.add_row(Text(entry["layer"]), str(entry["filters"]), Text(entry["reason"]), *places)
    return table

"""A trained network: dense against slim, its score on a test set, and what it says of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from .artifact import show_artifact
from .device import FORMULAS_OF_MEMORY, Record, device_rows, is_on_board, show_time_labels
from .layout import Table, show_table
from .text import COSTS, amount, compared, interval, percent, show_line

if TYPE_CHECKING:
    pass


def show_comparison(console: Console, record: Mapping[str, Any]) -> None:
    """The one table that `compress` ends with: dense against slim."""
    table = Table("<", "dense", "slim", "kept")
    device = record.get("device")
    for name in ("params", "macs", "activation_bytes", "peak_activation_bytes"):
        if is_on_board(device) and name in FORMULAS_OF_MEMORY:
            continue
        dense, slim = record["dense"][name], record["slim"][name]
        kept = percent(slim / dense if dense else None)
        table.add_row(COSTS[name][0], amount(name, dense), amount(name, slim), kept)
    for row in device_rows(device):
        table.add_row(*row)
    _add_scores(table, record)
    show_table(console, f"{record['model']} on {record['data']['source']}", table)
    if record.get("comparison") is not None:
        show_line(console, f"slim against dense: {compared(record['comparison'])}")
    show_time_labels(console, device)
    console.print(Text(f"Saved in {record['run']}"), soft_wrap=True)
    if record.get("artifact") is not None:
        show_artifact(console, record["artifact"])


def _add_scores(table: Table, record: Record) -> None:
    """The test score of both networks, by the metric of their task, and its interval."""
    from pretrim.train import Metric

    metric = Metric.from_json(record.get("metric"))
    both = [record[which] for which in ("dense", "slim")]
    table.add_row(f"test {metric.title}", *(metric.show(one[f"test_{metric.name}"], 2) for one in both), "")
    if (images := both[1].get("test_images")) is not None:
        sure = (interval(one["test_interval_95"], metric=metric) for one in both)
        table.add_row(f"95 % interval, n = {images:,}", *sure, "")


def show_evaluation(console: Console, record: Mapping[str, Any]) -> None:
    """The score over a test set with its interval; before it each class, or every metric."""
    from pretrim.train.metric import Metric

    metric = Metric.from_json(record["metric"])
    table = Table("<~class" if "classes" in record else "<", "images", metric.title, "?95 % interval")
    for entry in record.get("classes", ()):
        cells = (str(entry["images"]), percent(entry["accuracy"]), interval(entry["interval_95"]))
        table.add_row(Text(entry["name"]), *cells)
    for name, value in record.get("metrics", {}).items():
        if name != metric.name:
            table.add_row(Text(name), "", "-" if value is None else f"{value:.4g}", "")
    table.add_section()
    whole = (metric.show(record[metric.name], 2), interval(record["interval_95"], metric=metric))
    table.add_row("all", str(record["images"]), *whole)
    show_table(console, f"{record['run']} on {record['data']['source']}", table)


def show_predictions(console: Console, record: Sequence[Mapping[str, Any]]) -> None:
    """The likeliest classes of each image, or its values."""
    is_of_classes = all("class" in label for entry in record for label in entry["predictions"])
    table = Table("<image", *(("<~class", "probability") if is_of_classes else ("<output", "value")))
    for entry in record:
        for place, label in enumerate(entry["predictions"]):
            name = Text(entry["image"]) if place == 0 else ""
            said = percent(label["probability"]) if is_of_classes else f"{label['value']:.4g}"
            table.add_row(name, Text(label["class" if is_of_classes else "output"]), said)
    console.print(table)

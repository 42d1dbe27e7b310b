"""Tables of a trained network: dense against slim, its score on a test set, and predictions for images."""

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
    """Print the table of dense against slim that `compress` ends with."""
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
    """Add the test scores of both networks in their task's metric, with intervals."""
    from pretrim.train import Metric

    metric = Metric.from_json(record.get("metric"))
    networks = [record[which] for which in ("dense", "slim")]
    table.add_row(f"test {metric.title}", *(metric.show(network[f"test_{metric.name}"], 2) for network in networks), "")
    if (images := networks[1].get("test_images")) is not None:
        intervals = (interval(network["test_interval_95"], metric=metric) for network in networks)
        table.add_row(f"95 % interval, n = {images:,}", *intervals, "")


def show_evaluation(console: Console, record: Mapping[str, Any]) -> None:
    """Print each class or every other metric, then the score on the whole test set with its interval."""
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
    overall = (metric.show(record[metric.name], 2), interval(record["interval_95"], metric=metric))
    table.add_row("all", str(record["images"]), *overall)
    show_table(console, f"{record['run']} on {record['data']['source']}", table)


def show_predictions(console: Console, record: Sequence[Mapping[str, Any]]) -> None:
    """Print the most probable classes of each image, or its output values."""
    has_classes = all("class" in prediction for entry in record for prediction in entry["predictions"])
    table = Table("<image", *(("<~class", "probability") if has_classes else ("<output", "value")))
    for entry in record:
        for rank, prediction in enumerate(entry["predictions"]):
            name = Text(entry["image"]) if rank == 0 else ""
            value = percent(prediction["probability"]) if has_classes else f"{prediction['value']:.4g}"
            table.add_row(name, Text(prediction["class" if has_classes else "output"]), value)
    console.print(table)

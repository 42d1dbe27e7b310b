"""Records as tables. Nothing is computed here but what a reader's eye needs: prefixes, ratios and bars."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO
from unicodedata import category

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment
from rich.text import Text

from .layout import Table, show_table

if TYPE_CHECKING:
    from pretrim.train import Metric

PIPE_WIDTH = 140
"""Columns of a table that is not read on a terminal: wide enough not to cut names."""
BAR_WIDTH = 8
LEVEL = 0.05
"""Of McNemar's test: a p-value from here on does not tell two networks apart"""
WIDE = 110
"""Columns of a terminal on which the kinds and bars of `profile` have room; on a narrower one the figures stay."""
COSTS = {
    "params": ("parameters", "count"),
    "macs": ("MACs", "count"),
    "weight_bytes": ("weight memory (flash)", "bytes"),
    "activation_bytes": ("activation memory", "bytes"),
    "peak_activation_bytes": ("peak memory (RAM)", "bytes"),
}
RUNTIME_TITLES = {"onnx": "ONNX Runtime", "litert": "LiteRT", "executorch": "ExecuTorch"}
MODE_TITLES = {"params": "PA", "macs": "FA", "memory": "MA"}


_RESULTS: ContextVar[TextIO] = ContextVar("results")
Given = ParamSpec("Given")


def results_alone(command: Callable[Given, None]) -> Callable[Given, None]:
    """The command with a stdout for its results alone: what others print there (a user's model) goes to stderr."""

    @wraps(command)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> None:
        token = _RESULTS.set(sys.stdout)
        try:
            with redirect_stdout(sys.stderr):
                command(*args, **kwargs)
            print(end="", file=stdout(), flush=True)  # a stream that is full fails here, and not at the very end
        finally:
            _RESULTS.reset(token)

    return run


def stdout() -> TextIO:
    """The stream of results."""
    return _RESULTS.get(sys.stdout)


def output() -> Console:
    """Where results go."""
    return _console(stdout())


def status() -> Console:
    """Where progress and remarks go."""
    return _console(None)


def _console(file: TextIO | None) -> Console:
    """On a stream, or else on whatever stderr is."""
    console = Console(file=file, stderr=file is None, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(file=file, stderr=file is None, highlight=False, markup=False, emoji=False, width=PIPE_WIDTH)
    console.push_render_hook(_Cleaning())
    return console


_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Signs by which text is written from right to left, over what stood there"""


def clean(text: str) -> str:
    """Text without control characters but line ends: names from files would move the cursor, or turn lines round.

    >>> clean("cat\\x1b[2J")
    'cat\ufffd[2J'
    """
    return "".join(
        "\ufffd" if letter in _TURNS or (category(letter) == "Cc" and letter not in "\n\t") else letter
        for letter in text
    )


class _Cleaning(RenderHook):
    """The border that all results and remarks pass on their way to a terminal."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Each of them, cleaned as it is drawn."""
        return [_Clean(renderable) for renderable in renderables]


@dataclass(frozen=True)
class _Clean:
    """Something to draw, whose texts are cleaned; what rich itself sends to the terminal is kept."""

    inner: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.inner, options):
            yield segment if segment.control else Segment(clean(segment.text), segment.style)


def say(line: str) -> None:
    """A line on stderr, from the main process alone."""
    from pretrim.train import is_main

    if is_main():
        print(clean(line), file=sys.stderr, flush=True)


def print_json(record: Any) -> None:
    """A record as JSON on stdout, as it is: no colours, no wrapping."""
    print(json.dumps(record, indent=2, allow_nan=False), file=stdout())


# ---------------------------------------------------------------------------------------- numbers


def count(number: float) -> str:
    """A number with a decimal prefix.

    >>> count(1_114_432), count(999), count(250_000)
    ('1.11 M', '999', '250 k')
    """
    return _prefixed(number, 1000, ("", "k", "M", "G", "T"), "")


def size(number: float) -> str:
    """Bytes with a binary prefix.

    >>> size(262_144), size(100)
    ('256 KiB', '100 B')
    """
    return _prefixed(number, 1024, ("", "Ki", "Mi", "Gi", "Ti"), "B")


def _prefixed(number: float, base: int, prefixes: Sequence[str], unit: str) -> str:
    place = 0
    while place < len(prefixes) - 1 and round(abs(number) / base**place, 3) >= base:
        place += 1
    value = number / base**place
    digits = f"{value:.0f}" if place == 0 or value >= 100 else f"{value:.3g}"
    return f"{digits} {prefixes[place]}{unit}".strip()


def amount(name: str, value: int) -> str:
    """A cost in its unit."""
    return count(value) if COSTS[name][1] == "count" else size(value)


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent; '-' where there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def interval(ends: Sequence[float] | None, digits: int = 1, metric: Metric | None = None) -> str:
    """An interval of shares in percent, or of a metric that is none; '-' where there is none.

    Args:
        ends: the lower and the upper end; None: there is none.
        digits: behind the point.
        metric: by which they are written.

    >>> interval([0.131, 0.336])
    '13.1 to 33.6 %'
    """
    if ends is not None and metric is not None and not metric.is_share:
        return f"{metric.show(ends[0])} to {metric.show(ends[1])}"
    return "-" if ends is None else f"{100 * ends[0]:.{digits}f} to {100 * ends[1]:.{digits}f} %"


def compared(comparison: Mapping[str, Any]) -> str:
    """Two networks on the same images (`train.Comparison.to_json`), the second minus the first.

    >>> ends = {"difference": -0.018, "interval": [-0.03, -0.006], "p_value": 0.0034, "images": 1000}
    >>> compared(ends)
    '-1.8 points (95 %: -3.0 to -0.6) on the same 1,000 images, McNemar p = 0.0034'
    >>> compared({**ends, "p_value": 0.3})
    '-1.8 points (95 %: -3.0 to -0.6) on the same 1,000 images, McNemar p = 0.3: cannot be told apart'
    """
    low, high = (f"{100 * end:+.1f}" for end in comparison["interval"])
    said = f"{100 * comparison['difference']:+.1f} points (95 %: {low} to {high})"
    said += f" on the same {comparison['images']:,} images, McNemar p = {comparison['p_value']:.2g}"
    return said if comparison["p_value"] < LEVEL else f"{said}: cannot be told apart"


def bar(share: float, width: int, *, ascii_only: bool) -> str:
    """A bar for a share of 0..1.

    Args:
        share: from 0 to 1.
        width: in characters.
        ascii_only: whether the terminal has no blocks.

    >>> bar(0.5, 4, ascii_only=False), bar(0.3, 4, ascii_only=False), bar(0.5, 4, ascii_only=True)
    ('██  ', '█▎  ', '##  ')
    """
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if ascii_only:
        return ("#" * round(eighths / 8)).ljust(width)
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()).ljust(width)


# ---------------------------------------------------------------------------------------- profile


def show_profile(console: Console, record: Mapping[str, Any]) -> None:
    """Layers, totals, groups, frozen layers and notes of one network."""
    title = f"{record['model']}, one image of {'x'.join(map(str, record['input']))}, {record['dtype']}"
    show_table(console, title, _layers(record["layers"], console))
    console.print(
        Text("PA, FA, MA: share of all weights, MACs and feature maps, by which the modes params, macs and memory")
    )
    console.print(Text("Weights of a layer are without its biases and norms, which count in the total."))
    totals = Table("<cost", "", "exact")
    for name, value in record["totals"].items():
        totals.add_row(COSTS[name][0], amount(name, value), f"{value:,}")
    show_table(console, "Total", totals)
    is_asked = any(group["least"] > 1 for group in record["groups"])
    groups = Table("<group", "channels", *(["at least"] if is_asked else []), "<~layers")
    for group in record["groups"]:
        numbers = [group["channels"], *([group["least"]] if is_asked else [])]
        groups.add_row(Text(group["name"]), *map(str, numbers), Text(_names(group["layers"])))
    show_table(console, "Channel groups: filters that live and die together", groups)
    if record["frozen"]:
        show_table(console, "Frozen: filters that no plan removes", _frozen(record["frozen"]))
    show_notes(console, record["notes"])


def _layers(layers: Sequence[Mapping[str, Any]], console: Console) -> Table:
    wide = console.width >= WIDE
    table = Table(
        "<layer", *(["<kind"] if wide else []), "filters", "?weights", "MACs", "?output", *MODE_TITLES.values()
    )
    most = {mode: max((layer["shares"][mode] for layer in layers), default=0.0) or 1.0 for mode in MODE_TITLES}
    for layer in layers:
        shares = [percent(layer["shares"][mode]).rjust(7 if wide else 0) for mode in MODE_TITLES]
        if wide:
            parts = [layer["shares"][mode] / most[mode] for mode in MODE_TITLES]
            bars = [bar(part, BAR_WIDTH, ascii_only=console.options.ascii_only) for part in parts]
            shares = [f"{drawn} {share}" for drawn, share in zip(bars, shares, strict=True)]
        names = [Text(layer["name"]), *([Text(_short_kind(layer["kind"]))] if wide else [])]
        numbers = (str(layer["filters"]), count(layer["params"]), count(layer["macs"]), size(layer["activation_bytes"]))
        table.add_row(*names, *numbers, *shares)
    return table


def _short_kind(kind: str) -> str:
    return "conv" if kind == "convolution" else kind


def _names(names: Sequence[str], most: int = 4) -> str:
    """The first few names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _frozen(entries: Sequence[Mapping[str, Any]]) -> Table:
    is_seen = any(entry["place"] for entry in entries)
    table = Table("<layer", "filters", "<~reason", *(["<?seen at"] if is_seen else []))
    for entry in entries:
        places = [Text(entry["place"])] if is_seen else []
        table.add_row(Text(entry["layer"]), str(entry["filters"]), Text(entry["reason"]), *places)
    return table


def show_notes(console: Console, notes: Sequence[str]) -> None:
    """Remarks, one a line."""
    for note in notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)


# ---------------------------------------------------------------------------------------- evaluate, predict


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


# ---------------------------------------------------------------------------------------- measure


def milliseconds(seconds: float) -> str:
    """A time in milliseconds, three digits.

    >>> milliseconds(0.000_823_4), milliseconds(0.0367), milliseconds(0.25)
    ('0.823 ms', '36.7 ms', '250 ms')
    """
    value = 1000 * seconds
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} ms"


def show_measurements(console: Console, records: Sequence[Mapping[str, Any]]) -> None:
    """Time, size, memory and energy, an artifact a row."""
    table = Table("<artifact", "<~runs on", "median", "p90", "?std", "of the other", "?file", "?memory", "?energy")
    for record in records:
        table.add_row(*_measured(record, percent(record["ratio"])))
        if record["against"] is not None:
            table.add_row(*_measured(record["against"], ""))
    machine, first = records[0]["machine"], records[0]["latency"]
    threads = records[0]["threads"]
    title = f"{machine['cpu']} ({machine['architecture']}), {threads} thread{'s' if threads > 1 else ''}, one image"
    show_table(console, title, table)
    console.print(
        Text(f"{first['runs']} runs in {first['processes']} processes; memory is the peak of a process with Python"),
        soft_wrap=True,
    )
    show_notes(console, [record["warning"] for record in records if record["warning"]])


def _measured(record: Mapping[str, Any], ratio: str) -> list[Any]:
    latency = record["latency"]
    memory = record["memory_peak_bytes"]
    energy = record["energy_j"]
    provider = record["provider"].removesuffix("ExecutionProvider")
    return [
        Text(record["artifact"]),
        Text(f"{RUNTIME_TITLES[record['runtime']]}, {provider}, {record['data_type']}"),
        milliseconds(latency["median_s"]),
        milliseconds(latency["p90_s"]),
        milliseconds(latency["std_s"]),
        ratio,
        size(record["file_bytes"]),
        size(memory) if memory is not None else "not measurable here",
        f"{1000 * energy:.2f} mJ" if energy is not None else "not measurable here",
    ]

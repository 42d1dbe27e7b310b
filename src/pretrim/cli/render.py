"""Records as tables. Nothing is computed here but what a reader's eye needs: prefixes, ratios and bars."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pretrim.planning.plan import Plan
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
ON_DEVICE = {"artifact_bytes": "model in flash", "arena_bytes": "tensor arena in RAM"}
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
    return console


def say(line: str) -> None:
    """A line on stderr, from the main process alone."""
    from pretrim.train import is_main

    if is_main():
        print(line, file=sys.stderr, flush=True)


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

    >>> bar(0.5, 4, ascii_only=False), bar(0.3, 4, ascii_only=False), bar(0.5, 4, ascii_only=True)
    ('██  ', '█▎  ', '##  ')
    """
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if ascii_only:
        return ("#" * round(eighths / 8)).ljust(width)
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()).ljust(width)


def _table(*columns: str) -> Table:
    """A table whose columns hold numbers, on the right; names and words, on the left, start with ``<``."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        words = column.startswith("<")
        title = Text(column.removeprefix("<"))
        table.add_column(title, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    return table


def _show(console: Console, title: str, table: Table) -> None:
    console.print(Text(title, style="bold"), soft_wrap=True)
    console.print(table)


# ---------------------------------------------------------------------------------------- profile


def show_profile(console: Console, record: Mapping[str, Any]) -> None:
    """Layers, totals, groups, frozen layers and notes of one network."""
    title = f"{record['model']}, one image of {'x'.join(map(str, record['input']))}, {record['dtype']}"
    _show(console, title, _layers(record["layers"], console))
    console.print(
        Text("PA, FA, MA: share of all weights, MACs and feature maps, by which the modes params, macs and memory")
    )
    console.print(Text("Weights of a layer are without its biases and norms, which count in the total."))
    totals = _table("<cost", "", "exact")
    for name, value in record["totals"].items():
        totals.add_row(COSTS[name][0], amount(name, value), f"{value:,}")
    _show(console, "Total", totals)
    groups = _table("<group", "channels", "<layers")
    for group in record["groups"]:
        groups.add_row(Text(group["name"]), str(group["channels"]), Text(_names(group["layers"])))
    _show(console, "Channel groups: filters that live and die together", groups)
    if record["frozen"]:
        _show(console, "Frozen: filters that no plan removes", _frozen(record["frozen"]))
    show_notes(console, record["notes"])


def _layers(layers: Sequence[Mapping[str, Any]], console: Console) -> Table:
    wide = console.width >= WIDE
    table = _table(
        "<layer", *(["<kind"] if wide else []), "filters", "weights", "MACs", "output", *MODE_TITLES.values()
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
    table = _table("<layer", "filters", "<reason")
    for entry in entries:
        table.add_row(Text(entry["layer"]), str(entry["filters"]), Text(entry["reason"]))
    return table


def show_notes(console: Console, notes: Sequence[str]) -> None:
    """Remarks, one a line."""
    for note in notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)


# ---------------------------------------------------------------------------------------- plan


def show_plan(console: Console, plan: Plan) -> None:
    """Each cost dense and slim, the width of each group, and what to expect of the accuracy."""
    name = plan.model["name"] if plan.model is not None else "a network"
    how = ", ".join(f"{key}={plan.options[key]}" for key in ("mode", "seed") if key in plan.options)
    costs = _table("<cost", "dense", "slim", "kept", "limit")
    for cost in COSTS:
        dense, slim = plan.dense[cost], plan.slim[cost]
        kept = percent(slim / dense if dense else None)
        costs.add_row(COSTS[cost][0], amount(cost, dense), amount(cost, slim), kept, plan.limits.get(cost, "-"))
    _show(console, f"Plan for {name} ({how})" if how else f"Plan for {name}", costs)
    if plan.device is not None:
        show_fit(console, plan.device.get("name", plan.device.get("latency_on", "the device")), plan)
    widths = _table("<group", "layers", "dense", "kept", "")
    for group in plan.groups:
        share = group.kept / group.channels
        drawn = bar(share, 2 * BAR_WIDTH, ascii_only=console.options.ascii_only)
        cells = (str(len(group.layers)), str(group.channels), str(group.kept))
        widths.add_row(Text(group.name), *cells, Text(f"{drawn} {percent(share, 0):>5}"))
    _show(console, "Filters kept", widths)
    for line in expectations(plan):
        console.print(Text(line), soft_wrap=True)


def expectations(plan: Plan) -> list[str]:
    """What to expect of a plan's accuracy, and what rounding costs it, in words."""
    from pretrim.planning.outlook import Outlook

    if plan.outlook is None:
        return []
    outlook = Outlook.from_json(plan.outlook)
    lines = [f"Expected accuracy: {outlook.sentence()}."]
    if outlook.rounding is not None:
        finer = outlook.finer
        rest = "" if finer is None else f"; --round-to {finer[0]} would cost about {finer[1]:.3f}"
        lines.append(f"Rounding to {plan.options['round_to']} costs {outlook.rounding:.3f} of log width{rest}.")
    return lines


def show_fit(console: Console, name: str, plan: Plan) -> None:
    """What a plan takes on a microcontroller, as predicted, beside what there is for it."""
    if plan.device is None:
        return
    table = _table("<", "dense", "slim", "at most", "<")
    for cost, title in ON_DEVICE.items():
        if cost not in plan.device["slim"]:
            continue
        dense, slim = plan.device["dense"][cost], plan.device["slim"][cost]
        limit = float(plan.limits[cost]) if cost in plan.limits else None
        fits = "" if limit is None else "fits" if slim <= limit else "too large"
        table.add_row(title, size(dense), size(slim), "-" if limit is None else size(limit), fits)
    if "latency_ns" in plan.device["slim"]:
        dense, slim = (milliseconds(plan.device[which]["latency_ns"] * 1e-9) for which in ("dense", "slim"))
        table.add_row(f"latency ({plan.device['latency_on']})", dense, slim, plan.limits.get("latency_ns", "-"), "")
    _show(console, f"On {name}, {plan.dtype}, predicted", table)


# ---------------------------------------------------------------------------------------- compress, evaluate, predict


def show_comparison(console: Console, record: Mapping[str, Any]) -> None:
    """The one table that `compress` ends with: dense against slim."""
    from pretrim.train.metric import Metric

    table = _table("<", "dense", "slim", "kept")
    for name in ("params", "macs", "activation_bytes", "peak_activation_bytes"):
        dense, slim = record["dense"][name], record["slim"][name]
        kept = percent(slim / dense if dense else None)
        table.add_row(COSTS[name][0], amount(name, dense), amount(name, slim), kept)
    both = [record[which] for which in ("dense", "slim")]
    metric = Metric.from_json(record.get("metric"))
    table.add_row(f"test {metric.title}", *(metric.show(one[f"test_{metric.name}"], 2) for one in both), "")
    if (images := both[1].get("test_images")) is not None:
        sure = (interval(one["test_interval_95"], metric=metric) for one in both)
        table.add_row(f"95 % interval, n = {images:,}", *sure, "")
    _show(console, f"{record['model']} on {record['data']['source']}", table)
    if record.get("comparison") is not None:
        console.print(Text(f"slim against dense: {compared(record['comparison'])}"), soft_wrap=True)
    console.print(Text(f"Saved in {record['run']}"), soft_wrap=True)
    if record.get("artifact") is not None:
        show_artifact(console, record["artifact"])


def show_evaluation(console: Console, record: Mapping[str, Any]) -> None:
    """The score over a test set with its interval; before it each class, or every metric."""
    from pretrim.train.metric import Metric

    metric = Metric.from_json(record["metric"])
    table = _table("<class" if "classes" in record else "<", "images", metric.title, "95 % interval")
    for entry in record.get("classes", ()):
        cells = (str(entry["images"]), percent(entry["accuracy"]), interval(entry["interval_95"]))
        table.add_row(Text(entry["name"]), *cells)
    for name, value in record.get("metrics", {}).items():
        if name != metric.name:
            table.add_row(Text(name), "", "-" if value is None else f"{value:.4g}", "")
    table.add_section()
    whole = (metric.show(record[metric.name], 2), interval(record["interval_95"], metric=metric))
    table.add_row("all", str(record["images"]), *whole)
    _show(console, f"{record['run']} on {record['data']['source']}", table)


def show_predictions(console: Console, record: Sequence[Mapping[str, Any]]) -> None:
    """The likeliest classes of each image, or its values."""
    is_of_classes = all("class" in label for entry in record for label in entry["predictions"])
    table = _table("<image", *(("<class", "probability") if is_of_classes else ("<output", "value")))
    for entry in record:
        for place, label in enumerate(entry["predictions"]):
            name = Text(entry["image"]) if place == 0 else ""
            said = percent(label["probability"]) if is_of_classes else f"{label['value']:.4g}"
            table.add_row(name, Text(label["class" if is_of_classes else "output"]), said)
    console.print(table)


# ---------------------------------------------------------------------------------------- export


def show_artifact(console: Console, record: Mapping[str, Any]) -> None:
    """What an artifact is, how it was proved, and what it takes on its board."""
    proof, given = record["proof"], record["input"]
    table = _table("<", "<")
    table.add_row("input", f"{given['layout']} {'x'.join(map(str, given['shape']))}, {given['data_type']}")
    table.add_row("size", f"{size(record['file_bytes'])} ({record['file_bytes']:,} bytes)")
    if record["calibration"] is not None:
        table.add_row("calibrated on", f"{record['calibration']['images']} {record['calibration']['data']}")
    table.add_row("proved on", proof["inputs"])
    if proof["relative_error"] is not None:
        table.add_row("largest error", f"{proof['relative_error']:.1e} of the largest output")
    if proof["sqnr_db"] is not None:
        table.add_row("signal to noise", f"{proof['sqnr_db']:.1f} dB")
    if proof["agreement"] is not None:
        table.add_row("same class", percent(proof["agreement"], 2))
    if proof["accuracy"] is not None:
        table.add_row("accuracy", "{} (PyTorch: {})".format(*(percent(part, 2) for part in proof["accuracy"][::-1])))
    if (judged := proof.get("metric")) is not None:
        table.add_row(judged["name"], "{artifact:.4g} (PyTorch: {pytorch:.4g}; lost: {loss:.2g})".format(**judged))
    for row in _board_rows(record.get("board")):
        table.add_row(*row)
    _show(console, f"{record['path']}: {record['data_type']} for {RUNTIME_TITLES[record['runtime']]}", table)
    show_notes(console, record["notes"])


def _board_rows(board: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if board is None:
        return []
    flash = f"{size(board['flash_bytes'])} with {size(board['runtime_flash_bytes'])} for the runtime"
    rows = [(f"flash of {board['name']}", f"{flash}, of {size(board['flash_of'])}")]
    if not board["verified"]:
        return [*rows, ("RAM", "not verified: pip install 'pretrim[mcu]'")]
    rows.append((f"RAM of {board['name']}", f"{size(board['arena_bytes'])} of arena, of {size(board['ram_of'])}"))
    rows.append(("its interpreter", f"runs it; outputs within {board['largest_difference']} steps of LiteRT's"))
    if (npu := board["ethos_u"]) is not None:
        rest = f"; {npu['cpu_operators']} operators on the processor" if npu["cpu_operators"] else ""
        time = f"{milliseconds(npu['seconds'])} by vela's estimate, {npu['cycles']:,} cycles{rest}"
        rows.append((npu["configuration"], time))
    return rows


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
    table = _table("<artifact", "<runs on", "median", "p90", "std", "of dense", "file", "memory", "energy")
    for record in records:
        table.add_row(*_measured(record, percent(record["ratio"])))
        if record["against"] is not None:
            table.add_row(*_measured(record["against"], ""))
    machine, first = records[0]["machine"], records[0]["latency"]
    threads = records[0]["threads"]
    title = f"{machine['cpu']} ({machine['architecture']}), {threads} thread{'s' if threads > 1 else ''}, one image"
    _show(console, title, table)
    console.print(
        Text(f"{first['runs']} runs in {first['processes']} processes; memory is the peak of a process with Python"),
        soft_wrap=True,
    )
    show_notes(console, [record["warning"] for record in records if record["warning"]])


def _measured(record: Mapping[str, Any], ratio: str) -> list[Any]:
    latency = record["latency"]
    memory = record["memory_peak_bytes"]
    energy = record["energy_j"]
    return [
        Text(record["artifact"]),
        Text(f"{RUNTIME_TITLES[record['runtime']]}, {record['provider'].removesuffix('ExecutionProvider')}"),
        milliseconds(latency["median_s"]),
        milliseconds(latency["p90_s"]),
        milliseconds(latency["std_s"]),
        ratio,
        size(record["file_bytes"]),
        size(memory) if memory is not None else "not measurable here",
        f"{1000 * energy:.2f} mJ" if energy is not None else "not measurable here",
    ]


# ---------------------------------------------------------------------------------------- devices


def show_boards(console: Console, records: Sequence[Mapping[str, Any]], *, sources: bool) -> None:
    """Boards, one a row; with sources, where each figure comes from."""
    table = _table("<name", "<core", "clock", "flash", "RAM", "model at most", "arena at most", "round to", "<runtime")
    for record in records:
        limits = record["limits"]
        table.add_row(
            Text(record["name"]),
            Text(f"{record['cores']} x {record['core'].removeprefix('Arm ')}"),
            f"{record['clock_hz'] / 1e6:,.0f} MHz",
            size(record["flash_bytes"]) if record["flash_bytes"] is not None else "-",
            size(record["ram_bytes"]),
            size(limits["artifact_bytes"]) if limits else "-",
            size(limits["arena_bytes"]) if limits else "-",
            str(record["round_to"]),
            RUNTIME_TITLES[record["runtime"]] + (" Micro" if record["flash_bytes"] is not None else ""),
        )
    _show(console, "Boards", table)
    if not sources:
        console.print(
            Text(
                "RAM: the largest contiguous region. At most: less a quarter for the application (--application), and"
            ),
            Text("100 KiB of flash for the runtime. `pretrim devices NAME` shows the sources."),
            soft_wrap=True,
        )
    for record in records if sources else ():
        for what, where in record["sources"].items():
            console.print(Text(f"{what}: {where}"), soft_wrap=True)
        show_notes(console, [record["note"]] if record["note"] else [])

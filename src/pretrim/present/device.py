"""A network on a device: flash, RAM, times with what they hold for, and whether they are within the limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from .layout import Table, show_table
from .text import milliseconds, percent, show_line, size

if TYPE_CHECKING:
    from pretrim.planning.plan import Plan

Record = Mapping[str, Any]
SURE = 0.99
"""Share of a limit up to which a predicted size surely fits: predictions of files and arenas are off by less."""
LONG_S = 10.0
"""Times from this value on are shown in seconds."""
ON_DEVICE = {"artifact_bytes": "model in flash", "arena_bytes": "tensor arena in RAM"}
FORMULAS_OF_MEMORY = ("weight_bytes", "peak_activation_bytes")
"""Costs of formulas, not shown if the board's own flash and RAM are known."""


def is_on_board(device: Record | None) -> bool:
    """Whether the device record has a microcontroller's flash and RAM."""
    return device is not None and all(name in device["slim"] for name in ON_DEVICE)


def time_text(record: Record, which: str) -> str:
    """A time with its range, in milliseconds or, from ten seconds on, in seconds.

    >>> time_text({"slim_ns": 24e6, "slim_range_ns": [21e6, 29e6]}, "slim"), time_text({"slim_ns": 24e6}, "slim")
    ('24.0 ms (21.0 to 29.0)', '24.0 ms')
    >>> time_text({"slim_ns": 19.3e9, "slim_range_ns": [9.9e9, 34e9]}, "slim")
    '19.3 s (9.9 to 34.0)'
    """
    seconds = record[f"{which}_ns"] * 1e-9
    format_time = _seconds if seconds >= LONG_S else milliseconds
    if (ends := record.get(f"{which}_range_ns")) is None:
        return format_time(seconds)
    low, high = (format_time(end * 1e-9).split()[0] for end in ends)
    return f"{format_time(seconds)} ({low} to {high})"


def _seconds(value: float) -> str:
    return f"{value:.1f} s"


def energy_text(record: Record, which: str) -> str:
    """Energy per image in mJ, with its range.

    >>> energy_text({"slim_uj": 3120.0}, "slim"), energy_text({"slim_uj": None}, "slim")
    ('3.12 mJ', '-')
    >>> energy_text({"slim_uj": 3120.0, "slim_range_uj": [2800.0, 3700.0]}, "slim")
    '3.12 mJ (2.8 to 3.7)'
    """
    energy_uj = record.get(f"{which}_uj")
    if energy_uj is None:
        return "-"
    ends = record.get(f"{which}_range_uj")
    range_text = "" if ends is None else f" ({ends[0] / 1000:.3g} to {ends[1] / 1000:.3g})"
    return f"{energy_uj / 1000:.3g} mJ{range_text}"


def _time_title(record: Record) -> str:
    """Runtime, data type and, if there are several, threads of a time."""
    threads = f", {record['threads']} threads" if record["threads"] > 1 else ""
    return f"{record['runtime']}, {record['data_type']}{threads}"


def time_label(record: Record) -> str:
    """What a time holds for, in one line, with the operators that it does not count."""
    rest = f"; not counted: {', '.join(record['left_out'])}" if record.get("left_out") else ""
    energy = f"; energy: {record['energy_label']}" if record.get("energy_label") else ""
    return f"{record['source']}: {record['label']}{rest}{energy}"


def show_time_labels(console: Console, device: Record | None) -> None:
    """Print what each time holds for, one line each."""
    for record in (device or {}).get("times", ()):
        show_line(console, f"latency, {time_label(record)}")


def _time_rows(times: Sequence[Record]) -> Iterator[tuple[str, str, str]]:
    """Title, dense and slim text of each time, and of its energy where that is known."""
    for record in times:
        yield f"latency, {_time_title(record)}", time_text(record, "dense"), time_text(record, "slim")
        if record.get("slim_uj") is not None:
            energies = (energy_text(record, which) for which in ("dense", "slim"))
            yield f"energy, {_time_title(record)}", *energies  # type: ignore[misc]


def show_fit(console: Console, plan: Plan) -> None:
    """Print the predicted flash, RAM and times of a plan on its device, beside the limits."""
    if plan.device is None:
        return
    from pretrim.planning.budget import Limit

    device, table = plan.device, Table("<", "?dense", "slim", "?kept", "at most", "<")
    verdicts: list[str] = []

    def row(title: str, cost: str, dense: str, slim: str) -> None:
        value, dense_value = device["slim"][cost], device["dense"][cost]
        if cost not in plan.limits:
            table.add_row(title, dense, slim, percent(value / dense_value if dense_value else None), "-", "")
            return
        limit = Limit.parse(cost, plan.limits[cost])
        max_value = limit.resolve(dense_value)
        text = size(max_value) if limit.quantity.unit == "bytes" else milliseconds(max_value * 1e-9)
        converted = device.get("converted", {}).get(cost)
        verdict = _verdict(
            value if converted is None else converted, max_value, is_real=converted is not None or cost == "latency_ns"
        )
        if _is_refused(device) and verdict != "too large":
            verdict = "does not run there"
        verdicts.append(verdict)
        table.add_row(title, dense, slim, percent(value / dense_value), text, verdict)

    for cost, title in ON_DEVICE.items():
        if cost in device["slim"]:
            row(title, cost, *(size(device[which][cost]) for which in ("dense", "slim")))
    times = device.get("times", ())
    if "latency_ns" in device["slim"] and not times:  # a plan of an earlier version
        title = f"latency ({device.get('latency_on', 'machine not known')})"
        row(title, "latency_ns", *(milliseconds(device[which]["latency_ns"] * 1e-9) for which in ("dense", "slim")))
    for number, (title, dense, slim) in enumerate(_time_rows(times)):
        if number == 0 and "latency_ns" in device["slim"]:
            row(title, "latency_ns", dense, slim)
        else:
            table.add_row(title, dense, slim, "", "-", "")
    name = device.get("name", device.get("latency_on", "the device"))
    show_table(console, f"On {name}, {plan.dtype}, predicted", table)
    if (converted := device.get("converted")) is not None:
        sizes = f"a file of {converted['artifact_bytes']:,} bytes and an arena of {converted['arena_bytes']:,}"
        show_line(console, f"Converted before the training: {sizes}.")
    elif "within 1 % of the limit" in verdicts:
        message = "Within 1 % of the limit: `pretrim compress` converts it first, and trims it again if needed."
        show_line(console, message)
    _show_remarks(console, device)


def _verdict(value: int, limit: int, *, is_real: bool) -> str:
    """Whether a value is within its limit. A value that is only predicted to fit barely may not fit.

    >>> _verdict(995, 1000, is_real=True), _verdict(995, 1000, is_real=False), _verdict(1001, 1000, is_real=True)
    ('fits', 'within 1 % of the limit', 'too large')
    """
    if value > limit:
        return "too large"
    return "fits" if is_real or value <= SURE * limit else "within 1 % of the limit"


def _is_refused(device: Record) -> bool:
    """Whether the microcontroller's interpreter is expected to reject the network, unless a conversion succeeded."""
    return "refused" in device and "converted" not in device


def _show_remarks(console: Console, device: Record) -> None:
    """Print what the figures of a device count, with notes and warnings."""
    if "arena_text" in device:
        show_line(console, device["arena_text"])
    if "lower_bound" in device and "converted" not in device:
        show_line(console, f"note: {device['lower_bound']}")
    if _is_refused(device):
        show_line(console, f"warning: {device['refused']}")
    show_time_labels(console, device)


def device_rows(device: Record | None) -> Iterator[tuple[str, str, str, str]]:
    """Rows (title, dense, slim, kept) for flash, RAM, times and energies of a device."""
    if device is None:
        return
    for cost, title in ON_DEVICE.items():
        if cost in device["slim"]:
            dense, slim = device["dense"][cost], device["slim"][cost]
            yield title, size(dense), size(slim), percent(slim / dense if dense else None)
    for title, dense_text, slim_text in _time_rows(device.get("times", ())):
        yield title, dense_text, slim_text, ""

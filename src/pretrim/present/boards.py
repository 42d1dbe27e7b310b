"""Tables of boards, and of a file on each of them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from .device import Record, energy_text, time_label, time_text
from .layout import Table, show_table
from .text import RUNTIME_TITLES, percent, show_line, show_notes, size

LIMITS = "Limits: less a quarter for the application (--application), and 100 KiB of flash for the runtime."


def show_boards(console: Console, records: Sequence[Record], *, sources: bool) -> None:
    """Print boards, one per row, and optionally the source of each figure and the known times.

    Args:
        console: console to print to.
        records: one record per board (`jobs.devices.board_records`).
        sources: whether to print sources, notes and known times.
    """
    table = Table(
        "<name", "<core", "?clock", "?flash", "?RAM", "flash limit", "RAM limit", "?round to", "<?runtime", "?times"
    )
    for record in records:
        limits, times = record["limits"], record["times_of"]
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
            str(len({entry["runtime"] for entry in times}) or "-"),
        )
    show_table(console, "Boards", table)
    if not sources:
        for line in (
            "RAM: the largest contiguous region.",
            LIMITS,
            "Times: runtimes, with versions, whose time is predicted there.",
            "`pretrim devices NAME` shows them, and the sources of all figures.",
        ):
            show_line(console, line)
    for record in records if sources else ():
        for figure, source in record["sources"].items():
            show_line(console, f"{figure}: {source}")
        show_notes(console, [record["note"]] if record["note"] else [])
        _show_systems(console, record)


def _show_systems(console: Console, record: Record) -> None:
    """Print the runtimes whose time can be predicted on a board, with the errors of the predictions."""
    if not record["times_of"]:
        show_line(console, f"no public measurement of times on {record['core'].removeprefix('Arm ')} is known")
        return
    table = Table("<runtime", "<data type", "?networks", "median error", "?p90 error", "<range", "?power")
    for entry in record["times_of"]:
        power = entry["power_mw"]
        table.add_row(
            Text(entry["runtime"]),
            entry["data_type"],
            str(entry["networks"]),
            percent(entry["median_error"], 0),
            percent(entry["p90_error"], 0),
            f"{entry['range'][0]:.2f} to {entry['range'][1]:.2f} x",
            "-" if power is None else f"{power:.0f} mW",
        )
    show_table(console, f"Times that public measurements predict on {record['name']}, one core", table)
    show_line(
        console, "range: of the predicted time; four in five networks that were left out of the fit were within it"
    )
    if any(entry["range_is_shared"] for entry in record["times_of"]):
        show_line(
            console,
            "with fewer than ten networks the range is shared with other such systems, and p90 is about the error of "
            "the worst network: a network unlike those that were measured may be that far off, outside the range",
        )


def show_check(console: Console, record: Record) -> None:
    """Print a file on boards, one per row: whether it fits, its flash and RAM, and its predicted time."""
    has_energy = any(time["file_uj"] is not None for entry in record["boards"] for time in entry["times"])
    energy_columns = ["<?energy"] if has_energy else []
    table = Table(
        "<board", "<", "?flash", "?flash limit", "RAM", "?RAM limit", "<~predicted time, runtime", *energy_columns
    )
    for entry in sorted(record["boards"], key=lambda entry: not entry["fits"]):
        times = entry["times"] or [None]
        for number, time in enumerate(times):
            cells = _check_cells(entry) if number == 0 else [""] * 6
            time_cell = "-" if time is None else f"{time_text(time, 'file')}, {time['runtime']}"
            energy_cells = ["-" if time is None else energy_text(time, "file")] if has_energy else []
            table.add_row(*(Text(cell) for cell in (*cells, time_cell, *energy_cells)))
    show_table(console, f"{record['path']}, {record['data_type']}", table)
    for entry in record["boards"]:
        if len(record["boards"]) == 1:
            show_notes(console, entry["problems"])
            for time in entry["times"]:
                show_line(console, f"latency, {time_label(time)}")
    show_line(console, LIMITS)
    if has_energy and len(record["boards"]) > 1:
        show_line(console, "Energy: where the power of that board was measured with that runtime.")
    show_zero_filters(console, record)
    if len(record["boards"]) > 1:
        show_line(console, "Times: one image, one core, with their range; `--device NAME` says what each rests on.")


def show_zero_filters(console: Console, record: Record) -> None:
    """Print which layers of a file have filters that are all zero, and how to remove them."""
    layers = record["zero_filters"]
    if not layers:
        return
    total = sum(layer["zero"] for layer in layers.values())
    table = Table("<layer", "zero", "filters")
    for name, layer in layers.items():
        table.add_row(Text(name), str(layer["zero"]), str(layer["filters"]))
    title = f"{total:,} of {record['filters']:,} filters are zero: run `pretrim slim` on the trained network"
    show_table(console, title, table)


def _check_cells(entry: Record) -> list[str]:
    """The cells of a board's row before its time."""
    flash, arena = entry["flash_limit"], entry["arena_bytes"]
    verdict = "fits" if entry["fits"] else _short(entry)
    return [
        entry["board"],
        verdict,
        size(entry["file_bytes"]),
        "-" if flash is None else size(flash),
        "-" if arena is None else size(arena),
        size(entry["ram_limit"]),
    ]


def _short(entry: Record) -> str:
    """Why a file does not fit, in keywords."""
    keywords = {"operators": "operators", "The model": "interpreter", "the file": "flash", "the arena": "RAM"}
    matches = [
        keyword for start, keyword in keywords.items() if any(text.startswith(start) for text in entry["problems"])
    ]
    return f"no: {', '.join(matches) or 'format'}"

"""Tables of an artifact: its verification, its memory and time on its board, and measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from pretrim.errors import PretrimError

from .device import Record
from .layout import Table, show_table
from .text import RUNTIME_TITLES, duration, milliseconds, percent, show_line, show_notes, size


def show_artifact(console: Console, record: Mapping[str, Any]) -> None:
    """Print an artifact, how it was verified, and what it takes on its board."""
    proof, model_input = record["proof"], record["input"]
    table = Table("<", "<~")
    table.add_row(
        "input", f"{model_input['layout']} {'x'.join(map(str, model_input['shape']))}, {model_input['data_type']}"
    )
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
    if (metric := proof.get("metric")) is not None:
        table.add_row(metric["name"], _score(metric))
    for row in board_rows(record.get("board")):
        table.add_row(*row)
    show_table(console, f"{record['path']}: {record['data_type']} for {RUNTIME_TITLES[record['runtime']]}", table)
    show_notes(console, record["notes"])


def _score(metric: Mapping[str, Any]) -> str:
    """The scores of the artifact and of PyTorch in a task's metric.

    >>> _score({"is_share": True, "artifact": 0.5, "pytorch": 0.525, "loss": 0.025})
    '50.00 % (PyTorch: 52.50 %; lost: 2.50 points)'
    >>> _score({"is_share": False, "artifact": 1.25, "pytorch": 1.0, "loss": 0.25})
    '1.25 (PyTorch: 1; lost: 0.25)'
    """
    if metric["is_share"]:
        artifact, reference = (percent(metric[source], 2) for source in ("artifact", "pytorch"))
        return f"{artifact} (PyTorch: {reference}; lost: {100 * metric['loss'] + 0.0:.2f} points)"
    return "{artifact:.4g} (PyTorch: {pytorch:.4g}; lost: {loss:.2g})".format(**metric)


def board_rows(board: Record | None) -> list[tuple[str, str]]:
    """Rows (title, value) of what an artifact takes on its board."""
    if board is None:
        return []
    limits = board["limits"]
    flash = f"{size(board['flash_bytes'])} with {size(board['runtime_flash_bytes'])} for the runtime"
    rows = [(f"flash of {board['name']}", f"{flash}, of {size(board['flash_of'])}")]
    used = board["flash_bytes"] - board["runtime_flash_bytes"]
    rows += _limit_rows("file against its limit", used, limits.get("artifact_bytes"))
    verification = "as TFLM placed it here" if board["verified"] else "not verified: pip install 'pretrim[mcu]'"
    arena = f"{size(board['arena_bytes'])} of arena, of {size(board['ram_of'])}; {verification}"
    rows.append((f"RAM of {board['name']}", arena))
    rows += _limit_rows("arena against its limit", board["arena_bytes"], limits.get("arena_bytes"))
    if (time := board.get("time")) is not None:
        used, limit = (milliseconds(time[name] * 1e-9) for name in ("ns", "limit_ns"))
        verdict = "fits" if time["ns"] <= time["limit_ns"] else "too slow"
        rows.append((f"time predicted, {time['runtime']}", f"{verdict}: {used} of {limit}"))
    if board["verified"]:
        rows.append(("outputs in TFLM", board["tflm"].removeprefix("TFLM: ")))
    if (npu := board["ethos_u"]) is not None:
        cpu_note = f"; {npu['cpu_operators']} operators on the processor" if npu["cpu_operators"] else ""
        time = f"{milliseconds(npu['seconds'])} by vela's estimate, {npu['cycles']:,} cycles{cpu_note}"
        rows.append((npu["configuration"], time))
    return rows


def check_board(record: Record) -> None:
    """Raises PretrimError if an artifact does not fit its board: its files are written, but the command must fail."""
    board = record.get("board")
    if board is not None and board["problems"]:
        raise PretrimError(f"{record['path']} does not fit {board['name']}: {'; '.join(board['problems'])}.")


def _limit_rows(title: str, used: int, limit: int | None) -> list[tuple[str, str]]:
    """A row on whether an artifact's actual bytes are within its plan's limit; none without a limit."""
    if limit is None:
        return []
    return [(title, f"{'fits' if used <= limit else 'too large'}: {used:,} of {limit:,} bytes")]


def show_measurements(console: Console, records: Sequence[Mapping[str, Any]]) -> None:
    """Print time, size, memory and energy, one artifact per row."""
    table = Table("<artifact", "<~runs on", "median", "p90", "?std", "of the other", "?file", "?memory", "?energy")
    for record in records:
        table.add_row(*_measurement_cells(record, percent(record["ratio"])))
        if record["against"] is not None:
            table.add_row(*_measurement_cells(record["against"], ""))
    machine, first = records[0]["machine"], records[0]["latency"]
    threads = records[0]["threads"]
    processes = f"{first['processes']} process{'es' if first['processes'] > 1 else ''}"
    title = f"{machine['cpu']} ({machine['architecture']}), {threads} thread{'s' if threads > 1 else ''}, one image"
    show_table(console, title, table)
    show_line(console, f"{first['runs']} runs in {processes}; memory is the peak of a process with Python")
    show_notes(console, [record["warning"] for record in records if record["warning"]])


def _measurement_cells(record: Mapping[str, Any], ratio: str) -> list[Any]:
    """The cells of an artifact's row."""
    latency = record["latency"]
    memory = record["memory_peak_bytes"]
    energy = record["energy_j"]
    provider = record["provider"].removesuffix("ExecutionProvider")
    return [
        Text(record["artifact"]),
        Text(f"{RUNTIME_TITLES[record['runtime']]}, {provider}, {record['data_type']}"),
        duration(latency["median_s"]),
        duration(latency["p90_s"]),
        duration(latency["std_s"]),
        ratio,
        size(record["file_bytes"]),
        size(memory) if memory is not None else "not measurable here",
        f"{1000 * energy:.2f} mJ" if energy is not None else "not measurable here",
    ]

"""Plans, runs and artifacts as tables, and what their device sees: boards, limits, times with what they hold for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from pretrim.errors import PretrimError

from .layout import Table, show_table
from .render import (
    BAR_WIDTH,
    COSTS,
    RUNTIME_TITLES,
    amount,
    bar,
    compared,
    interval,
    milliseconds,
    percent,
    show_notes,
    size,
)

if TYPE_CHECKING:
    from pretrim.planning.plan import Plan

Record = Mapping[str, Any]
SURE = 0.99
"""Share of a limit up to which what is predicted to fit does: predictions of files and arenas are off by less"""
ON_DEVICE = {"artifact_bytes": "model in flash", "arena_bytes": "tensor arena in RAM"}

FORMULAS_OF_MEMORY = ("weight_bytes", "peak_activation_bytes")
"""What a board's own figures take the place of"""


def is_on_board(device: Record | None) -> bool:
    """Whether flash and RAM are known as a microcontroller has them."""
    return device is not None and all(name in device["slim"] for name in ON_DEVICE)


# ---------------------------------------------------------------------------------------- plan


def show_plan(console: Console, plan: Plan) -> None:
    """What the device sees, each cost dense and slim, the width of each group, and what to expect of the accuracy."""
    name = plan.model["name"] if plan.model is not None else "a network"
    how = ", ".join(f"{key}={plan.options[key]}" for key in ("mode", "seed") if key in plan.options)
    costs = Table("<cost", "dense", "slim", "kept", "limit")
    for cost in COSTS:
        if is_on_board(plan.device) and cost in FORMULAS_OF_MEMORY and cost not in plan.limits:
            continue  # one figure of flash and one of RAM: the board's
        dense, slim = plan.dense[cost], plan.slim[cost]
        kept = percent(slim / dense if dense else None)
        costs.add_row(COSTS[cost][0], amount(cost, dense), amount(cost, slim), kept, plan.limits.get(cost, "-"))
    show_fit(console, plan)
    show_table(console, f"Plan for {name} ({how})" if how else f"Plan for {name}", costs)
    widths = Table("<group", "?layers", "dense", "kept", "?")
    for group in plan.groups:
        share = group.kept / group.channels
        drawn = bar(share, 2 * BAR_WIDTH, ascii_only=console.options.ascii_only)
        cells = (str(len(group.layers)), str(group.channels), str(group.kept))
        widths.add_row(Text(group.name), *cells, Text(f"{drawn} {percent(share, 0):>5}"))
    show_table(console, "Filters kept", widths)
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
        console.print(Text(f"slim against dense: {compared(record['comparison'])}"), soft_wrap=True)
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


# ---------------------------------------------------------------------------------------- export


def show_artifact(console: Console, record: Mapping[str, Any]) -> None:
    """What an artifact is, how it was proved, and what it takes on its board."""
    proof, given = record["proof"], record["input"]
    table = Table("<", "<~")
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
    for row in board_rows(record.get("board")):
        table.add_row(*row)
    show_table(console, f"{record['path']}: {record['data_type']} for {RUNTIME_TITLES[record['runtime']]}", table)
    show_notes(console, record["notes"])


# ---------------------------------------------------------------------------------------- times


def time_text(record: Record, which: str) -> str:
    """A time with its range.

    >>> time_text({"slim_ns": 24e6, "slim_range_ns": [21e6, 29e6]}, "slim"), time_text({"slim_ns": 24e6}, "slim")
    ('24.0 ms (21.0 to 29.0)', '24.0 ms')
    """
    said = milliseconds(record[f"{which}_ns"] * 1e-9)
    if (ends := record.get(f"{which}_range_ns")) is None:
        return said
    low, high = (milliseconds(end * 1e-9).removesuffix(" ms") for end in ends)
    return f"{said} ({low} to {high})"


def energy_text(record: Record, which: str) -> str:
    """Energy of an image.

    >>> energy_text({"slim_uj": 3120.0}, "slim"), energy_text({"slim_uj": None}, "slim")
    ('3.12 mJ', '-')
    """
    found = record.get(f"{which}_uj")
    return "-" if found is None else f"{found / 1000:.3g} mJ"


def _time_title(record: Record) -> str:
    threads = f", {record['threads']} threads" if record["threads"] > 1 else ""
    return f"{record['runtime']}, {record['data_type']}{threads}"


def time_label(record: Record) -> str:
    """What a time holds for, in one line, with the operators that are not in it."""
    rest = f"; without {', '.join(record['left_out'])}" if record.get("left_out") else ""
    return f"{record['source']}: {record['label']}{rest}"


def show_time_labels(console: Console, device: Record | None) -> None:
    """What each time holds for, a line each."""
    for record in (device or {}).get("times", ()):
        console.print(Text(f"latency, {time_label(record)}"), soft_wrap=True)


def _time_rows(times: Sequence[Record]) -> Iterator[tuple[str, str, str]]:
    for record in times:
        yield f"latency, {_time_title(record)}", time_text(record, "dense"), time_text(record, "slim")
        if record.get("slim_uj") is not None:
            energies = (energy_text(record, which) for which in ("dense", "slim"))
            yield f"energy, {_time_title(record)}", *energies  # type: ignore[misc]


# ---------------------------------------------------------------------------------------- a plan on its device


def show_fit(console: Console, plan: Plan) -> None:
    """What a plan takes on its device, as predicted, beside what there is for it."""
    if plan.device is None:
        return
    from pretrim.planning.budget import Limit

    device, table = plan.device, Table("<", "?dense", "slim", "?kept", "at most", "<")
    verdicts: list[str] = []

    def row(title: str, cost: str, dense: str, slim: str) -> None:
        taken, whole = device["slim"][cost], device["dense"][cost]
        if cost not in plan.limits:
            table.add_row(title, dense, slim, percent(taken / whole if whole else None), "-", "")
            return
        limit = Limit.parse(cost, plan.limits[cost])
        most = limit.resolve(whole)
        text = size(most) if limit.quantity.unit == "bytes" else milliseconds(most * 1e-9)
        real = device.get("converted", {}).get(cost)
        verdict = _verdict(taken if real is None else real, most, is_real=real is not None or cost == "latency_ns")
        verdicts.append(verdict)
        table.add_row(title, dense, slim, percent(taken / whole), text, verdict)

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
    if (real := device.get("converted")) is not None:
        sizes = f"a file of {real['artifact_bytes']:,} bytes and an arena of {real['arena_bytes']:,}"
        console.print(Text(f"Converted before the training: {sizes}."), soft_wrap=True)
    elif "within 1 % of it" in verdicts:
        said = "Within 1 % of it: `pretrim compress` converts the network first, and trims it again where it must."
        console.print(Text(said), soft_wrap=True)
    _show_what_counts(console, device)


def _verdict(taken: int, most: int, *, is_real: bool) -> str:
    """Whether something is within its limit. What is predicted to fit barely may not.

    >>> _verdict(995, 1000, is_real=True), _verdict(995, 1000, is_real=False), _verdict(1001, 1000, is_real=True)
    ('fits', 'within 1 % of it', 'too large')
    """
    if taken > most:
        return "too large"
    return "fits" if is_real or taken <= SURE * most else "within 1 % of it"


def _show_what_counts(console: Console, device: Record) -> None:
    if "arena_text" in device:
        console.print(Text(device["arena_text"]), soft_wrap=True)
    if "lower_bound" in device and "converted" not in device:
        console.print(Text(f"note: {device['lower_bound']}"), soft_wrap=True)
    show_time_labels(console, device)


def device_rows(device: Record | None) -> Iterator[tuple[str, str, str, str]]:
    """Rows of a table of dense, slim and kept: flash, RAM and times of a device."""
    if device is None:
        return
    for cost, title in ON_DEVICE.items():
        if cost in device["slim"]:
            dense, slim = device["dense"][cost], device["slim"][cost]
            yield title, size(dense), size(slim), percent(slim / dense if dense else None)
    for title, dense_text, slim_text in _time_rows(device.get("times", ())):
        yield title, dense_text, slim_text, ""


# ---------------------------------------------------------------------------------------- an artifact on its board


def board_rows(board: Record | None) -> list[tuple[str, str]]:
    """What an artifact takes on its board."""
    if board is None:
        return []
    limits = board["limits"]
    flash = f"{size(board['flash_bytes'])} with {size(board['runtime_flash_bytes'])} for the runtime"
    rows = [(f"flash of {board['name']}", f"{flash}, of {size(board['flash_of'])}")]
    taken = board["flash_bytes"] - board["runtime_flash_bytes"]
    rows += _limit_rows("file against its limit", taken, limits.get("artifact_bytes"))
    how = "as TFLM placed it here" if board["verified"] else "not verified: pip install 'pretrim[mcu]'"
    arena = f"{size(board['arena_bytes'])} of arena, of {size(board['ram_of'])}; {how}"
    rows.append((f"RAM of {board['name']}", arena))
    rows += _limit_rows("arena against its limit", board["arena_bytes"], limits.get("arena_bytes"))
    if board["verified"]:
        rows.append(("outputs in TFLM", board["tflm"].removeprefix("TFLM: ")))
    if (npu := board["ethos_u"]) is not None:
        rest = f"; {npu['cpu_operators']} operators on the processor" if npu["cpu_operators"] else ""
        time = f"{milliseconds(npu['seconds'])} by vela's estimate, {npu['cycles']:,} cycles{rest}"
        rows.append((npu["configuration"], time))
    return rows


def check_board(record: Record) -> None:
    """Raises PretrimError for an artifact that does not fit its board: everything is written, but nothing may go on."""
    board = record.get("board")
    if board is not None and board["problems"]:
        raise PretrimError(f"{record['path']} does not fit {board['name']}: {'; '.join(board['problems'])}.")


def _limit_rows(title: str, taken: int, limit: int | None) -> list[tuple[str, str]]:
    """Whether what an artifact really takes is within the limit of its plan."""
    if limit is None:
        return []
    return [(title, f"{'fits' if taken <= limit else 'too large'}: {taken:,} of {limit:,} bytes")]


# ---------------------------------------------------------------------------------------- boards


def show_boards(console: Console, records: Sequence[Record], *, sources: bool) -> None:
    """Boards, one a row; with sources, where each figure comes from and which times are known.

    Args:
        console: where to.
        records: one for each board (`jobs.devices.board_records`).
        sources: whether each figure is shown with its source.
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
        console.print(
            Text("RAM: the largest contiguous region. Limits: less a quarter for the application (--application), and"),
            Text("100 KiB of flash for the runtime. Times: runtimes, with versions, whose time is predicted there."),
            Text("`pretrim devices NAME` shows them, and the sources of all figures."),
            soft_wrap=True,
        )
    for record in records if sources else ():
        for what, where in record["sources"].items():
            console.print(Text(f"{what}: {where}"), soft_wrap=True)
        show_notes(console, [record["note"]] if record["note"] else [])
        _show_systems(console, record)


def _show_systems(console: Console, record: Record) -> None:
    """The runtimes of which a time is known, with how far off predictions are."""
    if not record["times_of"]:
        console.print(Text(f"no public measurement of times on {record['core'].removeprefix('Arm ')} is known"))
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
    console.print(
        Text("range: of the predicted time; four in five networks that were left out of the fit were within it"),
        soft_wrap=True,
    )


# ---------------------------------------------------------------------------------------- check


def show_check(console: Console, record: Record) -> None:
    """A file on boards, a row each: does it fit, what does it take, how long would it run."""
    table = Table("<board", "<", "flash", "?of", "RAM", "?of", "<predicted time", "<~runtime")
    for entry in sorted(record["boards"], key=lambda entry: not entry["fits"]):
        times = entry["times"] or [None]
        for number, time in enumerate(times):
            cells = _check_cells(entry) if number == 0 else [""] * 6
            told = ["-", ""] if time is None else [time_text(time, "file"), time["runtime"]]
            table.add_row(*(Text(cell) for cell in (*cells, *told)))
    show_table(console, f"{record['path']}, {record['data_type']}", table)
    for entry in record["boards"]:
        if len(record["boards"]) == 1:
            show_notes(console, entry["problems"])
            for time in entry["times"]:
                console.print(Text(f"latency, {time_label(time)}"), soft_wrap=True)
    console.print(
        Text("Limits: less a quarter for the application (--application), and 100 KiB of flash for the runtime."),
        soft_wrap=True,
    )
    if len(record["boards"]) > 1:
        console.print(Text("Times: one image, one core, with their range; `--device NAME` says what each rests on."))


def _check_cells(entry: Record) -> list[str]:
    """The first cells of a board's row."""
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
    """Why a file does not fit, in a word."""
    words = {"operators": "operators", "the file": "flash", "the arena": "RAM"}
    found = [word for start, word in words.items() if any(text.startswith(start) for text in entry["problems"])]
    return f"no: {', '.join(found) or 'format'}"

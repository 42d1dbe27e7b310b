"""Tables at 60, 80, 100 and 120 columns: nothing cut, no name broken, no unit parted from its number."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rich.console import Console

import pretrim
from pretrim.devices import boards
from pretrim.jobs.plan import profile
from pretrim.present.boards import show_boards
from pretrim.present.layout import Table, show_table
from pretrim.present.plan import show_plan
from pretrim.present.profile import show_profile

WIDTHS = (60, 80, 100, 120)


def terminal(width: int) -> Console:
    return Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system=None, highlight=False, legacy_windows=False
    )


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def assert_fits(text: str, width: int, whole: Sequence[str]) -> None:
    """No line of a table is wider than the terminal (remarks wrap as it pleases), and these words are in one piece."""
    assert [line for line in text.splitlines() if line.startswith(" ") and len(line.rstrip()) > width] == []
    assert [word for word in whole if word not in text] == []


names = st.text("abcdefgh._0123456789", min_size=1, max_size=28)
amounts = st.builds("{} {}".format, st.integers(0, 99_999), st.sampled_from(["KiB", "ms", "%", "M"]))


@settings(max_examples=200, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    rows=st.lists(st.tuples(names, amounts, amounts, amounts, amounts, names), min_size=1, max_size=6),
    width=st.sampled_from(WIDTHS),
    marks=st.tuples(*[st.sampled_from(["", "?"])] * 4),
)
def test_names_and_amounts_stay_whole(rows: list[tuple[str, ...]], width: int, marks: tuple[str, ...]) -> None:
    titles = ["dense", "slim", "kept", "at most"]
    table = Table("<layer", *(mark + title for mark, title in zip(marks, titles, strict=True)), "<~reason")
    for row in rows:
        table.add_row(*row)
    console = terminal(width)
    show_table(console, "A table", table)
    kept = [0, *(place for place, mark in enumerate(marks, 1) if not mark), 5]
    text = printed(console)
    assert_fits(text, width, [row[place] for row in rows for place in kept])
    for place, title in enumerate(titles, 1):  # what is left out is named
        is_there = all(row[place] in text for row in rows)
        assert is_there or f"{title}" in text.partition("Left out at this width: ")[2]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_profile_and_a_plan_fit(width: int) -> None:
    console = terminal(width)
    record = profile("resnet20", (3, 32, 32)).to_json()
    show_profile(console, record)
    layers = [layer["name"] for layer in record["layers"]]
    shares = [f"{100 * layer['shares']['macs']:.1f} %" for layer in record["layers"]]
    assert_fits(printed(console), width, [*layers, *shares, "the network's output"])
    console = terminal(width)
    plan = plan_of_resnet20()
    show_plan(console, plan)
    assert_fits(printed(console), width, [group.name for group in plan.groups])


def plan_of_resnet20() -> pretrim.Plan:
    import torch

    from pretrim.models import BUILTIN

    return pretrim.plan(pretrim.analyze(BUILTIN["resnet20"](), torch.zeros(1, 3, 32, 32)), macs="0.5x")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_boards_fit(width: int) -> None:
    console = terminal(width)
    records: list[Mapping[str, object]] = [
        {**asdict(board), "limits": board.limits(), "times_of": []} for board in boards()
    ]
    show_boards(console, records, sources=False)
    assert_fits(printed(console), width, [board.name for board in boards()])


def test_a_pipe_gets_the_whole_table() -> None:
    console = Console(file=io.StringIO(), width=40, color_system=None)
    table = Table("<layer", "?weights", "<~reason")
    table.add_row("a.layer.of.a.long.name", "1,234,567,890", "frozen, since it is the output")
    show_table(console, "A table", table)
    text = printed(console)
    assert "1,234,567,890" in text and "weights" in text and "Left out" not in text


def test_a_column_without_a_value_and_a_heading_without_a_title_take_no_room() -> None:
    console = terminal(80)
    table = Table("<trial", "?latency", "MACs", "?seed", "<?")
    table.add_row("a", "-", "-", "0", "")
    table.add_row("b", "-", "-", "1", "")
    show_table(console, "Trials", table)
    assert "latency" not in printed(console) and "MACs" in printed(console) and "Left out" not in printed(console)
    console = terminal(80)
    untitled = Table("<", "<~")
    untitled.add_row("size", "3 KiB")
    show_table(console, "A file", untitled)
    assert [line.strip() for line in printed(console).splitlines() if line.strip()] == ["A file", "size   3 KiB"]
    assert len(printed(console).splitlines()) <= 4


@pytest.mark.parametrize("width", [60, 80, 100])
def test_every_column_of_a_profile_that_is_left_out_is_named(width: int) -> None:
    console = terminal(width)
    show_profile(console, profile("resnet20", (3, 32, 32)).to_json())
    text = printed(console)
    table, _, rest = text.partition("Left out at this width: ")
    named = rest.partition("\n")[0].split(", ")
    for title in ("kind", "filters", "weights", "MACs", "output", "PA", "FA", "MA"):
        assert (title in table.split()) != (title in named), title

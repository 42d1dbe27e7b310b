"""What messages advise to type: it exists, and it can be pasted."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pretrim
from pretrim.cli import RENAMED, app
from pretrim.cli.project import _arguments

Call = Callable[..., tuple[int, str, str]]
SOURCE = Path(pretrim.__file__).parent
OF_OTHERS = {"--accelerator-config", "--output-dir", "--no-deps", "--head"}
"""Options of vela, pip and Ray"""
OF_WORKERS = {"--folder", "--parent"}
OF_ALL = {"--version", "--help", "--install-completion", "--no-", "--no-X"}
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z0-9-]*(?![\w-])")
NET = """
from torch import nn

def build(num_classes=10, in_channels=1):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )
"""


def texts(file: Path) -> Iterator[str]:
    """All texts of a file but documentation; what an f-string fills in is an X."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped = set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            skipped.update(map(id, node.values))
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value


def test_every_command_and_option_that_a_message_names_exists() -> None:
    """And has the name of today, not one of an earlier version."""
    known = {
        name: {word for one in _arguments(app, name).values() for word in one.names}
        for name in app
        if not name.startswith("-")
    }
    options = set.union(*known.values()) | OF_OTHERS | OF_WORKERS | RENAMED.keys() | OF_ALL
    wrong = []
    for file in sorted(SOURCE.rglob("*.py")):
        for text in texts(file):
            here = [] if text in RENAMED else re.findall(r"(?<![\w-])--[a-z][\w-]*", text)
            wrong += [(file.name, word) for word in here if word not in options or word in RENAMED]
            for command, rest in re.findall(r"`pretrim ([a-z]+)([^`]*)`", text):
                missing = [word for word in OPTION.findall(rest) if word not in known.get(command, ())]
                wrong += [(file.name, command, *missing)] if missing or command not in known else []
    assert wrong == []


@pytest.fixture
def run(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a user's file, both in folders whose names have blanks."""
    monkeypatch.chdir(tmp_path)
    file, folder = Path("my nets/net.py"), Path("my runs/first one")
    file.parent.mkdir()
    folder.parent.mkdir()
    file.write_text(NET)
    how = ["--data", "digits", "--input", "1x8x8", "--macs", "0.6x", "--max-images", "100", "--round-to", "1"]
    assert call("compress", f"{file}:build", *how, "--epochs", "1", "--dense", "-o", folder)[0] == 0
    return folder


def test_what_is_advised_for_a_network_of_ones_own_can_be_pasted(call: Call, run: Path) -> None:
    """Nothing is left to fill in, nothing to quote, and then the command that failed works."""
    for asked in (("measure", run), ("check", run, "--device", "raspberry-pi-5"), ("measure", run, "--dense")):
        code, _, said = call(*asked, *(["--runs", "2", "--processes", "1"] if asked[0] == "measure" else []))
        if code == 0:
            continue  # mended before
        advice = re.findall("`(pretrim [^`]+)`", said)
        assert len(advice) == 1, said
        program, *words = shlex.split(advice[0])
        assert program == "pretrim" and call(*words)[0] == 0, advice
        assert call(*asked, *(["--runs", "2", "--processes", "1"] if asked[0] == "measure" else []))[0] == 0


def test_the_dense_network_is_named_by_its_run(call: Call, tmp_path: Path) -> None:
    code, _, said = call("measure", tmp_path, "--dense")
    assert (code, said.count("\n")) == (2, 1) and "`pretrim compress --dense` trains it" in said
    (tmp_path / "dense").mkdir()
    code, _, said = call("measure", tmp_path, "--dense", "--against", tmp_path)
    assert code == 2 and "give one of them" in said


def test_ctrl_c_says_how_to_go_on(call: Call, tmp_path: Path) -> None:
    """The signal comes while the network is built, before there is a state that could say it."""
    net = tmp_path / "net.py"
    net.write_text("import os, signal\n\ndef build():\n    os.kill(os.getpid(), signal.SIGINT)\n")
    how = [f"{net}:build", "--data", "digits", "--input", "1x8x8", "-o", tmp_path / "made"]
    code, _, said = call("sweep", *how)
    assert code == 130 and said.endswith("the same command goes on from there.\n")
    code, _, said = call("compress", *how, "--macs", "0.5x")
    assert code == 130 and said.endswith("error: Interrupted.\n")

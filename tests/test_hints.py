"""Commands and options suggested by messages exist and can be pasted."""

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
OPTIONS_OF_OTHER_PROGRAMS = {"--accelerator-config", "--output-dir", "--no-deps", "--head"}
"""Options of vela, pip and Ray"""
OPTIONS_OF_WORKERS = {"--folder", "--parent"}
COMMON_OPTIONS = {"--version", "--help", "--install-completion", "--no-", "--no-X"}
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z0-9-]*(?![\w-])")
NET = """
from torch import nn

def build(num_classes=10, in_channels=1):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes),
    )
"""


def strings_of(path: Path) -> Iterator[str]:
    """All strings of a file except docstrings; the values inserted by f-strings become X."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
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
    """Messages use current names, not those of earlier versions."""
    known = {
        name: {word for argument in _arguments(app, name).values() for word in argument.names}
        for name in app
        if not name.startswith("-")
    }
    options = (
        set.union(*known.values()) | OPTIONS_OF_OTHER_PROGRAMS | OPTIONS_OF_WORKERS | RENAMED.keys() | COMMON_OPTIONS
    )
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        for text in strings_of(path):
            options_named = [] if text in RENAMED else re.findall(r"(?<![\w-])--[a-z][\w-]*", text)
            wrong += [(path.name, word) for word in options_named if word not in options or word in RENAMED]
            for command, rest in re.findall(r"`pretrim ([a-z]+)([^`]*)`", text):
                missing = [word for word in OPTION.findall(rest) if word not in known.get(command, ())]
                wrong += [(path.name, command, *missing)] if missing or command not in known else []
    assert wrong == []


@pytest.fixture
def run(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a user's file; both are in folders with spaces in their names."""
    monkeypatch.chdir(tmp_path)
    network_file, folder = Path("my nets/net.py"), Path("my runs/first one")
    network_file.parent.mkdir()
    folder.parent.mkdir()
    network_file.write_text(NET)
    options = ["--data", "digits", "--input", "1x8x8", "--macs", "0.6x", "--max-images", "100", "--round-to", "1"]
    assert call("compress", f"{network_file}:build", *options, "--epochs", "1", "--dense", "-o", folder)[0] == 0
    return folder


def test_commands_suggested_for_a_users_network_can_be_pasted(call: Call, run: Path) -> None:
    """The suggestion has no placeholders and is quoted; after running it, the failed command works."""
    advised = 0
    for command in (("measure", run), ("check", run, "--device", "raspberry-pi-5"), ("measure", run, "--dense")):
        code, _, errors = call(*command, *(["--runs", "2", "--processes", "1"] if command[0] == "measure" else []))
        if code == 0:
            continue  # fixed by the suggestion of an earlier command
        advice = re.findall("`(pretrim [^`]+)`", errors)
        assert len(advice) == 1, errors
        program, *words = shlex.split(advice[0])
        assert program == "pretrim" and call(*words)[0] == 0, advice
        assert call(*command, *(["--runs", "2", "--processes", "1"] if command[0] == "measure" else []))[0] == 0
        advised += 1
    assert advised >= 2


def test_measuring_a_missing_dense_network_suggests_to_train_it(call: Call, tmp_path: Path) -> None:
    code, _, errors = call("measure", tmp_path, "--dense")
    assert (code, errors.count("\n")) == (2, 1) and "`pretrim compress --dense` trains it" in errors
    (tmp_path / "dense").mkdir()
    code, _, errors = call("measure", tmp_path, "--dense", "--against", tmp_path)
    assert code == 2 and "give one of them" in errors


def test_an_interruption_says_how_to_continue(call: Call, tmp_path: Path) -> None:
    """The signal arrives while the network is built, before there is a saved state to resume."""
    net = tmp_path / "net.py"
    net.write_text("import os, signal\n\ndef build():\n    os.kill(os.getpid(), signal.SIGINT)\n")
    arguments = [f"{net}:build", "--data", "digits", "--input", "1x8x8", "-o", tmp_path / "made"]
    code, _, errors = call("sweep", *arguments)
    assert code == 130 and errors.endswith("the same command goes on from there.\n")
    code, _, errors = call("compress", *arguments, "--macs", "0.5x")
    assert code == 130 and errors.endswith("error: Interrupted.\n")

"""Completion by the Tab key, in a real bash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TYPED = """
source "$1"; shift
name=$(complete -p pretrim | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
$name pretrim "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
echo "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `--install-completion` writes."""
    home = tmp_path_factory.mktemp("home")
    call = [sys.executable, "-m", "pretrim", "--install-completion", "--shell", "bash"]
    subprocess.run(call, env={**os.environ, "HOME": str(home)}, check=True, capture_output=True)
    return home / ".local" / "share" / "bash-completion" / "completions" / "pretrim"


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["comp"], "compress"),
        (["compress", "resnet20", "--appl"], "--application"),
        (["plan", "resnet20", "--round"], "--round-to"),
    ],
)
def test_a_word_is_completed(script: Path, words: list[str], completed: str) -> None:
    done = subprocess.run(["bash", "-c", TYPED, "-", script, "pretrim", *words], capture_output=True, text=True)
    assert done.stdout.split() == [completed], done.stderr

"""A network of the user's that never ends: it is said to be waited for, and ended, in one line."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import pretrim
from pretrim.models import patience

Call = Callable[..., tuple[int, str, str]]
NET = """
from torch import nn
{top}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        {forward}
        return self.conv(x)

def build():
    {build}
    return Net()
"""
ENDLESS = {
    "forward": {"forward": "while True: pass"},
    "build": {"build": "while True: pass"},
    "import": {"top": "while True: pass"},
    "caught": {"forward": "for _ in iter(int, 1):\n            try: 1 / 0\n            except Exception: pass"},
    "printing": {"forward": "while True: print('again')"},
}


@pytest.fixture(scope="module")
def warm() -> None:
    """The first analysis of a process imports for seconds."""
    pretrim.analyze(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, warm: None) -> None:
    monkeypatch.setattr(patience, "STILL_S", 0.2)
    monkeypatch.setenv("PRETRIM_TIME_LIMIT", "1.5")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("where", ENDLESS)
def test_what_never_ends_is_ended(call: Call, hasty: None, where: str) -> None:
    parts = {"top": "", "forward": "pass", "build": "pass", **ENDLESS[where]}
    Path("net.py").write_text(NET.format(**parts))
    code, out, said = call("plan", "net.py:build", "--input", "3x8x8", "--macs", "0.5x")
    lines = [line for line in said.replace("again", "").splitlines() if line]
    assert (code, out) == (1, "") and lines[-1].startswith("error: Expected net.py:build to be built and traced")
    assert re.search(r"did not end, at net.py:\d+: look for a loop", lines[-1]), lines[-1]
    assert all(re.fullmatch(r"still waiting for net.py:build(, at net.py:\d+)? \(\d s\)", line) for line in lines[:-1])
    assert len(lines) > 1 or where == "printing"  # it may have been printing each time
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL and signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_limit_that_is_none_is_said(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("0", "-1", "nan", "soon", "1e400"):
        monkeypatch.setenv("PRETRIM_TIME_LIMIT", text)
        code, _, said = call("plan", "resnet20", "--macs", "0.5x")
        assert (code, said.count("\n")) == (2, 1) and "PRETRIM_TIME_LIMIT" in said


def test_an_alarm_of_the_callers_is_left_alone() -> None:
    rung: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    try:
        with patience.limited("x"):
            signal.raise_signal(signal.SIGALRM)
        assert rung == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_another_thread_is_not_watched() -> None:
    done: list[bool] = []

    def work() -> None:
        with patience.limited("x"):
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]

"""Ctrl-C and SIGTERM in a vendor's code: never an exception there, and never lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pretrim.compat.signals import vendors_code

PROGRAM = """
import os, signal, sys, tempfile
from pretrim.compat.signals import program, vendors_code
from pretrim.compat.silence import silence

with program(), vendors_code(), silence():
    tempfile.mkdtemp()
    try:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    except BaseException:
        pass  # as C++ that does not look
    os._exit(0)
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_program_leaves_at_once_and_leaves_nothing_behind(name: str, code: int, tmp_path: Path) -> None:
    """Its one line is seen, although what happens inside is silenced; SIGTERM has the command line's handler."""
    handler = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))\n"
    done = subprocess.run(
        [sys.executable, "-c", handler + PROGRAM, name],
        capture_output=True,
        text=True,
        env={"PATH": "", "TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "error: Interrupted.\n")
    assert not list(tmp_path.iterdir())


def test_a_caller_gets_its_exception_behind_the_vendors_code() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with vendors_code():
            folder = Path(tempfile.gettempdir())
            with vendors_code():
                signal.raise_signal(signal.SIGINT)
                steps.append("inside")
            steps.append("still inside")
        steps.append("never")
    assert steps == ["inside", "still inside"]
    assert not folder.exists() and Path(tempfile.gettempdir()) != folder
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

"""Run other commands as a user would type them, for commands that consist of several steps."""

from __future__ import annotations

import shlex
import subprocess
import sys

from . import render


def pretrim(*arguments: object) -> None:
    """Run a command, shown as a user would type it. If it fails, exit with its exit code."""
    words = [str(argument) for argument in arguments]
    render.say(f"\n$ pretrim {shlex.join(words)}")
    code = subprocess.run([sys.executable, "-m", "pretrim", *words]).returncode
    if code:
        sys.exit(code)

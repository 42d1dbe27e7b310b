"""Commands that are made of others start them as a user would type them."""

from __future__ import annotations

import shlex
import subprocess
import sys

from . import render


def pretrim(*arguments: object) -> None:
    """Run a command, shown as it would be typed; where it fails this one ends too, with its exit code."""
    words = [str(argument) for argument in arguments]
    render.say(f"\n$ pretrim {shlex.join(words)}")
    code = subprocess.run([sys.executable, "-m", "pretrim", *words]).returncode
    if code:
        sys.exit(code)

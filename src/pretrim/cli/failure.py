"""The last net: an error that nobody expected becomes one line, and its trace a file that can be sent."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Sequence

from pretrim import __version__


def explained(error: Exception, arguments: Sequence[str]) -> str:
    """What to say of an error that pretrim did not raise on purpose; the trace is written to a file.

    Args:
        error: it.
        arguments: the command line, which the file begins with.
    """
    said = " ".join(str(error).split())[:200]
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return f"This is a fault of pretrim, not of yours ({what}): please report it{_kept(error, arguments)}."


def _kept(error: Exception, arguments: Sequence[str]) -> str:
    """Write the trace; where it is."""
    head = f"pretrim {__version__}, Python {platform.python_version()}, {platform.platform()}\n{list(arguments)!r}\n\n"
    try:
        handle, name = tempfile.mkstemp(prefix="pretrim-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(head + "".join(traceback.format_exception(error)))
    except OSError:
        return ""
    return f" with the file {name}"


def leave_pipe() -> None:
    """Nobody reads our stdout any more (``pretrim profile resnet20 | head -1``): nothing is to be said at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())

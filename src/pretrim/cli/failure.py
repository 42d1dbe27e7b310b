"""Last resort for unexpected errors: print one line, and write the traceback to a file for a bug report."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Sequence

from pretrim import __version__


def explained(error: Exception, arguments: Sequence[str]) -> str:
    """The message for an error that pretrim did not raise on purpose; the traceback is written to a file.

    Args:
        error: the unexpected error.
        arguments: the command line, which the file starts with.
    """
    message = " ".join(str(error).split())[:200]
    summary = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return f"This is a fault of pretrim, not of yours ({summary}): please report it{_write_trace(error, arguments)}."


def _write_trace(error: Exception, arguments: Sequence[str]) -> str:
    """Write the traceback to a file. Returns the end of the message, which names the file, or an empty text."""
    head = f"pretrim {__version__}, Python {platform.python_version()}, {platform.platform()}\n{list(arguments)!r}\n\n"
    try:
        handle, name = tempfile.mkstemp(prefix="pretrim-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(head + "".join(traceback.format_exception(error)))
    except OSError:
        return ""
    return f" with the file {name}"


def leave_pipe() -> None:
    """Silence stdout, whose reader has closed it (``pretrim profile resnet20 | head -1``), until exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())

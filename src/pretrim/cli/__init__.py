"""The command line: each command parses its options, calls a job and renders the result.

Results go to stdout, status and errors to stderr. Exit codes: 0 success, 1 failure, 2 usage error, 130 interrupted.
torch is only imported when a command needs it, so that ``--help`` is fast.
"""

from __future__ import annotations

import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from types import FrameType
from typing import NoReturn

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, UnusedCliTokensError

from pretrim import __version__
from pretrim.errors import PretrimError
from pretrim.jobs.program import program

from . import (
    check,
    compress,
    demo,
    devices,
    evaluate,
    export,
    failure,
    init,
    measure,
    plan,
    predict,
    profile,
    push,
    recommend,
    render,
    report,
    run,
    slim,
    sweep,
)
from .project import with_project
from .render import clean
from .values import refuse_empty_paths, refuse_fractions

INTERRUPTED, PIPE_CLOSED = 130, 141
"""Exit codes as in a shell: 128 plus the signal number."""
GOES_ON = {
    "sweep": ": what is finished is kept, and the same command goes on from there.",
    "run": ": what is finished is kept, and `pretrim run` goes on from there.",
    "demo": ": `pretrim demo --overwrite` starts over.",
}
"""How to continue after Ctrl-C. Training reports this itself, and the other commands have written nothing."""
RENAMED = {
    "--weights": "--share-update",
    "--to": "--runtime",
    "--limit": "--max-images",
    "--keep": "--budget-fraction",
    "--with-dense": "--dense",
}
"""Options of earlier versions, which still work, with their current names."""
NO_NUMBER = re.compile(r'unable to convert (?P<text>".*") into (?P<kind>int|float)\b')
"""Message of cyclopts for a value that is not a number."""
NO_PATH = 'unable to convert "" into Path'
"""Message of cyclopts for a path that `values.path` refused."""

app = App(
    name="pretrim",
    help="Trim a CNN to its device before you train it.",
    version=f"pretrim {__version__}",
    version_flags=["--version", "-V"],
    version_format="plaintext",
    help_format="plaintext",
    default_parameter=Parameter(negative=(), show_default=False, allow_repeating=True),
    suppress_keyboard_interrupt=False,
)
COMMANDS: tuple[Callable[..., None], ...] = (
    profile.profile,
    plan.plan,
    compress.compress,
    slim.slim,
    evaluate.evaluate,
    predict.predict,
    export.export,
    measure.measure,
    check.check,
    push.push,
    sweep.sweep,
    recommend.recommend,
    report.report,
    devices.devices,
    init.init,
    run.run,
    demo.demo,
)


def _paragraphs(command: Callable[..., None]) -> str:
    """Help text of a command: one line per paragraph of its docstring, so that the terminal's width breaks lines."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (command.__doc__ or "").split("\n\n"))


app.register_install_completion_command(group="Shell", help="Install completion by the Tab key, and exit.")
for place, command in enumerate(COMMANDS):
    app.command(render.results_alone(command), sort_key=place, help=_paragraphs(command))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit. Every error is one line on stderr."""
    for stream in (sys.stdout, sys.stderr):  # the user's names may have letters that the terminal cannot show
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    refuse_fractions()
    refuse_empty_paths()
    words = [_renamed(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]
    is_main_thread = threading.current_thread() is threading.main_thread()
    old_handler = signal.signal(signal.SIGTERM, _stop) if is_main_thread else None
    try:
        with program():
            app(with_project(app, words), exit_on_error=False, print_error=False, result_action="return_value")
    except BrokenPipeError:
        failure.leave_pipe()
        sys.exit(PIPE_CLOSED)
    except (KeyboardInterrupt, _Terminated) as stop:
        _say(f"Interrupted{GOES_ON.get(words[0] if words else '', '.')}")
        sys.exit(stop.code if isinstance(stop, _Terminated) else INTERRUPTED)
    except Exception as error:
        line, code = _explained(error, words)
        _say(line)
        sys.exit(code)
    finally:
        if old_handler is not None:
            signal.signal(signal.SIGTERM, old_handler)
    sys.exit(0)


class _Terminated(SystemExit):
    """SIGTERM was received: an exit like any other, which `main` reports."""


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Exit as after an error, so that child processes are ended and temporary files removed."""
    raise _Terminated(128 + number)


def _explained(error: Exception, words: Sequence[str]) -> tuple[str, int]:
    """The error message in one line, and the exit code."""
    if isinstance(error, PretrimError):
        return str(error), error.exit_code
    if isinstance(error, CycloptsError):
        return _wrong_use(error, words), 2
    if isinstance(error, OSError) and error.strerror:
        # Unexpected errors of files and streams, such as a folder without permission or a full disk behind stdout.
        where = error.filename or "a file or stream"
        message = f"Cannot use {where}: {error.strerror}. Check its permissions and the free space."
        return message, PretrimError.exit_code
    return failure.explained(error, words), PretrimError.exit_code


def _renamed(argument: str) -> str:
    """Replace an option's former name by its current one, with a notice."""
    name, equals, value = argument.partition("=")
    if name not in RENAMED:
        return argument
    print(f"note: {name} is now called {RENAMED[name]}", file=sys.stderr)
    return f"{RENAMED[name]}{equals}{value}"


def _wrong_use(error: CycloptsError, words: Sequence[str]) -> str:
    """One line on what is wrong and which help page to read."""
    text = NO_NUMBER.sub(_expected_number, " ".join(str(error).split()))
    text = text.replace(NO_PATH, "it is empty, name a file or folder")
    if isinstance(error, MissingArgumentError):
        text = _missing(error)
    elif isinstance(error, UnusedCliTokensError):
        text = f"Unexpected {shlex.join(error.unused_tokens or ())}: options have names, such as --data DATA."
    names = [*(error.command_chain or ()), *words][:1]  # under `pretrim run`, the file's options of other commands
    command = f"pretrim {names[0]}" if names and names[0] in app else "pretrim"
    return f"{text}{'' if text.endswith(('.', '?')) else '.'} `{command} -h` shows how it is used."


def _expected_number(match: re.Match[str]) -> str:
    """State which kind of number was expected."""
    kind = "a whole number" if match["kind"] == "int" else "a number"
    return f"expected {kind}, but got {match['text']}"


def _missing(error: MissingArgumentError) -> str:
    """State which argument is missing or has no value."""
    message = str(error)
    if error.argument is None or "Did you mean" in message:
        return " ".join(message.split())
    keyword = next((token.keyword for token in reversed(error.argument.tokens) if token.keyword), error.keyword)
    return f"{keyword} needs a value." if keyword else f"{error.argument.name} is missing."


def _say(error: str) -> None:
    print(f"error: {clean(' '.join(error.split()))}", file=sys.stderr)

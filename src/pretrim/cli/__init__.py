"""The command line: each command parses its options, calls a job and renders what comes back.

Results go to stdout, status and errors to stderr. Exit code 0: done; 1: a failure; 2: wrong use; 130: interrupted.
torch is imported when a command needs it, so that ``--help`` is fast.
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
"""As of a shell: 128 and the signal's number"""
GOES_ON = {
    "sweep": ": what is finished is kept, and the same command goes on from there.",
    "run": ": what is finished is kept, and `pretrim run` goes on from there.",
    "demo": ": `pretrim demo --overwrite` begins anew.",
}
"""How to go on after Ctrl-C; a training says it itself, and the other commands have written nothing"""
RENAMED = {
    "--weights": "--share-update",
    "--to": "--runtime",
    "--limit": "--max-images",
    "--keep": "--budget-fraction",
    "--with-dense": "--dense",
}
"""Options of earlier versions, which keep working"""
NO_NUMBER = re.compile(r'unable to convert (?P<text>".*") into (?P<kind>int|float)\b')
"""How cyclopts says that a value is none"""
NO_PATH = 'unable to convert "" into Path'
"""How it says that `values.path` refused one"""

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
    """What a command does, a line for each paragraph of its docstring: the terminal's width breaks them."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (command.__doc__ or "").split("\n\n"))


app.register_install_completion_command(group="Shell", help="Install completion by the Tab key, and exit.")
for place, command in enumerate(COMMANDS):
    app.command(render.results_alone(command), sort_key=place, help=_paragraphs(command))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit. Whatever goes wrong is one line on stderr."""
    for stream in (sys.stdout, sys.stderr):  # a name of the user's may have letters that the terminal lacks
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    refuse_fractions()
    refuse_empty_paths()
    given = [_renamed(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]
    stopped = signal.signal(signal.SIGTERM, _stop) if threading.current_thread() is threading.main_thread() else None
    try:
        with program():
            app(with_project(app, given), exit_on_error=False, print_error=False, result_action="return_value")
    except BrokenPipeError:
        failure.leave_pipe()
        sys.exit(PIPE_CLOSED)
    except (KeyboardInterrupt, _Terminated) as stop:
        _say(f"Interrupted{GOES_ON.get(given[0] if given else '', '.')}")
        sys.exit(stop.code if isinstance(stop, _Terminated) else INTERRUPTED)
    except Exception as error:
        line, code = _explained(error, given)
        _say(line)
        sys.exit(code)
    finally:
        if stopped is not None:
            signal.signal(signal.SIGTERM, stopped)
    sys.exit(0)


class _Terminated(SystemExit):
    """SIGTERM came: an exit like any other, which `main` says."""


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Leave as after an error, so that processes that were started are ended and temporary files removed."""
    raise _Terminated(128 + number)


def _explained(error: Exception, given: Sequence[str]) -> tuple[str, int]:
    """One line about an error, and the exit code."""
    if isinstance(error, PretrimError):
        return str(error), error.exit_code
    if isinstance(error, CycloptsError):
        return _wrong_use(error, given), 2
    if isinstance(error, OSError) and error.strerror:
        # Of files and streams that no command expected to fail: a folder of others, a full stdout.
        where = error.filename or "a file or stream"
        said = f"Cannot use {where}: {error.strerror}. Check its permissions and the free space."
        return said, PretrimError.exit_code
    return failure.explained(error, given), PretrimError.exit_code


def _renamed(argument: str) -> str:
    """An option under its name of today, with a notice where it was an earlier one."""
    name, equals, value = argument.partition("=")
    if name not in RENAMED:
        return argument
    print(f"note: {name} is now called {RENAMED[name]}", file=sys.stderr)
    return f"{RENAMED[name]}{equals}{value}"


def _wrong_use(error: CycloptsError, given: Sequence[str]) -> str:
    """One line: what is wrong, and which help to read."""
    text = NO_NUMBER.sub(_wanted, " ".join(str(error).split())).replace(NO_PATH, "it is empty, name a file or folder")
    if isinstance(error, MissingArgumentError):
        text = _missing(error)
    elif isinstance(error, UnusedCliTokensError):
        text = f"Unexpected {shlex.join(error.unused_tokens or ())}: options have names, such as --data DATA."
    asked = [*(error.command_chain or ()), *given][:1]  # `pretrim run` reads what the file says of other commands
    command = f"pretrim {asked[0]}" if asked and asked[0] in app else "pretrim"
    return f"{text}{'' if text.endswith(('.', '?')) else '.'} `{command} -h` shows how it is used."


def _wanted(found: re.Match[str]) -> str:
    """What kind of number is wanted, in words."""
    kind = "a whole number" if found["kind"] == "int" else "a number"
    return f"expected {kind}, but got {found['text']}"


def _missing(error: MissingArgumentError) -> str:
    """Which argument was left out, or was given without a value."""
    said = str(error)
    if error.argument is None or "Did you mean" in said:
        return " ".join(said.split())
    named = next((token.keyword for token in reversed(error.argument.tokens) if token.keyword), error.keyword)
    return f"{named} needs a value." if named else f"{error.argument.name} is missing."


def _say(error: str) -> None:
    print(f"error: {clean(' '.join(error.split()))}", file=sys.stderr)

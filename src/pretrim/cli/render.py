"""Output streams: stdout only carries results, and text from files never moves the terminal's cursor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TextIO
from unicodedata import category

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

PIPE_WIDTH = 140
"""Columns of a table that is not printed to a terminal: wide enough not to cut names."""


_RESULTS: ContextVar[TextIO] = ContextVar("results")
P = ParamSpec("P")


def results_alone(command: Callable[P, None]) -> Callable[P, None]:
    """Reserve stdout for a command's results: anything else printed there, as by a user's model, goes to stderr."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        token = _RESULTS.set(sys.stdout)
        try:
            with redirect_stdout(sys.stderr):
                command(*args, **kwargs)
            print(end="", file=stdout(), flush=True)  # a full disk fails here, and not at interpreter exit
        finally:
            _RESULTS.reset(token)

    return run


def stdout() -> TextIO:
    """The stream for results."""
    return _RESULTS.get(sys.stdout)


def output() -> Console:
    """The console for results."""
    return _console(stdout())


def status() -> Console:
    """The console for progress and notes."""
    return _console(None)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader of stdout has closed it: leave that to `cli.main`, since Rich would exit with 1."""
        raise BrokenPipeError


def _console(file: TextIO | None) -> Console:
    """Create a console on a stream, by default on the current stderr."""
    console_type = Console if file is None else _Console
    console = console_type(file=file, stderr=file is None, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = console_type(
            file=file, stderr=file is None, highlight=False, markup=False, emoji=False, width=PIPE_WIDTH
        )
    console.push_render_hook(_Cleaning())
    return console


_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of text, by which a name could overwrite what stands before it."""


def clean(text: str) -> str:
    """Replace control characters except newlines and tabs: names from files could move the cursor or reverse lines.

    >>> clean("cat\\x1b[2J")
    'cat\ufffd[2J'
    """
    return "".join(
        "\ufffd" if letter in _BIDI or (category(letter) == "Cc" and letter not in "\n\t") else letter
        for letter in text
    )


class _Cleaning(RenderHook):
    """Render hook that cleans all results and notes on their way to a terminal."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Wrap each renderable so that it is cleaned when drawn."""
        return [_Clean(renderable) for renderable in renderables]


@dataclass(frozen=True)
class _Clean:
    """A renderable with cleaned texts; Rich's own control codes are kept."""

    inner: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.inner, options):
            yield segment if segment.control else Segment(clean(segment.text), segment.style)


def say(line: str) -> None:
    """Print a line on stderr, in the main process only."""
    from pretrim.train import is_main

    if is_main():
        print(clean(line), file=sys.stderr, flush=True)


def print_json(record: Any) -> None:
    """Print a record as JSON on stdout, without colours or wrapping."""
    print(json.dumps(record, indent=2, allow_nan=False), file=stdout())

"""Where results, progress and remarks go: stdout holds results alone, and nothing from a file moves the cursor."""

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
"""Columns of a table that is not read on a terminal: wide enough not to cut names."""


_RESULTS: ContextVar[TextIO] = ContextVar("results")
Given = ParamSpec("Given")


def results_alone(command: Callable[Given, None]) -> Callable[Given, None]:
    """The command with a stdout for its results alone: what others print there (a user's model) goes to stderr."""

    @wraps(command)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> None:
        token = _RESULTS.set(sys.stdout)
        try:
            with redirect_stdout(sys.stderr):
                command(*args, **kwargs)
            print(end="", file=stdout(), flush=True)  # a stream that is full fails here, and not at the very end
        finally:
            _RESULTS.reset(token)

    return run


def stdout() -> TextIO:
    """The stream of results."""
    return _RESULTS.get(sys.stdout)


def output() -> Console:
    """Where results go."""
    return _console(stdout())


def status() -> Console:
    """Where progress and remarks go."""
    return _console(None)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Whoever reads stdout has left: `cli.main` decides what that means, not Rich, which exits with 1."""
        raise BrokenPipeError


def _console(file: TextIO | None) -> Console:
    """On a stream, or else on whatever stderr is."""
    kind = Console if file is None else _Console
    console = kind(file=file, stderr=file is None, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = kind(file=file, stderr=file is None, highlight=False, markup=False, emoji=False, width=PIPE_WIDTH)
    console.push_render_hook(_Cleaning())
    return console


_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Signs by which text is written from right to left, over what stood there"""


def clean(text: str) -> str:
    """Text without control characters but line ends: names from files would move the cursor, or turn lines round.

    >>> clean("cat\\x1b[2J")
    'cat\ufffd[2J'
    """
    return "".join(
        "\ufffd" if letter in _TURNS or (category(letter) == "Cc" and letter not in "\n\t") else letter
        for letter in text
    )


class _Cleaning(RenderHook):
    """The border that all results and remarks pass on their way to a terminal."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Each of them, cleaned as it is drawn."""
        return [_Clean(renderable) for renderable in renderables]


@dataclass(frozen=True)
class _Clean:
    """Something to draw, whose texts are cleaned; what rich itself sends to the terminal is kept."""

    inner: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.inner, options):
            yield segment if segment.control else Segment(clean(segment.text), segment.style)


def say(line: str) -> None:
    """A line on stderr, from the main process alone."""
    from pretrim.train import is_main

    if is_main():
        print(clean(line), file=sys.stderr, flush=True)


def print_json(record: Any) -> None:
    """A record as JSON on stdout, as it is: no colours, no wrapping."""
    print(json.dumps(record, indent=2, allow_nan=False), file=stdout())

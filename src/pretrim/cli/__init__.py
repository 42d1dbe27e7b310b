"""The command line: one file a command, each of which parses, makes a record, and renders it.

Results go to stdout, status and errors to stderr. Exit code 0: done; 1: a failure; 2: wrong use; 130: interrupted.
torch is imported when a command needs it, so that ``--help`` is fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer

from pretrim import __version__
from pretrim.errors import PretrimError

from . import compress, devices, evaluate, export, measure, plan, predict, profile, recommend, render, report, sweep
from .sections import SectionedCommand

INTERRUPTED = 130

app = typer.Typer(
    name="pretrim",
    help="Trim a CNN to its device before you train it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    profile.profile,
    plan.plan,
    compress.compress,
    evaluate.evaluate,
    predict.predict,
    export.export,
    measure.measure,
    sweep.sweep,
    recommend.recommend,
    report.report,
    devices.devices,
)
for command in COMMANDS:
    app.command(cls=SectionedCommand)(render.results_alone(command))


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"pretrim {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Trim a CNN to its device before you train it."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit. An error that pretrim raises on purpose is one line on stderr."""
    for stream in (sys.stdout, sys.stderr):  # a name of the user's may have letters that the terminal lacks
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        typer.main.get_command(app)(args=None if arguments is None else list(arguments), prog_name="pretrim")
    except PretrimError as error:
        _say(" ".join(str(error).split()))
        sys.exit(error.exit_code)
    except OSError as error:  # of files and streams that no command expected to fail: a folder of others, a full stdout
        where = error.filename or "a file or stream"
        _say(
            f"Expected to use {where}, but got: {error.strerror or error}. Check its permissions and what room is left."
        )
        sys.exit(PretrimError.exit_code)
    except KeyboardInterrupt:
        _say_interrupted()
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer has already turned the interruption into an exit
            _say_interrupted()
        raise
    sys.exit(0)


def _say(error: str) -> None:
    typer.echo(f"error: {error}", err=True)


def _say_interrupted() -> None:
    _say("Interrupted.")

"""The command line: one file a command, each of which parses, makes a record, and renders it.

Results go to stdout, status and errors to stderr. Exit code 0: done; 1: a failure; 2: wrong use; 130: interrupted.
torch is imported when a command needs it, so that ``--help`` is fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

import typer

from pretrim import __version__
from pretrim.errors import PretrimError

from . import compress, devices, evaluate, export, measure, plan, predict, profile, recommend, render, report, sweep
from .sections import SectionedCommand

INTERRUPTED = 130
USAGE_ERROR: Any = typer.BadParameter.__base__
"""Click's, which Typer has inside itself or imports, depending on its version"""

app = typer.Typer(
    name="pretrim",
    help="Trim a CNN to its device before you train it.",
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
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = typer.main.get_command(app)(args=given, prog_name="pretrim", standalone_mode=False)
    except PretrimError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except USAGE_ERROR as error:
        said = error.format_message()
        stop = "" if said.endswith((".", "?")) else "."
        _say(f"{said}{stop} `{error.ctx.command_path if error.ctx else 'pretrim'} -h` shows how it is used.")
        sys.exit(error.exit_code)
    except OSError as error:  # of files and streams that no command expected to fail: a folder of others, a full stdout
        where = error.filename or "a file or stream"
        _say(
            f"Expected to use {where}, but got: {error.strerror or error}. Check its permissions and what room is left."
        )
        sys.exit(PretrimError.exit_code)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:  # Typer turns an interruption into an exit
        _say("Interrupted.")
    sys.exit(code)


def _say(error: str) -> None:
    typer.echo(f"error: {' '.join(error.split())}", err=True)

"""`pretrim.toml`: defaults for the commands that are run in a folder.

``model`` and ``data`` are top-level keys; options are in tables, by name. A table named after a command applies only to
that command, the others to every command that has the option. The command line wins.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pretrim.errors import UsageError

if TYPE_CHECKING:
    from cyclopts import App
    from cyclopts.argument import Argument

Arguments: TypeAlias = "Mapping[str, Argument]"
"""The arguments of a command by their long names without dashes, and MODEL."""
FILE = Path("pretrim.toml")
GROUPS = ("limits", "target", "search", "images", "recipe", "machine")
"""Tables for every command; their names only structure the file."""
WITHOUT = ("init", "run", "demo")
"""Commands that ignore the file."""


@dataclass(frozen=True)
class Setting:
    """One line of the file.

    Attributes:
        command: the command that it applies to; None for all commands.
        option: name of the option on the command line, without dashes.
        value: the TOML value.
    """

    command: str | None
    option: str
    value: Any


def with_project(app: App, given: Sequence[str]) -> list[str]:
    """Extend a command line by the options of the project file.

    Raises UsageError if the file is not TOML, or has options that no command knows.
    """
    if (
        not given
        or given[0] in WITHOUT
        or given[0] not in app
        or not os.path.isfile(FILE)
        or {"-h", "--help"} & {*given}
    ):
        return list(given)
    model, options = added(app, given)
    if model or options:
        print(f"note: {FILE} adds {' '.join([*model, *options])}", file=sys.stderr)
    return [given[0], *model, *given[1:], *options]


def added(app: App, given: Sequence[str]) -> tuple[list[str], list[str]]:
    """What the project file adds to a command line: MODEL, which goes before the typed words, and options after them.

    Raises UsageError like `with_project`.
    """
    command, *words = given
    commands = {name: _arguments(app, name) for name in app if not name.startswith("-")}
    arguments = commands[command]
    typed = {word.partition("=")[0] for word in words if word.startswith("-")}
    model: list[str] = []
    options: list[str] = []
    for setting in _settings(read(), commands):
        if setting.command not in (None, command):
            continue
        if setting.option == "model" and "MODEL" in arguments:
            model = [] if _has_positional(words, arguments) else [str(setting.value)]
        elif (argument := arguments.get(setting.option)) is not None and not typed & {*argument.names}:
            options += _words(setting, argument)
    return model, options


def parsed(app: App, *given: str) -> dict[str, Any]:
    """Parse the arguments that a command would get with the project file, by parameter.

    Raises UsageError like `with_project`, and CycloptsError for arguments that the command does not accept.
    """
    model, options = added(app, given)
    words = [given[0], *model, *given[1:], *options]
    return dict(app.parse_args(words, exit_on_error=False, print_error=False)[1].arguments)


def read() -> dict[str, Any]:
    """Read the file as it is. Raises UsageError if it is not TOML."""
    try:
        return tomllib.loads(FILE.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"Expected TOML in {FILE}, but: {error}. Mend it, or write a new one by `pretrim init`."
        raise UsageError(message) from None


def _settings(content: Mapping[str, Any], commands: Mapping[str, Arguments]) -> Iterator[Setting]:
    """All settings, checked against the arguments of the commands."""
    known = {"model"}.union(*commands.values())
    for setting in _flat(content, commands):
        options = known if setting.command is None else {*commands[setting.command]}
        if setting.option not in options:
            where = f"[{setting.command}] of " if setting.command else ""
            hint = _hint(setting.option, options, "`pretrim COMMAND -h` lists them.")
            raise UsageError(f"Expected options in {where}{FILE}, but {setting.option} is not one: {hint}")
        yield setting


def _flat(content: Mapping[str, Any], commands: Mapping[str, Arguments]) -> Iterator[Setting]:
    for name, value in content.items():
        if not isinstance(value, dict):
            yield Setting(None, name.replace("_", "-"), value)
        elif name in GROUPS or name in commands:
            command = None if name in GROUPS else name
            yield from (Setting(command, option.replace("_", "-"), inner) for option, inner in value.items())
        else:
            hint = _hint(name, [*GROUPS, *commands], f"write one of {', '.join(GROUPS)}, or a command.")
            raise UsageError(f"Expected tables of options in {FILE}, but got [{name}]: {hint}")


def _hint(word: str, words: Iterable[str], default: str) -> str:
    close = get_close_matches(word, [*words], n=1)
    return f"did you mean {close[0]}?" if close else default


def _arguments(app: App, command: str) -> Arguments:
    collection = app[command].assemble_argument_collection()
    return {name.removeprefix("--"): argument for argument in collection for name in argument.names if len(name) > 2}


def _words(setting: Setting, argument: Argument) -> list[str]:
    """A setting as the words that a user would type."""
    name, value = f"--{setting.option}", setting.value
    if setting.option == "model" and ".py:" not in str(value):  # the run of a built-in or zoo network stores its name
        return []
    if isinstance(value, bool):
        return [name if value else f"--no-{setting.option}"]
    if isinstance(value, dict):
        return [word for key, inner in value.items() for word in (name, f"{key}={inner}")]
    if isinstance(value, list):
        repeats = argument.token_count()[1]
        # For an empty list, the command reports what it needs instead of using its default.
        parts = [str(part) for part in value or ([""] if argument.field_info.default else [])]
        return [word for part in parts for word in (name, part)] if repeats else [name, ",".join(parts)]
    return [name, str(value)]


def _has_positional(words: Sequence[str], arguments: Arguments) -> bool:
    """Whether any word is a positional argument: neither an option nor the value of one."""
    flags = {"-h", *(name for argument in arguments.values() if _is_flag(argument) for name in argument.names)}
    is_value = False
    for word in words:
        if not word.startswith("-") and not is_value:
            return True
        is_value = word.startswith("-") and "=" not in word and word not in flags
    return False


def _is_flag(argument: Argument) -> bool:
    return not argument.token_count()[0] or any(name.startswith("--no-") for name in argument.names)

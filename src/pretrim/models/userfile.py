"""A network from a user's own Python file, named ``path/to/file.py:function``.

Importing the file runs it, with all the rights of the process. Only :func:`load_function` does that, and it is
called only if the user has named the file.
"""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from torch import nn

from pretrim.errors import ModelError, UsageError

from . import zoo


def load_function(path: Path, function: str) -> Callable[..., object]:
    """Import a file and return its function of this name.

    The file becomes a module whose name is derived from its path and content, so that no two files collide and a file
    is run only once as long as it does not change. During the import (and in :func:`siblings_importable`), its folder
    comes first on the import path. As in any Python program, a module imported from there stays loaded: two folders
    that hold different modules of the same name cannot both be used in one process.

    Raises `UsageError` if there is no such file or function, `ModelError` with the file's own error if its import
    fails.
    """
    if not path.is_file():
        raise UsageError(f"Expected '{path}:{function}' to name a file, but there is no file {path}. Check the path.")
    with own_errors(f"Cannot import {path}", path), siblings_importable(path):
        module = _import_file(path)
    attribute = getattr(module, function, None)
    if not callable(attribute) or isinstance(attribute, nn.Module):
        raise UsageError(_missing_message(module, path, function))
    builder: Callable[..., object] = attribute
    return builder


def _import_file(path: Path) -> ModuleType:
    """Run a file as a module with a unique name.

    It is compiled here rather than by Python's own loader, which trusts cached bytecode of the same second and size,
    and would run the old source of a file that has just been changed.
    """
    source = path.read_bytes()
    identity = hashlib.sha256(str(path.resolve()).encode() + b"\0" + source).hexdigest()[:16]
    module_name = f"pretrim_user_file_{identity}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    try:
        return _run(source, path.resolve(), module_name)
    except RuntimeError as error:
        if not zoo.lacks_compiled_half(error):
            raise
    zoo.torchvision()  # importable from now on, also by timm or lightning; run the file again
    return _run(source, path.resolve(), module_name)


def _run(source: bytes, path: Path, module_name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None:  # the file name does not end in .py
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _missing_message(module: ModuleType, path: Path, function: str) -> str:
    """Return an error message for a missing function, with those that the file has."""
    if hasattr(module, function):
        kind = type(getattr(module, function)).__name__
        return f"Expected {path}:{function} to be a function that returns a network, but it is a {kind}."
    functions = [name for name, value in vars(module).items() if _is_defined_in(module, value)]
    close = get_close_matches(function, functions, n=1)
    if close:
        advice = f"Did you mean {path}:{close[0]}?"
    else:
        advice = f"It defines {', '.join(functions)}." if functions else "It defines no function at all."
    return f"{path} has no function '{function}'. {advice}"


def _is_defined_in(module: ModuleType, value: object) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module.__name__


@contextmanager
def siblings_importable(path: Path) -> Iterator[None]:
    """While open, import modules from the folder of `path` first."""
    folder = str(path.resolve().parent)
    if folder in sys.path:
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


@contextmanager
def own_errors(failure: str, path: Path | None) -> Iterator[None]:
    """Turn an error raised inside into a `ModelError` of one line: what failed, the error itself and its location.

    The location is the last line in the folder of the user's file at `path` that the error passed through; if `path` is
    None, the line that raised it. `SystemExit` counts as an error, since a script's exit would otherwise end pretrim
    without a message.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        text = ": ".join(part for part in (type(error).__name__, " ".join(message.split())) if part)
        raise ModelError(f"{failure}: it raised {text} ({_location(error, path)}).") from error


def _location(error: BaseException, path: Path | None) -> str:
    """Return where an error was raised, as file:line."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(error.filename)}:{error.lineno}"
    frames = list(traceback.extract_tb(error.__traceback__))
    user_frames = [frame for frame in frames if path is not None and _is_user_code(frame.filename, path)]
    frame = (user_frames or frames)[-1]
    return f"{_shown(frame.filename)}:{frame.lineno}"


def _is_user_code(filename: str, path: Path) -> bool:
    """Whether a file lies in the folder of the user's file, excluding installed packages."""
    file = Path(filename)
    return file.is_relative_to(path.resolve().parent) and "site-packages" not in file.parts


def _shown(filename: str) -> str:
    """Return a file's path relative to the working directory, if it lies inside."""
    file = Path(filename)
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else filename

"""All runtimes: pretrim's own, and those that other packages add by entry points of the group ``pretrim.runtimes``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrim.compat.optional import is_installed, need
from pretrim.compat.plugins import Plugins, load_plugins
from pretrim.errors import UsageError, shown

from . import executorch, litert, onnx
from .runtime import Runtime, Session

if TYPE_CHECKING:  # made by __getattr__ below
    RUNTIMES: tuple[str, ...]
    TITLES: dict[str, str]
    SUFFIXES: dict[str, str]

GROUP = "pretrim.runtimes"
BUILTIN: tuple[Runtime, ...] = (onnx.RUNTIME, litert.RUNTIME, executorch.RUNTIME)


def runtimes() -> tuple[Runtime, ...]:
    """All runtimes, pretrim's own first. This imports neither torch nor a runtime's packages."""
    return (*BUILTIN, *_plugins().found.values())


def runtime(name: str) -> Runtime:
    """A runtime by name. Raises UsageError, which lists the known ones, or says why a plugin could not be loaded."""
    known = {entry.name: entry for entry in runtimes()}
    if name in known:
        return known[name]
    if name in _plugins().broken:
        raise UsageError(f"{_plugins().broken[name]}: update or uninstall that package.")
    raise UsageError(f"Expected --runtime to be one of {', '.join(known)}, but got {shown(name)}.")


def check_installed(name: str) -> None:
    """Check, before long work, that a runtime is installed. Raises UsageError, which says what to install."""
    record = runtime(name)
    for module in record.modules:
        if not is_installed(module):
            need(module, record.requirement)


def open_session(name: str, path: Path, threads: int = 1) -> Session:
    """Load an artifact in its runtime. Raises UsageError if the runtime is not installed.

    Args:
        name: name of the runtime.
        path: path of the artifact.
        threads: number of threads for the runtime.
    """
    return runtime(name).session(path, threads)


@cache
def _plugins() -> Plugins[Runtime]:
    return load_plugins(GROUP, _checked)


def _checked(record: object) -> Runtime:
    """Check a plugin's runtime. Raises TypeError or ValueError if it is none, or would hide one of pretrim's."""
    if not isinstance(record, Runtime):
        raise TypeError(f"it is a {type(record).__name__}, not a pretrim.deploy.Runtime")
    for known in BUILTIN:
        if record.name == known.name or record.suffix == known.suffix:
            raise ValueError(f"pretrim's own {known.name} has that name, or the suffix {known.suffix}")
    return record


def __getattr__(name: str) -> Any:
    """Make RUNTIMES, TITLES and SUFFIXES from the runtimes on access, so that plugins are loaded only then."""
    views: dict[str, Callable[[], Any]] = {
        "RUNTIMES": lambda: tuple(entry.name for entry in runtimes()),
        "TITLES": lambda: {entry.name: entry.title for entry in runtimes()},
        "SUFFIXES": lambda: {entry.name: entry.suffix for entry in runtimes()},
    }
    if name not in views:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return views[name]()

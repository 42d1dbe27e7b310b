"""Plugins: runtimes, boards and costs that other installed packages add to pretrim by entry points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Plugins(Generic[T]):
    """The plugins of one entry point group.

    Attributes:
        found: loaded objects by entry point name.
        broken: messages for the entry points that failed to load, by name: one broken package must not stop the rest.
    """

    found: Mapping[str, T]
    broken: Mapping[str, str]


def load_plugins(group: str, read: Callable[[object], T]) -> Plugins[T]:
    """Load every entry point of a group.

    Args:
        group: name of the group, such as ``pretrim.runtimes``.
        read: checks and converts a loaded object; it raises TypeError or ValueError for unsuitable ones.
    """
    loaded: dict[str, T] = {}
    broken: dict[str, str] = {}
    for entry_point in sorted(entry_points(group=group), key=lambda entry_point: entry_point.name):
        package = entry_point.dist.name if entry_point.dist is not None else entry_point.value
        try:
            loaded[entry_point.name] = read(entry_point.load())
        except Exception as error:  # another package's code
            broken[entry_point.name] = (
                f"{package}'s {group} entry {entry_point.name} cannot be loaded ({type(error).__name__}: {error})"
            )
    return Plugins(loaded, broken)

"""What other installed packages add to pretrim by entry points: runtimes, boards, costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Plugins(Generic[T]):
    """The entry points of one group.

    Attributes:
        found: what was loaded, by the entry point's name.
        broken: why the others were not, by the entry point's name: one broken package must not stop the rest.
    """

    found: Mapping[str, T]
    broken: Mapping[str, str]


def load_plugins(group: str, read: Callable[[object], T]) -> Plugins[T]:
    """Import every entry point of a group.

    Args:
        group: its name, such as ``pretrim.runtimes``.
        read: checks and converts what an entry point names; it raises TypeError or ValueError for anything else.
    """
    found: dict[str, T] = {}
    broken: dict[str, str] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        package = point.dist.name if point.dist is not None else point.value
        try:
            found[point.name] = read(point.load())
        except Exception as error:  # another package's code
            broken[point.name] = (
                f"{package}'s {group} entry {point.name} cannot be loaded ({type(error).__name__}: {error})"
            )
    return Plugins(found, broken)

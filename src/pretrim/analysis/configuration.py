"""Integers inside a module's attributes: in a list, or in a configuration that several modules may share."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any, TypeAlias

import torch
from torch import nn

KeyPath: TypeAlias = "tuple[int | str, ...]"
"""List indices and entry names, from the outside in; `()` is the value itself."""
MAX_DEPTH = 3


def entries(held: Any, names: Container[str], above: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every integer and every list or tuple inside a value, with its path.

    Args:
        held: a module's attribute. A dict, a named tuple, a dataclass and a plain object are configurations.
        names: names of the entries to search: a module may store a whole program.
        above: the path to `held`.
    """
    if isinstance(held, bool):
        return
    if isinstance(held, (int, list, tuple)) and not hasattr(held, "_fields"):
        yield above, held
    elif len(above) < MAX_DEPTH:
        for name, value in _named(held):
            if name in names:
                yield from entries(value, names, (*above, name))


def _named(held: Any) -> list[tuple[str, Any]]:
    """The entries of a configuration; none for any other value."""
    if isinstance(held, (nn.Module, torch.Tensor, type, ModuleType)) or callable(held):
        return []
    if isinstance(held, MutableMapping):
        return [(name, value) for name, value in held.items() if isinstance(name, str)]
    if isinstance(held, tuple):  # a named tuple: the caller handles others
        return list(zip(held._fields, held, strict=True))  # type: ignore[attr-defined]
    if is_dataclass(held):
        return [(entry.name, getattr(held, entry.name, None)) for entry in fields(held)]
    if isinstance(held, Mapping):  # read-only: a copy could not be changed
        return []
    if not hasattr(held, "__dict__") or not _is_copied(held):
        return []
    return [(name, value) for name, value in vars(held).items() if not name.startswith("_")]


def _is_copied(held: Any) -> bool:
    """Whether copying creates a new object: changing a singleton would change it for everybody."""
    try:
        return copy.copy(held) is not held
    except Exception:  # not copyable: a lock, a handle
        return False


def with_entry(held: Any, path: KeyPath, value: int) -> Any:
    """Copy a module's attribute with one integer replaced; objects shared with other modules are not changed.

    Args:
        held: the attribute.
        path: the path of the integer inside it.
        value: the new integer.
    """
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(key, int):
        items = list(held)
        items[key] = with_entry(held[key], rest, value)
        return type(held)(items)
    if isinstance(held, tuple):
        return held._replace(**{key: with_entry(getattr(held, key), rest, value)})  # type: ignore[attr-defined]
    changed: Any = copy.copy(held)
    if isinstance(held, MutableMapping):
        changed[key] = with_entry(held[key], rest, value)
    else:
        object.__setattr__(changed, key, with_entry(getattr(held, key), rest, value))  # a frozen dataclass too
    return changed

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


def entries(value: Any, names: Container[str], prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every integer and every list or tuple inside a value, with its path.

    Args:
        value: a module's attribute. A dict, a named tuple, a dataclass and a plain object are configurations.
        names: names of the entries to search: a module may store a whole program.
        prefix: the path to `value`.
    """
    if isinstance(value, bool):
        return
    if isinstance(value, (int, list, tuple)) and not hasattr(value, "_fields"):
        yield prefix, value
    elif len(prefix) < MAX_DEPTH:
        for name, child in _named_entries(value):
            if name in names:
                yield from entries(child, names, (*prefix, name))


def _named_entries(config: Any) -> list[tuple[str, Any]]:
    """The entries of a configuration; none for any other value."""
    if isinstance(config, (nn.Module, torch.Tensor, type, ModuleType)) or callable(config):
        return []
    if isinstance(config, MutableMapping):
        return [(name, value) for name, value in config.items() if isinstance(name, str)]
    if isinstance(config, tuple):  # a named tuple: the caller handles others
        return list(zip(config._fields, config, strict=True))  # type: ignore[attr-defined]
    if is_dataclass(config):
        return [(entry.name, getattr(config, entry.name, None)) for entry in fields(config)]
    if isinstance(config, Mapping):  # read-only: a copy could not be changed
        return []
    if not hasattr(config, "__dict__") or not _is_copyable(config):
        return []
    return [(name, value) for name, value in vars(config).items() if not name.startswith("_")]


def _is_copyable(thing: Any) -> bool:
    """Whether copying creates a new object: changing a singleton would change it for everybody."""
    try:
        return copy.copy(thing) is not thing
    except Exception:  # not copyable: a lock, a handle
        return False


def with_entry(attribute: Any, path: KeyPath, value: int) -> Any:
    """Copy a module's attribute with one integer replaced; objects shared with other modules are not changed.

    Args:
        attribute: the attribute.
        path: the path of the integer inside it.
        value: the new integer.
    """
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(key, int):
        items = list(attribute)
        items[key] = with_entry(attribute[key], rest, value)
        return type(attribute)(items)
    if isinstance(attribute, tuple):
        return attribute._replace(**{key: with_entry(getattr(attribute, key), rest, value)})  # type: ignore[attr-defined]
    changed: Any = copy.copy(attribute)
    if isinstance(attribute, MutableMapping):
        changed[key] = with_entry(attribute[key], rest, value)
    else:
        object.__setattr__(changed, key, with_entry(getattr(attribute, key), rest, value))  # a frozen dataclass too
    return changed

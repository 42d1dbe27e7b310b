"""Copy a model together with its functions (hooks, a replaced `forward`) that refer to parts of the model.

`copy.deepcopy` does not copy functions. In a copy, the hook `lambda module, args, out: features.update(last=out)`
would write into the caller's model, and `block.forward = lambda x: conv(x)` would run the caller's layer.
"""

from __future__ import annotations

import copy
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

import torch
from torch import nn

Memo: TypeAlias = dict[int, Any]
Inside: TypeAlias = Callable[[Any], list[Any]]

CONTAINERS = (list, tuple, set, frozenset, deque)
CODE = (type, FunctionType, MethodType, ModuleType, partial)
ATOMS = (bool, int, float, str, type(None))


def deepcopy_with_closures(model: nn.Module, memo: Memo) -> nn.Module:
    """`copy.deepcopy(model, memo)`, with functions that refer to the copy's modules, tensors and containers.

    A function that refers to nothing of the model stays the same object.
    """
    functions = [value for value in kept_by(model, led_to) if isinstance(value, FunctionType) and led_to(value)]
    owned = {id(value) for value in kept_by(model, copied_along) if is_own(value)} if functions else set()
    cells = {id(cell): CellType() for function in functions for cell in own_cells(function, owned)}
    renewed = [(function, emptied(function, cells)) for function in functions if holds(function, owned)]
    memo.update((id(function), new) for function, new in renewed)
    model_copy = copy.deepcopy(model, memo)
    for function, new in renewed:
        fill(new, function, memo)
    rebind(model_copy, memo)
    return model_copy


def kept_by(model: nn.Module, inside: Inside) -> Iterator[Any]:
    """Every object reachable from a model's modules through their attributes, once."""
    seen: set[int] = set()
    for module in model.modules():
        yield module
        yield from reachable(vars(module), inside, seen)


def reachable(value: Any, inside: Inside, seen: set[int]) -> Iterator[Any]:
    """The value and every object reachable from it through `inside`, each once; `seen` collects their ids."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if not isinstance(value, ATOMS) and id(value) not in seen:
            seen.add(id(value))
            yield value
            waiting.extend(inside(value))


def copied_along(value: Any) -> list[Any]:
    """What `copy.deepcopy` copies along with a container, a partial call, a bound method or another object."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, CONTAINERS):
        return list(value)
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__self__]
    return list(vars(value).values()) if is_object(value) else []


def led_to(value: Any) -> list[Any]:
    """Like `copied_along`, plus what functions refer to: defaults, and cells (empty for unassigned variables)."""
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, FunctionType):
        return [*(value.__closure__ or ()), *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, CellType):
        with suppress(ValueError):
            return [value.cell_contents]
    return copied_along(value)


def is_object(value: Any) -> bool:
    """Whether it is an object with attributes, but not a module, a tensor or code."""
    return hasattr(value, "__dict__") and not isinstance(value, (nn.Module, torch.Tensor, *CODE))


def is_own(value: Any) -> bool:
    """Whether a copy of the model has its own copy of this value: mutable objects, but not code."""
    return isinstance(value, (nn.Module, torch.Tensor, dict, list, set, deque)) or is_object(value)


def holds(value: Any, owned: set[int]) -> bool:
    """Whether a value leads to any object that the model owns."""
    return any(id(reached) in owned for reached in reachable(value, led_to, set()))


def own_cells(function: FunctionType, owned: set[int]) -> list[CellType]:
    return [cell for cell in function.__closure__ or () if holds(cell, owned)]


def emptied(function: FunctionType, cells: dict[int, CellType]) -> FunctionType:
    """Copy a function; its cells that refer to parts of the model are replaced by empty ones from `cells`."""
    closure = tuple(cells.get(id(cell), cell) for cell in function.__closure__ or ())
    new = FunctionType(function.__code__, function.__globals__, function.__name__, None, closure)
    new.__qualname__, new.__module__, new.__doc__ = function.__qualname__, function.__module__, function.__doc__
    vars(new).update(vars(function))
    return new


def fill(new: FunctionType, function: FunctionType, memo: Memo) -> None:
    """Fill a copied function's cells and defaults with the copy's versions of what the original refers to."""
    for cell, old in zip(new.__closure__ or (), function.__closure__ or (), strict=True):
        if cell is not old:
            cell.cell_contents = copy.deepcopy(old.cell_contents, memo)
    new.__defaults__ = copy.deepcopy(function.__defaults__, memo)
    new.__kwdefaults__ = copy.deepcopy(function.__kwdefaults__, memo)


def rebind(model: nn.Module, memo: Memo) -> None:
    """Redirect attributes that deepcopy leaves on the caller's model: bound methods and weak references."""
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, MethodType) and id(value.__func__) in memo:
                vars(module)[name] = MethodType(memo[id(value.__func__)], value.__self__)
            elif isinstance(value, weakref.ref) and id(value()) in memo:
                vars(module)[name] = weakref.ref(memo[id(value())])

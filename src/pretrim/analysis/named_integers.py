"""Find the integers stored in modules that a source line uses, by their value and their name."""

from __future__ import annotations

import linecache
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from torch import nn

from .channels import Ids
from .configuration import KeyPath, entries
from .copies import HERE, TORCH, call_model
from .observer import Site
from .rules.joining import WITH_REST

OF_WIDTHS = frozenset(
    "c c1 c2 ch channel channels chans chs dim dims feature features filters groups inp inplanes oup planes".split()
)
"""Words in attribute names that denote a width."""


@dataclass(frozen=True)
class StoredInteger:
    """A Python integer in a module that has to follow the widths: it becomes the number of kept `ids`."""

    site: Site
    module: str
    attribute: str
    path: KeyPath
    """Path inside the attribute: `()`, the index in a list, or the names in a configuration (`self.cfg.dim`)."""
    ids: Ids
    shared: bool = False
    """Whether all channels that the integer stands for should be tied."""


Held: TypeAlias = "tuple[int, str, KeyPath]"
"""An integer, the attribute that stores it, and the path inside the attribute."""


@dataclass(frozen=True)
class Caller:
    """The source line that called an operator, and the modules that were running."""

    site: Site
    frame: FrameType | None
    """The innermost frame outside torch and pretrim; None if there is none."""
    modules: Sequence[tuple[str, nn.Module]]
    """The running modules, innermost last."""
    names: Mapping[int, str]
    """The name of every module of the model, by its `id()`."""

    def owners(self, frame: FrameType) -> list[tuple[str, nn.Module]]:
        """The modules whose integers a frame's code may read, the likeliest first.

        Not all of them are running: a method that another module calls (`cell.init_hidden()`) belongs to its `self`,
        and modules can be local variables (`for cell in self.cells`) or children read by name (`self.cell.hidden`). Of
        torch's own modules only running ones count: their integers follow their weights anyway.
        """
        owners: dict[int, nn.Module] = {id(module): module for _, module in reversed(self.modules)}
        first_argument = [frame.f_locals.get(name) for name in frame.f_code.co_varnames[:1]]
        owners = {id(v): v for v in first_argument if self._may_be_read(v) and id(v) not in owners} | owners
        owners |= {id(v): v for v in frame.f_locals.values() if self._may_be_read(v) and id(v) not in owners}
        read = _names(frame)
        parts = [part for module in owners.values() for name, part in module.named_children() if name in read]
        owners |= {id(part): part for part in parts if self._may_be_read(part) and id(part) not in owners}
        return [(self.names[number], module) for number, module in owners.items()]

    def _may_be_read(self, value: Any) -> TypeGuard[nn.Module]:
        """Whether it is a module of the model, but not one of torch's own."""
        return id(value) in self.names and not type(value).__module__.startswith("torch.")

    @property
    def frames(self) -> Iterator[FrameType]:
        """The frame and its callers, up to torch's call of the module: helpers get integers as arguments."""
        frame = self.frame
        while frame is not None and not frame.f_code.co_filename.startswith((TORCH, HERE)):
            yield frame
            frame = frame.f_back

    @property
    def source_line(self) -> str:
        """File and line of the user's code, as ``model.py:41``; empty if torch's own modules ran without any."""
        caller = self.frame.f_back if self.frame is not None else None
        while caller is not None and caller.f_code is not call_model.__code__:
            caller = caller.f_back
        if self.frame is None or caller is None:
            return ""
        return f"{Path(self.frame.f_code.co_filename).name}:{self.frame.f_lineno}"


def find_integers(caller: Caller, integers: Sequence[tuple[int, Ids]], hint: str) -> Iterator[StoredInteger]:
    """Find the module attributes that hold the integer arguments of a call.

    Args:
        caller: the caller of the operator.
        integers: the integers, each with the channels that it stands for.
        hint: what an earlier trial of the line asked for.
    """
    for index, (value, ids) in enumerate(integers):
        for frame in caller.frames:
            named = _named_holders(caller, frame, hint, value, index, len(integers))
            if named:
                for name, attribute, path in named:
                    yield StoredInteger(caller.site, name, attribute, path, ids, hint.startswith("share"))
                break


def find_ratios(caller: Caller, integers: Sequence[tuple[int, Ids]], hint: str) -> Iterator[tuple[StoredInteger, Ids]]:
    """Find stored integers of which the line uses a multiple or a fraction, each with rows of channels to tie.

    In ``view(-1, self.channels * 7 * 7)`` every channel stands for 49 positions, and none is tied; in
    ``3 * self.head_dim`` each of the three parts has all channels, and they are tied to those of the first; in
    ``self.dim // self.heads`` the integer stands for the channels of all heads.

    Args:
        caller: the caller of the operator.
        integers: the multiples or fractions, each with the channels that it stands for.
        hint: ``multiple``, ``part``, or ``share part``, which also ties the channels of several calls.
    """
    line_words = set(re.findall(r"\w+", "".join(map(_line, caller.frames))))
    names = set().union(*map(_names, caller.frames))
    owners = list(dict.fromkeys(owner for frame in caller.frames for owner in caller.owners(frame)))
    for value, ids in integers:
        for name, module in owners if len(ids) == value > 1 else ():
            available = list(_integers(module, names))
            named = [held for held in available if line_words.issuperset(_required_words(*held[1:]))]
            chosen = (
                _factor(value, ids, named, available) if hint == "multiple" else _multiple(value, ids, named, available)
            )
            if chosen is not None:
                (_, attribute, path), rows, stands_for = chosen
                yield StoredInteger(caller.site, name, attribute, path, stands_for, hint.startswith("share")), rows
                break


Chosen: TypeAlias = "tuple[Held, Ids, Ids] | None"
"""An integer, rows of channels to tie, and the channels that it stands for."""


def _factor(value: int, ids: Ids, named: Sequence[Held], available: Sequence[Held]) -> Chosen:
    """The largest factor of `value`, preferably one named like a width: images may be as high as layers are wide."""

    def likelihood(held: Held) -> tuple[int, bool]:
        return held[0], not OF_WIDTHS.isdisjoint(_required_words(*held[1:])[-1].split("_"))

    factors = [held for held in named if 1 < held[0] < value and value % held[0] == 0]
    if repeated := [held for held in factors or available if _are_repeated(value, ids, held[0])]:
        width = max(repeated, key=likelihood)
        channels = ids[:: value // width[0]]
        return width, channels[None], channels
    if not factors:
        return None
    width = max(factors, key=likelihood)
    rows = ids.reshape(-1, width[0])
    return width, rows, rows[0]


def _multiple(value: int, ids: Ids, named: Sequence[Held], available: Sequence[Held]) -> Chosen:
    """The smallest multiple of `value`, preferably one whose number of parts is also a stored integer."""
    divisors = {held[0] for held in available}
    for candidates in (named, available):
        wholes = [held for held in candidates if held[0] > value and held[0] % value == 0]
        if wholes:
            chosen = min(wholes, key=lambda held: (held[0] // value not in divisors, held))
            return chosen, ids[None], np.tile(ids, chosen[0] // value)
    return None


def _are_repeated(value: int, ids: Ids, width: int) -> bool:
    """Whether each of `width` channels occupies equally many consecutive positions."""
    if not 1 < width < value or value % width:
        return False
    places = ids.reshape(width, -1)
    return bool((places == places[:, :1]).all())


def _named_holders(
    caller: Caller, frame: FrameType, hint: str, value: int, index: int, count: int
) -> list[tuple[str, str, KeyPath]]:
    """Module, attribute and path of the integers equal to `value` in the likeliest module that has any.

    Args:
        caller: the caller of the operator.
        frame: the frame whose code has to name them (not needed for torch's own modules).
        hint: what an earlier trial of the line asked for.
        value: the integer.
        index: its index among the integers of the call.
        count: the number of integers of the call.
    """
    line, names_in_code = _line(frame), _names(frame)
    for name, module in caller.owners(frame):
        names = vars(module).keys() if type(module).__module__.startswith("torch.") else names_in_code
        holders = [(name, *holder) for holder in _holders(module, names, value, index, count)]
        on_line = [holder for holder in holders if _required_words(*holder[1:])[-1] in line]
        if hint in ("whole", *WITH_REST):  # part of an expression: only this line counts
            holders = on_line
        if holders:
            return on_line or holders
    return []


def _line(frame: FrameType) -> str:
    """The source of the running call, which may span several lines."""
    first, last, *_ = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
    lines = range(first or frame.f_lineno, (last or frame.f_lineno) + 1)
    return "".join(linecache.getline(frame.f_code.co_filename, number) for number in lines)


def _names(frame: FrameType) -> set[str]:
    """Names of attributes and keys in a frame's code."""
    code = frame.f_code
    return {*code.co_names, *(constant for constant in code.co_consts if isinstance(constant, str))}


def _required_words(attribute: str, path: KeyPath) -> list[str]:
    """The words that code reading an integer has to contain, the last one on the source line itself."""
    return [attribute.removeprefix("_"), *(key for key in path if isinstance(key, str))]


def _holders(
    module: nn.Module, names: Container[str], value: int, index: int, count: int
) -> Iterator[tuple[str, KeyPath]]:
    """Attributes of a module that hold `value`: as an integer, in a list, or in a configuration.

    Args:
        module: the module that is searched.
        names: the names that count.
        value: the integer.
        index: its index among the integers of the call: preferred in lists of the same length.
        count: the number of integers of the call.
    """
    for name, path, stored in _stored_values(module, names):
        if isinstance(stored, int):
            if stored == value:
                yield name, path
        elif value in stored:
            at_index = len(stored) == count and stored[index] == value
            yield name, (*path, index if at_index else stored.index(value))


def _integers(module: nn.Module, names: Container[str]) -> Iterator[Held]:
    """Every integer that a module stores under one of these names, also in lists and configurations."""
    for name, path, stored in _stored_values(module, names):
        if isinstance(stored, int):
            yield stored, name, path
        else:
            yield from ((item, name, (*path, index)) for index, item in enumerate(stored) if type(item) is int)


def _stored_values(module: nn.Module, names: Container[str]) -> Iterator[tuple[str, KeyPath, Any]]:
    """Attribute, path and value of every integer and every list that a module stores, also in configurations.

    Names that begin with an underscore are private, unless a property exposes them: Lightning's `hparams`.
    """
    for name, attribute in vars(module).items():
        hidden = name.startswith("_") and isinstance(getattr(type(module), name[1:], None), property)
        read_as = name[1:] if hidden else name
        if read_as in names and not read_as.startswith("_"):
            for path, value in entries(attribute, names):
                yield name, path, value

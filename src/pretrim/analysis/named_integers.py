"""Integers that modules keep, found by the line of source that asked for them: by their value and their name."""

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
"""Parts of names of attributes"""


@dataclass(frozen=True)
class StoredInteger:
    """A Python integer of a module that has to follow the widths: it becomes the number of kept `ids`."""

    site: Site
    module: str
    attribute: str
    path: KeyPath
    """Inside the attribute: `()`, or the index in a list, or the names in a configuration (`self.cfg.dim`)."""
    ids: Ids
    shared: bool = False
    """Whether all channels that the integer stands for are to be tied."""


Held: TypeAlias = "tuple[int, str, KeyPath]"
"""An integer, the attribute that keeps it, and the path inside"""


@dataclass(frozen=True)
class Caller:
    """The line of source that called an operator, and the modules that were running."""

    site: Site
    frame: FrameType | None
    """Of the innermost code outside torch and pretrim; None where there is none."""
    modules: Sequence[tuple[str, nn.Module]]
    """Those that run, the innermost last"""
    names: Mapping[int, str]
    """Of every module of the model, by its id."""

    def owners(self, frame: FrameType) -> list[tuple[str, nn.Module]]:
        """The modules that a frame's code may read integers of, the likeliest first.

        Not all of them run: a method that another module calls (`cell.init_hidden()`) is its `self`'s, there are
        variables (`for cell in self.cells`), and parts by name (`self.cell.hidden`). Of torch's own modules only those
        that run count: what they keep follows their weights anyway.
        """
        found: dict[int, nn.Module] = {id(module): module for _, module in reversed(self.modules)}
        own = [frame.f_locals.get(name) for name in frame.f_code.co_varnames[:1]]
        found = {id(each): each for each in own if self._may_be_read(each) and id(each) not in found} | found
        found |= {
            id(each): each for each in frame.f_locals.values() if self._may_be_read(each) and id(each) not in found
        }
        read = _names(frame)
        parts = [part for each in found.values() for name, part in each.named_children() if name in read]
        found |= {id(part): part for part in parts if self._may_be_read(part) and id(part) not in found}
        return [(self.names[number], module) for number, module in found.items()]

    def _may_be_read(self, value: Any) -> TypeGuard[nn.Module]:
        """Whether it is a module of the model, and none of torch's own."""
        return id(value) in self.names and not type(value).__module__.startswith("torch.")

    @property
    def frames(self) -> Iterator[FrameType]:
        """The frame and those that called it, up to torch's call of the module: helpers get integers as arguments."""
        frame = self.frame
        while frame is not None and not frame.f_code.co_filename.startswith((TORCH, HERE)):
            yield frame
            frame = frame.f_back

    @property
    def place(self) -> str:
        """File and line of the user's code, as ``model.py:41``; empty where torch's own modules ran without any."""
        caller = self.frame.f_back if self.frame is not None else None
        while caller is not None and caller.f_code is not call_model.__code__:
            caller = caller.f_back
        if self.frame is None or caller is None:
            return ""
        return f"{Path(self.frame.f_code.co_filename).name}:{self.frame.f_lineno}"


def find_integers(caller: Caller, integers: Sequence[tuple[int, Ids]], hint: str) -> Iterator[StoredInteger]:
    """The attributes of the running modules that hold the integers of a call.

    Args:
        caller: of the operator.
        integers: each with the channels that it stands for.
        hint: what an earlier trial of the line asked for.
    """
    for place, (value, ids) in enumerate(integers):
        for frame in caller.frames:
            named = _named_holders(caller, frame, hint, value, place, len(integers))
            if named:
                for name, attribute, path in named:
                    yield StoredInteger(caller.site, name, attribute, path, ids, hint.startswith("share"))
                break


def find_ratios(caller: Caller, integers: Sequence[tuple[int, Ids]], hint: str) -> Iterator[tuple[StoredInteger, Ids]]:
    """Integers of modules that the line has a multiple or a part of, each with rows of channels to be tied.

    In ``view(-1, self.channels * 7 * 7)`` every channel stands for 49 places, and none is tied; in
    ``3 * self.head_dim`` each of three parts has all channels, and they are tied to those of the first; in
    ``self.dim // self.heads`` the integer stands for the channels of all heads.

    Args:
        caller: of the operator.
        integers: the multiples or parts, each with the channels that it stands for.
        hint: ``multiple``, ``part``, or ``share part``, which ties what several calls stand for.
    """
    on_line = set(re.findall(r"\w+", "".join(map(_line, caller.frames))))
    known = set().union(*map(_names, caller.frames))
    owners = list(dict.fromkeys(owner for frame in caller.frames for owner in caller.owners(frame)))
    for value, ids in integers:
        for name, module in owners if len(ids) == value > 1 else ():
            found = list(_integers(module, known))
            named = [each for each in found if on_line.issuperset(_words(*each[1:]))]
            chosen = _factor(value, ids, named, found) if hint == "multiple" else _whole(value, ids, named, found)
            if chosen is not None:
                (_, attribute, path), rows, stands_for = chosen
                yield StoredInteger(caller.site, name, attribute, path, stands_for, hint.startswith("share")), rows
                break


Chosen: TypeAlias = "tuple[Held, Ids, Ids] | None"
"""An integer, rows of channels to be tied, and the channels that it stands for"""


def _factor(value: int, ids: Ids, named: Sequence[Held], found: Sequence[Held]) -> Chosen:
    """The largest factor of `value`; of those the one that is called a width: images may be as high as layers wide."""

    def likelihood(held: Held) -> tuple[int, bool]:
        return held[0], not OF_WIDTHS.isdisjoint(_words(*held[1:])[-1].split("_"))

    factors = [each for each in named if 1 < each[0] < value and value % each[0] == 0]
    if repeated := [each for each in factors or found if _are_repeated(value, ids, each[0])]:
        width = max(repeated, key=likelihood)
        channels = ids[:: value // width[0]]
        return width, channels[None], channels
    if not factors:
        return None
    width = max(factors, key=likelihood)
    rows = ids.reshape(-1, width[0])
    return width, rows, rows[0]


def _whole(value: int, ids: Ids, named: Sequence[Held], found: Sequence[Held]) -> Chosen:
    """The smallest integer that `value` is a part of, better one of as many parts as another integer says."""
    divisors = {each[0] for each in found}
    for held in (named, found):
        wholes = [each for each in held if each[0] > value and each[0] % value == 0]
        if wholes:
            whole = min(wholes, key=lambda each: (each[0] // value not in divisors, each))
            return whole, ids[None], np.tile(ids, whole[0] // value)
    return None


def _are_repeated(value: int, ids: Ids, width: int) -> bool:
    """Whether each of so many channels stands in equally many places, one after the other."""
    if not 1 < width < value or value % width:
        return False
    places = ids.reshape(width, -1)
    return bool((places == places[:, :1]).all())


def _named_holders(
    caller: Caller, frame: FrameType, hint: str, value: int, place: int, count: int
) -> list[tuple[str, str, KeyPath]]:
    """Module, attribute and path of what holds `value` in the likeliest module that has it.

    Args:
        caller: of the operator.
        frame: whose names count; torch's own modules need none.
        hint: what an earlier trial of the line asked for.
        value: the integer.
        place: its index where it is one of several.
        count: how many they are.
    """
    line, known = _line(frame), _names(frame)
    for name, module in caller.owners(frame):
        names = vars(module).keys() if type(module).__module__.startswith("torch.") else known
        found = [(name, *each) for each in _holders(module, names, value, place, count)]
        on_line = [each for each in found if _words(*each[1:])[-1] in line]
        if hint in ("whole", *WITH_REST):  # part of an expression: no other place tells
            found = on_line
        if found:
            return on_line or found
    return []


def _line(frame: FrameType) -> str:
    """The source of the call that runs, which may be of several lines."""
    first, last, *_ = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
    lines = range(first or frame.f_lineno, (last or frame.f_lineno) + 1)
    return "".join(linecache.getline(frame.f_code.co_filename, number) for number in lines)


def _names(frame: FrameType) -> set[str]:
    """Names of attributes and keys in the code of a frame."""
    code = frame.f_code
    return {*code.co_names, *(constant for constant in code.co_consts if isinstance(constant, str))}


def _words(attribute: str, path: KeyPath) -> list[str]:
    """What the code that reads an integer has to name, the last one on its line."""
    return [attribute.removeprefix("_"), *(key for key in path if isinstance(key, str))]


def _holders(
    module: nn.Module, names: Container[str], value: int, place: int, count: int
) -> Iterator[tuple[str, KeyPath]]:
    """Attributes of a module that hold `value`: as an integer, in a list at that place, or in a configuration.

    Args:
        module: whose attributes are looked at.
        names: those that count.
        value: the integer.
        place: its index where it is one of several.
        count: how many they are.
    """
    for name, path, held in _kept(module, names):
        if isinstance(held, int):
            if held == value:
                yield name, path
        elif value in held:
            at_place = len(held) == count and held[place] == value
            yield name, (*path, place if at_place else held.index(value))


def _integers(module: nn.Module, names: Container[str]) -> Iterator[Held]:
    """Every integer that a module keeps by one of these names, in lists and configurations too."""
    for name, path, held in _kept(module, names):
        if isinstance(held, int):
            yield held, name, path
        else:
            yield from ((each, name, (*path, index)) for index, each in enumerate(held) if type(each) is int)


def _kept(module: nn.Module, names: Container[str]) -> Iterator[tuple[str, KeyPath, Any]]:
    """Attribute, path and value of every integer and every list that a module keeps, in configurations too.

    What begins with an underscore is somebody's own affair, unless a property has its name: Lightning's `hparams`.
    """
    for name, held in vars(module).items():
        hidden = name.startswith("_") and isinstance(getattr(type(module), name[1:], None), property)
        read_as = name[1:] if hidden else name
        if read_as in names and not read_as.startswith("_"):
            for path, value in entries(held, names):
                yield name, path, value

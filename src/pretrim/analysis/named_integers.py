"""Integers that modules keep, found by the line of source that asked for them: by their value and their name."""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from torch import nn

from .channels import Ids
from .copies import HERE, TORCH, call_model
from .observer import Site
from .rules.joining import WITH_REST


@dataclass(frozen=True)
class StoredInteger:
    """A Python integer of a module that has to follow the widths: it becomes the number of kept `ids`."""

    site: Site
    module: str
    attribute: str
    index: int | None
    ids: Ids
    shared: bool = False
    """Whether all channels that the integer stands for are to be tied."""


@dataclass(frozen=True)
class Caller:
    """The line of source that called an operator, and the modules that were running."""

    site: Site
    frame: FrameType | None
    """Of the innermost code outside torch and pretrim; None where there is none."""
    modules: Sequence[tuple[str, nn.Module]]

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
                for name, attribute, index in named:
                    yield StoredInteger(caller.site, name, attribute, index, ids, hint.startswith("share"))
                break


def find_multiples(caller: Caller, integers: Sequence[tuple[int, Ids]]) -> Iterator[tuple[StoredInteger, Ids]]:
    """Integers of modules that the line has a multiple of (``3 * self.head_dim``): one part, and the ids of all.

    Args:
        caller: of the operator.
        integers: the multiples, each with the channels that it stands for.
    """
    words = set(re.findall(r"\w+", "".join(map(_line, caller.frames))))
    for value, ids in integers:
        for name, module in reversed(caller.modules):
            found = [(held, attribute) for attribute, held in _factors(module, value) if attribute in words]
            if found and len(ids) == value:
                held, attribute = max(found)
                yield StoredInteger(caller.site, name, attribute, None, ids[:held]), ids
                break


def _named_holders(
    caller: Caller, frame: FrameType, hint: str, value: int, place: int, count: int
) -> list[tuple[str, str, int | None]]:
    """Module, attribute and index of what holds `value` in the innermost module that has it.

    Args:
        caller: of the operator.
        frame: whose names count; torch's own modules need none.
        hint: what an earlier trial of the line asked for.
        value: the integer.
        place: its index where it is one of several.
        count: how many they are.
    """
    line = _line(frame)
    for name, module in reversed(caller.modules):
        found = [
            (name, attribute, index)
            for attribute, index in _holders(module, value, place, count)
            if attribute in frame.f_code.co_names or type(module).__module__.startswith("torch.")
        ]
        on_line = [each for each in found if each[1] in line]
        if hint in ("whole", *WITH_REST):  # part of an expression: no other place tells
            found = on_line
        if found:
            return on_line or found
    return []


def _line(frame: FrameType) -> str:
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno)


def _holders(module: nn.Module, value: int, place: int, count: int) -> Iterator[tuple[str, int | None]]:
    """Attributes of a module that hold `value`: as an integer, or in a list at that place.

    Args:
        module: whose attributes are looked at.
        value: the integer.
        place: its index where it is one of several.
        count: how many they are.
    """
    for name, held in vars(module).items():
        if name.startswith("_") or isinstance(held, bool):
            continue
        if isinstance(held, int) and held == value:
            yield name, None
        elif isinstance(held, (list, tuple)) and value in held:
            yield name, place if len(held) == count and held[place] == value else held.index(value)


def _factors(module: nn.Module, value: int) -> Iterator[tuple[str, int]]:
    """Attributes of a module that hold an integer which `value` is a multiple of."""
    for name, held in vars(module).items():
        if isinstance(held, int) and not isinstance(held, bool) and 1 < held < value and value % held == 0:
            yield name, held

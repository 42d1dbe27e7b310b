"""Boards, a data file each (``boards/``): what they have, each figure with its source, and the budget that it makes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeAlias

from pretrim.errors import UsageError

Kind: TypeAlias = Literal["microcontroller", "computer"]

RUNTIME_FLASH_BYTES = 100 * 1024
"""What TensorFlow Lite for Microcontrollers takes beside the model: an estimate, the interpreter and a dozen kernels"""
APPLICATION_SHARE = 0.25
"""of RAM and of flash, left to the application: drivers, network stack, buffers of the camera"""


@dataclass(frozen=True)
class Board:
    """A device.

    Attributes:
        name: as ``--device`` takes it.
        title: as its maker calls it.
        kind: a microcontroller runs the model from flash, in a tensor arena; a computer runs Linux.
        core, architecture, cores, clock_hz, simd_bits: of its processor (0: no SIMD).
        flash_bytes: for program and model; None for a computer.
        ram_bytes: the largest contiguous region of a microcontroller, all of a computer.
        ram_whole_bytes: of a microcontroller, all regions together.
        runtime: what runs networks there.
        data_type: that its kernels are made for.
        round_to: filters that its kernels take at a time.
        ethos_u: the configuration of its Ethos-U, as `vela` calls it; None without one.
        note: what else its user should know.
        sources: where each figure comes from.
    """

    name: str
    title: str
    kind: Kind
    core: str
    architecture: str
    cores: int
    clock_hz: int
    ram_bytes: int
    simd_bits: int
    runtime: str
    data_type: str
    round_to: int
    sources: Mapping[str, str]
    flash_bytes: int | None = None
    ram_whole_bytes: int | None = None
    ethos_u: str | None = None
    note: str | None = None

    def limits(self, application: float = APPLICATION_SHARE) -> dict[str, int]:
        """The budget, by cost, once the application has its share of RAM and flash, and the runtime its flash.

        Empty for a computer, whose gigabytes limit no network that it could run in time.
        """
        if not 0 <= application < 1:
            raise UsageError(f"Expected the application's share to be from 0 to below 1, but got {application}.")
        if self.flash_bytes is None:
            return {}
        flash = int(self.flash_bytes * (1 - application)) - RUNTIME_FLASH_BYTES
        if flash <= 0:
            raise UsageError(
                f"Expected room for a model in the flash of {self.name}, but {application:.0%} for the application and "
                f"{RUNTIME_FLASH_BYTES:,} bytes for the runtime leave none: lower the application's share."
            )
        return {"artifact_bytes": flash, "arena_bytes": int(self.ram_bytes * (1 - application))}


@cache
def boards() -> tuple[Board, ...]:
    """All boards, by kind and name."""
    found = [
        Board(name=entry.name.removesuffix(".toml"), **_read(entry.read_text(encoding="utf-8")))
        for entry in files(__package__).joinpath("boards").iterdir()
        if entry.name.endswith(".toml")
    ]
    return tuple(sorted(found, key=lambda board: (board.kind, board.name)))


def _read(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


def board(name: str) -> Board:
    """A board by its name. Raises UsageError, which names the closest ones."""
    known = {entry.name: entry for entry in boards()}
    if name not in known:
        close = get_close_matches(name.lower(), known, n=1)
        hint = f"Did you mean {close[0]}?" if close else "`pretrim devices` lists them."
        raise UsageError(f"Expected a device that pretrim knows, but got {name!r}. {hint}")
    return known[name]

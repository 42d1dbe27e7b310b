"""Boards, one data file each (``boards/``), with the source of each figure and the budget that follows from it.

Another package adds boards by an entry point of the group ``pretrim.boards``. It names a package whose folder contains
TOML files like those here, or a `Board`, or a list of them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import ModuleType
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from pretrim import records
from pretrim.compat.plugins import Plugins, load_plugins
from pretrim.errors import UsageError, check_is, shown

GROUP = "pretrim.boards"
Kind: TypeAlias = Literal["microcontroller", "computer"]
Amount: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]

RUNTIME_FLASH_BYTES = 100 * 1024
"""Estimated flash for TensorFlow Lite for Microcontrollers beside the model: the interpreter and a dozen kernels."""
APPLICATION_SHARE = 0.25
"""Share of RAM and flash left to the application: drivers, network stack, camera buffers."""
MAX_SUGGESTIONS = 3
"""Largest number of boards suggested for an unknown name."""
HELIUM = ("Cortex-M55", "Cortex-M85")
"""Cores with Arm's Helium vector extension."""


@dataclass(frozen=True)
class Board:
    """A board or another device that runs networks.

    Attributes:
        name: name that ``--device`` takes.
        title: name that its vendor uses.
        kind: a microcontroller runs the model from flash, in a tensor arena; a computer runs Linux.
        core, architecture, cores, clock_hz, simd_bits: its processor (simd_bits is 0 without SIMD).
        flash_bytes: flash for program and model; None for a computer.
        ram_bytes: largest contiguous RAM region of a microcontroller; all RAM of a computer.
        ram_whole_bytes: RAM of a microcontroller in all regions together.
        runtime: runtime of networks on the device.
        data_type: data type that its kernels are made for.
        round_to: number of filters that its kernels process at a time.
        ethos_u: configuration of its Ethos-U, as `vela` calls it; None without one.
        note: further note for the user.
        sources: source of each figure.
    """

    name: str
    title: str
    kind: Kind
    core: str
    architecture: str
    cores: Amount
    clock_hz: Amount
    ram_bytes: Amount
    simd_bits: int
    runtime: str
    data_type: str
    round_to: Amount
    sources: Mapping[str, str]
    flash_bytes: Amount | None = None
    ram_whole_bytes: Amount | None = None
    ethos_u: str | None = None
    note: str | None = None

    @property
    def core_name(self) -> str:
        """The core without its vendor and without the suffix for an FPU: Cortex-M4, not Arm Cortex-M4F.

        >>> board("stm32f407").core_name, board("rp2040").core_name
        ('Cortex-M4', 'Cortex-M0+')
        """
        name = self.core.removeprefix("Arm ").partition(" (")[0]
        return name[:-1] if name.startswith("Cortex-M") and name.endswith("F") else name

    @property
    def has_helium(self) -> bool:
        """Whether CMSIS-NN uses its Helium kernels there, whose scratch buffers differ."""
        return self.core_name in HELIUM

    @property
    def has_cmsis_nn(self) -> bool:
        """Whether the interpreter there usually has CMSIS-NN's kernels with scratch buffers of known size."""
        return self.core_name.startswith("Cortex-M") and not self.has_helium

    def limits(self, application: float = APPLICATION_SHARE) -> dict[str, int]:
        """The limit of each cost, after the application's share of RAM and flash and the runtime's flash.

        Empty for a computer, whose gigabytes do not limit any network that it could run in reasonable time.

        Args:
            application: share of RAM and flash left to the application, from 0 to below 1.

        Raises UsageError for other shares, and if no flash is left for a model.
        """
        if not 0 <= application < 1:
            raise UsageError(f"Expected the application's share to be from 0 to below 1, but got {application}.")
        if self.flash_bytes is None:
            return {}
        flash = int(self.flash_bytes * (1 - application)) - RUNTIME_FLASH_BYTES
        if flash <= 0:
            raise UsageError(
                f"Expected room for a model in the flash of {self.name}, but {100 * application:.0f} % for the "
                f"application and {RUNTIME_FLASH_BYTES:,} bytes for the runtime leave none: lower the application's "
                f"share."
            )
        return {"artifact_bytes": flash, "arena_bytes": int(self.ram_bytes * (1 - application))}


@cache
def boards() -> tuple[Board, ...]:
    """All boards, pretrim's own and those of other packages, sorted by kind and name."""
    added = [board for plugin_boards in _plugins().found.values() for board in plugin_boards]
    return tuple(sorted([*_builtin_boards(), *added], key=lambda board: (board.kind, board.name)))


def board(name: str) -> Board:
    """A board by name. Raises UsageError, which suggests similar names."""
    check_is(name, str, "device to be the name of a board, such as 'stm32h743'")
    known = {entry.name: entry for entry in boards()}
    if name not in known:
        prefixed = [entry for entry in known if entry.startswith(name.lower())] if name else []
        close = prefixed[:MAX_SUGGESTIONS] or get_close_matches(name.lower(), known, n=1)
        hint = f"Did you mean {' or '.join(close)}?" if close else "`pretrim devices` lists them."
        broken = "".join(f" Note that {problem}." for problem in _plugins().broken.values())
        raise UsageError(f"Expected a device that pretrim knows, but got {shown(name)}. {hint}{broken}")
    return known[name]


def read_boards(folder: Traversable) -> list[Board]:
    """Read the boards of a folder, from one TOML file each, named after the board. Raises UsageError for a bad file."""
    entries = [entry for entry in folder.iterdir() if entry.name.endswith(".toml")]
    return [read_board(entry.read_text(encoding="utf-8"), entry.name) for entry in entries]


def read_board(text: str, file_name: str) -> Board:
    """Parse a board from the text of its TOML file. Raises UsageError, which names the file and the wrong entry."""
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file_name} is not valid TOML ({error}): correct it.") from error
    data["name"] = file_name.removesuffix(".toml")
    return records.convert(data, Board, source=file_name, error=UsageError, remedy="correct it")


@cache
def _builtin_boards() -> tuple[Board, ...]:
    return tuple(read_boards(files(__package__).joinpath("boards")))


@cache
def _plugins() -> Plugins[tuple[Board, ...]]:
    return load_plugins(GROUP, _boards_of)


def _boards_of(value: object) -> tuple[Board, ...]:
    """The boards that an entry point names. Raises TypeError, ValueError or UsageError for anything else."""
    if isinstance(value, ModuleType):
        named_boards = tuple(read_boards(files(value)))
    elif isinstance(value, Board):
        named_boards = (value,)
    else:
        named_boards = tuple(value) if isinstance(value, Iterable) else ()
    if not named_boards or not all(isinstance(entry, Board) for entry in named_boards):
        raise TypeError("it names no boards: neither a package with TOML files, nor Board records")
    taken = {entry.name for entry in _builtin_boards()} & {entry.name for entry in named_boards}
    if taken:
        raise ValueError(f"pretrim has a board of the name {sorted(taken)[0]}")
    return named_boards

"""Boards: their data files are complete, and the budgets derived from them are right."""

import pytest

from pretrim.devices import RUNTIME_FLASH_BYTES, board, boards
from pretrim.errors import UsageError


def test_there_are_boards_of_both_kinds() -> None:
    kinds = [entry.kind for entry in boards()]
    assert kinds.count("microcontroller") >= 8 and kinds.count("computer") >= 4


def test_there_are_boards_of_every_common_core() -> None:
    cores = {entry.core for entry in boards() if entry.kind == "microcontroller"}
    assert len([entry for entry in boards() if entry.kind == "microcontroller"]) >= 25
    for core in ("M0+", "M33", "M4F", "M55", "M7", "M85", "LX6", "LX7", "RISC-V"):
        assert any(core in name for name in cores), core


@pytest.mark.parametrize("entry", boards(), ids=lambda entry: entry.name)
def test_every_figure_has_a_source(entry: object) -> None:
    for figure in ("ram", "clock", "simd", "round_to", *(["flash"] if entry.flash_bytes else [])):
        assert len(entry.sources[figure]) > 3, figure
    assert entry.kind in ("microcontroller", "computer")
    assert entry.runtime in ("litert", "onnx", "executorch") and entry.data_type == "int8"
    assert entry.round_to in (1, 2, 4, 8, 16) and entry.simd_bits in (0, 32, 128)
    assert (entry.flash_bytes is None) == (entry.kind == "computer")
    if entry.kind == "microcontroller":
        assert 2**17 <= entry.ram_bytes <= entry.ram_whole_bytes <= entry.flash_bytes <= 2**24


def test_a_budget_by_hand() -> None:
    """nRF52840: 1 MiB of flash and 256 KiB of RAM, with a quarter of each reserved for the application."""
    entry = board("nrf52840")
    assert entry.limits() == {"artifact_bytes": 786_432 - RUNTIME_FLASH_BYTES, "arena_bytes": 196_608}
    assert entry.limits(application=0)["arena_bytes"] == 262_144
    assert board("raspberry-pi-5").limits() == {}
    with pytest.raises(UsageError, match=r"share to be from 0 to below 1, but got 1\.0"):
        entry.limits(application=1.0)


def test_an_unknown_board_is_refused_with_suggestions() -> None:
    with pytest.raises(UsageError, match=r"but got 'stm32h742'\. Did you mean stm32h743\?"):
        board("stm32h742")
    with pytest.raises(UsageError, match=r"but got 'stm32f4'\. Did you mean stm32f407\?"):
        board("stm32f4")
    with pytest.raises(UsageError, match=r"Did you mean raspberry-pi-4 or raspberry-pi-5 or raspberry-pi-zero-2-w\?"):
        board("raspberry")
    with pytest.raises(UsageError, match=r"but got 'toaster'\. `pretrim devices` lists them\."):
        board("toaster")

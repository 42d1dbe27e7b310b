"""Arm's compiler for the Ethos-U (``pretrim[mcu]``), as an estimator: cycles, SRAM, and what does not run on it."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pretrim.errors import ExportError, UsageError, shown

_CONFIGURATION = re.compile(r"ethos-u(55|65|85)-\d+")
_OPERATORS = re.compile(r"CPU operators = (\d+)")


@dataclass(frozen=True)
class Estimate:
    """What vela says of one inference, for its own model of the memories around the accelerator.

    Attributes:
        cycles: of the accelerator's clock.
        seconds: at the clock that was asked for.
        sram_bytes: activations and what is fetched into SRAM.
        flash_bytes: weights and commands, compressed.
        cpu_operators: how many run on the processor instead.
    """

    cycles: int
    seconds: float
    sram_bytes: int
    flash_bytes: int
    cpu_operators: int


def estimate(path: Path, configuration: str, clock_hz: float) -> Estimate:
    """One inference of an int8 ``.tflite`` on an Ethos-U, such as ``ethos-u55-128``.

    Args:
        path: the .tflite.
        configuration: of the Ethos-U.
        clock_hz: of the Ethos-U.

    Raises:
        UsageError: vela is not installed, or there is no such configuration.
        ExportError: it cannot compile the model.
    """
    if not _CONFIGURATION.fullmatch(configuration):
        raise UsageError(f"Expected a configuration such as ethos-u55-128, but got {shown(configuration)}.")
    with tempfile.TemporaryDirectory() as folder:
        command = [_program(), "--accelerator-config", configuration, "--output-dir", folder, str(path.resolve())]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        reports = list(Path(folder).glob("*_summary_*.csv"))
        if done.returncode or not reports:
            lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
            raise ExportError(f"vela could not compile {path}: {lines[-1] if lines else 'nothing'}.")
        with reports[0].open(newline="") as file:
            row = next(csv.DictReader(file))
    cycles = int(float(row["cycles_total"]))
    on_cpu = _OPERATORS.search(done.stdout)
    return Estimate(
        cycles=cycles,
        seconds=cycles / clock_hz,
        sram_bytes=round(1024 * float(row["sram_memory_used"])),
        flash_bytes=round(1024 * (float(row["off_chip_flash_memory_used"]) + float(row["on_chip_flash_memory_used"]))),
        cpu_operators=int(on_cpu[1]) if on_cpu else 0,
    )


def is_installed() -> bool:
    """Whether vela is there: beside this Python, or on the path."""
    return _find() is not None


def _find() -> str | None:
    places = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent)]
    return next((found for place in [*places, None] if (found := shutil.which("vela", path=place))), None)


def _program() -> str:
    found = _find()
    if found is None:
        raise UsageError("vela is not installed: pip install 'pretrim[mcu]'.")
    return found

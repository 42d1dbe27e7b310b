"""vela, Arm's compiler for the Ethos-U (``pretrim[mcu]``), as an estimator of cycles, memory and CPU fallbacks."""

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
    """vela's estimate of one inference, by its own model of the memories around the accelerator.

    Attributes:
        cycles: clock cycles of the accelerator.
        seconds: time at the given clock.
        sram_bytes: SRAM for activations and for data fetched from flash.
        flash_bytes: flash for compressed weights and commands.
        cpu_operators: number of operators that run on the CPU instead.
    """

    cycles: int
    seconds: float
    sram_bytes: int
    flash_bytes: int
    cpu_operators: int


def estimate(path: Path, configuration: str, clock_hz: float) -> Estimate:
    """Estimate one inference of an int8 ``.tflite`` on an Ethos-U.

    Args:
        path: the .tflite.
        configuration: configuration of the Ethos-U, such as ``ethos-u55-128``.
        clock_hz: clock frequency of the Ethos-U.

    Raises:
        UsageError: vela is not installed, or there is no such configuration.
        ExportError: vela cannot compile the model.
    """
    if not _CONFIGURATION.fullmatch(configuration):
        raise UsageError(f"Expected a configuration such as ethos-u55-128, but got {shown(configuration)}.")
    with tempfile.TemporaryDirectory() as folder:
        command = [_program(), "--accelerator-config", configuration, "--output-dir", folder, str(path.resolve())]
        process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        reports = list(Path(folder).glob("*_summary_*.csv"))
        if process.returncode or not reports:
            lines = [line for line in (process.stderr + process.stdout).splitlines() if line.strip()]
            raise ExportError(f"vela could not compile {path}: {lines[-1] if lines else 'nothing'}.")
        with reports[0].open(newline="") as file:
            summary = next(csv.DictReader(file))
    cycles = int(float(summary["cycles_total"]))
    on_cpu = _OPERATORS.search(process.stdout)
    return Estimate(
        cycles=cycles,
        seconds=cycles / clock_hz,
        sram_bytes=round(1024 * float(summary["sram_memory_used"])),
        flash_bytes=round(
            1024 * (float(summary["off_chip_flash_memory_used"]) + float(summary["on_chip_flash_memory_used"]))
        ),
        cpu_operators=int(on_cpu[1]) if on_cpu else 0,
    )


def is_installed() -> bool:
    """Whether vela is installed, beside this Python or on the path."""
    return _find() is not None


def _find() -> str | None:
    folders = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent)]
    return next((found for place in [*folders, None] if (found := shutil.which("vela", path=place))), None)


def _program() -> str:
    found = _find()
    if found is None:
        raise UsageError("vela is not installed: pip install 'pretrim[mcu]'.")
    return found

"""Fit `src/pretrim/latency/board_times.toml` on public measurements of networks on boards.

    python scripts/fit_board_times.py --data DIR

DIR holds ``measured.csv`` (model, board, core, MHz, data type, runtime, multiply-accumulates, RAM, flash, latency,
energy, origin) and ``mcufit_bench_layers.csv`` (times by operator), collected from the repositories named in each row.
They are not part of this project. `benchmarks/board_fit.py` describes the fit, `benchmarks/results/board_times.md` its
errors. Needs SciPy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))  # a folder of scripts, not a package

from board_fit import KINDS, Fitted, fit_all, ranges, read  # noqa: E402

from pretrim.latency.board_systems import OTHERS, WEIGHTED  # noqa: E402

RESULT = ROOT / "src" / "pretrim" / "latency" / "board_times.toml"
HEADER = """\
# Cycles by kind of operator, for each core, runtime and version that others measured networks on.
# Written by scripts/fit_board_times.py; do not edit. docs/boards.md says how to read it.
"""
NAMES = {
    "nRF5340-DK": "nrf5340",
    "NRF5340": "nrf5340",
    "L4R5ZI": "stm32l4r5",
    "H7A3ZI": "stm32h7a3",
    "U575ZI": "stm32u575",
    "U385RG": "stm32u385",
}
"""pretrim's names of boards whose power was measured, by a part of the name in the source."""


def power(system: Fitted) -> dict[str, float]:
    """Power by board in milliwatts: the median over networks."""
    powers: dict[str, list[float]] = {}
    for sample in system.samples:
        name = next((name for part, name in NAMES.items() if part in sample.board), None)
        if sample.power_mw is not None and name is not None:
            powers.setdefault(name, []).append(sample.power_mw)
    return {name: round(statistics.median(values), 2) for name, values in sorted(powers.items())}


def entry(system: Fitted, range_: tuple[float, float]) -> str:
    """The ``[[system]]`` table of a system, in TOML."""
    samples = system.samples
    cycles = dict(zip(KINDS, system.coefficients, strict=True))
    kinds = [k for k in (*WEIGHTED, *OTHERS) if any(k in s.work.outputs and not s.is_guessed for s in samples)]
    key, errors = system.key, [system.error(0.5), system.error(0.9)]
    lines = {
        "core": key.core,
        "runtime": key.runtime,
        "version": key.version,
        "dtype": key.dtype,
        "networks": system.networks,
        "families": _names(sample.family for sample in samples),
        "boards": _names(sample.board for sample in samples),
        "kinds": kinds or [*WEIGHTED, "elementwise", "pool"],
        "cycles_per_mac": {kind: float(cycles[kind, "mac"]) for kind in WEIGHTED},
        "cycles_per_output": {kind: float(cycles[kind, "output"]) for kind in (*WEIGHTED, *OTHERS)},
        "range": [round(factor, 3) for factor in range_],
    }
    if errors[0] is not None:
        lines |= {"median_error": round(errors[0], 3), "p90_error": round(errors[1] or 0.0, 3)}
    if milliwatts := power(system):
        lines["power_mw"] = milliwatts
    lines["sources"] = _names(sample.source for sample in samples)
    return "\n".join(["[[system]]", *(f"{name} = {_toml(value)}" for name, value in lines.items())])


def _names(values: Iterable[str]) -> list[str]:
    return sorted(set(values))


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_toml(part)}" for name, part in value.items()) + " }"
    if isinstance(value, float):
        return f"{value:.4g}" if value % 1 or value >= 1e4 else f"{value:.1f}"
    return json.dumps(value, ensure_ascii=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the measurements")
    samples, _ = read(parser.parse_args().data)
    fitted = fit_all(samples)
    spread = ranges(fitted, samples)
    entries = [entry(system, spread[system.key]) for system in fitted]
    RESULT.write_text("\n".join([HEADER, "\n\n".join(entries), ""]), encoding="utf-8")
    print(f"{len(entries)} systems in {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

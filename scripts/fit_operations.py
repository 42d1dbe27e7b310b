"""Fit the bytes each operator takes (`OPERATIONS` in `pretrim.cost.microcontroller`) on small networks of every kind.

    python scripts/fit_operations.py            # measure missing networks (5 s each), then print the table
    python scripts/fit_operations.py --table    # print the table from the existing measurements

Each network of `benchmarks/small_networks.py` is converted to int8 as in an export. Measured are the size of its file,
its arena on a 64-bit host (`pretrim.deploy.micro`), and its arena in 32 bits (`benchmarks/mcufit_arena.py`, which needs
mcufit and Node.js). From each size, the bytes that are counted directly (tensors, nodes, channels, constants, and fixed
parts) are subtracted; the rest is distributed over the operators by least squares of the relative error, with a slight
pull towards the current values, because an operator that only occurs together with another cannot be told apart from
it. The four arenas that mcufit-bench measured on an ESP32 (MIT, commit 88f8d23; counted by hand in
tests/test_board_arena.py) are among the board measurements, with a weight of ten. All records are kept in
`benchmarks/results/operations.jsonl`. Needs `pretrim[mcu]` and SciPy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from torch import nn

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))  # the benchmarks are separate scripts, not a package

import jsonl  # noqa: E402
import mcufit_arena  # noqa: E402
from small_networks import networks  # noqa: E402

import pretrim  # noqa: E402
from pretrim.cost.litert.rules import lower  # noqa: E402
from pretrim.cost.microcontroller import (  # noqa: E402
    CHANNEL_BYTES,
    OPERATIONS,
    OTHER,
    STRUCTURES,
    Operation,
    artifact_cost,
    names_of,
)
from pretrim.deploy import litert_file, micro  # noqa: E402
from pretrim.deploy.graph import graph_of  # noqa: E402
from pretrim.jobs.fit import as_if_trained  # noqa: E402

RECORDS = ROOT / "benchmarks" / "results" / "operations.jsonl"
RIDGE = 1e-8
"""Penalty of the squared difference, in bytes, from the current value, in squared relative errors"""
REAL = np.sqrt(10)
COLUMNS = ("file", "host", "board")


def measure(name: str, model: nn.Module, shape: Sequence[int]) -> dict[str, Any]:
    """Measure the sizes of one network, and the part of its file size that its operators do not take."""
    model = as_if_trained(model)
    network = pretrim.analyze(model, torch.zeros(1, *shape))
    content = litert_file(model, torch.randn(4, *shape, generator=torch.Generator().manual_seed(0)))
    graph, host, board = graph_of(content), micro.arena(content), mcufit_arena.arena(content)
    predicted = names_of(lower(network, "int8"))
    return {
        "network": name,
        "operators": sorted(operator.name for operator in graph.operators),
        "predicted": sorted(predicted),
        "tensors": graph.tensors,
        "channels": sum(operator.channels for operator in graph.operators),
        "file": len(content),
        "file_without_operators": int(artifact_cost(network)(network.dense))
        - sum(OPERATIONS.get(operation, OTHER).file for operation in predicted),
        "host_tail": host.tail_bytes,
        "board_tail": None if board is None else board.tail_bytes - mcufit_arena.MORE_THAN_A_BOARD,
    }


def operator_bytes(record: Mapping[str, Any], column: str) -> float | None:
    """Bytes that the operators of a network take; None if unknown."""
    if column == "file":
        is_predicted = record["operators"] == record.get("predicted")
        return record["file"] - record["file_without_operators"] if is_predicted else None
    tail = record.get(f"{column}_tail")
    structures = STRUCTURES[8 if column == "host" else 4]
    counted = structures.fixed + structures.node * len(record["operators"]) + structures.tensor * record["tensors"]
    return None if tail is None else tail - counted - CHANNEL_BYTES * record["channels"]


def current_bytes(name: str, column: str) -> int:
    """The current bytes of an operator."""
    return int(getattr(OPERATIONS.get(name, OTHER), column))


def fit(records: Sequence[Mapping[str, Any]], column: str) -> tuple[dict[str, int], NDArray[np.float64]]:
    """Bytes of each operator, and the relative errors of all networks with the fitted and with the current bytes.

    Args:
        records: measurements of networks.
        column: column of the table to fit.
    """
    used = [(record, value) for record in records if (value := operator_bytes(record, column)) is not None]
    names = sorted({name for record, _ in used for name in record["operators"]})
    counts = np.array([[record["operators"].count(name) for name in names] for record, _ in used], float)
    targets = np.array([value for _, value in used], float)
    current = np.array([current_bytes(name, column) for name in names], float)
    sizes = np.array([record["file" if column == "file" else f"{column}_tail"] for record, _ in used], float)
    sizes = np.where(["on an ESP32" in record["network"] for record, _ in used], sizes / REAL, sizes)
    rows = np.vstack([counts / sizes[:, None], np.sqrt(RIDGE) * np.eye(len(names))])
    right_side = np.append(targets / sizes, np.sqrt(RIDGE) * current)
    lower_bound = -np.inf if column == "file" else 0.0  # the bytes counted in a file may exceed its size
    fitted = np.rint(lsq_linear(rows, right_side, (lower_bound, np.inf)).x)
    errors = [(counts @ values - targets) / sizes for values in (fitted, current)]
    return dict(zip(names, fitted.astype(int).tolist(), strict=True)), np.abs(errors)


def print_table(records: Sequence[Mapping[str, Any]]) -> None:
    fitted, relative_errors = {}, {}
    for column in COLUMNS:
        fitted[column], relative_errors[column] = fit(records, column)
    for name in sorted({*OPERATIONS, *(name for sizes in fitted.values() for name in sizes)}):
        values = [fitted[column].get(name, current_bytes(name, column)) for column in COLUMNS]
        print(f'    "{name}": {Operation(*values)!r},'.replace("file=", "").replace("host=", "").replace("board=", ""))
    for column in COLUMNS:
        for title, errors in zip(("this table", "the one there is"), relative_errors[column], strict=True):
            summary = f"median error {np.median(errors):.2%}, 95th percentile {np.quantile(errors, 0.95):.2%}"
            print(f"# {column}, {title}: {len(errors)} networks, {summary}, largest {errors.max():.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", action="store_true", help="only print it")
    if not parser.parse_args().table:
        measured_networks = {record["network"] for record in jsonl.read(RECORDS)}
        for name, model, shape in networks():
            if name not in measured_networks:
                jsonl.append(RECORDS, measure(name, model, shape))
                print(name, flush=True)
    print_table(jsonl.read(RECORDS))


if __name__ == "__main__":
    main()

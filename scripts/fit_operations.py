"""Fit what operators take (`OPERATIONS` in `pretrim.cost.microcontroller`) on small networks of every kind.

    python scripts/fit_operations.py            # measures what is missing (5 s a network), then prints the table
    python scripts/fit_operations.py --table    # from the measurements that are there

Each network of `benchmarks/small_networks.py` is converted to int8 as an export does it, and measured: the size of its
file; its arena on a 64-bit host (`pretrim.deploy.micro`); its arena in 32 bits (`benchmarks/mcufit_arena.py`, which
needs mcufit and Node.js). What is left of each without what is counted (tensors, nodes, channels, constants, and what
there is once) is shared out among the operators by least squares of the relative error, drawn a little towards the
values that there are: an operator that only comes with another one cannot be told apart from it. The four arenas that
mcufit-bench measured on an ESP32 (MIT, commit 88f8d23; counted by hand in tests/test_board_arena.py) are among the
measurements of boards, and count ten times. All are kept in `benchmarks/results/operations.jsonl`. Needs `pretrim[mcu]`
and SciPy.
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
sys.path.append(str(ROOT / "benchmarks"))  # they are scripts beside each other, not a package

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
"""What a byte away from the value that there is costs, in squared relative errors"""
REAL = np.sqrt(10)
COLUMNS = ("file", "host", "board")


def measured(name: str, model: nn.Module, shape: Sequence[int]) -> dict[str, Any]:
    """What a network takes, and what of that is not its operators'."""
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
        - sum(OPERATIONS.get(each, OTHER).file for each in predicted),
        "host_tail": host.tail_bytes,
        "board_tail": None if board is None else board.tail_bytes - mcufit_arena.MORE_THAN_A_BOARD,
    }


def left(record: Mapping[str, Any], column: str) -> float | None:
    """What the operators of a network take; None where that is not known."""
    if column == "file":
        is_followed = record["operators"] == record.get("predicted")
        return record["file"] - record["file_without_operators"] if is_followed else None
    tail = record.get(f"{column}_tail")
    structures = STRUCTURES[8 if column == "host" else 4]
    counted = structures.fixed + structures.node * len(record["operators"]) + structures.tensor * record["tensors"]
    return None if tail is None else tail - counted - CHANNEL_BYTES * record["channels"]


def prior(name: str, column: str) -> int:
    """What is taken for an operator now."""
    return int(getattr(OPERATIONS.get(name, OTHER), column))


def fit(records: Sequence[Mapping[str, Any]], column: str) -> tuple[dict[str, int], NDArray[np.float64]]:
    """Bytes of each operator, and the relative errors of all networks with them, and with those that there are.

    Args:
        records: measured.
        column: of the table.
    """
    used = [(record, value) for record in records if (value := left(record, column)) is not None]
    names = sorted({name for record, _ in used for name in record["operators"]})
    counts = np.array([[record["operators"].count(name) for name in names] for record, _ in used], float)
    wanted = np.array([value for _, value in used], float)
    now = np.array([prior(name, column) for name in names], float)
    sizes = np.array([record["file" if column == "file" else f"{column}_tail"] for record, _ in used], float)
    sizes = np.where(["on an ESP32" in record["network"] for record, _ in used], sizes / REAL, sizes)
    rows = np.vstack([counts / sizes[:, None], np.sqrt(RIDGE) * np.eye(len(names))])
    right = np.append(wanted / sizes, np.sqrt(RIDGE) * now)
    least = -np.inf if column == "file" else 0.0  # what is counted of a file may be more than there is
    found = np.rint(lsq_linear(rows, right, (least, np.inf)).x)
    errors = [(counts @ values - wanted) / sizes for values in (found, now)]
    return dict(zip(names, found.astype(int).tolist(), strict=True)), np.abs(errors)


def print_table(records: Sequence[Mapping[str, Any]]) -> None:
    fitted, off = {}, {}
    for column in COLUMNS:
        fitted[column], off[column] = fit(records, column)
    for name in sorted({*OPERATIONS, *(name for found in fitted.values() for name in found)}):
        values = [fitted[column].get(name, prior(name, column)) for column in COLUMNS]
        print(f'    "{name}": {Operation(*values)!r},'.replace("file=", "").replace("host=", "").replace("board=", ""))
    for column in COLUMNS:
        for title, errors in zip(("this table", "the one there is"), off[column], strict=True):
            said = f"median error {np.median(errors):.2%}, 95th percentile {np.quantile(errors, 0.95):.2%}"
            print(f"# {column}, {title}: {len(errors)} networks, {said}, largest {errors.max():.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", action="store_true", help="only print it")
    if not parser.parse_args().table:
        done = {record["network"] for record in jsonl.read(RECORDS)}
        for name, model, shape in networks():
            if name not in done:
                jsonl.append(RECORDS, measured(name, model, shape))
                print(name, flush=True)
    print_table(jsonl.read(RECORDS))


if __name__ == "__main__":
    main()

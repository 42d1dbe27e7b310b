"""Claim: a balanced plan takes less than 5 s on one core for every network of the list, and 1 s for ResNet-50.

For each network of `benchmarks/coverage.py`, untrained, at its own input size: CPU time of the plan at half
the MACs with the default options (without the analysis), whether the limit is met, whether any group could be widened
by one more rounding step, and the plan's utility over that of uniform width at the same limit.

    python benchmarks/plans.py                          # all networks, half an hour on one core; resumable
    python benchmarks/plans.py --only timm:resnet10t
    python benchmarks/plans.py --table                  # write the Markdown table from the records

Needs torchvision and timm (`make benchmarks`). Writes benchmarks/results/plans.jsonl and plans.md.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one core, before NumPy starts its threads

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import coverage
import jsonl

HERE = Path(__file__).parent
RECORDS, TABLE = HERE / "results" / "plans.jsonl", HERE / "results" / "plans.md"
LIMIT = "0.5x"
GOAL_S, RESNET50_GOAL_S = 5.0, 1.0
BATCH = 10
"""Networks planned by one process, which frees their memory when it ends"""


def measure(name: str) -> dict[str, Any]:
    """The time to plan one network, and the quality of its plan."""
    import torch

    import pretrim

    torch.set_num_threads(1)
    model, size = coverage.build(name)
    start = time.process_time()
    network = pretrim.analyze(model, torch.zeros(1, *size))
    analysed = time.process_time()
    try:
        plan = network.plan(macs=LIMIT)
    except pretrim.PretrimError as error:
        return {"name": name, "groups": len(network.groups), "error": str(error).splitlines()[0][:200]}
    planned = time.process_time()
    outlook = plan.outlook or {}
    return {
        "name": name,
        "groups": len(network.groups),
        "analysis_s": round(analysed - start, 3),
        "plan_s": round(planned - analysed, 3),
        "macs": plan.slim["macs"] / plan.dense["macs"],
        "met": 2 * plan.slim["macs"] <= plan.dense["macs"],
        "filled": is_filled(network, plan.widths),
        "over_uniform": outlook.get("over_uniform"),
        "rounding": outlook.get("rounding"),
    }


def is_filled(network: Any, widths: Any) -> bool:
    """Whether widening any single group by one rounding step breaks the limit."""
    import numpy as np

    from pretrim.planning.budget import Budget
    from pretrim.planning.legal import Problem
    from pretrim.planning.options import Options

    problem = Problem(network, Budget.parse({"macs": LIMIT}).resolve(network), Options())
    wider = problem.next_up(np.arange(len(widths)), widths)
    rows = np.repeat(widths[None], len(widths), axis=0)
    np.fill_diagonal(rows, wider)
    return not (problem.budget.met(rows) & (wider > widths)).any()


def run(names: Sequence[str]) -> None:
    """Measure the networks that have no record yet, a few in each worker process."""
    while remaining := [name for name in names if name not in {record["name"] for record in jsonl.read(RECORDS)}]:
        command = [sys.executable, __file__, "--worker", *remaining[:BATCH]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as worker:
            assert worker.stdout is not None
            measured = [save(json.loads(line)) for line in worker.stdout if line.startswith("{")]
        if worker.returncode != 0:
            save({"name": remaining[len(measured)], "error": f"ended its process with {worker.returncode}"})


def save(record: dict[str, Any]) -> dict[str, Any]:
    jsonl.append(RECORDS, record)
    print(record, flush=True)
    return record


def write_table() -> None:
    order = {name: number for number, name in enumerate(coverage.all_names())}
    records = sorted((r for r in jsonl.read(RECORDS) if r["name"] in order), key=lambda r: order[r["name"]])
    planned = [record for record in records if "plan_s" in record]
    slowest = max(planned, key=lambda record: record["plan_s"])
    resnet50 = next(record for record in planned if record["name"] == "torchvision:resnet50")
    lines = [
        "# Plans of all networks of coverage.py with the default method",
        "",
        f"- {len(planned)} of {len(order)} networks planned at half the MACs; "
        f"{sum(record['met'] for record in planned)} meet the limit exactly, "
        f"{sum(record['filled'] for record in planned)} have no rounding step left to give back",
        f"- processor time of the plan, analysis apart, one core: median {median(r['plan_s'] for r in planned):.2f} s, "
        f"slowest {slowest['plan_s']:.2f} s ({slowest['name']}, goal {GOAL_S:g} s), "
        f"ResNet-50 {resnet50['plan_s']:.2f} s (goal {RESNET50_GOAL_S:g} s)",
        "- over uniform width: utility over that of uniform width at the same limit, in log width; no accuracy is "
        "claimed for 1,000 classes",
        "",
        "| network | groups | analysis, s | plan, s | MACs left | over uniform width | cost of rounding | remark |",
        "|---|---|---|---|---|---|---|---|",
    ]
    TABLE.write_text("\n".join([*lines, *map(row, records)]) + "\n")
    print("\n".join(lines[:6]))


def row(record: Mapping[str, Any]) -> str:
    if "plan_s" not in record:
        return f"| {record['name']} | {record.get('groups', '')} | | | | | | {record['error']} |"
    utility = [f"{record[name]:.3f}" if record[name] is not None else "-" for name in ("over_uniform", "rounding")]
    seconds = f"{record['analysis_s']:.2f} | {record['plan_s']:.2f}"
    return f"| {record['name']} | {record['groups']} | {seconds} | {record['macs']:.3f} | {' | '.join(utility)} | |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", nargs="+", help="measure these networks and print a record each")
    parser.add_argument("--only", nargs="+", help="measure these networks")
    parser.add_argument("--table", action="store_true", help="write the table from the records")
    options = parser.parse_args()
    if options.worker:
        for name in options.worker:
            print(json.dumps(measure(name)), flush=True)
        return
    if not options.table:
        run(options.only or coverage.all_names())
    write_table()


if __name__ == "__main__":
    main()

"""A network's latency on one machine: layers measured one by one, put right by two whole networks."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pretrim.analysis.network import Network
from pretrim.deploy import SUFFIXES, Artifact, export
from pretrim.measure import Protocol, measure
from pretrim.measure.run import Runner, here
from pretrim.planning.search import plan_of_widths
from pretrim.surgery.apply import apply

from .cost import LatencyCost, key_of, latency_cost, wanted_axes
from .table import Correction, LatencyKey, Progress, Table, check_cache, load_table, measure_table, save_table

SLIM_SHARE = 0.3
"""of every width, in the second network"""
IMAGES = 4
LARGEST_EXPONENT = 1.5


def measured_cost(
    network: Network,
    module: nn.Module,
    place: LatencyKey,
    *,
    label: str | None = None,
    ask: Runner = here,
    progress: Progress = lambda done, of: None,
) -> LatencyCost:
    """The latency of a network as a function of its widths. What was measured in a place before is not measured again.

    Args:
        network: the analysis of the module.
        module: the dense network; with it and a slim version (with any weights) the sum of the layers is corrected.
        place: where.
        label: what to call it, for the user.
        ask: runs the worker, here or over ssh.
        progress: is told how many layers are done, of how many.

    Raises:
        UsageError: the runtime is missing.
        MeasureError: it failed.
        ExportError: the network cannot be converted.
    """
    known = load_table(place)
    if known is None or key_of(network) not in known.corrections:
        check_cache()
    table = measure_table(place, wanted_axes(network, place.runtime), known=known, ask=ask, progress=progress)
    if key_of(network) not in table.corrections:
        found = correct(network, module, table, ask)
        table = replace(table, corrections={**table.corrections, key_of(network): found})
    if table is not known:
        save_table(table)
    return latency_cost(network, table, label=label)


def correct(network: Network, module: nn.Module, table: Table, ask: Runner = here) -> Correction:
    """Measure the dense network and one of 0.3 of its widths, and bend the sums to them.

    Args:
        network: the analysed network.
        module: the dense network.
        table: latencies of layers.
        ask: measures models where they are to run.
    """
    slim = np.maximum(np.rint(SLIM_SHARE * network.dense / 8) * 8, np.minimum(8, network.dense)).astype(np.int64)
    plain = latency_cost(network, table, correction=Correction())
    widths = [network.dense, np.minimum(slim, network.dense)]
    sums = [int(plain(row)) * 1e-9 for row in widths]
    with tempfile.TemporaryDirectory() as folder:
        artifacts = [
            _artifact(network, module, row, table.place, Path(folder) / f"{number}{SUFFIXES[table.place.runtime]}")
            for number, row in enumerate(widths)
        ]
        found = measure(artifacts, Protocol(threads=table.place.threads, warmup_s=0.1), ask)
    real = [measurement.latency.median_s for measurement in found]
    if sums[0] < 1.2 * sums[1] or real[0] <= real[1]:  # too close to tell a slope
        return Correction(real[0] / sums[0])
    exponent = math.log(real[0] / real[1]) / math.log(sums[0] / sums[1])
    exponent = min(max(exponent, 1 / LARGEST_EXPONENT), LARGEST_EXPONENT)
    return Correction(real[0] / sums[0] ** exponent, exponent)


def _artifact(network: Network, module: nn.Module, widths: np.ndarray, place: LatencyKey, path: Path) -> Artifact:
    """A network of these widths, for its time alone: what it answers does not matter."""
    slim = apply(module, plan_of_widths(network, widths), network=network).eval()
    shape = network.example["shape"]
    images = torch.randn(IMAGES, *shape[1:], generator=torch.Generator().manual_seed(0))
    sample = images if place.data_type == "int8" else None
    return export(slim, path, place.runtime, images=images, calibration=sample, signed=place.signed, force=True)

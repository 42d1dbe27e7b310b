"""Latency of a network on one machine: single-layer measurements, corrected by measuring two whole networks."""

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
"""Fraction of each dense width that the second network keeps."""
IMAGES = 4
LARGEST_EXPONENT = 1.5


def measured_cost(
    network: Network,
    module: nn.Module,
    key: LatencyKey,
    *,
    label: str | None = None,
    ask: Runner = here,
    progress: Progress = lambda done, of: None,
) -> LatencyCost:
    """Measure the latency of a network as a function of its widths. Cached measurements are reused.

    Args:
        network: the analysis of the module.
        module: the dense network; timing it and a slim version (with arbitrary weights) corrects the sum of the layers.
        key: the key to measure under.
        label: name of the device for the user.
        ask: runs the worker, here or over ssh.
        progress: called with the number of layers done and their total.

    Raises:
        UsageError: the runtime is missing.
        MeasureError: the measurement failed.
        ExportError: the network cannot be converted.
    """
    known = load_table(key)
    if known is None or key_of(network) not in known.corrections:
        check_cache()
    table = measure_table(key, wanted_axes(network, key.runtime), known=known, ask=ask, progress=progress)
    if key_of(network) not in table.corrections:
        correction = correct(network, module, table, ask)
        table = replace(table, corrections={**table.corrections, key_of(network): correction})
    if table is not known:
        save_table(table)
    return latency_cost(network, table, label=label)


def correct(network: Network, module: nn.Module, table: Table, ask: Runner = here) -> Correction:
    """Fit the correction of layer sums to measurements of the dense network and of one with 0.3 of its widths.

    Args:
        network: the analysed network.
        module: the dense network.
        table: layer latencies.
        ask: runs the worker on the target machine.
    """
    slim = np.maximum(np.rint(SLIM_SHARE * network.dense / 8) * 8, np.minimum(8, network.dense)).astype(np.int64)
    uncorrected = latency_cost(network, table, correction=Correction())
    widths = [network.dense, np.minimum(slim, network.dense)]
    sums = [int(uncorrected(row)) * 1e-9 for row in widths]
    with tempfile.TemporaryDirectory() as folder:
        artifacts = [
            _artifact(network, module, row, table.key, Path(folder) / f"{number}{SUFFIXES[table.key.runtime]}")
            for number, row in enumerate(widths)
        ]
        measurements = measure(artifacts, Protocol(threads=table.key.threads, warmup_s=0.1), ask)
    real = [measurement.latency.median_s for measurement in measurements]
    if sums[0] < 1.2 * sums[1] or real[0] <= real[1]:  # too close together to estimate a slope
        return Correction(real[0] / sums[0])
    exponent = math.log(real[0] / real[1]) / math.log(sums[0] / sums[1])
    exponent = min(max(exponent, 1 / LARGEST_EXPONENT), LARGEST_EXPONENT)
    return Correction(real[0] / sums[0] ** exponent, exponent)


def _artifact(network: Network, module: nn.Module, widths: np.ndarray, key: LatencyKey, path: Path) -> Artifact:
    """Export a network of these widths for timing only: its outputs do not matter."""
    slim = apply(module, plan_of_widths(network, widths), network=network).eval()
    shape = network.example["shape"]
    images = torch.randn(IMAGES, *shape[1:], generator=torch.Generator().manual_seed(0))
    calibration = images if key.data_type == "int8" else None
    return export(slim, path, key.runtime, images=images, calibration=calibration, signed=key.signed, force=True)

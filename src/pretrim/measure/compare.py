"""Compare a slim artifact to its dense one: how much faster it is, or why it is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pretrim.deploy.artifact import Artifact

from .record import Measurement

FEWER_MACS = 0.9
"""With at most this fraction of the dense network's MACs, a user expects the slim network to be faster."""
NOT_FASTER = 0.95
"""From this fraction of the dense network's time on, the slim network does not count as faster."""
ALIGNED = 8
"""Kernels pad widths to a multiple of this."""
SHORT_S = 20e-6
"""Below this time per layer, starting an operator takes about as long as running it."""


def ratio(slim: Measurement, dense: Measurement) -> float:
    """Latency of the slim network divided by that of the dense one."""
    return slim.latency.median_s / dense.latency.median_s


def warning(artifact: Artifact, slim: Measurement, dense: Measurement) -> str | None:
    """Explain why fewer multiply-accumulates did not make the network faster, and what to try; None if they did.

    Args:
        artifact: the slim artifact.
        slim: the measurement of the slim artifact.
        dense: the measurement of the dense one.
    """
    plan = artifact.plan
    if plan is None or plan["slim"]["macs"] > FEWER_MACS * plan["dense"]["macs"]:
        return None
    time_ratio = ratio(slim, dense)
    if time_ratio < NOT_FASTER:
        return None
    share = plan["slim"]["macs"] / plan["dense"]["macs"]
    return f"{100 * share:.0f} % of the MACs, but {100 * time_ratio:.0f} % of the time: {_reason(plan, slim)}"


def _reason(plan: Mapping[str, Any], slim: Measurement) -> str:
    groups = plan["groups"]
    unaligned = [group for group in groups if group["kept"] % ALIGNED and group["kept"] != group["channels"]]
    layers = sum(len(group["layers"]) for group in groups)
    if len(unaligned) > len(groups) / 4:
        widths = f"{len(unaligned)} of {len(groups)} widths"
        return f"{widths} are not multiples of {ALIGNED}, which kernels pad; try --round-to 8"
    if slim.latency.median_s / max(layers, 1) < SHORT_S:
        return "its layers are so short that starting them takes the time; a shallower network may be faster"
    return "its time goes into memory traffic, or layers that were not cut; try --mode memory or --activation"

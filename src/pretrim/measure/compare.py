"""A slim artifact beside its dense one: how much faster, and why not, where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pretrim.deploy.artifact import Artifact

from .record import Measurement

FEWER_MACS = 0.9
"""of the dense network's: from here on a user expects less time"""
NOT_FASTER = 0.95
"""of the dense network's time"""
ALIGNED = 8
SHORT_S = 20e-6
"""A layer: below it, starting an operator takes about as long as running it"""


def ratio(slim: Measurement, dense: Measurement) -> float:
    """Time of the slim network over that of the dense one."""
    return slim.latency.median_s / dense.latency.median_s


def warning(artifact: Artifact, slim: Measurement, dense: Measurement) -> str | None:
    """Why fewer multiply-accumulates have not made it faster, and what to try; None where they have.

    Args:
        artifact: the slim one.
        slim: how it was measured.
        dense: how the other one was.
    """
    plan = artifact.plan
    if plan is None or plan["slim"]["macs"] > FEWER_MACS * plan["dense"]["macs"]:
        return None
    took = ratio(slim, dense)
    if took < NOT_FASTER:
        return None
    share = plan["slim"]["macs"] / plan["dense"]["macs"]
    return f"{100 * share:.0f} % of the MACs, but {100 * took:.0f} % of the time: {_reason(plan, slim)}"


def _reason(plan: Mapping[str, Any], slim: Measurement) -> str:
    groups = plan["groups"]
    odd = [group for group in groups if group["kept"] % ALIGNED and group["kept"] != group["channels"]]
    layers = sum(len(group["layers"]) for group in groups)
    if len(odd) > len(groups) / 4:
        return f"{len(odd)} of {len(groups)} widths are not multiples of {ALIGNED}, which kernels pad; try --round-to 8"
    if slim.latency.median_s / max(layers, 1) < SHORT_S:
        return "its layers are so short that starting them takes the time; a shallower network may be faster"
    return "its time goes into memory traffic, or layers that were not cut; try --mode memory or --activation"

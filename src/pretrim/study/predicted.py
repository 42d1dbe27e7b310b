"""Predicted time and energy of a trial on its target microcontroller, based on public measurements."""

from __future__ import annotations

from typing import Any

from pretrim.devices import board
from pretrim.errors import PretrimError
from pretrim.latency.board_systems import find_system
from pretrim.latency.on_board import predict

from .rows import Trial
from .settings import RUNTIME


def predicted(trial: Trial) -> dict[str, Any] | None:
    """Predict the time and energy of a trial's network, as a `Prediction.record` for ``slim``.

    None if its sweep named no microcontroller and runtime, or nothing is known of them.
    """
    spec, sketched = trial.spec, (trial.record or {}).get("on_boards")
    if not spec.device or spec.runtime == RUNTIME or sketched is None:
        return None
    try:
        target = board(spec.device)
        basis, ns = predict(target, find_system(target, spec.runtime, "int8"), sketched["slim"])
    except PretrimError:  # a board or runtime that this version of pretrim does not know
        return None
    return basis.record({"slim": ns})

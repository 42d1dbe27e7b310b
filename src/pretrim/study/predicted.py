"""The time and energy of a trial on the microcontroller that it was planned for, predicted by public measurements."""

from __future__ import annotations

from typing import Any

from pretrim.devices import board
from pretrim.errors import PretrimError
from pretrim.latency.board_systems import find_system
from pretrim.latency.on_board import predict

from .rows import Trial
from .settings import RUNTIME


def predicted(trial: Trial) -> dict[str, Any] | None:
    """What the trial's network takes there, as `Prediction.record` has it for ``slim``; None where its sweep named no
    microcontroller and runtime, or nothing is known of them."""
    spec, sketched = trial.spec, (trial.record or {}).get("on_boards")
    if spec.device is None or spec.runtime == RUNTIME or sketched is None:
        return None
    try:
        target = board(spec.device)
        basis, ns = predict(target, find_system(target, spec.runtime, "int8"), sketched["slim"])
    except PretrimError:  # a board or runtime of another version of pretrim
        return None
    return basis.record({"slim": ns})

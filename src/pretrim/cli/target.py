"""What a command plans for: the limits and the rounding of --device, beside what the user asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pretrim.devices import APPLICATION_SHARE, Board, board
from pretrim.errors import BudgetError, UsageError

from .progress import say

if TYPE_CHECKING:
    from pretrim.analysis.network import Network
    from pretrim.latency import LatencyCost
    from pretrim.planning.plan import Plan

DTYPE, ROUND_TO = "float32", 8


@dataclass(frozen=True)
class Target:
    """Where a network is to run.

    Attributes:
        board: the device; None where no one was named.
        limits: by cost, the user's and the board's.
        dtype: that bytes are counted in.
        round_to: filters are kept in multiples of it.
    """

    board: Board | None
    limits: Mapping[str, str]
    dtype: str
    round_to: int


def find_target(
    device: str | None,
    application: float | None,
    limits: Mapping[str, str],
    dtype: str | None,
    round_to: int | None,
) -> Target:
    """Put the board's figures in the place of what was not given.

    Raises UsageError for a board that is not known, or options that need one.
    """
    if device is None:
        if application is not None:
            raise UsageError("Expected --device with --application, but got none: name the board.")
        return Target(None, limits, DTYPE if dtype is None else dtype, ROUND_TO if round_to is None else round_to)
    found = board(device)
    share = APPLICATION_SHARE if application is None else application
    own = {name: str(value) for name, value in found.limits(share).items()}
    if not own and not limits:
        raise BudgetError(
            f"Expected a limit beside --device {device}, whose {found.ram_bytes >> 20:,} MiB limit no network that it "
            f"could run in time: add --macs 0.5x, or another."
        )
    return Target(
        board=found,
        limits={**own, **limits},
        dtype=found.data_type if dtype is None else dtype,
        round_to=found.round_to if round_to is None else round_to,
    )


def plan_for(network: Network, target: Target, search: Mapping[str, Any], latency: LatencyCost | None = None) -> Plan:
    """The plan within every limit; the dense network, where a board has room for it and nothing else is asked."""
    from dataclasses import replace

    from pretrim.planning.budget import Budget
    from pretrim.planning.search import make_plan, options_of, plan_of_widths

    from .timing import with_label

    if target.board is not None and all(name in target.board.limits() for name in target.limits):
        budget = Budget.parse(target.limits, target.dtype).resolve_any(network)  # type: ignore[arg-type]  # it is checked
        if (budget.dense <= budget.values).all():
            say(f"note: the dense network fits on {target.board.name} as it is; limits such as --macs 0.5x trim it")
            texts = dict(target.limits)
            made = plan_of_widths(network, network.dense, target.dtype, limits=texts)  # type: ignore[arg-type]
            return replace(made, device=with_label({"name": target.board.name, **(made.device or {})}, latency))
    options = options_of({**search, "round_to": target.round_to})
    costs = {} if latency is None else {latency.name: latency}
    made = make_plan(network, target.limits, options, target.dtype, costs)  # type: ignore[arg-type]
    name = {} if target.board is None or made.device is None else {"name": target.board.name}
    return replace(made, device=with_label({**name, **made.device} if made.device is not None else None, latency))

"""Tables of a plan: each cost, the width of each group, and the expected accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from .device import FORMULAS_OF_MEMORY, is_on_board, show_fit
from .layout import Table, show_table
from .text import BAR_WIDTH, COSTS, amount, bar, percent, show_line

if TYPE_CHECKING:
    from pretrim.planning.plan import Plan


def show_plan(console: Console, plan: Plan) -> None:
    """Print a plan: its fit on the device, dense and slim costs, the width of each group, and the expected accuracy."""
    name = plan.model["name"] if plan.model is not None else "a network"
    costs = Table("<cost", "dense", "slim", "kept", "limit")
    for cost in COSTS:
        if is_on_board(plan.device) and cost in FORMULAS_OF_MEMORY and cost not in plan.limits:
            continue  # show only the board's own figures for flash and RAM
        dense, slim = plan.dense[cost], plan.slim[cost]
        kept = percent(slim / dense if dense else None)
        costs.add_row(COSTS[cost][0], amount(cost, dense), amount(cost, slim), kept, plan.limits.get(cost, "-"))
    show_fit(console, plan)
    method = f" ({plan.method})" if plan.method else ""
    show_table(console, f"Plan for {name}{method}, bytes in {plan.dtype}", costs)
    widths = Table("<group", "?layers", "dense", "kept", "?")
    for group in plan.groups:
        share = group.kept / group.channels
        bar_text = bar(share, 2 * BAR_WIDTH, ascii_only=console.options.ascii_only)
        cells = (str(len(group.layers)), str(group.channels), str(group.kept))
        widths.add_row(Text(group.name), *cells, Text(f"{bar_text} {percent(share, 0):>5}"))
    show_table(console, "Filters kept", widths)
    for line in expectations(plan):
        show_line(console, line)


def expectations(plan: Plan) -> list[str]:
    """Sentences on a plan's expected accuracy and on the cost of rounding."""
    from pretrim.planning.outlook import Outlook

    if plan.outlook is None:
        return []
    outlook = Outlook.from_json(plan.outlook)
    lines = [f"Expected accuracy: {outlook.sentence()}."]
    if outlook.rounding is not None:
        finer = outlook.finer
        alternative = "" if finer is None else f"; --round-to {finer[0]} would cost about {finer[1]:.3f}"
        lines.append(f"Rounding to {plan.options['round_to']} costs {outlook.rounding:.3f} of log width{alternative}.")
    return lines

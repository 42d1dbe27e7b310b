"""`pretrim recommend`: the best measured network of a study within some limits, and what more would buy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pretrim.errors import InfeasibleBudget
from pretrim.jobs.options import SHARE, TARGET, GoalOptions, Limits
from pretrim.present.advice import show_advice
from pretrim.present.text import enough

from . import render
from .arguments import Json, Storage, Study

if TYPE_CHECKING:
    from pretrim.study.recommend import Recommendation


def recommend(
    study: Study,
    /,
    *,
    device: Annotated[str | None, Parameter(group=TARGET, help="Board whose flash and RAM become limits.")] = None,
    application: Annotated[float | None, SHARE, Parameter(group=TARGET)] = None,
    runtime: Annotated[
        str | None,
        Parameter(group=TARGET, help="Runtime on a microcontroller, whose time is predicted: st-edge-ai, tflm, ..."),
    ] = None,
    storage: Storage = None,
    json: Json = False,
    limits: Limits | None = None,
    goal: GoalOptions | None = None,
) -> None:
    """Choose the most accurate network of a study within limits.

    By validation accuracy, or the metric of the task; it also says what a little more of each resource would buy.
    """
    from pretrim.jobs.study import open_study
    from pretrim.jobs.study import recommend as choose

    advice = choose(open_study(study, storage), limits or Limits(), device, application, runtime, goal)
    if json:
        render.print_json(advice.to_json())
    else:
        show_advice(render.output(), advice)
    if advice.found.best is None:
        raise InfeasibleBudget(_nothing(advice.found))


def _nothing(found: Recommendation) -> str:
    """Why no network is chosen: the one limit that is in the way, or how small the networks are where several are."""
    from pretrim.study.recommend import BY_NAME

    parts = [f"{one.resource.title} to {enough(one.resource.unit, one.needed)}" for one in found.relax]
    if parts:
        return f"None of {found.of} networks is within the limits: relax {', or '.join(parts)}."
    smallest = [f"{BY_NAME[name].title} {enough(BY_NAME[name].unit, value)}" for name, value in found.least.items()]
    there = f" (the smallest there are: {', '.join(smallest)})" if smallest else ""
    return (
        f"None of {found.of} networks is within the limits, whichever one of them is relaxed{there}: relax several, or "
        f"sweep smaller networks."
    )

"""`pretrim recommend`: the best network of a study within limits, and what relaxing them would gain."""

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


def _nothing(result: Recommendation) -> str:
    """Explain why no network is chosen: the single limits to relax, or how small the networks are if there are none."""
    from pretrim.study.recommend import BY_NAME

    parts = [f"{limit.resource.title} to {enough(limit.resource.unit, limit.needed)}" for limit in result.relax]
    if parts:
        return f"None of {result.of} networks is within the limits: relax {', or '.join(parts)}."
    smallest = [f"{BY_NAME[name].title} {enough(BY_NAME[name].unit, value)}" for name, value in result.smallest.items()]
    sizes = f" (the smallest there are: {', '.join(smallest)})" if smallest else ""
    return (
        f"None of {result.of} networks is within the limits, whichever one of them is relaxed{sizes}: relax several, "
        f"or sweep smaller networks."
    )

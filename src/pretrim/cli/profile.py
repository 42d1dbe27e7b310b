"""`pretrim profile`: the cost of each layer, and which layers are coupled or frozen, and why."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from pretrim.jobs.options import Keeping
from pretrim.present.profile import show_profile

from . import render
from .arguments import Classes, Input, Json, Model


def profile(
    model: Model,
    /,
    *,
    input: Input = None,
    classes: Classes = None,
    dtype: Annotated[Literal["float32", "float16", "int8"], Parameter(help="Data type that bytes are counted in.")] = (
        "float32"
    ),
    keeping: Keeping | None = None,
    json: Json = False,
) -> None:
    """Show what each layer costs, and which layers can be trimmed."""
    from pretrim.jobs.data import input_shape
    from pretrim.jobs.plan import profile as profile_model

    record = profile_model(model, input_shape(model, input), classes, dtype, keeping).to_json()
    if json:
        render.print_json(record)
    else:
        show_profile(render.output(), record)

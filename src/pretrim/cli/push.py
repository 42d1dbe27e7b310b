"""`pretrim push`: upload a run to the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from . import render
from .arguments import Json, Run
from .progress import Bars


def push(
    run: Run,
    name: Annotated[str, Parameter(metavar="hf:OWNER/NAME", help="Repository; created if it does not exist.")],
    /,
    *,
    private: Annotated[bool, Parameter(help="Make a new repository private.")] = False,
    json: Json = False,
) -> None:
    """Push a run to the Hugging Face hub, with its model card.

    evaluate, predict and export take hf:OWNER/NAME in the place of a run's folder.
    """
    from pretrim.jobs.hub import push as push_run

    pushed = push_run(run, name, private=private, reporter=Bars())
    if json:
        render.print_json(pushed.to_json())
    else:
        print(pushed.url, file=render.stdout())

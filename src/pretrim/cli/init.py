"""`pretrim init`: a project file to fill in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pretrim.errors import UsageError

from . import render
from .project import FILE

TEMPLATE = """\
# Defaults for `pretrim` in this folder; options on the command line win.
# `pretrim run` does the whole job. Every option of `pretrim COMMAND --help` can be set here by its name.

model = {model}  # vgg16, resnet20, ..., torchvision:NAME, timm:NAME, or FILE.py:FUNCTION
data = {data}  # digits, fashion-mnist, cifar10:FOLDER, hf:OWNER/NAME, a folder of images, or a table
# input = "3x64x64"  # shape of one image: channels x height x width

[limits]  # amounts, or shares of the dense network; several are met at once
{macs}macs = "0.5x"
# params = "250k"
# ram = "256KiB"

[target]  # a board, by its name in `pretrim devices`; its flash and RAM are limits, and the network is exported for it
{hash}device = {device}
# application = 0.5  # share of flash and RAM that your own firmware takes

[recipe]
# epochs = 20  # by default, chosen by the number of images
# batch-size = 64
# set = {{ ema = 0.99, mixup = 0.2 }}  # anything else of the recipe

[compress]  # for this command alone
output = "run"

[sweep]  # the study of `pretrim run`; without this table it makes none
modes = ["balanced", "uniform"]
budget-fraction = [1, 0.5]  # of [limits] and of the board: 1 is what they say, 0.5 is half of it
output = "study"
"""


def init(
    model: Annotated[str, Parameter(metavar="MODEL", help="Network, as in `pretrim compress`.")] = "resnet20",
    /,
    *,
    data: Annotated[str, Parameter(metavar="DATA", help="Data, as in `pretrim compress`.")] = "digits",
    device: Annotated[str | None, Parameter(help="A board of `pretrim devices`.")] = None,
) -> None:
    """Write a project file, pretrim.toml, to fill in."""
    from pretrim.devices import board
    from pretrim.files import write_text

    if FILE.exists():
        raise UsageError(f"{FILE} exists: edit it, or remove it first.")
    if device is not None:
        board(device)  # an unknown one is an error
    text = TEMPLATE.format(
        model=json.dumps(model),
        data=json.dumps(data),
        macs="" if device is None else "# ",
        hash="# " if device is None else "",
        device=json.dumps(device or "stm32h743"),
    )
    write_text(Path(FILE), text)
    render.output().print(f"Wrote {FILE}. Edit it, then: pretrim plan, or pretrim run for the whole job.")

"""Arguments that several commands share; shared options are the records in `jobs.options`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

Model: TypeAlias = Annotated[
    str,
    Parameter(metavar="MODEL", help="Network: vgg16, resnet20, ..., torchvision:NAME, timm:NAME, or FILE.py:FUNCTION."),
]
Run: TypeAlias = Annotated[
    Path, Parameter(metavar="RUN", help="Folder that `pretrim compress` wrote, or hf:OWNER/NAME.")
]
Study: TypeAlias = Annotated[Path, Parameter(metavar="STUDY", help="Folder of `pretrim sweep`.")]
Data: TypeAlias = Annotated[
    str | None,
    Parameter(
        metavar="DATA",
        help="digits, fashion-mnist, cifar10:FOLDER, hf:OWNER/NAME, a folder of images, or a table of images and "
        "targets (default: the task's own).",
    ),
]
RunTask: TypeAlias = Annotated[
    str | None,
    Parameter(
        name="--task",
        metavar="TASK",
        help="Task of a run of your own: FILE.py:CLASS, which is executed. Never taken from the run itself.",
    ),
]
Input: TypeAlias = Annotated[
    str | None,
    Parameter(
        metavar="CxHxW",
        help="Shape of one image (default: 3x32x32, or 3x224x224 for torchvision and timm; your own file needs it).",
    ),
]
Classes: TypeAlias = Annotated[
    int | None, Parameter(validator=Number(gte=1), help="Number of outputs (default: the model's).")
]
RunModel: TypeAlias = Annotated[
    str | None,
    Parameter(
        name="--model",
        metavar="MODEL",
        help="Network of a run of your own: FILE.py:FUNCTION, which is executed. Never taken from the run itself.",
    ),
]
Json: TypeAlias = Annotated[bool, Parameter(help="Print the result as JSON.")]
Storage: TypeAlias = Annotated[
    str | None, Parameter(metavar="URL", help="Database of the study, if it needs a password.")
]

"""Arguments and options that several commands share, and how their text is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from pretrim.errors import UsageError

Shape: TypeAlias = tuple[int, int, int]

# What `allocate.Options` and `cost.DType` allow, written out: importing those would import torch. A test compares them.
RUNTIMES = "onnx|litert|executorch"
MODES = "joint|params|macs|memory|latency|uniform|random|waterfill"
DTYPES = "float32|float16|int8"
STEPS = "fraction|filter"
SHARE_UPDATES = "static|adaptive"
COUPLINGS = "sum|mean|max"

# Sections of a command's help (`sections.py`).
LIMITS, DEVICE, SEARCH, TRAINING = "Limits", "Device and runtime", "How the plan is drawn", "Training"

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="vgg16, resnet20, ..., torchvision:NAME, timm:NAME, or FILE.py:FUNCTION."),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `pretrim compress` wrote.")]
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="CxHxW",
        help="Shape of one image: 3x32x32 by default, 3x224x224 for torchvision and timm; needed for your own file.",
        show_default=False,
    ),
]
InputOfData = Annotated[
    str | None,
    typer.Option("--input", metavar="CxHxW", help="Shape of one image; by default the data's.", show_default=False),
]
Classes = Annotated[
    int | None,
    typer.Option("--classes", min=1, help="Number of outputs; by default that of the model.", show_default=False),
]
DTypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar=DTYPES,
        help="Data type that bytes are counted in: float32, or the device's.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the same record as JSON.")]
Data = Annotated[
    str,
    typer.Option(
        "--data", metavar="DATA", help="digits, fashion-mnist, cifar10:FOLDER, hf:OWNER/NAME, or a folder of images."
    ),
]
RunModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="For a run of your own network: FILE.py:FUNCTION, which is run. Never taken from the run itself.",
        show_default=False,
    ),
]

Params = Annotated[
    str | None,
    typer.Option(
        "--params",
        metavar="LIMIT",
        help="Most parameters: 250k, or 0.5x of the dense network's.",
        rich_help_panel=LIMITS,
    ),
]
Macs = Annotated[
    str | None,
    typer.Option("--macs", metavar="LIMIT", help="Most multiply-accumulates: 20M, 0.5x.", rich_help_panel=LIMITS),
]
Flash = Annotated[
    str | None,
    typer.Option("--flash", metavar="LIMIT", help="Most bytes of weights: 512KiB, 0.5x.", rich_help_panel=LIMITS),
]
Ram = Annotated[
    str | None,
    typer.Option(
        "--ram", metavar="LIMIT", help="Most bytes of activations alive at once: 256KiB, 0.5x.", rich_help_panel=LIMITS
    ),
]
Activation = Annotated[
    str | None,
    typer.Option(
        "--activation", metavar="LIMIT", help="Most bytes of all feature maps: 1MiB, 0.5x.", rich_help_panel=LIMITS
    ),
]

Latency = Annotated[
    str | None,
    typer.Option(
        "--latency",
        metavar="LIMIT",
        help="Longest time of one image, on one thread of the runtime (--to): 5ms, 0.5x.",
        show_default=False,
        rich_help_panel=LIMITS,
    ),
]
LatencyOf = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar=RUNTIMES,
        help="The runtime whose latency counts; by default the device's, or LiteRT.",
        show_default=False,
        rich_help_panel=DEVICE,
    ),
]
Ssh = Annotated[
    str | None,
    typer.Option(
        "--ssh",
        metavar="USER@HOST",
        help="Measure on that machine: the device.",
        show_default=False,
        rich_help_panel=DEVICE,
    ),
]
RemotePython = Annotated[
    str,
    typer.Option(
        "--remote-python", metavar="PATH", help="The interpreter there that has the runtime.", rich_help_panel=DEVICE
    ),
]
SshConfig = Annotated[
    Path | None,
    typer.Option(
        "--ssh-config", metavar="FILE", help="Instead of your own.", show_default=False, rich_help_panel=DEVICE
    ),
]
Estimate = Annotated[
    bool,
    typer.Option(
        "--estimate", help="Take this machine's latency for the device's, and say so.", rich_help_panel=DEVICE
    ),
]

Mode = Annotated[
    str, typer.Option("--mode", metavar=MODES, help="What counts as a layer's complexity.", rich_help_panel=SEARCH)
]
Step = Annotated[
    str, typer.Option("--step", metavar=STEPS, help="What one draw removes from a layer.", rich_help_panel=SEARCH)
]
Fraction = Annotated[float, typer.Option("--fraction", help="That fraction.", rich_help_panel=SEARCH)]
ShareUpdate = Annotated[
    str,
    typer.Option(
        "--share-update",
        "--weights",
        metavar=SHARE_UPDATES,
        help="Shares of the dense network, or of it as it shrinks.",
        rich_help_panel=SEARCH,
    ),
]
Coupling = Annotated[
    str,
    typer.Option(
        "--coupling",
        metavar=COUPLINGS,
        help="How the shares of coupled layers are put together.",
        rich_help_panel=SEARCH,
    ),
]
RoundTo = Annotated[
    int | None,
    typer.Option(
        "--round-to",
        help="Filters are kept in multiples of it: 8, or the device's.",
        show_default=False,
        rich_help_panel=SEARCH,
    ),
]
MinWidth = Annotated[
    int, typer.Option("--min-width", help="The fewest filters that a layer keeps.", rich_help_panel=SEARCH)
]
MinFeatures = Annotated[
    int | None,
    typer.Option(
        "--min-features",
        help="The fewest channels that the classifier reads: by default 2 a class, or a quarter; 1 for no such limit.",
        show_default=False,
        rich_help_panel=SEARCH,
    ),
]
Draws = Annotated[
    int | None,
    typer.Option(
        "--draws",
        metavar="N",
        help="Draw N plans and take the one that costs least of what the mode is for (64 in the mode latency, else 1).",
        rich_help_panel=SEARCH,
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", help="Seed of the draws, the initial weights and the training.", rich_help_panel=SEARCH)
]

# ---------------------------------------------------------------------------------------- training

LAYOUTS = "channels_last|contiguous"
PRECISIONS = "float32|bfloat16|float16"

Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        help="Passes over the training images; by default the data's.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", help="Images a step; by default the data's.", show_default=False, rich_help_panel=TRAINING
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--lr", help="The largest learning rate; by default the data's.", show_default=False, rich_help_panel=TRAINING
    ),
]
Qat = Annotated[
    bool,
    typer.Option(
        "--qat",
        help="Round as int8 does in the last fifth of the epochs (--set qat=N: N). Experimental.",
        rich_help_panel=TRAINING,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Change the recipe: ema=0.999, mixup=0.2, cutout=0.25, schedule=onecycle, label_smoothing=0.1, "
        "accumulate=2, ... Any number of times.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Trained weights of MODEL (.safetensors, or .pth of tensors alone): its strongest filters stay.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        help="Of the normalisation, a channel each: 0.485,0.456,0.406.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        "--std", help="Likewise the deviation: 0.229,0.224,0.225.", show_default=False, rich_help_panel=TRAINING
    ),
]
TeacherRun = Annotated[
    Path | None,
    typer.Option(
        "--teacher", metavar="RUN", help="A trained run to learn from as well (distillation).", rich_help_panel=TRAINING
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where the training in RUN was stopped.", rich_help_panel=TRAINING)
]
TrainOn = Annotated[
    str,
    typer.Option(
        "--train-on",
        metavar="auto|cpu|cuda",
        help="Where to train; a GPU by default, if there is one.",
        rich_help_panel=TRAINING,
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision", metavar=PRECISIONS, help="By default the fastest.", show_default=False, rich_help_panel=TRAINING
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar=LAYOUTS,
        help="Of feature maps; by default the fastest.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", help="Of the CPU; by default one a core.", show_default=False, rich_help_panel=TRAINING),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="torch.compile; by default where it pays.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]
Trackers = Annotated[
    list[str] | None,
    typer.Option(
        "--tracker", metavar="NAME", help="tensorboard, wandb, ...: hand every epoch to it.", rich_help_panel=TRAINING
    ),
]

# ---------------------------------------------------------------------------------------- devices

To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar=RUNTIMES,
        help="Export to this runtime; by default the device's.",
        show_default=False,
        rich_help_panel=DEVICE,
    ),
]
Int8 = Annotated[
    bool | None,
    typer.Option(
        "--int8/--no-int8",
        help="Export in int8; by default for a microcontroller.",
        show_default=False,
        rich_help_panel=DEVICE,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="A board of `pretrim devices`: its flash and RAM are limits, its kernels give the rounding.",
        show_default=False,
        rich_help_panel=DEVICE,
    ),
]
Application = Annotated[
    float | None,
    typer.Option(
        "--application",
        metavar="SHARE",
        help="Of the device's flash and RAM, left to your own code: 0.25 by default.",
        show_default=False,
        rich_help_panel=DEVICE,
    ),
]


def one_of(name: str, value: str, choices: str) -> None:
    """Raises UsageError for a value that is none of ``a|b|c``."""
    known = choices.split("|")
    if value not in known:
        raise UsageError(f"Expected {name} to be one of {', '.join(known)}, but got {value!r}.")


_SHAPE = re.compile(r"(\d+)x(\d+)x(\d+)")


def parse_shape(text: str) -> Shape:
    """Read ``CxHxW``.

    >>> parse_shape("3x32x32")
    (3, 32, 32)
    """
    match = _SHAPE.fullmatch(text.strip())
    if match is None or 0 in (shape := (int(match[1]), int(match[2]), int(match[3]))):
        raise UsageError(f"Expected --input to be CHANNELSxHEIGHTxWIDTH such as 3x32x32, but got {text!r}.")
    return shape


def parse_numbers(name: str, text: str) -> tuple[float, ...]:
    """Read numbers with commas between them.

    >>> parse_numbers("--mean", "0.5,0.25")
    (0.5, 0.25)
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"Expected {name} to be a number for each channel, such as 0.5,0.5,0.5, but got {text!r}."
        ) from None


def input_shape(model: str, text: str | None) -> Shape:
    """The shape of one image: as given, or the usual one of the model's family."""
    if text is not None:
        return parse_shape(text)
    if model.startswith(("torchvision:", "timm:")):
        return (3, 224, 224)
    if ".py" in model:
        raise UsageError("Expected --input CxHxW for a network of your own file, but got none: add --input 3x32x32.")
    return (3, 32, 32)

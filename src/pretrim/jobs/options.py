"""The options of the jobs: one frozen record per concept, shared by the Python calls and the commands.

None means that an option was not set. Its default then comes from the core record that the option belongs to
(`planning.options.Options`, `train.Recipe`, `train.Execution`), so no default is defined twice. The command line reads
option names, types and help texts from here; `group` is the section of a command's help.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from cyclopts import Group, Parameter

from pretrim.cost.quantities import by_option
from pretrim.errors import UsageError, check_is, shown, unknown_option
from pretrim.planning.options import Coupling, Method, Options, ShareUpdate, Step

if TYPE_CHECKING:
    from pretrim.study.goal import Goal

Amount = str | int | float
Changes = Annotated[tuple[str, ...] | Mapping[str, Any], Parameter(metavar="NAME=VALUE")]
MinWidth = tuple[str, ...] | int | Mapping[str, int]
"""Minimum numbers of filters; the tuple only tells the command line that the option is repeatable (see `WIDTHS`)"""
PerChannel = str | Sequence[float]
"""One number per image channel: a sequence, or comma-separated text"""
MAX_DIGITS = 9
"""Maximum number of digits in a number of filters"""

LIMITS = Group("Limits", sort_key=1)
TARGET = Group("Device and runtime", sort_key=2)
SEARCH = Group("How widths are chosen", sort_key=3)
PAPER = Group("Advanced: the paper's sampling", sort_key=4)
DATA = Group("Data", sort_key=5)
TRAINING = Group("Training", sort_key=6)
MACHINE = Group("Where to train", sort_key=7)

PRECISIONS = Literal["float32", "bfloat16", "float16"]
LAYOUTS = Literal["channels_last", "contiguous"]
Fit = Literal["crop", "pad", "stretch"]
TaskName = Annotated[Any, Parameter(metavar="TASK", converter=lambda _, tokens: str(tokens[0].value), n_tokens=1)]
"""A task by name; Python callers may also pass an object"""


def _default(name: str) -> Parameter:
    """Show the core's default of an option in the help."""
    return Parameter(show_default=lambda _: str(getattr(Options, name)))


def read_widths(texts: Sequence[str]) -> int | dict[str, int]:
    """Parse ``--min-width``: a number for all layers, and PATTERN=N for some of them.

    Raises UsageError for anything else.

    >>> read_widths(["4"]), read_widths(["4", "layer1=16"])
    (4, {'*': 4, 'layer1': 16})
    """
    widths: dict[str, int] = {}
    for text in texts:
        pattern, _, number = text.rpartition("=")
        if not number.isdecimal() or len(number) > MAX_DIGITS or (not pattern and "=" in text):
            raise UsageError(f"Expected --min-width N or PATTERN=N, such as 4 or layer1=16, but got {shown(text)}.")
        widths[pattern or "*"] = int(number)
    return widths["*"] if widths.keys() == {"*"} else widths


def _widths(_: Any, tokens: Sequence[Any]) -> int | dict[str, int]:
    return read_widths([str(token.value) for token in tokens])


def _joined(_: Any, tokens: Sequence[Any]) -> str:
    """Join the values of a repeated list option into one comma-separated text."""
    return ",".join(str(token.value) for token in tokens)


LISTED = Parameter(converter=_joined, n_tokens=1, metavar="LIST")
"""For list options, whose type includes a sequence: for single values, cyclopts would keep only the last text"""
WIDTHS = Parameter(converter=_widths, n_tokens=1, accepts_keys=False, metavar="N", group=SEARCH)


def read_share(value: str | float) -> float:
    """Parse ``--application``: a share, as a number or in percent like limits. Its range is not checked.

    Raises UsageError for anything else.

    >>> read_share("0.85"), read_share("85%"), read_share(0.5)
    (0.85, 0.85, 0.5)
    """
    text = str(value)
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise UsageError(f"Expected --application to be a share such as 0.85 or 85%, but got {text!r}.") from None


def _share(_: Any, tokens: Sequence[Any]) -> float:
    return read_share(str(tokens[-1].value))


SHARE = Parameter(
    converter=_share,
    n_tokens=1,
    metavar="SHARE",
    help="Share of flash and RAM reserved for your application, 0.85 or 85% (default: 0.25).",
)
"""Parameter of ``--application``"""


def _text(quantity: str) -> Parameter:
    """Return the parameter of a limit, with its help text from the table of quantities."""
    return Parameter(help=by_option()[quantity].help, metavar="LIMIT")


@Parameter(name="*", group=LIMITS)
@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the network may take: amounts (250k, 512KiB, 5ms) or shares of the dense network (0.5x)."""

    params: Annotated[Amount | None, _text("params")] = None
    macs: Annotated[Amount | None, _text("macs")] = None
    flash: Annotated[Amount | None, _text("flash")] = None
    ram: Annotated[Amount | None, _text("ram")] = None
    activation: Annotated[Amount | None, _text("activation")] = None
    latency: Annotated[Amount | None, _text("latency")] = None
    at_most: Annotated[tuple[str, ...], Parameter(metavar="NAME=AMOUNT")] = ()
    """A limit on another quantity, NAME=AMOUNT; any number of times."""

    def given(self) -> dict[str, Amount]:
        """Return the limits that were set, by name. Raises UsageError for an `at_most` that is not NAME=AMOUNT."""
        limits = {name: value for name, value in vars(self).items() if value is not None and name != "at_most"}
        for text in self.at_most:
            name, equals, value = text.partition("=")
            if not equals or name not in by_option():
                raise UsageError(
                    f"Expected --at-most NAME=AMOUNT with one of {', '.join(by_option())}, got {shown(text)}."
                )
            limits[name] = value
        return limits


@Parameter(name="*", group=TARGET)
@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """Where the network is to run."""

    device: str | None = None
    """Board (see `pretrim devices`): its flash and RAM become limits, its kernels decide the rounding."""
    runtime: str | None = None
    """Runtime: onnx, litert, executorch; on a microcontroller st-edge-ai, tflm, ... (default: the device's)."""
    int8: Annotated[bool | None, Parameter(negative="--no-int8")] = None
    """Export in int8, and count limits in it (default: for a microcontroller)."""
    dtype: Literal["float32", "float16", "int8"] | None = None
    """Data type of limits and of exported files (default: int8 with --int8 or a microcontroller, else float32)."""
    application: Annotated[float | None, SHARE] = None
    ssh: str | None = None
    """USER@HOST of the device: latencies are measured there."""
    remote_python: str | None = None
    """Python interpreter there that has the runtime (default: python3)."""
    ssh_config: Path | None = None
    """SSH config to use instead of ~/.ssh/config."""
    estimate: bool = False
    """Use this machine's latency as an estimate of the device's, labelled so."""


@Parameter(name="*", group=SEARCH)
@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What layers keep whatever the limits are."""

    min_width: Annotated[MinWidth | None, WIDTHS, _default("min_width")] = None
    """Minimum number of filters in a layer, or PATTERN=N for some of them (see --freeze); any number of times."""
    freeze: Annotated[tuple[str, ...], Parameter(metavar="PATTERN", group=SEARCH)] = ()
    """Layers that keep all filters: a layer's or module's name, or a glob such as '*.conv1'; any number of times."""

    def given(self) -> dict[str, Any]:
        """Return the options that were set, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(Keeping)}
        return {name: value for name, value in values.items() if value is not None and value != ()}


@Parameter(name="*", group=SEARCH)
@dataclass(frozen=True, kw_only=True)
class Search(Keeping):
    """How widths are chosen; see `planning.options.Options`."""

    mode: Annotated[Method | None, _default("mode")] = None
    """balanced; the paper's sampling by params, macs or memory (PA, FA, MA) or jointly; latency; or a control."""
    round_to: int | None = None
    """Keep filters in multiples of this (default: 8, or the device's)."""
    min_features: int | None = None
    """Minimum input channels of the classifier (default, where widths are sampled: 2 per class, at most a quarter)."""
    seed: Annotated[int | None, _default("seed")] = None
    """Seed of sampling, initial weights and training."""
    step: Annotated[Step | None, Parameter(group=PAPER), _default("step")] = None
    """What one draw removes: a share of the layer's filters, or one rounding step of them (the paper)."""
    fraction: Annotated[float | None, Parameter(group=PAPER), _default("fraction")] = None
    """Share of a layer's filters removed per draw."""
    share_update: Annotated[ShareUpdate | None, Parameter(group=PAPER), _default("share_update")] = None
    """Complexity shares of the dense network (static), or of the network as it shrinks (adaptive)."""
    coupling: Annotated[Coupling | None, Parameter(group=PAPER), _default("coupling")] = None
    """How the shares of coupled layers are combined."""
    draws: Annotated[int | None, Parameter(group=PAPER)] = None
    """Sample this many plans and take the cheapest (default: 64 with --mode latency, otherwise 1)."""

    def changes(self) -> dict[str, Any]:
        """Return the options that were set, by name."""
        return {name: value for name, value in vars(self).items() if value is not None and value != ()}

    def options(self, round_to: int | None = None) -> Options:
        """Convert to the core's options. Raises UsageError for an invalid value."""
        rounding = {} if round_to is None else {"round_to": round_to}
        return Options(**{**rounding, **self.changes()})


@Parameter(name="*", group=LIMITS)
@dataclass(frozen=True, kw_only=True)
class GoalOptions:
    """What is good enough, in the place of limits: the smallest network that is."""

    drop: Annotated[float | None, Parameter(metavar="POINTS")] = None
    """Find the smallest network at most this many points below the dense one (percent, if it is no share)."""
    accuracy: Annotated[str | float | None, Parameter(metavar="SHARE")] = None
    """Find the smallest network of this validation accuracy, 90% or 0.9, or of this value of the task's metric."""
    limit_of: Annotated[str, Parameter(metavar="COST")] = "macs"
    """Cost by which networks are small: macs, params, flash, ram, activation."""

    def goal(self) -> Goal | None:
        """Return the goal, if one was set. Raises UsageError for both at once, or for an invalid score."""
        from pretrim.study.goal import Goal, parse_score

        if self.drop is None and self.accuracy is None:
            return None
        return Goal(self.drop, None if self.accuracy is None else parse_score(self.accuracy))


@Parameter(name="*", group=DATA)
@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How the data are read."""

    input: str | None = None
    """Shape of one image, CxHxW, such as 3x32x32 or 3x120x160; CxL for signals (default: the data's)."""
    fit: Fit | None = None
    """How images of other proportions get that shape: crop (default), pad with zeros, or stretch."""
    task: TaskName = None
    """Task: classification, multilabel, regression, segmentation, keypoints, or FILE.py:CLASS (default: the data's)."""
    max_images: int | None = None
    """Train on at most this many images, for a quick trial."""
    mean: Annotated[PerChannel | None, LISTED] = None
    """Per-channel mean of the normalisation: 0.485,0.456,0.406 (default: the data's)."""
    std: Annotated[PerChannel | None, LISTED] = None
    """Per-channel standard deviation: 0.229,0.224,0.225 (default: the data's)."""


@Parameter(name="*", group=TRAINING)
@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The recipe, where it differs from the data set's preset."""

    epochs: int | None = None
    """Passes over the training images (default: the data's preset)."""
    batch_size: int | None = None
    """Images per step (default: the data's preset)."""
    lr: float | None = None
    """Maximum learning rate (default: the data's preset)."""
    qat: bool = False
    """Train the last fifth of the epochs with int8 rounding (--set qat=N: N epochs). Experimental."""
    set: Changes = ()
    """Change the recipe, NAME=VALUE: ema=0.999, mixup=0.2, schedule=onecycle, ...; any number of times."""


@Parameter(name="*", group=MACHINE)
@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """How the training is executed."""

    train_on: str | None = None
    """auto, cpu or cuda (default: a GPU, if there is one)."""
    precision: PRECISIONS | None = None
    """Precision of products (default: the fastest)."""
    layout: LAYOUTS | None = None
    """Memory layout of feature maps (default: the fastest)."""
    threads: int | None = None
    """CPU threads (default: OMP_NUM_THREADS, or one per core)."""
    compile: Annotated[bool | None, Parameter(negative="--no-compile")] = None
    """Use torch.compile (default: where it pays)."""
    tracker: Annotated[tuple[str, ...], Parameter(metavar="NAME")] = ()
    """Report every epoch to a tracker: tensorboard, wandb, ...; any number of times."""


@Parameter(name="*", group=TRAINING)
@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What `compress` does beside planning and training."""

    plan: Path | None = None
    """Plan to apply, instead of limits."""
    from_: Annotated[Path | None, Parameter(name="--from")] = None
    """Trained weights to start from; keeps the filters with the largest L1 norm."""
    teacher: Path | None = None
    """Trained run to distil from."""
    dense: bool = False
    """Train the dense network as well, with the same recipe."""
    worst: Annotated[int, Parameter(metavar="N")] = 0
    """Keep the N test images with the largest loss, as worst.png and worst.json."""
    resume: bool = False
    """Continue the training that was stopped in RUN."""
    overwrite: bool = False
    """Replace the run that is there."""


@dataclass(frozen=True, kw_only=True)
class CompressOptions:
    """All options of `compress`, grouped by concept."""

    limits: Limits = field(default_factory=Limits)
    goal: GoalOptions = field(default_factory=GoalOptions)
    target: TargetOptions = field(default_factory=TargetOptions)
    search: Search = field(default_factory=Search)
    data: DataOptions = field(default_factory=DataOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)
    job: JobOptions = field(default_factory=JobOptions)


Record = TypeVar("Record")


def gather(given: Mapping[str, Any], *records: type[Any]) -> list[Any]:
    """Distribute keywords over option records by their field names; return one record of each kind.

    None means the default. Limits on quantities defined by other packages go to `Limits`.

    Raises UsageError for an unknown keyword, or a value of the wrong type.
    """
    names = {field.name.removesuffix("_"): (record, field.name) for record in records for field in fields(record)}
    values: dict[type[Any], dict[str, Any]] = {record: {} for record in records}
    other_limits: list[str] = []
    for name, value in given.items():
        if name in names:
            record, field = names[name]
            values[record] |= {} if value is None else {field: value}
        elif name in by_option() and Limits in values:
            other_limits += [f"{name}={value}"] if value is not None else []
        else:
            raise unknown_option(name, names)
    if other_limits:
        values[Limits]["at_most"] = (*_texts("at_most", values[Limits].get("at_most", ())), *other_limits)
    return [_checked(record, values[record]) for record in records]


def _checked(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """Make a record after checking the types of its values, which no parser has done for Python callers."""
    hints = get_type_hints(kind)
    return kind(**{name: _normalised(name, value, hints[name]) for name, value in values.items()})


WORDS = {
    "device": "the name of a board, such as 'stm32h743'",
    "input": "a shape such as 3x32x32 or (3, 32, 32)",
    "freeze": "a list of names of layers",
    "set": "a mapping such as {'mixup': 0.2}",
}
"""Descriptions of the expected value, for options whose type is a text or several"""
JOINED = {"input": "x", "mean": ",", "std": ","}
"""Separators of the options that hold several numbers in one text; Python callers may pass a list instead"""


def _normalised(name: str, value: Any, hint: Any) -> Any:
    """Convert a value to its command-line form: NumPy numbers to Python's, shapes to ``3x32x32``, paths to Path.

    Raises UsageError for a value of the wrong type. Options that accept a mapping, list or object are checked later.
    """
    if type(value).__module__ == "numpy" and not getattr(value, "shape", None):  # not imported: slow
        value = value.item()
    if name == "application" and isinstance(value, str):
        return read_share(value)
    if name in JOINED and isinstance(value, list | tuple):
        return JOINED[name].join(map(str, value))
    types = (set(get_args(hint)) or {hint}) - {NoneType, Ellipsis}
    if choices := _choices(hint):
        if not (isinstance(value, str) and value in choices):
            raise UsageError(f"Expected {name} to be one of {', '.join(choices)}, but got {shown(value)}.")
    elif types <= {int, float}:
        is_integer = float not in types
        is_number = isinstance(value, int if is_integer else int | float) and not isinstance(value, bool)
        check_is(value, object if is_number else (), f"{name} to be a {'whole ' if is_integer else ''}number")
    elif types == {int, Mapping[str, int]}:
        check_is(value, int | Mapping, f"{name} to be a whole number, or a mapping such as {{'layer1': 16}}")
    elif types == {bool}:
        check_is(value, bool, f"{name} to be True or False")
    elif types == {Path}:
        check_is(value, str | Path, f"{name} to be the name of a file or folder")
        return Path(value)
    elif tuple[str, ...] in {hint, *types} and not isinstance(value, Mapping):
        return _texts(name, value)
    elif types == {str}:
        check_is(value, str, f"{name} to be {WORDS.get(name, 'a text')}")
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    """Convert a text or an iterable of texts to a tuple."""
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (None,)
    is_right = all(isinstance(text, str) for text in texts)
    check_is(value, object if is_right else (), f"{name} to be {WORDS.get(name, 'a list of texts')}")
    return texts


def _choices(hint: Any) -> tuple[str, ...]:
    """Return the values of a Literal type, including inside a union with None."""
    if getattr(hint, "__origin__", None) is Literal:
        return tuple(hint.__args__)
    return tuple(choice for part in getattr(hint, "__args__", ()) for choice in _choices(part))

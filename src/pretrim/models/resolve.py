"""Find a network by name: its builder, the builder's arguments, and the network it builds.

========================  =====================================================================
``vgg16``                 one of :data:`pretrim.models.BUILTIN`
``torchvision:resnet18``  a torchvision network, for any of its tasks
``timm:mobilenetv2_100``  a timm network
``my_net.py:build``       a function in a user's file that returns a network
========================  =====================================================================

Weights are never downloaded. A user's file is imported, and hence run, only by :func:`resolve`, :func:`check_name`
and :func:`build`, and only if the given name is that of a file: call them with a name that the user has typed, or
check :attr:`ModelReference.trusted` first.
"""

import inspect
import reprlib
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from torch import nn

from pretrim.errors import ModelError, UsageError, channels_last_hint, shown

from . import BUILTIN, userfile, zoo

_CHANNEL_PARAMETERS = ("in_channels", "in_chans")
_SIZE_PARAMETERS = ("image_size", "img_size", "input_size")
_PARAMETERS = ("num_classes", *_CHANNEL_PARAMETERS, *_SIZE_PARAMETERS)
_TORCHVISION = "torchvision:"
_TIMM = "timm:"


@dataclass(frozen=True)
class ModelReference:
    """What rebuilds a network: its name and the arguments of its builder. Plain JSON.

    `name` is what the user typed. `arguments` are positive integers under the names that a builder may take:
    num_classes, in_channels, in_chans, image_size, img_size, input_size (image height and width in pixels).
    Nothing else is accepted, so that a reference from a stranger's run folder cannot ask torchvision or timm for
    weights. Raises `UsageError` for any other type, name or number.

    >>> ModelReference("vgg16", {"num_classes": 100}).to_json()
    {'name': 'vgg16', 'arguments': {'num_classes': 100}}
    """

    name: str
    arguments: Mapping[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise UsageError(f"Expected the name of a model to be text, but got {shown(self.name)}.")
        if not isinstance(self.arguments, Mapping):
            raise UsageError(f"Expected a model's arguments to be a mapping, but got {shown(self.arguments)}.")
        for name, value in self.arguments.items():
            if name not in _PARAMETERS:
                known = ", ".join(_PARAMETERS)
                raise UsageError(f"Expected a model's arguments to be among {known}, but got {shown(name)}.")
            _check_positive(name, value)
        object.__setattr__(self, "arguments", dict(self.arguments))

    @property
    def trusted(self) -> bool:
        """Whether the network is rebuilt from pretrim, torchvision or timm, without running a user's file."""
        return self.name in BUILTIN or self.name.startswith((_TORCHVISION, _TIMM))

    def to_json(self) -> dict[str, object]:
        """Return the reference as JSON data for `from_json`."""
        return {"name": self.name, "arguments": dict(self.arguments)}

    @classmethod
    def from_json(cls, data: object) -> "ModelReference":
        """Read the output of `to_json`. Raises `UsageError` if `data` is anything else."""
        if not isinstance(data, Mapping) or set(data) != {"name", "arguments"}:
            raise UsageError(f"Expected a model reference to be {{name, arguments}}, but got {reprlib.repr(data)}.")
        return cls(data["name"], data["arguments"])


def resolve(name: str, *, num_classes: int | None = None, input_shape: tuple[int, ...] | None = None) -> ModelReference:
    """Find the model `name`, and choose the arguments that its builder takes.

    Args:
        name: built-in name, ``torchvision:NAME``, ``timm:NAME``, or ``FILE.py:FUNCTION`` (runs the file).
        num_classes: number of outputs; None: the builder's default.
        input_shape: (channels, height, width) of one image, (channels, length) of a signal, (channels, depth, height,
            width) of a volume; None: the builder's default.

    A function in a user's file is passed those of num_classes, in_channels (or in_chans) and image_size (or img_size,
    or input_size) that its signature names, or nothing. An image size is one integer, so images have to be square if
    a builder takes it.

    Raises `UsageError` for an invalid name or number, `ModelError` if the user's file cannot be imported.
    """
    if num_classes is not None:
        _check_positive("num_classes", num_classes)
    if input_shape is not None:
        _check_shape(name, input_shape)
    builder = _builder(name)
    arguments = _chosen_arguments(name, _parameters(name, builder, input_shape), num_classes, input_shape)
    _check_call(name, builder, arguments)
    return ModelReference(name, arguments)


def build(reference: ModelReference) -> nn.Module:
    """Build the network of a reference, freshly initialised; nothing is downloaded. A user's file is run.

    Raises `UsageError` for an unknown name and for arguments that its builder does not take, `ModelError` with the
    builder's own error if it raises one, or if it does not return a `torch.nn.Module`.
    """
    name, arguments = reference.name, reference.arguments
    builder = _builder(name)
    _check_call(name, builder, arguments)
    file = _user_file(name)
    path = None if file is None else file[0]
    siblings = nullcontext() if path is None else userfile.siblings_importable(path)
    with userfile.own_errors(f"{name} did not build a network from {_shown(arguments)}", path), siblings:
        network = builder(**arguments)
    if not isinstance(network, nn.Module):
        raise ModelError(f"Expected {name} to return a torch.nn.Module, but it returned a {type(network).__name__}.")
    return network


def _user_file(name: str) -> tuple[Path, str] | None:
    """Return file and function of a name of the form ``FILE.py:FUNCTION``; None for any other name."""
    path, colon, function = name.rpartition(":")
    if name.startswith((_TORCHVISION, _TIMM)) or not colon or not path.endswith(".py"):
        return None
    return Path(path), function


def _builder(name: str) -> Callable[..., object]:
    """Return the function that builds the network `name`. Raises `UsageError` if there is none."""
    if name in BUILTIN:
        return BUILTIN[name]
    if name.startswith(_TORCHVISION):
        return zoo.torchvision_builder(name.removeprefix(_TORCHVISION))
    if name.startswith(_TIMM):
        return zoo.timm_builder(name.removeprefix(_TIMM))
    if (file := _user_file(name)) is not None:
        return userfile.load_function(*file)
    raise UsageError(unknown(name))


def check_name(name: str) -> None:
    """Raise what `resolve` does for an unknown name; a user's file is run once, however often it is needed."""
    _builder(name)


def is_model(name: str) -> bool:
    """Whether a name has the form of a model name, whether or not the model exists."""
    return name in BUILTIN or name.startswith((_TORCHVISION, _TIMM)) or _user_file(name) is not None


def unknown(name: str, also: str = "") -> str:
    """Return an error message for an unknown model name, with a suggestion if there is one.

    Args:
        name: as it was typed.
        also: what else could have been named there: ``"a run's folder or "``.
    """
    if name.endswith(".py"):
        return f"Expected FILE.py:FUNCTION, but got '{name}'. Name the function as well, as in {name}:build."
    forms = ", ".join((*BUILTIN, f"{_TORCHVISION}NAME", f"{_TIMM}NAME", "FILE.py:FUNCTION"))
    return f"Expected {also}a model that pretrim knows ({forms}), but got '{name}'.{_suggestion(name)}"


def _suggestion(name: str) -> str:
    """Suggest what an unknown model name may have meant; empty if nothing is similar."""
    if close := get_close_matches(name.lower().replace("-", "").replace("_", ""), BUILTIN, n=2):
        return f" Did you mean {' or '.join(close)}?"
    module, colon, function = name.rpartition(":")
    if colon and (file := Path(f"{module.replace('.', '/')}.py")).is_file():
        return f" Did you mean {file}:{function}?"
    if name and Path(name).is_dir():
        return " That is a folder: of a run, name the network that it was made from."
    return ""


def _parameters(name: str, builder: Callable[..., object], input_shape: tuple[int, ...] | None) -> Collection[str]:
    """Return the names of the arguments that a builder takes."""
    if name.startswith(_TORCHVISION):
        return zoo.torchvision_parameters(name.removeprefix(_TORCHVISION))
    if name.startswith(_TIMM):
        return zoo.timm_parameters(name.removeprefix(_TIMM), _image_size(input_shape))
    return inspect.signature(builder).parameters


def _chosen_arguments(
    name: str, parameters: Collection[str], num_classes: int | None, input_shape: tuple[int, ...] | None
) -> dict[str, int]:
    """Return the known properties of the data under the argument names that the builder takes."""
    known = {} if num_classes is None else {"num_classes": num_classes}
    if input_shape is not None:
        channels, *sizes = input_shape
        known |= dict.fromkeys(_CHANNEL_PARAMETERS, channels) | dict.fromkeys(_SIZE_PARAMETERS, sizes[0])
        if len({*sizes}) > 1 and (size_parameters := [size for size in _SIZE_PARAMETERS if size in parameters]):
            got = "x".join(map(str, sizes))
            raise UsageError(
                f"Expected square images for {name} (its {size_parameters[0]} is one number), but got {got}."
            )
    return {parameter: value for parameter, value in known.items() if parameter in parameters}


def _check_call(name: str, builder: Callable[..., object], arguments: Mapping[str, int]) -> None:
    """Raise `UsageError` if a builder's signature does not allow these arguments."""
    try:
        inspect.signature(builder).bind(**arguments)
    except TypeError as error:
        raise UsageError(
            f"Expected {name} to be callable with {_shown(arguments)}, but Python says: {error}. "
            "A builder is given those of num_classes, in_channels and image_size that are known and that its "
            "signature names; anything else needs a default."
        ) from error


def _image_size(input_shape: tuple[int, ...] | None) -> tuple[int, int] | None:
    """Return (height, width) of an image; None for any other input."""
    return (input_shape[1], input_shape[2]) if input_shape is not None and len(input_shape) == 3 else None


def _check_shape(name: str, input_shape: tuple[int, ...]) -> None:
    dimensions = (2, 3, 4) if _user_file(name) is not None else (3,)
    if len(input_shape) not in dimensions:
        others = ", (channels, length) or (channels, depth, height, width)" if len(dimensions) > 1 else ""
        raise UsageError(f"Expected input_shape to be (channels, height, width){others}, but got {input_shape}.")
    parts = ("channels", "height", "width") if len(input_shape) == 3 else ("channels", "length", "height", "width")
    for part, value in zip(parts, input_shape, strict=False):
        _check_positive(part, value)
    if _user_file(name) is None and (swap_hint := channels_last_hint(input_shape)):
        got = "x".join(map(str, input_shape))
        raise UsageError(f"Expected the input of {name} as channels x height x width, but got {got}.{swap_hint}")
    if name.startswith(_TORCHVISION) and input_shape[0] != 3:
        raise UsageError(
            f"Expected images of 3 channels for {name}, as for all of torchvision, but got {input_shape[0]}. "
            f"Use a network of {_TIMM} or a function of your own that changes the first convolution."
        )


def _check_positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"Expected {name} to be a positive integer, but got {shown(value)}.")


def _shown(arguments: Mapping[str, int]) -> str:
    """Format arguments as in a call."""
    return ", ".join(f"{name}={value}" for name, value in arguments.items()) or "no arguments"

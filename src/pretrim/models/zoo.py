"""torchvision and timm, imported on first use, and their networks without weights.

Both are optional: ``pip install 'pretrim[zoo]'``. Nothing here ever downloads: networks keep the random weights of
their own initialisation.
"""

import importlib
import inspect
import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from types import ModuleType
from typing import Any

import torch

from pretrim.errors import UsageError

# Operators defined by torchvision's compiled extension, for which it registers Python code at import.
_COMPILED_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# Builders that raise a FutureWarning unless init_weights is given; True is their default.
_NEEDS_INIT_WEIGHTS = ("googlenet", "inception_v3")
# torchvision families with a fixed image size, which their builders take in **kwargs.
_TORCHVISION_SIZES = {"vit_": "image_size", "maxvit_": "input_size"}

_shim: torch.library.Library | None = None  # an operator lives as long as the Library that defined it


def torchvision() -> ModuleType:
    """Import torchvision, even if its compiled extension does not fit the installed torch.

    A torchvision built for CUDA cannot load its compiled operators into a CPU-only torch, and then fails at import
    because it registers Python code for two operators that do not exist. Only in that case are the two defined (without
    an implementation: ``torchvision.ops.nms`` cannot be called) and the import is tried again.

    Raises `UsageError` if torchvision cannot be imported.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if not lacks_compiled_half(error):
            raise _import_error("torchvision", error) from error
    except ImportError as error:
        raise _import_error("torchvision", error) from error
    return _torchvision_without_compiled_half()


def lacks_compiled_half(error: BaseException) -> bool:
    """Whether an import failed because torchvision's compiled extension does not fit the installed torch."""
    return isinstance(error, RuntimeError) and "operator torchvision::" in str(error)


def _torchvision_without_compiled_half() -> ModuleType:
    """Import torchvision again, with the operators of its compiled extension declared."""
    global _shim
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _shim = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _COMPILED_OPERATORS:
        _shim.define(schema)  # type: ignore[no-untyped-call]
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise _import_error("torchvision", error) from error


def timm() -> ModuleType:
    """Import timm, which needs torchvision. Raises `UsageError` if either cannot be imported."""
    torchvision()
    try:
        return importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:
        raise _import_error("timm", error) from error


def _import_error(package: str, error: Exception) -> UsageError:
    message = " ".join(str(error).split())
    return UsageError(
        f"Cannot import the package {package} ({type(error).__name__}: {message}). "
        "Install it with: pip install 'pretrim[zoo]' "
        "(with a CPU-only torch: pip install --no-deps torchvision timm)."
    )


def torchvision_builder(name: str) -> Callable[..., object]:
    """Return the builder of the torchvision network `name`, for any task, without weights.

    It takes the keyword arguments of :func:`torchvision_parameters`. Raises `UsageError` for an unknown name.
    """
    models = torchvision().models
    _check_known("torchvision", name, models.list_models(), "torchvision.models.list_models()")
    builder = models.get_model_builder(name)
    options: dict[str, object] = {"weights": None}
    if "weights_backbone" in inspect.signature(builder).parameters:
        options["weights_backbone"] = None  # its default downloads
    if name.removeprefix("quantized_") in _NEEDS_INIT_WEIGHTS:
        options["init_weights"] = True
    if name.startswith("maxvit_"):
        return lambda input_size=224, **rest: builder(input_size=(input_size, input_size), **options, **rest)
    return partial(builder, **options)


def torchvision_parameters(name: str) -> frozenset[str]:
    """Return which of pretrim's arguments the torchvision network `name` takes."""
    sizes = {parameter for family, parameter in _TORCHVISION_SIZES.items() if name.startswith(family)}
    return frozenset({"num_classes", *sizes})


def timm_builder(name: str) -> Callable[..., object]:
    """Return the builder of the timm network `name` (optionally with a tag after a dot), without weights.

    It takes the keyword arguments of :func:`timm_parameters`. Raises `UsageError` for an unknown name, including
    ``hf-hub:`` and ``local-dir:`` names, for which timm reads a configuration from elsewhere.
    """
    _check_known("timm", name.partition(".")[0], timm().list_models(), "timm.list_models()")
    _timm_config(name)
    return partial(timm().create_model, name, pretrained=False)


def timm_parameters(name: str, image_size: tuple[int, int] | None) -> frozenset[str]:
    """Return which of pretrim's arguments the timm network `name` takes, for images of (height, width) pixels.

    A timm builder accepts any keyword, so its signature says nothing. ``img_size`` is included only for a network that
    timm marks as made for a fixed size, and only if the images have another size: timm's own rule, in
    ``timm.models._factory.resolve_model_input_args``.
    """
    config = _timm_config(name)
    is_fixed_size = config is not None and config.fixed_input_size
    if is_fixed_size and image_size is not None and tuple(config.input_size[1:]) != image_size:
        return frozenset({"num_classes", "in_chans", "img_size"})
    return frozenset({"num_classes", "in_chans"})


def _timm_config(name: str) -> Any:
    """Return timm's metadata of a network (``PretrainedCfg``). Raises `UsageError` for an unknown tag."""
    try:
        return timm().models.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise UsageError(f"Expected a tag that timm has, but got 'timm:{name}': {error} Leave it out.") from error


def _check_known(package: str, name: str, known: list[str], listing: str) -> None:
    if name not in known:
        close = [f"{package}:{match}" for match in get_close_matches(name, known, n=3)]
        hint = f"Did you mean {', '.join(close)}?" if close else f"{listing} names them all."
        raise UsageError(f"Expected a model that {package} has, but got '{package}:{name}'. {hint}")

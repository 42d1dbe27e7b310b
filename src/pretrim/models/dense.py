"""A dense network with its analysis and what is needed to rebuild it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn

from pretrim.analysis.analyze import analyze
from pretrim.analysis.copies import copy_module
from pretrim.analysis.network import Network
from pretrim.errors import ModelError, UsageError, shown

from .patience import limited
from .resolve import ModelReference, build, resolve
from .resolve import check_name as check_reference

ModelSource: TypeAlias = str | nn.Module | Callable[[], nn.Module]
"""A name as on the command line, a module, or a function that builds one."""
Shape: TypeAlias = tuple[int, ...]
"""Number of channels, then one to three spatial sizes."""


@dataclass(frozen=True)
class DenseModel:
    """A dense network.

    Attributes:
        source: what it was built from.
        reference: name and arguments that rebuild it; None for a module or function of the caller's.
        input_shape: (channels, height, width) of one image.
        module: the network.
        network: its analysis.
    """

    source: ModelSource
    reference: ModelReference | None
    input_shape: Shape
    module: nn.Module
    network: Network

    @property
    def name(self) -> str:
        """Name to show to the user."""
        return self.reference.name if self.reference is not None else type(self.module).__name__

    @property
    def forward(self) -> dict[str, str] | None:
        """What the network computes (`Network.forward`), if the user can change it; None for networks of libraries."""
        is_user_code = self.reference is None or not self.reference.trusted
        return self.network.forward if is_user_code else None

    def fresh(self, seed: int) -> nn.Module:
        """Return the dense network with weights initialised from a seed, or a copy of the caller's module as given."""
        torch.manual_seed(seed)
        if self.reference is not None:
            return build(self.reference)
        return copy_module(self.module) if isinstance(self.source, nn.Module) else _build(self.source)


def open_model(source: ModelSource, shape: Shape, classes: int | None, seed: int = 0) -> DenseModel:
    """Build a model, and analyse it on one image of zeros.

    Args:
        source: name, module or function.
        shape: (channels, height, width) of one image.
        classes: number of outputs, if the named builder takes it.
        seed: seed of the initial weights.

    Raises:
        UsageError: no such model, or an input that does not fit in memory.
        ModelError: building or its forward pass fails, or exceeds a time limit (`patience.py`).
    """
    with limited(source if isinstance(source, str) else "the network"):
        return _open(source, shape, classes, seed)


def check_name(source: ModelSource) -> None:
    """Raise, before data are read, what `open_model` does for an unknown name or a file that cannot be run."""
    if isinstance(source, str):
        with limited(source):
            check_reference(source)


def _open(source: ModelSource, shape: Shape, classes: int | None, seed: int) -> DenseModel:
    reference = resolve(source, num_classes=classes, input_shape=shape) if isinstance(source, str) else None
    torch.manual_seed(seed)
    module = build(reference) if reference is not None else _build(source)
    try:
        example = torch.zeros(1, *shape)
    except RuntimeError as error:
        size = "x".join(map(str, shape))
        raise UsageError(f"An input of {size} does not fit in memory: give a smaller one.") from error
    device = next((parameter.device for parameter in module.parameters()), example.device)
    return DenseModel(source, reference, shape, module, analyze(module, example.to(device)))


def _build(source: ModelSource) -> nn.Module:
    if isinstance(source, nn.Module):
        return source
    built = called(source) if callable(source) else source
    if not isinstance(built, nn.Module):
        raise ModelError(
            f"Expected a torch.nn.Module, its name or a function that returns one, but got {shown(built)}."
        )
    return built


def called(build: Callable[[], nn.Module]) -> object:
    """Call a user's function or class, and return what it builds. Raises ModelError with a TypeError's message."""
    try:
        return build()
    except TypeError as error:
        name, message = getattr(build, "__name__", "the function"), str(error).splitlines()[0]
        raise ModelError(
            f"{name}() did not build a network: {message}. Give a module, or a function without required arguments."
        ) from error

"""A dense network with what rebuilds it and what was found out about it."""

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
"""A name as on the command line, a module, or a function that builds one"""
Shape: TypeAlias = tuple[int, ...]
"""Channels, then one to three spatial sizes"""


@dataclass(frozen=True)
class DenseModel:
    """A dense network.

    Attributes:
        source: what it was made from.
        reference: what rebuilds it by name; None for a module or function of the caller's.
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
        """For people."""
        return self.reference.name if self.reference is not None else type(self.module).__name__

    @property
    def forward(self) -> dict[str, str] | None:
        """What the network computes (`Network.forward`), where the user can change it; None for those of libraries."""
        is_theirs = self.reference is None or not self.reference.trusted
        return self.network.forward if is_theirs else None

    def fresh(self, seed: int) -> nn.Module:
        """The dense network with initial weights of a seed; a module of the caller's as it was given, in a copy."""
        torch.manual_seed(seed)
        if self.reference is not None:
            return build(self.reference)
        return copy_module(self.module) if isinstance(self.source, nn.Module) else _built(self.source)


def open_model(source: ModelSource, shape: Shape, classes: int | None, seed: int = 0) -> DenseModel:
    """Build a model, and analyse it on one image of zeros.

    Args:
        source: name, module or function.
        shape: (channels, height, width) of one image.
        classes: number of outputs, where the builder of a name takes it.
        seed: of the initial weights.

    Raises:
        UsageError: no such model, or an input that does not fit in memory.
        ModelError: it cannot be built, its forward fails, or does not end within a limit (`patience.py`).
    """
    with limited(source if isinstance(source, str) else "the network"):
        return _opened(source, shape, classes, seed)


def check_name(source: ModelSource) -> None:
    """Raises, before data are read, what `open_model` does for the name of no model, or a file that cannot be run."""
    if isinstance(source, str):
        with limited(source):
            check_reference(source)


def _opened(source: ModelSource, shape: Shape, classes: int | None, seed: int) -> DenseModel:
    reference = resolve(source, num_classes=classes, input_shape=shape) if isinstance(source, str) else None
    torch.manual_seed(seed)
    module = build(reference) if reference is not None else _built(source)
    try:
        example = torch.zeros(1, *shape)
    except RuntimeError as error:
        asked = "x".join(map(str, shape))
        raise UsageError(f"An input of {asked} does not fit in memory: give a smaller one.") from error
    device = next((parameter.device for parameter in module.parameters()), example.device)
    return DenseModel(source, reference, shape, module, analyze(module, example.to(device)))


def _built(source: ModelSource) -> nn.Module:
    if isinstance(source, nn.Module):
        return source
    made = called(source) if callable(source) else source
    if not isinstance(made, nn.Module):
        raise ModelError(f"Expected a torch.nn.Module, its name or a function that returns one, but got {shown(made)}.")
    return made


def called(build: Callable[[], nn.Module]) -> object:
    """What a caller's function, or class, builds. Raises ModelError with its own error."""
    try:
        return build()
    except TypeError as error:
        name, said = getattr(build, "__name__", "the function"), str(error).splitlines()[0]
        raise ModelError(f"{name}() did not build a network: {said}. Give a module, or a function of none.") from error

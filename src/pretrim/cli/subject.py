"""The network that a command is about: built by its name, and analysed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pretrim.errors import UsageError

from .options import Shape

if TYPE_CHECKING:
    from torch import nn

    from pretrim.analysis.network import Network
    from pretrim.models.resolve import ModelReference


@dataclass(frozen=True)
class Subject:
    """A dense network, what rebuilds it, and what was found out about it."""

    reference: ModelReference
    input_shape: Shape
    module: nn.Module
    network: Network


def open_model(name: str, shape: Shape, classes: int | None, seed: int = 0) -> Subject:
    """Build a model with weights from `seed` and analyse it on one image of zeros.

    Raises:
        UsageError: no such model. ModelError: it cannot be built, or its forward fails.
    """
    import torch

    from pretrim.analysis.analyze import analyze
    from pretrim.models.resolve import build, resolve

    reference = resolve(name, num_classes=classes, input_shape=shape)
    torch.manual_seed(seed)
    module = build(reference)
    try:
        example = torch.zeros(1, *shape)
    except RuntimeError as error:
        asked = "x".join(map(str, shape))
        raise UsageError(f"Expected an input that fits in memory, but got {asked}: give a smaller one.") from error
    return Subject(reference, shape, module, analyze(module, example))


def without_none(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that have a value."""
    return {name: value for name, value in entries.items() if value is not None}

"""Layers in a plain list, dict or object: they run, but PyTorch does not register them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from .closures import copied_along, reachable
from .copies import OF_EVERY_MODULE


def unregistered_notes(model: nn.Module) -> Iterator[str]:
    """Notes on layers that PyTorch neither trains nor saves, one per attribute."""
    registered = {id(module) for module in model.modules()}
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            inside = list(reachable(value, copied_along, set())) if attribute not in OF_EVERY_MODULE else []
            unregistered = [layer for layer in inside if isinstance(layer, nn.Module) and id(layer) not in registered]
            if any(True for layer in unregistered for _ in layer.parameters()):
                where = f"{name}.{attribute}" if name else attribute
                yield (
                    f"PyTorch does not see the layers in {where}: it neither trains nor saves them, and they stay as "
                    f"they are; keep them in an nn.ModuleList or nn.ModuleDict"
                )

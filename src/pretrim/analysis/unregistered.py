"""Layers in a plain list, dict or object: they run, but PyTorch does not see them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from .closures import copied_along, reachable
from .copies import OF_EVERY_MODULE


def unregistered_notes(model: nn.Module) -> Iterator[str]:
    """What is said of layers that PyTorch neither trains nor saves, attribute by attribute."""
    registered = {id(module) for module in model.modules()}
    for name, module in model.named_modules():
        for attribute, held in vars(module).items():
            found = list(reachable(held, copied_along, set())) if attribute not in OF_EVERY_MODULE else []
            missed = [one for one in found if isinstance(one, nn.Module) and id(one) not in registered]
            if any(True for one in missed for _ in one.parameters()):
                where = f"{name}.{attribute}" if name else attribute
                yield (
                    f"PyTorch does not see the layers in {where}: it neither trains nor saves them, and they stay as "
                    f"they are; keep them in an nn.ModuleList or nn.ModuleDict"
                )

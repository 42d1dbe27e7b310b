"""Run a model on meta tensors, which have shapes but no memory, so without arithmetic.

torch's `FakeTensorMode` does the same and more (devices, symbolic sizes), but imports torch's compiler and sympy for
it: two seconds for every command, and then several times the cost of a meta kernel lookup for each operator.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from .copies import tensors_in
from .meta_kernels import KERNELS, META


class ReadsValues(RuntimeError):
    """Raised when `forward` reads a value, or needs a shape that depends on values."""


class MetaMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps a run on meta tensors: new tensors are meta tensors, and constants combined with one become meta too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [*tensors_in(args, kwargs)]
        has_meta = any(tensor.is_meta for tensor in tensors)
        if tensors and not has_meta:  # operators on constants alone keep their values
            return func(*args, **kwargs)
        if has_meta and depends_on_values(func) and not is_by_position(func, args):
            raise ReadsValues(f"{func} depends on values")
        if takes_device(func):
            kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"} | {"device": META}
        if not all(tensor.is_meta for tensor in tensors):
            if func._schema.is_mutable and not args[0].is_meta:
                raise ReadsValues(f"{func} writes into a constant")
            args, kwargs = tree_map(without_values, (args, kwargs))
        kernel = KERNELS.get(func)
        result = kernel(*args, **kwargs) if kernel is not None else NotImplemented
        return func(*args, **kwargs) if result is NotImplemented else result

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Otherwise torch imports its compiler, only to keep it from compiling this mode."""
        return False


def without_values(leaf: Any) -> Any:
    """A meta tensor with the same shape, strides and dtype; anything else is returned as it is."""
    if not isinstance(leaf, Tensor) or leaf.is_meta:
        return leaf
    new = torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=META)
    return nn.Parameter(new, leaf.requires_grad) if isinstance(leaf, nn.Parameter) else new


@cache
def depends_on_values(func: Any) -> bool:
    """Whether the result or its shape cannot be known from the input shapes alone."""
    tags = getattr(func, "tags", ())
    return torch.Tag.data_dependent_output in tags or torch.Tag.dynamic_output_shape in tags


def is_by_position(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether an `index` operator selects by integer positions, not by a boolean mask."""
    if func is not torch.ops.aten.index.Tensor:
        return False
    return all(index is None or index.dtype not in (torch.bool, torch.uint8) for index in args[1])


@cache
def takes_device(func: Any) -> bool:
    """Whether the operator has a `device` argument."""
    schema = getattr(func, "_schema", None)
    return schema is not None and any(argument.name == "device" for argument in schema.arguments)

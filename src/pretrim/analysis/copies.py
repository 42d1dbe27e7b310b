"""Copy a user's model with other tensors, and call the copy: the caller's own model is never run or changed."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from pretrim.errors import ModelError

from .closures import deepcopy_with_closures

Example: TypeAlias = torch.Tensor | tuple[Any, ...] | dict[str, Any]

TORCH = str(Path(torch.__file__).parent)
HERE = str(Path(__file__).parent)
OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def clone_module(model: nn.Module, replace: Callable[[str, torch.Tensor], torch.Tensor]) -> nn.Module:
    """Copy a model with every parameter and buffer replaced; shared tensors stay shared, the model is not touched.

    `replace` gets the first name of a tensor and the tensor. Tensors stored as plain attributes, or in lists and dicts
    there, are cloned, even if they are part of an autograd graph (features stored by a hook). Functions that refer to
    parts of the model refer to those of the copy.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        attributes = [value for name, value in vars(module).items() if name not in OF_EVERY_MODULE]
        for value in tree_leaves(attributes):
            if isinstance(value, torch.Tensor):
                memo[id(value)] = value.detach().clone()
    for name, tensor in named_tensors(model):
        memo[id(tensor)] = replace(name, tensor)
    try:
        return deepcopy_with_closures(model, memo)
    except Exception as error:  # whatever the model stores that Python cannot copy
        raise ModelError(
            f"The model cannot be copied (copy.deepcopy raised {describe_failure(error)}): "
            f"keep out of its attributes what cannot be copied (open files, generators, locks)."
        ) from error


def copy_module(model: nn.Module) -> nn.Module:
    """Copy a model with its values; `copy.deepcopy` alone rejects tensors left behind by a hook or a weight norm."""
    return clone_module(model, lambda _, tensor: retype(tensor.detach().clone(), tensor))


def named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter and buffer once, under its first name."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def describe_failure(error: BaseException) -> str:
    """One line with the type, message and location of an error raised inside the user's own code."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((TORCH, HERE))]
    location = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    message_lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {message_lines[0] if message_lines else ''}{location}"


def call_model(model: nn.Module, example: Example) -> Any:
    """Call the model with the example: a tensor, a tuple of arguments, or a dict of named arguments."""
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, (tuple, list)) else model(example)


def tensors_in(*values: Any) -> Iterator[torch.Tensor]:
    """The tensors among an operator's arguments or results, also in lists and dicts (torch's own pytrees are slow)."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(*value)
        elif isinstance(value, dict):
            yield from tensors_in(*value.values())


def with_batch(example: Example, size: int) -> Example:
    """The same example with `size` images: the first image, repeated.

    Tensors whose first dimension differs from that of the first tensor (such as edges of a graph) are not batches and
    stay as they are.
    """
    images = next((len(leaf) for leaf in tree_leaves(example) if isinstance(leaf, torch.Tensor) and leaf.dim()), size)

    def resize(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or leaf.dim() == 0 or leaf.shape[0] != images:
            return leaf
        if images == 0:
            raise ModelError(f"Expected an example with at least one image, but got a shape of {tuple(leaf.shape)}.")
        return leaf[:1].expand(size, *leaf.shape[1:]).contiguous()

    return tree_map(resize, example)  # type: ignore[no-any-return]


def check_eager(model: nn.Module) -> None:
    """Raise ModelError for modules that have no Python code, or whose parameters have no shapes yet."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and (not name or any(True for _ in named_tensors(module))):
            where = f" in {name}" if name else ""
            raise ModelError(
                f"Expected a module in eager mode, but got a TorchScript module{where}: give the Python model."
            )
    if any(nn.parameter.is_lazy(p) for p in model.parameters()):
        raise ModelError("Expected a model whose parameters have shapes, but got a lazy one: run it once first.")


def retype(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """Make `new` a parameter if `old` is one."""
    return nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new

"""Load trained weights of a dense network from a user's file: safetensors, or a .pth file of tensors only."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from torch import nn

from pretrim.errors import CheckpointError, UsageError

PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".tar")
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params_ema", "params", "state_dict_ema")
"""Keys under which training scripts store a state dict beside the optimiser's."""
COUNTERS = ("total_ops", "total_params")
"""Entries that profilers (thop) leave in a state dict."""


def load_weights(model: nn.Module, path: str | Path) -> str:
    """Copy all weights of a file into a model **in place**.

    Args:
        model: the dense network, with the number of classes that it was trained for.
        path: a ``.safetensors`` file, or a ``.pth``, ``.pt``, ``.bin`` or ``.ckpt`` file that ``torch.load`` reads with
            ``weights_only=True``. The state dict may be nested under ``"state_dict"`` or ``"model"``, and its names may
            start with ``"module."``.

    Returns:
        The SHA-256 of the file.

    Raises:
        UsageError: no such file, or an unsupported file type.
        CheckpointError: the file is damaged, holds code, or belongs to another network.
    """
    file = Path(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read the weights in {file} ({error.strerror}): check the path.") from error
    tensors = _with_names_of(model, _tensors(file, content))
    expected = model.state_dict()
    # Older files lack the batch counters of batch norms, which pretrim never reads.
    missing = [name for name in expected if name not in tensors and not name.endswith("num_batches_tracked")]
    extra = [name for name in tensors if name not in expected]
    if missing or extra:
        mismatch = f"{missing[0]} is missing" if missing else f"{extra[0]} is not in the model"
        first_name = f" (the first of its {len(tensors)} names is {next(iter(tensors))})" if tensors else ""
        raise CheckpointError(
            f"Expected the weights of this network in {file}, but {mismatch}{first_name}: name the network they are of."
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"Expected {name} of {file} to be {tuple(expected[name].shape)}, but it is {tuple(tensor.shape)}: "
                f"give the network, and data with the classes, that it was trained for."
            )
    for name, tensor in tensors.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and not tensor.isfinite().all():
            raise CheckpointError(
                f"Expected finite weights in {file}, but {name} holds NaN or infinity: train it again."
            )
    model.load_state_dict(tensors, strict=False)
    return hashlib.sha256(content).hexdigest()


def _tensors(file: Path, content: bytes) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        try:
            return read_tensors(content)
        except (SafetensorError, ValueError, KeyError) as error:
            raise CheckpointError(f"Cannot read {file} as safetensors ({error}): copy it again.") from error
    if file.suffix not in PICKLED:
        raise UsageError(f"Expected weights in .safetensors or .pth, but got {file.name}: save them as safetensors.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about unusual pickles, which are refused below
            saved = torch.load(file, map_location="cpu", weights_only=True)
        return _state_dict(saved)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"Expected tensors alone in {file}, but it holds objects that only running its code would rebuild: "
            f"save model.state_dict() instead."
        ) from error
    except Exception as error:  # torch raises many types for damaged files, which mean the same to the user
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"Cannot read {file} as a file of torch.save ({reason}): copy it again.") from error


def _state_dict(saved: Any) -> dict[str, torch.Tensor]:
    """Extract the state dict from what a training script saved."""
    for key in WRAPPERS:
        if isinstance(saved, Mapping) and isinstance(saved.get(key), Mapping):
            saved = saved[key]
            break
    if not isinstance(saved, Mapping) or not all(isinstance(value, torch.Tensor) for value in saved.values()):
        raise TypeError(f"it holds {type(saved).__name__}, not a state dict")
    return {str(name): tensor for name, tensor in saved.items()}


def _with_names_of(model: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename tensors to the model's names by removing a prefix that all of them have and the model's names lack.

    DistributedDataParallel, torch.compile and Lightning prefix names with ``module.``, ``_orig_mod.`` or an attribute.
    """
    expected = model.state_dict().keys()
    tensors = {name: t for name, t in tensors.items() if name in expected or name.rpartition(".")[2] not in COUNTERS}
    first = next(iter(expected), "")
    for prefix in [name.removesuffix(first) for name in tensors if name.endswith(f".{first}")]:
        if all(name.startswith(prefix) and name not in expected for name in tensors):
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors

"""Trained weights of a dense network, from a file of the user: safetensors, or a .pth that holds tensors alone."""

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
"""Keys that training scripts keep a state dict under, beside the optimiser's."""
COUNTERS = ("total_ops", "total_params")
"""What profilers (thop) leave in a state dict."""


def load_weights(model: nn.Module, path: str | Path) -> str:
    """Copy a file's weights into a model **in place**, every tensor of it.

    Args:
        model: the dense network, with as many classes as it was trained with.
        path: a ``.safetensors`` file, or a ``.pth``, ``.pt``, ``.bin`` or ``.ckpt`` file that ``torch.load`` reads with
            ``weights_only=True``. A state dict may lie under ``"state_dict"`` or ``"model"``, its names may begin with
            ``"module."``.

    Returns:
        The SHA-256 of the file.

    Raises:
        UsageError: no such file, or a kind that is not read.
        CheckpointError: the file is damaged, holds code, or is of another network.
    """
    file = Path(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read the weights in {file} ({error.strerror}): check the path.") from error
    tensors = _named_as(model, _tensors(file, content))
    wanted = model.state_dict()
    # Counters of batch norms are newer than many files; nothing that pretrim does reads them.
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    extra = [name for name in tensors if name not in wanted]
    if missing or extra:
        what = f"{missing[0]} is missing" if missing else f"{extra[0]} is not in the model"
        first = f" (the first of its {len(tensors)} names is {next(iter(tensors))})" if tensors else ""
        raise CheckpointError(
            f"Expected the weights of this network in {file}, but {what}{first}: name the network they are of."
        )
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(
                f"Expected {name} of {file} to be {tuple(wanted[name].shape)}, but it is {tuple(tensor.shape)}: "
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
            warnings.simplefilter("ignore")  # of unusual pickles, which are refused below
            found = torch.load(file, map_location="cpu", weights_only=True)
        return _state_dict(found)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"Expected tensors alone in {file}, but it holds objects that only running its code would rebuild: "
            f"save model.state_dict() instead."
        ) from error
    except Exception as error:  # torch raises many kinds for damaged files; each means the same to the user
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"Cannot read {file} as a file of torch.save ({said}): copy it again.") from error


def _state_dict(found: Any) -> dict[str, torch.Tensor]:
    """The state dict of what a training script saved."""
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise TypeError(f"it holds {type(found).__name__}, not a state dict")
    return {str(name): tensor for name, tensor in found.items()}


def _named_as(model: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same under the model's names: a prefix that all names have, and the model's have not, is taken off.

    DistributedDataParallel, torch.compile and Lightning put ``module.``, ``_orig_mod.`` or an attribute before a name.
    """
    wanted = model.state_dict().keys()
    tensors = {name: t for name, t in tensors.items() if name in wanted or name.rpartition(".")[2] not in COUNTERS}
    first = next(iter(wanted), "")
    for prefix in [name.removesuffix(first) for name in tensors if name.endswith(f".{first}")]:
        if all(name.startswith(prefix) and name not in wanted for name in tensors):
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors

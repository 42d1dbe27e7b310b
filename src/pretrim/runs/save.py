"""Write a run folder atomically."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as tensors_to_bytes
from torch import nn

from pretrim.analysis.identity import fingerprint
from pretrim.errors import CheckpointError, UsageError, check_is
from pretrim.files import write_text, write_together
from pretrim.models.resolve import ModelReference
from pretrim.surgery.apply import plan_of

from .card import model_card
from .folder import (
    not_writable,
    prepare_output,
    replace_folder,
    temporary_beside,
)
from .record import (
    CARD,
    RECORD,
    WEIGHTS,
    RunRecord,
    check_results,
    checked_classes,
    checked_pair,
    checked_shape,
    image_shape,
)


def save(
    slim: nn.Module,
    path: str | Path,
    *,
    reference: ModelReference | None = None,
    classes: Sequence[str] | None = None,
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None,
    input_shape: Sequence[int] | None = None,
    data: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
    forward: Mapping[str, str] | None = None,
    overwrite: bool = False,
    into: bool = False,
) -> None:
    """Write a slim network, which carries its plan, to a new run folder, atomically.

    Args:
        slim: a network returned by ``plan.apply``, on any device and in any memory format. Its tensors keep their data
            types; tied tensors are stored once.
        path: the folder; it must not exist, unless `overwrite` is set and it is a run folder.
        reference: how to rebuild the dense model; by default the plan's reference.
        classes: names of the outputs.
        normalisation: (mean, std) per channel, for images scaled to 0..1.
        input_shape: (channels, height, width); by default that of the plan's example, if it is one image tensor.
        data: description of the data set, as plain JSON.
        results: accuracies and other results, as plain JSON.
        forward: what the dense network computes (`Network.forward`); a network that computes something else is then
            refused when the run is loaded.
        overwrite: replace an existing run folder.
        into: write into the folder of a training (:func:`output_folder`) and keep its other files. The record is
            written last, so a folder without it is unfinished.

    Raises:
        UsageError: the network has no plan, or the metadata is not plain JSON.
        CheckpointError: the folder exists, or cannot be written.
    """
    check_is(path, str | Path, "path to be the name of a run's folder")
    check_is(reference, ModelReference | None, "reference to be a ModelReference or None")
    for name, mapping in (("data", data), ("results", results), ("forward", forward)):
        check_is(mapping, Mapping | None, f"{name} to be a mapping or None")
    for name, flag in (("overwrite", overwrite), ("into", into)):
        check_is(flag, bool, f"{name} to be True or False")
    plan = plan_of(slim)
    if reference is None and plan.model is not None:
        reference = ModelReference.from_json(plan.model)
    tensors, aliases = _tensors_to_store(slim)
    content = tensors_to_bytes(tensors)
    shape = image_shape(plan) if input_shape is None else input_shape
    try:
        record = RunRecord(
            plan=plan,
            reference=reference,
            versions=_versions(),
            dense_fingerprint=plan.fingerprint,
            slim_fingerprint=fingerprint(slim),
            weights_sha256=hashlib.sha256(content).hexdigest(),
            aliases=aliases,
            classes=None if classes is None else checked_classes(classes),
            input_shape=None if shape is None else checked_shape(shape),
            normalisation=None if normalisation is None else checked_pair(normalisation),
            data=data,
            results=results,
            forward=forward,
        )
        text = json.dumps(record.to_json(), indent=2, allow_nan=False) + "\n"
        check_results(results or {})
    except (TypeError, ValueError, CheckpointError) as error:
        raise UsageError(f"Expected metadata of a run as plain JSON, but {str(error).rstrip('.')}.") from error
    card = model_card(record)
    if into:
        _write_into(Path(path), content, text, card)
    else:
        _write_folder(Path(path), content, text, card, overwrite)


def _write_folder(path: Path, content: bytes, text: str, card: str, overwrite: bool) -> None:
    target = prepare_output(path, overwrite)
    temporary = temporary_beside(target)
    try:
        temporary.mkdir(parents=True)
        (temporary / WEIGHTS).write_bytes(content)
        write_text(temporary / CARD, card)
        write_text(temporary / RECORD, text)
        replace_folder(temporary, target)
    except OSError as error:
        raise not_writable(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_into(path: Path, content: bytes, text: str, card: str) -> None:
    """Replace the files of a run in an existing folder.

    The old record is removed first and the new one written last, so a record always belongs to the weights next to it.
    If there is no room for the new files, the old ones stay.
    """
    contents = {path / WEIGHTS: content, path / CARD: card.encode(), path / RECORD: text.encode()}
    try:
        write_together(contents, before=lambda: (path / RECORD).unlink(missing_ok=True))
    except OSError as error:
        raise not_writable(path, error) from error


def _tensors_to_store(slim: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Every parameter and buffer, tied ones once: (name -> contiguous tensor, other name -> stored name)."""
    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    for name, tensor in named_tensors_twice(slim):
        key = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and key in first:
            aliases[name] = first[key]
            continue
        first[key] = name
        tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return tensors, aliases


def named_tensors_twice(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers under each of their names, including non-persistent buffers."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _versions() -> dict[str, str]:
    return {
        "pretrim": package_version("pretrim"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }

"""Load a run folder: the slim network's tensors in ``weights.safetensors``, everything else in ``run.json``. No pickle.

The network is rebuilt from the dense model's definition. Built-in and zoo networks are rebuilt automatically, a network
from a user's file only if the user names that file. Then the plan is applied and the tensors are copied in.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from torch import nn

from pretrim import records
from pretrim.analysis.analyze import analyze
from pretrim.analysis.copies import copy_module
from pretrim.analysis.identity import fingerprint
from pretrim.analysis.network import Network, first_difference
from pretrim.errors import CheckpointError, PlanError, UsageError, check_is
from pretrim.models.dense import called
from pretrim.models.resolve import ModelReference, build, resolve
from pretrim.surgery.apply import apply, zeros_like_example

from .lock import check_free
from .record import RECORD, STATE, WEIGHTS, RunRecord
from .save import named_tensors_twice

ModelSource: TypeAlias = nn.Module | Callable[[], nn.Module] | str


def read(path: str | Path) -> RunRecord:
    """Read the record of a run folder. Raises CheckpointError if it is missing, truncated, edited or foreign."""
    check_is(path, str | Path, "path to be the name of a run's folder")
    file = Path(path) / RECORD
    try:
        content = file.read_bytes()
    except OSError as error:
        check_free(file.parent, Path(path))
        if (file.parent / STATE).exists():
            raise CheckpointError(f"The training in {path} was stopped: go on with `compress --resume`.") from error
        nearby = _run_near(Path(path))
        raise CheckpointError(
            f"No run in {path} (its {RECORD}: {error.strerror}): give the folder that `pretrim compress -o` wrote"
            f"{'' if nearby is None else f', such as {nearby}'}."
        ) from error
    remedy = "the file is truncated or edited, copy it again"
    return RunRecord.from_json(records.load(content, source=file, error=CheckpointError, remedy=remedy))


def _run_near(path: Path) -> Path | None:
    """A run that the user may have meant: the folder of a given file, or one below a given folder, such as a trial."""
    if path.is_file():
        return path.parent if (path.parent / RECORD).is_file() else None
    try:
        below = sorted((*path.glob(f"*/{RECORD}"), *path.glob(f"*/*/{RECORD}")))
    except (OSError, ValueError):  # an unreadable folder, or an invalid name
        return None
    return below[0].parent if below else None


def load(path: str | Path, *, model: ModelSource | None = None) -> nn.Module:
    """Load the slim network of a run folder, in eval mode and carrying its plan (:func:`pretrim.plan_of`).

    Args:
        path: a folder written by :func:`save`.
        model: the network to rebuild from: the dense network, a function that returns it, its name
            (``"file.py:function"``, which runs that file), or the slim network itself. Needed only if pretrim cannot
            build the model on its own: a user's file is never run unless it is named here. A given module is not
            changed.

    Raises:
        CheckpointError: the folder is truncated, edited or foreign, or `model` is another network.
        UsageError: `model` is needed, or does not name a model.
        ModelError: the model cannot be built.
    """
    record = read(path)
    tensors = _read_weights(Path(path) / WEIGHTS, record)
    with torch.random.fork_rng(devices=()):  # initial weights are drawn, but all of them are overwritten
        slim = _rebuild(record, model)
    _check_shapes(slim, tensors, record)
    with torch.no_grad():
        for name, tensor in named_tensors_twice(slim):
            stored = tensors[record.aliases.get(name, name)]
            if stored.dtype != tensor.dtype:
                tensor.data = tensor.data.to(stored.dtype)
            tensor.copy_(stored)
    slim.__dict__["pretrim_plan"] = record.plan
    return slim.eval()


def _read_weights(file: Path, record: RunRecord) -> dict[str, torch.Tensor]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"Cannot read the weights in {file} ({error.strerror}): copy the whole run folder."
        ) from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != record.weights_sha256:
        raise CheckpointError(
            f"Expected {file} to have the SHA-256 {record.weights_sha256[:12]}..., but got {sha256[:12]}...: "
            f"it is truncated or edited, copy it again."
        )
    try:
        return read_tensors(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"Cannot read {file} as safetensors ({error}): copy it again.") from error


def _rebuild(record: RunRecord, model: ModelSource | None) -> nn.Module:
    """Rebuild the slim network with the shapes of the record; its values are arbitrary."""
    source = build(_trusted_reference(record)) if model is None else _resolved(record, model)
    source_fingerprint = fingerprint(source)
    if source_fingerprint == record.dense_fingerprint:
        network = analyze(source, zeros_like_example(source, record.plan), record.plan.tried)
        _check_forward(record, network)
        try:
            return apply(source, record.plan, network=network)
        except PlanError as error:
            raise CheckpointError(str(error)) from error
    if source_fingerprint == record.slim_fingerprint:
        return copy_module(source)
    raise CheckpointError(
        "Expected the model that the run was made from, but its parameters have other names or shapes: "
        "give that model, or its version at that time."
    )


def _check_forward(record: RunRecord, network: Network) -> None:
    """Raises CheckpointError if the network computes something else than the one that was trained.

    Another version of torch may trace the same network to other operators, so a difference is then only a warning.
    """
    changed = None if record.forward is None else first_difference(record.forward, network.forward)
    if changed is None:
        return
    message = f"The network has changed since the run was trained: {changed}."
    trained_with, current = record.versions.get("torch", ""), str(torch.__version__)
    if trained_with != current:
        warning = f"{message} It was trained with torch {trained_with}, and this is {current}."
        warnings.warn(warning, UserWarning, stacklevel=4)
        return
    raise CheckpointError(f"{message} Give it as it was then: its weights mean nothing in another network.")


def _trusted_reference(record: RunRecord) -> ModelReference:
    """The run's own reference. Raises UsageError if it cannot be built without running a user's file."""
    reference = record.reference
    if reference is not None and reference.trusted:
        return reference
    origin = "a module" if reference is None else repr(reference.name)
    example = "FILE.py:FUNCTION" if reference is None else reference.name
    raise UsageError(
        f"Expected model= (--model) for a network that pretrim cannot build itself, but got none: the run was made "
        f"from {origin}, so give --model {example}, which runs that file."
    )


def _resolved(record: RunRecord, model: ModelSource) -> nn.Module:
    """Build the network from the user's module, function or name."""
    if isinstance(model, str):
        if record.reference is not None:
            return build(ModelReference(model, record.reference.arguments))
        classes = None if record.classes is None else len(record.classes)
        return build(resolve(model, num_classes=classes, input_shape=record.input_shape))
    source = called(model) if callable(model) and not isinstance(model, nn.Module) else model
    if not isinstance(source, nn.Module):
        raise UsageError(f"Expected model to be, or to return, a torch.nn.Module, but got {type(source).__name__}.")
    return source


def _check_shapes(slim: nn.Module, tensors: Mapping[str, torch.Tensor], record: RunRecord) -> None:
    """Raises CheckpointError unless the rebuilt network and the stored tensors have the same names and shapes."""
    expected = {name: tuple(tensor.shape) for name, tensor in named_tensors_twice(slim)}
    is_real = {name: tensor.is_floating_point() for name, tensor in named_tensors_twice(slim)}
    names = {name: record.aliases.get(name, name) for name in expected}
    missing = sorted(name for name, stored in names.items() if stored not in tensors)
    extra = sorted(set(tensors) - set(names.values()))
    if missing or extra:
        difference = f"{missing[0]} is missing" if missing else f"{extra[0]} is not in the model"
        raise CheckpointError(f"Expected the tensors of the rebuilt network, but {difference}: the run is edited.")
    for name, stored in names.items():
        if tensors[stored].is_floating_point() != is_real[name]:
            kind = str(tensors[stored].dtype).removeprefix("torch.")
            raise CheckpointError(f"Expected other values of {name} than {kind}: the run is edited, save it again.")
        got = tuple(tensors[stored].shape)
        if got != expected[name]:
            raise CheckpointError(
                f"Expected {name} to be {expected[name]} as planned, but got {got}: the run is edited, save it again."
            )

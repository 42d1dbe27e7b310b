"""The state of a training in one safetensors file, without pickle: tensors, and everything else as JSON in its header.

A new file is written next to the old one and then renamed, so that a complete one exists at any moment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of_bytes
from safetensors.torch import save as tensors_to_bytes

from pretrim import records
from pretrim.errors import CheckpointError
from pretrim.files import write_bytes

from .execution import Execution
from .metric import ACCURACY

KEY, FORMAT, VERSION = "pretrim", "pretrim-training", 2
DIGEST, BLANK = "sha256", "0" * 64
"""Header key of the SHA-256 of the file with zeros in place of the digest. States of version 1 have none."""
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
MODEL, MOMENTUM, AVERAGE = "model.", "momentum.", "average."


@dataclass(frozen=True)
class EpochRecord:
    """The results of one epoch. Validation results are None if no images are held out.

    `validation_loss` is also None if it is not finite, and in records of older versions. Scores are values of `metric`;
    the training score is None if the task has no cheap one.
    """

    epoch: int
    train_loss: float
    train_score: float | None
    validation_score: float | None
    learning_rate: float
    images_per_s: float
    seconds: float
    validation_loss: float | None = None
    metric: str = ACCURACY.name

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; the metric's name replaces `score` in the keys."""
        plain = asdict(self)
        metric = plain.pop("metric")
        return {name.replace("score", metric): value for name, value in plain.items()}


@dataclass(frozen=True)
class State:
    """The state of a training.

    Attributes:
        made_of: inputs that a resumed training must be given again: recipe, plan, data. Plain JSON.
        execution: how its steps are run.
        speeds: images per second of each candidate that was timed.
        epochs: records of the completed epochs.
        step: completed steps of the next epoch.
        loss: sum of the losses of those steps.
        right: correctly classified images of those steps.
        seconds: duration of those steps.
        updates: number of updates of the moving average.
        scaling: state of the loss scaler for float16; empty without one.
        tensors: values by name, each with the prefix of the part it belongs to.
    """

    made_of: Mapping[str, Any]
    execution: Execution
    speeds: Mapping[str, float]
    epochs: tuple[EpochRecord, ...]
    step: int
    loss: float
    right: int
    seconds: float
    updates: int
    scaling: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]


def write(state: State, path: Path) -> None:
    """Write a state atomically. Raises CheckpointError if it cannot be written."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "made_of": state.made_of,
        "execution": state.execution.to_json(),
        "speeds": dict(state.speeds),
        "metric": next((record.metric for record in state.epochs), ACCURACY.name),
        "epochs": [record.to_json() for record in state.epochs],
        **{name: getattr(state, name) for name in ("step", "loss", "right", "seconds", "updates", "scaling")},
    }
    content = _sealed(tensors_to_bytes(on_cpu(state.tensors), {KEY: json.dumps(header), DIGEST: BLANK}))
    try:
        write_bytes(path, content)
    except OSError as error:
        note = " The previous state is still there." if path.exists() else ""
        raise CheckpointError(
            f"Cannot write {path}: {error.strerror or error}.{note} Make room, then go on with --resume."
        ) from error


def on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return contiguous copies in main memory, by name in the same order.

    Each copy from a GPU waits for it, and a network has hundreds of tensors: those of a data type are copied together.
    """
    groups: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault((tensor.device, tensor.dtype), []).append(name)
    copies: dict[str, torch.Tensor] = {}
    for names in groups.values():
        joined = torch.cat([tensors[name].detach().reshape(-1) for name in names]).cpu()
        parts = joined.split_with_sizes([tensors[name].numel() for name in names])
        copies.update((name, part.view(tensors[name].shape)) for name, part in zip(names, parts, strict=True))
    return {name: copies[name] for name in tensors}


def _sealed(content: bytes) -> bytes:
    """Insert the SHA-256 of a file into the placeholder in its header."""
    return content.replace(_digest_entry(BLANK), _digest_entry(hashlib.sha256(content).hexdigest()), 1)


def _digest_entry(digest: str) -> bytes:
    return f'"{DIGEST}":"{digest}"'.encode()


def _is_sealed(content: bytes, digest: str) -> bool:
    return hashlib.sha256(content.replace(_digest_entry(digest), _digest_entry(BLANK), 1)).hexdigest() == digest


@dataclass(frozen=True)
class _Header:
    """The stored form of a state without its tensors."""

    made_of: Mapping[str, Any]
    execution: Execution
    speeds: Mapping[str, float]
    epochs: tuple[Mapping[str, Any], ...]
    step: Count
    loss: float
    right: Count
    seconds: Annotated[float, msgspec.Meta(ge=0)]
    updates: Count
    scaling: Mapping[str, int | float] = field(default_factory=dict)
    metric: str = ACCURACY.name


def read(path: Path) -> State:
    """Read a state. Raises CheckpointError for a file that is truncated, edited, foreign, or of another version."""
    remedy = "start again with --overwrite"
    try:
        content = path.read_bytes()
        tensors = tensors_of_bytes(content)
        size = int.from_bytes(content[:8], "little")
        metadata = dict(json.loads(content[8 : 8 + size]).get("__metadata__") or {})
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError, RuntimeError) as error:
        raise CheckpointError(f"Cannot read the training's state in {path} ({error}): start again.") from error
    header = records.load(str(metadata.get(KEY, "null")), source=path, error=CheckpointError, remedy=remedy)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file, but not the state of a training.")
    records.check_header(header, FORMAT, VERSION, source=path, error=CheckpointError)
    if header["version"] > 1 and not _is_sealed(content, str(metadata.get(DIGEST))):
        raise CheckpointError(f"The training's state in {path} is damaged or edited: its SHA-256 differs. Start again.")
    stored = vars(records.convert(header, _Header, source=path, error=CheckpointError, remedy=remedy))
    metric, entries = stored.pop("metric"), stored.pop("epochs")
    epochs = tuple(
        records.convert(_epoch_fields(entry, metric), EpochRecord, source=path, error=CheckpointError, remedy=remedy)
        for entry in entries
    )
    return State(**stored, epochs=epochs, tensors=tensors)


def _epoch_fields(entry: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Rename the keys of a stored epoch, whose scores have the name of the metric, to the fields of `EpochRecord`."""
    keys = {field.name: field.name.replace("score", metric) for field in fields(EpochRecord)}
    return {field: entry[key] for field, key in keys.items() if key in entry} | {"metric": metric}


@torch.no_grad()
def copy_into(targets: Mapping[str, torch.Tensor], state: State, prefix: str) -> None:
    """Copy one part of a state into tensors. Raises CheckpointError if names, shapes or data types differ.

    Args:
        targets: tensors to fill, by name.
        state: the state to copy from.
        prefix: prefix of the part's names.
    """
    stored = {name.removeprefix(prefix): t for name, t in state.tensors.items() if name.startswith(prefix)}
    shapes = {name: tuple(tensor.shape) for name, tensor in targets.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in stored.items()}:
        raise CheckpointError("Expected the state of this network, but its tensors have other names or shapes.")
    for name, tensor in targets.items():
        if stored[name].dtype != tensor.dtype:
            was, now = (str(value.dtype).removeprefix("torch.") for value in (stored[name], tensor))
            raise CheckpointError(f"Expected {name} of the state to be {now}, but it is {was}: start again.")
        tensor.copy_(stored[name])

"""The state of a training in one safetensors file, without pickle: tensors, and everything else as JSON in its header.

One file is written beside the old one and renamed, so that there is a whole one at any moment.
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
"""In the file's header: the SHA-256 of the file with zeros in this place. States of version 1 have none."""
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
MODEL, MOMENTUM, AVERAGE = "model.", "momentum.", "average."


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave. What is of the validation images is None where nothing is held out.

    `validation_loss` is None too where it is not finite, and in records of older versions. The scores are by `metric`;
    that of the training images is None where the task has none that is cheap.
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
        """Plain JSON; the scores have the name of the metric."""
        plain = asdict(self)
        metric = plain.pop("metric")
        return {name.replace("score", metric): value for name, value in plain.items()}


@dataclass(frozen=True)
class State:
    """Where a training is.

    Attributes:
        made_of: what a training that goes on must be given again: recipe, plan, data. Plain JSON.
        execution: how its steps are run.
        speeds: images a second of each way that was timed.
        epochs: those that are finished.
        step: steps of the next epoch that are done.
        loss: sum of their losses.
        right: their images that were classified right.
        seconds: that they took.
        updates: of the moving average.
        scaling: of the loss, for float16; empty without.
        tensors: values by name, each with the prefix of what it is part of.
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
    """Write it, whole or not at all. Raises CheckpointError if it cannot be."""
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
        kept = " The state of the last time is still there." if path.exists() else ""
        raise CheckpointError(
            f"Cannot write {path}: {error.strerror or error}.{kept} Make room, then go on with --resume."
        ) from error


def on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous copies in the computer's memory, by name in the same order.

    A copy from a GPU waits for it, and a network has hundreds of tensors: those of a data type are copied as one.
    """
    alike: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    for name, tensor in tensors.items():
        alike.setdefault((tensor.device, tensor.dtype), []).append(name)
    copies: dict[str, torch.Tensor] = {}
    for names in alike.values():
        together = torch.cat([tensors[name].detach().reshape(-1) for name in names]).cpu()
        parts = together.split_with_sizes([tensors[name].numel() for name in names])
        copies.update((name, part.view(tensors[name].shape)) for name, part in zip(names, parts, strict=True))
    return {name: copies[name] for name in tensors}


def _sealed(content: bytes) -> bytes:
    """The file with its own SHA-256 in the place that was left blank for it."""
    return content.replace(_field(BLANK), _field(hashlib.sha256(content).hexdigest()), 1)


def _field(digest: str) -> bytes:
    return f'"{DIGEST}":"{digest}"'.encode()


def _is_sealed(content: bytes, digest: str) -> bool:
    return hashlib.sha256(content.replace(_field(digest), _field(BLANK), 1)).hexdigest() == digest


@dataclass(frozen=True)
class _Header:
    """A state without its tensors, as it is stored."""

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
    """Read it. Raises CheckpointError for a file that is truncated, edited, foreign, or of another version."""
    mend = "start again with --overwrite"
    try:
        content = path.read_bytes()
        tensors = tensors_of_bytes(content)
        size = int.from_bytes(content[:8], "little")
        metadata = dict(json.loads(content[8 : 8 + size]).get("__metadata__") or {})
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError, RuntimeError) as error:
        raise CheckpointError(f"Cannot read the training's state in {path} ({error}): start again.") from error
    plain = records.load(str(metadata.get(KEY, "null")), source=path, error=CheckpointError, mend=mend)
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file, but not the state of a training.")
    records.check_header(plain, FORMAT, VERSION, source=path, error=CheckpointError)
    if plain["version"] > 1 and not _is_sealed(content, str(metadata.get(DIGEST))):
        raise CheckpointError(
            f"The training's state in {path} is damaged or edited: its SHA-256 is another. Start again."
        )
    stored = vars(records.convert(plain, _Header, source=path, error=CheckpointError, mend=mend))
    metric, entries = stored.pop("metric"), stored.pop("epochs")
    epochs = tuple(
        records.convert(_epoch(entry, metric), EpochRecord, source=path, error=CheckpointError, mend=mend)
        for entry in entries
    )
    return State(**stored, epochs=epochs, tensors=tensors)


def _epoch(entry: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """An epoch by the names of its fields: stored scores have the name of the metric."""
    names = {field.name: field.name.replace("score", metric) for field in fields(EpochRecord)}
    return {field: entry[name] for field, name in names.items() if name in entry} | {"metric": metric}


@torch.no_grad()
def copy_into(targets: Mapping[str, torch.Tensor], state: State, prefix: str) -> None:
    """Copy the values of one part of a state. Raises CheckpointError for other names or shapes.

    Args:
        targets: tensors to fill, by name.
        state: all values.
        prefix: of the part.
    """
    stored = {name.removeprefix(prefix): t for name, t in state.tensors.items() if name.startswith(prefix)}
    shapes = {name: tuple(tensor.shape) for name, tensor in targets.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in stored.items()}:
        raise CheckpointError("Expected the state of this network, but its tensors have other names or shapes.")
    for name, tensor in targets.items():
        if stored[name].dtype != tensor.dtype:
            was, now = (str(one.dtype).removeprefix("torch.") for one in (stored[name], tensor))
            raise CheckpointError(f"Expected {name} of the state to be {now}, but it is {was}: start again.")
        tensor.copy_(stored[name])

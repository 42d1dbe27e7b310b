"""The state of a training in one safetensors file, without pickle: tensors, and everything else as JSON in its header.

One file is written beside the old one and renamed, so that there is a whole one at any moment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as tensors_to_bytes

from pretrim.errors import CheckpointError
from pretrim.files import write_bytes

from .execution import Execution
from .metric import ACCURACY

KEY, FORMAT, VERSION = "pretrim", "pretrim-training", 1
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
    content = tensors_to_bytes(on_cpu(state.tensors), {KEY: json.dumps(header)})
    try:
        write_bytes(path, content)
    except OSError as error:
        kept = " The state of the last time is still there." if path.exists() else ""
        raise CheckpointError(
            f"Expected to write {path}, but got: {error.strerror or error}.{kept} Make room, then go on with --resume."
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


def read(path: Path) -> State:
    """Read it. Raises CheckpointError for a file that is truncated, foreign, or of another version."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"Expected a training's state in {path}, but {error}: start again.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"Expected a training's state in {path}, but it is another safetensors file.")
    if header.get("version") != VERSION:
        raise CheckpointError(f"Expected a state of version {VERSION}, but got {header.get('version')!r}: start again.")
    try:
        return State(
            made_of=header["made_of"],
            execution=Execution.from_json(header["execution"]),
            speeds=header["speeds"],
            epochs=tuple(_epoch(entry, header.get("metric", ACCURACY.name)) for entry in header["epochs"]),
            **{name: header[name] for name in ("step", "loss", "right", "seconds", "updates")},
            scaling=header.get("scaling", {}),
            tensors=tensors,
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"Expected a complete state in {path}, but {error!r}: start again.") from error


def _epoch(entry: Mapping[str, Any], metric: str) -> EpochRecord:
    """Of older versions too, whose records have fewer fields."""
    names = {field.name: field.name.replace("score", metric) for field in fields(EpochRecord)}
    there = {field: entry[name] for field, name in names.items() if name in entry}
    return EpochRecord(**there | {"metric": metric})


@torch.no_grad()
def copy_into(targets: Mapping[str, torch.Tensor], state: State, prefix: str) -> None:
    """Copy the values of one part of a state. Raises CheckpointError for other names or shapes."""
    stored = {name.removeprefix(prefix): t for name, t in state.tensors.items() if name.startswith(prefix)}
    shapes = {name: tuple(tensor.shape) for name, tensor in targets.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in stored.items()}:
        raise CheckpointError("Expected the state of this network, but its tensors have other names or shapes.")
    for name, tensor in targets.items():
        tensor.copy_(stored[name])

"""The inputs that all trials of a study share: the dense network and the data, loaded once in each process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pretrim.analysis.network import first_difference
from pretrim.data import DataSet, load
from pretrim.errors import StudyError
from pretrim.models.dense import DenseModel, open_model
from pretrim.tasks import find, of_task, own_data
from pretrim.train import Classification, Task

from .settings import StudyConfig

if TYPE_CHECKING:
    from pretrim.deploy import RuntimeName
    from pretrim.latency import LatencyCost, LatencyKey


@dataclass(frozen=True)
class TrialInputs:
    """A study's network and data.

    Attributes:
        dense: the dense network and its analysis.
        data: what to train and test on.
        latency: latency costs from this machine's measured tables, by runtime.
        task: the network's task.
    """

    dense: DenseModel
    data: DataSet
    latency: Mapping[str, LatencyCost] = field(default_factory=dict)
    task: Task = field(default_factory=Classification)


def open_inputs(config: StudyConfig) -> TrialInputs:
    """Load the data and analyse the network; latencies come from tables that this machine has already.

    Raises:
        UsageError, ModelError, DataError: the model, data or task in the configuration cannot be opened.
    """
    task = find(config.task) if config.task else None
    data = _data(config, task)
    dense = open_model(config.model, data.input_shape, len(data.classes) or None)
    check_forward(config.forward, dense)
    return TrialInputs(dense, data, known_latencies(config, dense), task or find(data.task))


def _data(config: StudyConfig, task: Task | None) -> DataSet:
    """Load the named data set, or the task's own data if none is named."""
    if not config.data:
        return own_data(task, config.split_seed)
    image = config.image
    channels, size = (image[0], image[1:]) if image is not None else (None, None)
    if channels is None and config.model.startswith("torchvision:"):
        channels = 3  # all torchvision networks take colour images
    data = load(
        config.data,
        seed=config.split_seed,
        image_size=None if size is None else (size[0], size[1]),
        fit=config.fit,
        channels=channels,
        limit=config.max_images,
        announce=lambda line: None,
    )
    return data if task is None else of_task(data, task)


def check_forward(forward: Mapping[str, str], dense: DenseModel) -> None:
    """Raises StudyError if a user-defined network no longer computes the same as when the study was made.

    Studies of older versions do not record its computation and are not checked.
    """
    changed = first_difference(forward, dense.forward or {}) if forward else None
    if changed is not None:
        raise StudyError(
            f"{dense.name} has changed since the study was made: {changed}. Give the file as it was, or another folder."
        )


def latency_key(config: StudyConfig, runtime: str) -> LatencyKey:
    """The key of the latency table for a study's data type and a runtime on this machine, one thread."""
    from pretrim.latency import PROVIDERS, LatencyKey
    from pretrim.measure.worker import cpu_name

    name: RuntimeName = "onnx" if runtime == "onnx" else "litert"
    return LatencyKey(cpu_name(), name, config.dtype, PROVIDERS[name], 1)


def known_latencies(config: StudyConfig, dense: DenseModel) -> dict[str, LatencyCost]:
    """Latency costs of the runtimes for which this machine already has a table of the network, by runtime."""
    from pretrim.latency import PROVIDERS, load_table, measured_cost
    from pretrim.latency.cost import key_of

    if config.dtype not in ("float32", "int8"):
        return {}
    latencies: dict[str, LatencyCost] = {}
    for runtime in PROVIDERS:
        key = latency_key(config, runtime)
        table = load_table(key)
        if table is not None and key_of(dense.network) in table.corrections:
            latencies[runtime] = measured_cost(dense.network, dense.module, key)
    return latencies

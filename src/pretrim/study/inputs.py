"""What all trials of a study need: the dense network and the data, made once in each process."""

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
        latency: measured costs by runtime, where a mode or a limit asks for them.
        task: what the network is for.
    """

    dense: DenseModel
    data: DataSet
    latency: Mapping[str, LatencyCost] = field(default_factory=dict)
    task: Task = field(default_factory=Classification)


def open_inputs(config: StudyConfig) -> TrialInputs:
    """Load the data, analyse the network; a measured latency comes from the table that the sweep has made.

    Raises:
        UsageError, ModelError, DataError: as the names in the configuration deserve.
    """
    named = find(config.task) if config.task else None
    data = _data(config, named)
    dense = open_model(config.model, data.input_shape, len(data.classes) or None)
    check_forward(config.forward, dense)
    return TrialInputs(dense, data, known_latencies(config, dense), named or find(data.task))


def _data(config: StudyConfig, task: Task | None) -> DataSet:
    """The data by name, or those of the task."""
    if not config.data:
        return own_data(task, config.split_seed)
    image = config.image
    channels, size = (image[0], image[1:]) if image is not None else (None, None)
    if channels is None and config.model.startswith("torchvision:"):
        channels = 3  # all of its networks take colour images
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
    """Raises StudyError if a network of the user's computes something else than when the study was made.

    Studies of older versions do not say what it computed.
    """
    changed = first_difference(forward, dense.forward or {}) if forward else None
    if changed is not None:
        raise StudyError(
            f"{dense.name} has changed since the study was made: {changed}. Give the file as it was, or another folder."
        )


def latency_key(config: StudyConfig, runtime: str) -> LatencyKey:
    """Where the latencies of a study are of: a runtime on this machine."""
    from pretrim.latency import PROVIDERS, LatencyKey
    from pretrim.measure.worker import cpu_name

    name: RuntimeName = "onnx" if runtime == "onnx" else "litert"
    return LatencyKey(cpu_name(), name, config.dtype, PROVIDERS[name], 1)


def known_latencies(config: StudyConfig, dense: DenseModel) -> dict[str, LatencyCost]:
    """The measured costs of the runtimes that this machine has tables of already."""
    from pretrim.latency import PROVIDERS, load_table, measured_cost
    from pretrim.latency.cost import key_of

    if config.dtype not in ("float32", "int8"):
        return {}
    found: dict[str, LatencyCost] = {}
    for runtime in PROVIDERS:
        key = latency_key(config, runtime)
        table = load_table(key)
        if table is not None and key_of(dense.network) in table.corrections:
            found[runtime] = measured_cost(dense.network, dense.module, key)
    return found

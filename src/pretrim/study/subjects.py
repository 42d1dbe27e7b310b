"""From a study's settings to its network and data, in the process that needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pretrim.analysis.analyze import analyze
from pretrim.analysis.network import Network
from pretrim.data import load
from pretrim.models.resolve import build, resolve

from .settings import StudyConfig
from .trial import Subject

if TYPE_CHECKING:
    from pretrim.deploy import RuntimeName
    from pretrim.latency import LatencyCost, LatencyKey


def subject_of(settings: StudyConfig) -> Subject:
    """Load the data, analyse the network; a measured latency comes from the table that the sweep has made.

    Raises:
        UsageError, ModelError, DataError: as the names in the settings deserve.
    """
    image = settings.image
    channels, size = (image[0], image[1]) if image is not None else (None, None)
    if channels is None and settings.model.startswith("torchvision:"):
        channels = 3  # all of its networks take colour images
    data = load(
        settings.data,
        seed=settings.split_seed,
        image_size=size,
        channels=channels,
        limit=settings.limit,
        announce=lambda line: None,
    )
    reference = resolve(settings.model, num_classes=len(data.classes), input_shape=data.input_shape)
    torch.manual_seed(0)
    module = build(reference)
    network = analyze(module, torch.zeros(1, *data.input_shape))
    return Subject(reference, network, data, _latency(settings, network, module))


def place_of(settings: StudyConfig, runtime: str) -> LatencyKey:
    """Where the latencies of a study are of: a runtime on this machine."""
    from pretrim.latency import PROVIDERS, LatencyKey
    from pretrim.measure.worker import cpu_name

    name: RuntimeName = "onnx" if runtime == "onnx" else "litert"
    return LatencyKey(cpu_name(), name, settings.dtype, PROVIDERS[name], 1)


def _latency(settings: StudyConfig, network: Network, module: torch.nn.Module) -> dict[str, LatencyCost]:
    """The measured costs of the runtimes that this machine has tables of already."""
    from pretrim.latency import PROVIDERS, load_table, measured_cost
    from pretrim.latency.cost import key_of

    if settings.dtype not in ("float32", "int8"):
        return {}
    found: dict[str, LatencyCost] = {}
    for runtime in PROVIDERS:
        place = place_of(settings, runtime)
        table = load_table(place)
        if table is not None and key_of(network) in table.corrections:
            found[runtime] = measured_cost(network, module, place)
    return found

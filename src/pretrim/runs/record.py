"""The record of a run, ``run.json``: what it says and how it is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from pretrim.analysis.identity import make_example
from pretrim.errors import CheckpointError, PretrimError
from pretrim.models.resolve import ModelReference
from pretrim.planning.plan import Plan
from pretrim.train import CONFUSION, CONFUSION_PICTURE, WORST, WORST_PICTURE

FORMAT = "pretrim-run"
VERSION = 1
RECORD = "run.json"
WEIGHTS = "weights.safetensors"
LAYOUT = "NCHW"
# What a training adds to a run folder: its state (only until it is finished), a line an epoch, a picture, what trackers
# write, and the dense network's own run.
STATE, LOG, CURVE, TRACKING, DENSE = "training.safetensors", "log.jsonl", "curve.png", "tracking", "dense"
CARD = "README.md"
"""The model card (`card.py`)"""
LOCK = ".lock"
"""There while a training runs in the folder (`lock.py`)"""
OWN = frozenset(
    {
        RECORD,
        WEIGHTS,
        STATE,
        LOG,
        CURVE,
        TRACKING,
        DENSE,
        CONFUSION,
        CONFUSION_PICTURE,
        WORST,
        WORST_PICTURE,
        CARD,
        LOCK,
    }
)
ARTIFACT = "model"
"""What `export` puts there: ``model.onnx``, ``model.int8.tflite``, and a record of each."""

Normalisation: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
Shape: TypeAlias = tuple[int, ...]
"""Channels, then one to three spatial sizes"""


@dataclass(frozen=True)
class RunRecord:
    """What ``run.json`` says.

    Attributes:
        plan: the plan that the network was built from.
        reference: what rebuilds the dense model; None for a module that came from elsewhere.
        versions: of pretrim, torch and python, when it was written.
        dense_fingerprint: of the dense model's parameters and buffers (`identity.fingerprint`).
        slim_fingerprint: of the slim network's.
        weights_sha256: of the file of weights.
        aliases: the names of tied tensors, each with the name that its values are stored under.
        classes: names of the outputs, in their order.
        input_shape: (channels, height, width) of one image.
        normalisation: (mean, std) of each channel, for images scaled to 0..1.
        data: the data set it was trained on, as the data set describes itself.
        results: accuracies and the training log.
        layout: the order of an input's dimensions.
    """

    plan: Plan
    reference: ModelReference | None
    versions: Mapping[str, str]
    dense_fingerprint: str
    slim_fingerprint: str
    weights_sha256: str
    aliases: Mapping[str, str]
    classes: tuple[str, ...] | None
    input_shape: Shape | None
    normalisation: Normalisation | None
    data: Mapping[str, Any] | None
    results: Mapping[str, Any] | None
    layout: str = LAYOUT

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the format's name and version."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "versions": dict(self.versions),
            "model": None if self.reference is None else self.reference.to_json(),
            "plan": self.plan.to_json(),
            "fingerprints": {"dense": self.dense_fingerprint, "slim": self.slim_fingerprint},
            "weights": {"file": WEIGHTS, "sha256": self.weights_sha256, "aliases": dict(self.aliases)},
            "input": {"layout": self.layout, "shape": self.input_shape, "normalisation": self.normalisation},
            "classes": self.classes,
            "data": self.data,
            "results": self.results,
        }

    @classmethod
    def from_json(cls, data: Any) -> RunRecord:
        """Read what :meth:`to_json` wrote. Raises CheckpointError for anything else."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise CheckpointError("Expected a run written by pretrim, but got other JSON: give a folder of `compress`.")
        if data.get("version") != VERSION:
            raise CheckpointError(
                f"Expected a run of version {VERSION}, but got {data.get('version')!r}: update pretrim."
            )
        try:
            return _record(data)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, PretrimError) as error:
            said = str(error) if isinstance(error, PretrimError) else repr(error)
            raise CheckpointError(f"Expected a complete {RECORD}, but it is damaged ({said}): save again.") from error


def _record(data: Mapping[str, Any]) -> RunRecord:
    model, prints, weights, given = data["model"], data["fingerprints"], data["weights"], data["input"]
    plan = Plan.from_json(data["plan"])
    if given["layout"] != LAYOUT:
        raise ValueError(f"the layout is {given['layout']!r}")
    if plan.fingerprint != prints["dense"]:
        raise ValueError("its plan is for another model")
    with torch.device("meta"):
        make_example(plan.example)
    return RunRecord(
        plan=plan,
        reference=None if model is None else ModelReference.from_json(model),
        versions=_texts(data["versions"]),
        dense_fingerprint=str(prints["dense"]),
        slim_fingerprint=str(prints["slim"]),
        weights_sha256=str(weights["sha256"]),
        aliases=_texts(weights["aliases"]),
        classes=None if data["classes"] is None else _checked_classes(data["classes"]),
        input_shape=None if given["shape"] is None else _checked_shape(given["shape"]),
        normalisation=None if given["normalisation"] is None else _checked_pair(given["normalisation"]),
        data=_checked_data(_mapping(data["data"])),
        results=_mapping(data["results"]),
    )


def _texts(entries: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in dict(entries).items()}


def _mapping(value: Any) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise TypeError(f"an object is {value!r}")
    return value


def _checked_data(data: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """By another seed than that of the run, images that it was trained on would get into its test."""
    seed = 0 if data is None else data.get("split_seed", 0)
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"the split_seed is {seed!r}")
    return data


def _checked_classes(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"the classes are {names!r}")
    return tuple(names)


def _checked_shape(shape: Sequence[int]) -> Shape:
    if not 2 <= len(shape) <= 4 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"the input shape is {shape!r}")
    return tuple(shape)


def _checked_pair(pair: Sequence[Sequence[float]]) -> Normalisation:
    mean, std = (tuple(float(value) for value in values) for values in pair)
    if len(mean) != len(std) or not all(value > 0 for value in std):
        raise ValueError(f"the normalisation is {pair!r}")
    return mean, std


def image_shape(plan: Plan) -> Shape | None:
    """Channels and spatial sizes of the plan's example, if that is one batch of images, signals or volumes."""
    shape = plan.example.get("shape") if isinstance(plan.example, Mapping) else None
    if not isinstance(shape, list) or not 3 <= len(shape) <= 5:
        return None
    return _checked_shape(shape[1:]) if all(isinstance(size, int) and size > 0 for size in shape) else None

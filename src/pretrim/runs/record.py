"""The record of a run, ``run.json``: what it says and how it is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from pretrim import records
from pretrim.data.own import NAME, READY_MEAN, READY_STD
from pretrim.errors import CheckpointError, PretrimError, shown
from pretrim.models.resolve import ModelReference
from pretrim.planning.plan import Plan
from pretrim.train import CONFUSION, CONFUSION_PICTURE, WORST, WORST_PICTURE, unpack

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
        forward: what the dense network computes (`Network.forward`), where a file or module of the user's says it.
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
    forward: Mapping[str, str] | None = None

    @property
    def as_given(self) -> bool:
        """Whether it was trained on floats as a data set of the user's own gave them (`DataSet.as_given`)."""
        data = self.data or {}
        if "as_given" in data or self.normalisation is None:
            return bool(data.get("as_given"))
        means, deviations = self.normalisation  # a run of before it was recorded
        return data.get("name") == NAME and set(means) == {READY_MEAN} and set(deviations) == {READY_STD}

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
            **({} if self.forward is None else {"forward": dict(self.forward)}),
        }

    @classmethod
    def from_json(cls, data: Any) -> RunRecord:
        """Read what :meth:`to_json` wrote. Raises CheckpointError for anything else."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise CheckpointError("The record is JSON, but not that of a run: give a folder of `compress`.")
        if data.get("version") != VERSION:
            raise CheckpointError(
                f"Expected a run of version {VERSION}, but got {data.get('version')!r}: update pretrim."
            )
        try:
            return _record(data)
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, PretrimError) as error:
            said = records.one_line(error)
            raise CheckpointError(f"{RECORD} is damaged ({said}): save again.") from error


Size: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True)
class StoredEvaluation:
    """What is read of an evaluation (`train.Evaluation.to_json`) in a record."""

    images: Count
    interval_95: tuple[float, float] | None
    right: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.right is not None and len(unpack(self.right)) != self.images:
            raise ValueError(f"which images were right is not of {self.images}")


@dataclass(frozen=True)
class _Tested:
    test_accuracy: float | None = None
    test: StoredEvaluation | None = None
    dense_test_accuracy: float | None = None
    dense_test: StoredEvaluation | None = None


@dataclass(frozen=True)
class _Results(_Tested):
    """What is read of a run's results."""

    dense: _Tested | None = None
    inherited: _Tested | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Data:
    """What is read of how a data set described itself. By another seed images would get from training into the test."""

    split_seed: Count = 0
    padding: Count = 0
    source: str | None = None
    as_given: bool = False
    limit: Count | None = None
    name: str | None = None
    sizes: Mapping[str, Count] = field(default_factory=dict)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Weights:
    sha256: str
    aliases: Mapping[str, str]


@dataclass(frozen=True)
class _Input:
    layout: Literal["NCHW"]
    shape: Annotated[tuple[Size, ...], msgspec.Meta(min_length=2, max_length=4)] | None
    normalisation: tuple[tuple[float, ...], tuple[Annotated[float, msgspec.Meta(gt=0)], ...]] | None


@dataclass(frozen=True)
class _Prints:
    dense: str
    slim: str


@dataclass(frozen=True)
class _File:
    """``run.json``, without what has records of its own."""

    fingerprints: _Prints
    weights: _Weights
    input: _Input
    classes: tuple[str, ...] | None
    versions: Mapping[str, str]
    plan: Mapping[str, Any]
    model: Any
    data: _Data | None
    results: _Results | None
    forward: Mapping[str, str] | None = None


def _record(data: Mapping[str, Any]) -> RunRecord:
    file = records.convert(data, _File, source=RECORD, error=CheckpointError, mend="save again")
    plan, given = Plan.from_json(file.plan), file.input
    if plan.fingerprint != file.fingerprints.dense:
        raise ValueError("its plan is for another model")
    return RunRecord(
        plan=plan,
        reference=None if file.model is None else ModelReference.from_json(file.model),
        versions=file.versions,
        dense_fingerprint=file.fingerprints.dense,
        slim_fingerprint=file.fingerprints.slim,
        weights_sha256=file.weights.sha256,
        aliases=file.weights.aliases,
        classes=file.classes,
        input_shape=given.shape,
        normalisation=None if given.normalisation is None else checked_pair(given.normalisation),
        data=data["data"],
        results=data["results"],
        forward=file.forward,
    )


def check_results(results: Mapping[str, Any]) -> None:
    """Raises CheckpointError where results hold under a name of ours what a run does not."""
    records.convert(
        dict(results), _Results, source="The entry results", error=CheckpointError, mend="name it otherwise"
    )


def checked_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Names of the outputs. Raises TypeError."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"the classes are {shown(names)}")
    return tuple(names)


def checked_shape(shape: Sequence[int]) -> Shape:
    """(channels, sizes) of one signal, image or volume. Raises ValueError."""
    if not 2 <= len(shape) <= 4 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"the input shape is {shown(shape)}")
    return tuple(shape)


def checked_pair(pair: Sequence[Sequence[float]]) -> Normalisation:
    """(mean, std), a value of each for every channel. Raises ValueError."""
    mean, std = (tuple(float(value) for value in values) for values in pair)
    if len(mean) != len(std) or not all(value > 0 for value in std):
        raise ValueError(f"the normalisation is {shown(pair)}")
    return mean, std


def image_shape(plan: Plan) -> Shape | None:
    """Channels and spatial sizes of the plan's example, if that is one batch of images, signals or volumes."""
    shape = plan.example.get("shape") if isinstance(plan.example, Mapping) else None
    if not isinstance(shape, list) or not 3 <= len(shape) <= 5:
        return None
    return checked_shape(shape[1:]) if all(isinstance(size, int) and size > 0 for size in shape) else None

"""The record of a run, ``run.json``: its contents and their validation."""

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
# Files that training adds to a run folder: its state (removed when it finishes), a log with one line per epoch, a plot,
# the trackers' output, and the run of the dense network.
STATE, LOG, CURVE, TRACKING, DENSE = "training.safetensors", "log.jsonl", "curve.png", "tracking", "dense"
CARD = "README.md"
"""The model card (`card.py`)."""
LOCK = ".lock"
"""Present while training runs in the folder (`lock.py`)."""
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
"""Names of the files and folders that pretrim writes to a run folder."""
ARTIFACT = "model"
"""Stem of the files that `export` adds: ``model.onnx``, ``model.int8.tflite``, and a record of each."""

Normalisation: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
Shape: TypeAlias = tuple[int, ...]
"""Channels, then one to three spatial sizes."""


@dataclass(frozen=True)
class RunRecord:
    """The contents of ``run.json``.

    Attributes:
        plan: the plan that the network was built from.
        reference: how to rebuild the dense model; None for a module from elsewhere.
        versions: versions of pretrim, torch and python at the time of writing.
        dense_fingerprint: fingerprint of the dense model's parameters and buffers (`identity.fingerprint`).
        slim_fingerprint: fingerprint of the slim network's parameters and buffers.
        weights_sha256: SHA-256 of the weights file.
        aliases: names of tied tensors, each with the name that its values are stored under.
        classes: names of the outputs, in order.
        input_shape: (channels, height, width) of one image.
        normalisation: (mean, std) per channel, for images scaled to 0..1.
        data: the training data set's description of itself.
        results: accuracies and the training log.
        layout: order of an input's dimensions.
        forward: what the dense network computes (`Network.forward`), if it is defined by the user's file or module.
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
        """Whether it was trained on floats exactly as the user's own data set returned them (`DataSet.as_given`)."""
        data = self.data or {}
        if "as_given" in data or self.normalisation is None:
            return bool(data.get("as_given"))
        means, stds = self.normalisation  # an older run, which did not record it
        return data.get("name") == NAME and set(means) == {READY_MEAN} and set(stds) == {READY_STD}

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON with the name and version of the format."""
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
            message = records.one_line(error)
            raise CheckpointError(f"{RECORD} is damaged ({message}): save again.") from error


Size: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True)
class StoredEvaluation:
    """The validated part of an evaluation (`train.Evaluation.to_json`) in a record."""

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
    """The validated part of a run's results."""

    dense: _Tested | None = None
    inherited: _Tested | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Data:
    """The validated part of a data set's description.

    The split seed matters: with another one, training images would end up in the test split.
    """

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
class _Fingerprints:
    dense: str
    slim: str


@dataclass(frozen=True)
class _File:
    """``run.json``, except for parts that have validated records of their own."""

    fingerprints: _Fingerprints
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
    file = records.convert(data, _File, source=RECORD, error=CheckpointError, remedy="save again")
    plan, input_ = Plan.from_json(file.plan), file.input
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
        input_shape=input_.shape,
        normalisation=None if input_.normalisation is None else checked_pair(input_.normalisation),
        data=data["data"],
        results=data["results"],
        forward=file.forward,
    )


def check_results(results: Mapping[str, Any]) -> None:
    """Raises CheckpointError if results use a name of a run's record for a value of another type."""
    records.convert(
        dict(results), _Results, source="The entry results", error=CheckpointError, remedy="name it otherwise"
    )


def checked_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Check names of the outputs. Raises TypeError."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"the classes are {shown(names)}")
    return tuple(names)


def checked_shape(shape: Sequence[int]) -> Shape:
    """Check the shape (channels, sizes) of one signal, image or volume. Raises ValueError."""
    if not 2 <= len(shape) <= 4 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"the input shape is {shown(shape)}")
    return tuple(shape)


def checked_pair(pair: Sequence[Sequence[float]]) -> Normalisation:
    """Check a (mean, std) with one value each per channel. Raises ValueError."""
    mean, std = (tuple(float(value) for value in values) for values in pair)
    if len(mean) != len(std) or not all(value > 0 for value in std):
        raise ValueError(f"the normalisation is {shown(pair)}")
    return mean, std


def image_shape(plan: Plan) -> Shape | None:
    """Channels and spatial sizes of the plan's example; None unless it is one batch of images, signals or volumes."""
    shape = plan.example.get("shape") if isinstance(plan.example, Mapping) else None
    if not isinstance(shape, list) or not 3 <= len(shape) <= 5:
        return None
    return checked_shape(shape[1:]) if all(isinstance(size, int) and size > 0 for size in shape) else None

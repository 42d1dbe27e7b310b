"""Artifacts: the file that a runtime loads, and a JSON record beside it that describes it.

``model.tflite`` has the record ``model.tflite.json``. The record is written last, so that an existing record always
describes the file beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict, get_args

import msgspec

from pretrim import records
from pretrim.errors import ArtifactError, PlanError
from pretrim.files import write_atomically
from pretrim.planning.plan import Plan

from .runtimes import runtimes

FORMAT = "pretrim-artifact"
VERSION = 1
REMEDY = "Export again"
DataType: TypeAlias = Literal["float32", "int8"]
DATA_TYPES: tuple[DataType, ...] = get_args(DataType)
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]


class Port(TypedDict):
    """An input of an artifact, for one image.

    ``layout`` and ``shape`` are those that the file takes; ``scale`` and ``zero_point`` belong to int8.
    ``normalisation`` is (means, deviations) of the channels, for images scaled to 0..1; None if unknown. With
    ``as_given`` there is no normalisation: values are as the training's data set gave them. With ``dynamic_batch`` the
    file takes any batch size.
    """

    layout: NotRequired[str]
    shape: tuple[Size, ...]
    data_type: DataType
    scale: NotRequired[float]
    zero_point: NotRequired[int]
    normalisation: NotRequired[list[list[float]] | None]
    as_given: NotRequired[bool]
    dynamic_batch: NotRequired[bool]


@dataclass(frozen=True)
class Artifact:
    """An artifact's file and the contents of its record.

    Attributes:
        path: path of the file.
        runtime: name of the runtime that loads it.
        data_type: data type of its weights and arithmetic.
        file_bytes: size of the file.
        sha256: SHA-256 of the file's content.
        input: the first input.
        outputs: ``shape`` and ``data_type`` of each output; for int8 also ``scale`` and ``zero_point``.
        classes: names of the classes, in the order of the outputs; None if unknown.
        plan: plan of the slim network, as plain JSON; None for a network without one.
        calibration: the images that the int8 ranges were taken from; None for float32.
        proof: comparison with PyTorch (`proof.Proof`); if ``failed`` is not empty, the artifact was kept by force.
        notes: notes for the user.
        versions: versions of the packages that made it.
        more_inputs: the other inputs of a network with several.
    """

    path: Path
    runtime: str
    data_type: DataType
    file_bytes: Annotated[int, msgspec.Meta(ge=0)]
    sha256: str
    input: Port
    outputs: tuple[Mapping[str, Any], ...]
    classes: tuple[str, ...] | None
    plan: Mapping[str, Any] | None
    calibration: Mapping[str, Any] | None
    proof: Mapping[str, Any]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    more_inputs: tuple[Port, ...] = ()

    def __repr__(self) -> str:
        """A summary, because the plan and the proof would take thousands of characters."""
        return f"Artifact({str(self.path)!r}: {self.runtime}, {self.data_type}, {self.file_bytes:,} bytes)"

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Every input, in the order of the network's ``forward``."""
        return (self.input, *self.more_inputs)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON with the format's name and version; the file is given by name, as both files move together."""
        return {"format": FORMAT, "version": VERSION, **asdict(self), "path": None, "file": self.path.name}

    @property
    def record_path(self) -> Path:
        """Path of the JSON record."""
        return record_of(self.path)


def record_of(path: Path) -> Path:
    """Path of the JSON record beside an artifact."""
    return path.with_name(path.name + ".json")


def write(artifact: Artifact, content: bytes) -> None:
    """Write the file, then its record; existing ones are replaced only once both are completely written.

    Raises ArtifactError if they cannot be written.
    """
    record = json.dumps(artifact.to_json(), indent=2, allow_nan=False) + "\n"

    def write_both(temporary: Path) -> None:
        temporary.write_text(record, encoding="utf-8")
        write_atomically(artifact.path, write_file)

    def write_file(temporary: Path) -> None:
        temporary.write_bytes(content)
        artifact.record_path.unlink(missing_ok=True)

    try:
        write_atomically(artifact.record_path, write_both)
    except OSError as error:
        raise not_written(artifact.path, error) from error


def not_written(path: Path, error: OSError) -> ArtifactError:
    """The error for an artifact that cannot be written."""
    return ArtifactError(f"Cannot write {path}: {error.strerror or error}. Choose another folder.")


def runtime_of(path: Path) -> str:
    """The name of the runtime that loads a file, by its suffix. Raises ArtifactError for other suffixes."""
    for runtime in runtimes():
        if path.suffix == runtime.suffix:
            return runtime.name
    endings = ", ".join(runtime.suffix for runtime in runtimes())
    raise ArtifactError(f"Expected an artifact ({endings}), but got {path.name!r}: give a file of `pretrim export`.")


def read(path: Path) -> Artifact:
    """Read an artifact and check its file against the record.

    Raises ArtifactError if either is missing or damaged, or if they do not belong together.
    """
    runtime, record_path = runtime_of(path), record_of(path)
    try:
        content, text = path.read_bytes(), record_path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"An artifact needs the record beside it, but cannot read {error.filename} ({error.strerror}): "
            f"copy both files of `pretrim export`."
        ) from error
    artifact = _parse(text, path, record_path)
    if artifact.runtime != runtime:
        raise ArtifactError(
            f"{record_path} is damaged: at $.runtime, expected {runtime!r}, got {artifact.runtime!r}. {REMEDY}."
        )
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != artifact.sha256:
        raise ArtifactError(
            f"Expected {path} to have the SHA-256 {artifact.sha256[:12]}..., but got {sha256[:12]}...: it is truncated "
            f"or edited, export again."
        )
    return artifact


def _parse(text: bytes, path: Path, source: Path) -> Artifact:
    """Parse the record of a file. Raises ArtifactError unless it has the form that :func:`write` writes."""
    data = records.load(text, source=source, error=ArtifactError, remedy=REMEDY)
    records.check_header(data, FORMAT, VERSION, source=source, error=ArtifactError)
    data["path"] = str(path)
    artifact = records.convert(data, Artifact, source=source, error=ArtifactError, remedy=REMEDY)
    if artifact.plan is not None:
        try:
            Plan.from_json(artifact.plan)
        except PlanError as error:
            raise ArtifactError(f"{source} is damaged: at $.plan, {error} Export again.") from error
    return artifact

"""An artifact: the file that a runtime loads, and a JSON file beside it that says what it is.

``model.tflite`` has ``model.tflite.json``. The JSON is written last: whenever it is there, it is of the file beside it.
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
MEND = "Export again"
DataType: TypeAlias = Literal["float32", "int8"]
DATA_TYPES: tuple[DataType, ...] = get_args(DataType)
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]


class Port(TypedDict):
    """An input of an artifact, for one image.

    ``layout`` and ``shape`` are as the file takes it, ``scale`` and ``zero_point`` those of int8; ``normalisation`` is
    (means, deviations) of the channels, for images scaled to 0..1, None where not known; with ``as_given`` there is
    none: values are as the data set of the training gave them; with ``dynamic_batch`` the file takes any number of
    images at a time.
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
    """What is known of an artifact.

    Attributes:
        path: the file.
        runtime: what loads it.
        data_type: of its weights and of what it computes with.
        file_bytes: its size.
        sha256: of its content.
        input: the (first) input.
        outputs: the ``shape`` and ``data_type`` of each; of int8 also ``scale`` and ``zero_point``.
        classes: names of the outputs, in their order; None where not known.
        plan: of the slim network, as plain JSON; None for a network without one.
        calibration: what int8 ranges were taken from; None for float32.
        proof: how it compared with PyTorch (`proof.Proof`); with ``failed`` it was kept by force.
        notes: what its user should know.
        versions: of the packages that made it.
        more_inputs: of a network that takes several.
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
        """The file, and what it is: its plan and its proof have thousands of characters."""
        return f"Artifact({str(self.path)!r}: {self.runtime}, {self.data_type}, {self.file_bytes:,} bytes)"

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Every input, in the order of the network's ``forward``."""
        return (self.input, *self.more_inputs)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the format's name and version; the file by its name, for both are moved together."""
        return {"format": FORMAT, "version": VERSION, **asdict(self), "path": None, "file": self.path.name}

    @property
    def record_path(self) -> Path:
        """The JSON file."""
        return record_of(self.path)


def record_of(path: Path) -> Path:
    """The JSON file beside an artifact."""
    return path.with_name(path.name + ".json")


def write(artifact: Artifact, content: bytes) -> None:
    """The file, then its record; those that were there stay until both are complete beside them.

    Raises ArtifactError if they cannot be written.
    """
    record = json.dumps(artifact.to_json(), indent=2, allow_nan=False) + "\n"

    def both(temporary: Path) -> None:
        temporary.write_text(record, encoding="utf-8")
        write_atomically(artifact.path, alone)

    def alone(temporary: Path) -> None:
        temporary.write_bytes(content)
        artifact.record_path.unlink(missing_ok=True)

    try:
        write_atomically(artifact.record_path, both)
    except OSError as error:
        raise not_written(artifact.path, error) from error


def not_written(path: Path, error: OSError) -> ArtifactError:
    """What to raise where an artifact cannot be written."""
    return ArtifactError(f"Cannot write {path}: {error.strerror or error}. Choose another folder.")


def runtime_of(path: Path) -> str:
    """The name of the runtime that loads a file, by its ending. Raises ArtifactError for any other."""
    for runtime in runtimes():
        if path.suffix == runtime.suffix:
            return runtime.name
    endings = ", ".join(runtime.suffix for runtime in runtimes())
    raise ArtifactError(f"Expected an artifact ({endings}), but got {path.name!r}: give a file of `pretrim export`.")


def read(path: Path) -> Artifact:
    """An artifact by its file, checked against its record.

    Raises ArtifactError where either is missing, damaged, or not of the other.
    """
    runtime, source = runtime_of(path), record_of(path)
    try:
        content, text = path.read_bytes(), source.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"An artifact needs the record beside it, but cannot read {error.filename} ({error.strerror}): "
            f"copy both files of `pretrim export`."
        ) from error
    artifact = _parse(text, path, source)
    if artifact.runtime != runtime:
        raise ArtifactError(
            f"{source} is damaged: at $.runtime, expected {runtime!r}, got {artifact.runtime!r}. {MEND}."
        )
    found = hashlib.sha256(content).hexdigest()
    if found != artifact.sha256:
        raise ArtifactError(
            f"Expected {path} to have the SHA-256 {artifact.sha256[:12]}..., but got {found[:12]}...: it is truncated "
            f"or edited, export again."
        )
    return artifact


def _parse(text: bytes, path: Path, source: Path) -> Artifact:
    """The record of a file. Raises ArtifactError where it is not what :func:`write` writes."""
    data = records.load(text, source=source, error=ArtifactError, mend=MEND)
    records.check_header(data, FORMAT, VERSION, source=source, error=ArtifactError)
    data["path"] = str(path)
    artifact = records.convert(data, Artifact, source=source, error=ArtifactError, mend=MEND)
    if artifact.plan is not None:
        try:
            Plan.from_json(artifact.plan)
        except PlanError as error:
            raise ArtifactError(f"{source} is damaged: at $.plan, {error} Export again.") from error
    return artifact

"""An artifact: the file that a runtime loads, and a JSON file beside it that says what it is.

``model.tflite`` has ``model.tflite.json``. The JSON is written last: whenever it is there, it is of the file beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from pretrim.errors import ArtifactError, PlanError
from pretrim.files import write_atomically
from pretrim.planning.plan import Plan

from .runtime import RUNTIMES, SUFFIXES, RuntimeName

FORMAT = "pretrim-artifact"
VERSION = 1
DataType: TypeAlias = Literal["float32", "int8"]
DATA_TYPES: tuple[DataType, ...] = get_args(DataType)


@dataclass(frozen=True)
class Artifact:
    """What is known of an artifact.

    Attributes:
        path: the file.
        runtime: what loads it.
        data_type: of its weights and of what it computes with.
        file_bytes: its size.
        sha256: of its content.
        input: its ``layout`` and ``shape`` (one image), its ``data_type``, with int8 its ``scale`` and ``zero_point``,
            and the ``normalisation``: (mean, std) of each channel, for images scaled to 0..1; None where not known.
        outputs: the ``shape`` of each.
        classes: names of the outputs, in their order; None where not known.
        plan: of the slim network, as plain JSON; None for a network without one.
        calibration: what int8 ranges were taken from; None for float32.
        proof: how it compared with PyTorch (`proof.Proof`); with ``failed`` it was kept by force.
        notes: what its user should know.
        versions: of the packages that made it.
    """

    path: Path
    runtime: RuntimeName
    data_type: DataType
    file_bytes: int
    sha256: str
    input: Mapping[str, Any]
    outputs: tuple[Mapping[str, Any], ...]
    classes: tuple[str, ...] | None
    plan: Mapping[str, Any] | None
    calibration: Mapping[str, Any] | None
    proof: Mapping[str, Any]
    notes: tuple[str, ...]
    versions: Mapping[str, str]

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
        raise ArtifactError(
            f"Expected to write {artifact.path}, but got: {error.strerror or error}. Choose another folder."
        ) from error


def runtime_of(path: Path) -> RuntimeName:
    """By the ending of its name. Raises ArtifactError for any other."""
    for runtime in RUNTIMES:
        if path.suffix == SUFFIXES[runtime]:
            return runtime
    endings = ", ".join(SUFFIXES.values())
    raise ArtifactError(f"Expected an artifact ({endings}), but got {path.name!r}: give a file of `pretrim export`.")


def read(path: Path) -> Artifact:
    """An artifact by its file, checked against its record.

    Raises ArtifactError where either is missing, damaged, or not of the other.
    """
    runtime = runtime_of(path)
    try:
        content = path.read_bytes()
        record = json.loads(record_of(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(
            f"Expected an artifact and the record beside it, but could not read {error.filename} ({error.strerror}): "
            f"copy both files of `pretrim export`."
        ) from error
    except ValueError as error:
        raise ArtifactError(f"Expected {record_of(path)} to be JSON, but it is not ({error}): export again.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("version") != VERSION:
        raise ArtifactError(f"Expected {record_of(path)} to be a record of `pretrim export`: export again.")
    try:
        names = {entry.name for entry in fields(Artifact)} - {"path", "outputs", "classes", "notes"}
        artifact = Artifact(
            path=path,
            outputs=tuple(record["outputs"]),
            classes=None if record["classes"] is None else tuple(record["classes"]),
            notes=tuple(record["notes"]),
            **{name: record[name] for name in names},
        )
        _check(artifact, runtime)
    except (KeyError, TypeError, ValueError, PlanError) as error:
        raise ArtifactError(f"Expected {record_of(path)} to be complete, but {error!r}: export again.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != artifact.sha256:
        raise ArtifactError(
            f"Expected {path} to have the SHA-256 {artifact.sha256[:12]}..., but got {found[:12]}...: it is truncated "
            f"or edited, export again."
        )
    return artifact


def _check(artifact: Artifact, runtime: RuntimeName) -> None:
    """Raises ValueError, KeyError or PlanError where a field is not what :func:`write` writes."""
    if artifact.runtime != runtime:
        raise ValueError(f"it is of {artifact.runtime}")
    if artifact.data_type not in DATA_TYPES or type(artifact.file_bytes) is not int:
        raise ValueError(f"it is of {artifact.data_type!r} and {artifact.file_bytes!r} bytes")
    if not isinstance(artifact.sha256, str):
        raise ValueError(f"its SHA-256 is {artifact.sha256!r}")
    for name in ("input", "proof", "versions"):
        if not isinstance(getattr(artifact, name), dict):
            raise ValueError(f"{name} is {getattr(artifact, name)!r}")
    shape = artifact.input["shape"]
    if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
        raise ValueError(f"the shape of the input is {shape!r}")
    if artifact.input["data_type"] not in DATA_TYPES:
        raise ValueError(f"the data type of the input is {artifact.input['data_type']!r}")
    if artifact.plan is not None:
        Plan.from_json(artifact.plan)

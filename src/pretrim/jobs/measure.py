"""How fast an artifact runs, here or on the device, alone or beside another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pretrim.errors import ArtifactError, UsageError, shown

from .hints import calibration, on_run
from .recipe import note_threads
from .reporter import Reporter, Silent

if TYPE_CHECKING:
    from pretrim.deploy import Artifact
    from pretrim.measure import Protocol
    from pretrim.measure.record import Measurement
    from pretrim.measure.run import Runner

    from .delivered import Delivered

Provider = Literal["cpu", "cuda", "tensorrt"]
PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """How artifacts are measured."""

    threads: int = 1
    """Threads of the runtime."""
    runs: int = 50
    """Timed inferences per process."""
    processes: int = 3
    """Number of worker processes, run in sequence."""
    provider: Provider = "cpu"
    """Execution provider of ONNX Runtime."""
    time_limit: float = 900.0
    """Seconds after which a worker process is ended."""
    ssh: str | None = None
    """USER@HOST of the device to measure on."""
    remote_python: str = "python3"
    """Python interpreter there that has the runtime."""
    ssh_config: Path | None = None
    """SSH config to use instead of ~/.ssh/config."""


@dataclass(frozen=True)
class Measured:
    """A measurement, beside another where two were measured in turns.

    Attributes:
        measurement: of the artifact.
        against: of the other one.
        ratio: of their latencies, with its interval; None without another.
        warning: where the slimmer one is not the faster one.
    """

    measurement: Measurement
    against: Measurement | None = None
    ratio: Any = None
    warning: str | None = None

    @property
    def latency_s(self) -> float:
        """Median seconds of one inference."""
        return self.measurement.latency.median_s

    def to_json(self) -> dict[str, Any]:
        """What `pretrim measure --json` prints."""
        other = None if self.against is None else self.against.to_json()
        return {**self.measurement.to_json(), "against": other, "ratio": self.ratio, "warning": self.warning}


def measure(
    path: str | Path,
    options: MeasureOptions | None = None,
    against: str | Path | None = None,
    reporter: Reporter | None = None,
) -> list[Measured]:
    """Measure an artifact, or all artifacts of a run.

    Args:
        path: a file of `export`, or a run.
        options: how.
        against: another file or run, measured in turns with it for a ratio that holds.
        reporter: told what is measured.

    Raises:
        UsageError: no such file, or the runtime is not installed.
        ArtifactError: a damaged artifact, or none in the run.
        MeasureError: the measurement failed.
    """
    how = options or MeasureOptions()
    note_threads(how.threads if how.ssh is None else None, reporter or Silent())
    _protocol(how, Silent())  # what is wrong with it is said before any file is looked at
    other = None if against is None else Path(against)
    return [_measured(found, how, other, reporter or Silent()) for found in artifacts_of(Path(path))]


def dense_of(path: Path) -> Path:
    """The run of the dense network that was trained beside a run, from that or from a file in it.

    Raises UsageError where there is none.
    """
    from pretrim.runs.record import DENSE

    run = path if path.is_dir() else path.parent
    if not (run / DENSE).is_dir():
        raise UsageError(
            f"No dense network in {run / DENSE}: `pretrim compress --dense` trains it "
            f"too; or name another one by --against."
        )
    return run / DENSE


def measure_file(
    delivered: Delivered, against: str | Path | None = None, reporter: Reporter | None = None, **options: Any
) -> Measured:
    """Measure an exported run; see `measure`.

    Args:
        delivered: what was exported.
        against: another file or run, measured in turns with it.
        reporter: told what is measured.
        options: fields of `MeasureOptions`.
    """
    from .options import gather

    (how,) = gather(options, MeasureOptions)
    return _measured(delivered.artifact, how, None if against is None else Path(against), reporter or Silent())


def _measured(artifact: Artifact, how: MeasureOptions, against: Path | None, reporter: Reporter) -> Measured:
    from pretrim.measure import measure as measure_artifacts
    from pretrim.measure.compare import ratio, warning

    protocol, asked = _protocol(how, reporter)
    other = None if against is None else _counterpart(against, artifact)
    reporter.say(f"measuring {artifact.path}{f' against {other.path}' if other is not None else ''}")
    found: Sequence[Measurement] = measure_artifacts(
        [artifact] if other is None else [artifact, other], protocol, asked
    )
    _check_provider(how, found[0], reporter)
    if other is None:
        return Measured(found[0])
    return Measured(found[0], found[1], ratio(found[0], found[1]), warning(artifact, found[0], found[1]))


def _check_provider(how: MeasureOptions, found: Measurement, reporter: Reporter) -> None:
    """Raises UsageError where ONNX Runtime took another provider than the one that was named; other runtimes have none,
    which is said."""
    if how.provider == "cpu" or found.provider == PROVIDERS[how.provider]:
        return
    if found.runtime != "onnx":
        reporter.say(f"note: --provider is of ONNX Runtime: {found.artifact} ran on {found.provider}")
        return
    raise UsageError(
        f"Expected ONNX Runtime to run {found.artifact} by --provider {how.provider}, but it took {found.provider}: "
        f"install its build for that device, or leave --provider out."
    )


def _protocol(how: MeasureOptions, reporter: Reporter) -> tuple[Protocol, Runner]:
    """How and where it is measured. Raises UsageError for what cannot be."""
    from pretrim.measure import Protocol
    from pretrim.measure.deadline import Patience
    from pretrim.measure.run import here
    from pretrim.measure.ssh import Host

    if how.provider not in PROVIDERS:
        raise UsageError(f"Expected --provider to be one of {', '.join(PROVIDERS)}, but got {shown(how.provider)}.")
    patience = Patience(how.time_limit, reporter.say)
    local = partial(here, patience=patience)
    asked = local if how.ssh is None else Host(how.ssh, how.remote_python, how.ssh_config, patience)
    providers = tuple(dict.fromkeys([PROVIDERS[how.provider], PROVIDERS["cpu"]]))
    return Protocol(threads=how.threads, runs=how.runs, processes=how.processes, providers=providers), asked


def artifacts_of(path: Path) -> list[Artifact]:
    """The artifact, or all of a run."""
    from pretrim.deploy import SUFFIXES, read
    from pretrim.runs.record import ARTIFACT

    if not path.exists():
        raise UsageError(f"No file {path}: give a file of `pretrim export`, or a run.")
    if not path.is_dir():
        return [read(path)]
    found = [file for file in sorted(path.glob(f"{ARTIFACT}.*")) if file.suffix in SUFFIXES.values()]
    if not found:
        raise ArtifactError(f"No artifact in {path}: {_how_to_export(path)}.")
    return [read(file) for file in found]


def _how_to_export(folder: Path) -> str:
    """How an artifact gets into a folder, which may be no run."""
    from pretrim.runs.record import RECORD

    if (folder / RECORD).exists():
        return f"make one with `{on_run('export', folder, '--runtime', 'onnx')}`"
    return "make one with `pretrim export RUN --runtime onnx`, where RUN is a folder that `pretrim compress -o` wrote"


def _counterpart(path: Path, artifact: Artifact) -> Artifact:
    """What to compare with: the artifact, or that of the same kind in a run."""
    from pretrim.deploy import read

    file = path / artifact.path.name if path.is_dir() else path
    if file.exists() and file.samefile(artifact.path):
        raise UsageError(f"--against {path} is the artifact itself: name another one, often RUN/dense.")
    if not file.exists():
        if not path.is_dir():
            raise ArtifactError(f"No file {path} to compare with: give a file of `pretrim export`, or a run.")
        int8 = calibration(path) if artifact.data_type == "int8" else ()
        raise ArtifactError(
            f"No {file} to compare with: make it with `{on_run('export', path, '--runtime', artifact.runtime, *int8)}`."
        )
    return read(file)

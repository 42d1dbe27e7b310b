"""Measures how fast an artifact runs, on this machine or on the device, alone or compared with another."""

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
    """A measurement, and its comparison if two artifacts were measured in alternation.

    Attributes:
        measurement: measurement of the artifact.
        against: measurement of the other artifact.
        ratio: ratio of their latencies, with its interval; None without another artifact.
        warning: a warning if the slimmer network is not the faster one.
    """

    measurement: Measurement
    against: Measurement | None = None
    ratio: Any = None
    warning: str | None = None

    @property
    def latency_s(self) -> float:
        """Median latency of one inference, in seconds."""
        return self.measurement.latency.median_s

    def to_json(self) -> dict[str, Any]:
        """Return the output of `pretrim measure --json`."""
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
        path: an exported file, or a run.
        options: measurement options.
        against: another file or run, measured in alternation for a reliable ratio.
        reporter: told what is measured.

    Raises:
        UsageError: no such file, or the runtime is not installed.
        ArtifactError: a damaged artifact, or none in the run.
        MeasureError: the measurement failed.
    """
    settings = options or MeasureOptions()
    note_threads(settings.threads if settings.ssh is None else None, reporter or Silent())
    _protocol(settings, Silent())  # raises for wrong options before any file is read
    other_path = None if against is None else Path(against)
    return [_measured(artifact, settings, other_path, reporter or Silent()) for artifact in artifacts_of(Path(path))]


def dense_of(path: Path) -> Path:
    """Return the folder of the dense network's run inside a run, given that run or a file in it.

    Raises UsageError if there is none.
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
        delivered: the exported run.
        against: another file or run, measured in alternation with it.
        reporter: told what is measured.
        options: fields of `MeasureOptions`.
    """
    from .options import gather

    (settings,) = gather(options, MeasureOptions)
    return _measured(delivered.artifact, settings, None if against is None else Path(against), reporter or Silent())


def _measured(artifact: Artifact, options: MeasureOptions, against: Path | None, reporter: Reporter) -> Measured:
    from pretrim.measure import measure as measure_artifacts
    from pretrim.measure.compare import ratio, warning

    protocol, runner = _protocol(options, reporter)
    other = None if against is None else _counterpart(against, artifact)
    reporter.say(f"measuring {artifact.path}{f' against {other.path}' if other is not None else ''}")
    measurements: Sequence[Measurement] = measure_artifacts(
        [artifact] if other is None else [artifact, other], protocol, runner
    )
    _check_provider(options, measurements[0], reporter)
    if other is None:
        return Measured(measurements[0])
    first, second = measurements[0], measurements[1]
    return Measured(first, second, ratio(first, second), warning(artifact, first, second))


def _check_provider(options: MeasureOptions, result: Measurement, reporter: Reporter) -> None:
    """Raise UsageError if ONNX Runtime used another provider than the named one; for other runtimes only note that
    providers do not apply."""
    if options.provider == "cpu" or result.provider == PROVIDERS[options.provider]:
        return
    if result.runtime != "onnx":
        reporter.say(f"note: --provider applies to ONNX Runtime alone: {result.artifact} ran on {result.provider}")
        return
    raise UsageError(
        f"Expected ONNX Runtime to run {result.artifact} by --provider {options.provider}, but it took "
        f"{result.provider}: install its build for that device, or leave --provider out."
    )


def _protocol(options: MeasureOptions, reporter: Reporter) -> tuple[Protocol, Runner]:
    """Return the measurement protocol, and what runs it. Raises UsageError for invalid options."""
    from pretrim.measure import Protocol
    from pretrim.measure.deadline import Patience
    from pretrim.measure.run import here
    from pretrim.measure.ssh import Host

    if options.provider not in PROVIDERS:
        raise UsageError(f"Expected --provider to be one of {', '.join(PROVIDERS)}, but got {shown(options.provider)}.")
    patience = Patience(options.time_limit, reporter.say)
    local = partial(here, patience=patience)
    runner = local if options.ssh is None else Host(options.ssh, options.remote_python, options.ssh_config, patience)
    providers = tuple(dict.fromkeys([PROVIDERS[options.provider], PROVIDERS["cpu"]]))
    protocol = Protocol(threads=options.threads, runs=options.runs, processes=options.processes, providers=providers)
    return protocol, runner


def artifacts_of(path: Path) -> list[Artifact]:
    """Read the artifact at a path, or all artifacts of a run."""
    from pretrim.deploy import SUFFIXES, read
    from pretrim.runs.record import ARTIFACT

    if not path.exists():
        raise UsageError(f"No file {path}: give a file of `pretrim export`, or a run.")
    if not path.is_dir():
        return [read(path)]
    files = [file for file in sorted(path.glob(f"{ARTIFACT}.*")) if file.suffix in SUFFIXES.values()]
    if not files:
        raise ArtifactError(f"No artifact in {path}: {_how_to_export(path)}.")
    return [read(file) for file in files]


def _how_to_export(folder: Path) -> str:
    """Describe how to export an artifact into a folder, which may not be a run."""
    from pretrim.runs.record import RECORD

    if (folder / RECORD).exists():
        return f"make one with `{on_run('export', folder, '--runtime', 'onnx')}`"
    return "make one with `pretrim export RUN --runtime onnx`, where RUN is a folder that `pretrim compress -o` wrote"


def _counterpart(path: Path, artifact: Artifact) -> Artifact:
    """Find the artifact to compare with: the named file, or the file of the same name in a run."""
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

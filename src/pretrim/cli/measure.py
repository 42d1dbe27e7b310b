"""`pretrim measure`: how fast an artifact runs, here or on the board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretrim.errors import ArtifactError, UsageError

from . import options, render
from .progress import say

if TYPE_CHECKING:
    from pretrim.deploy import Artifact

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


def measure(
    artifact: Annotated[Path, typer.Argument(metavar="RUN|ARTIFACT", help="A file of `pretrim export`, or its run.")],
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of the runtime.")] = 1,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="RUN|ARTIFACT",
            help="Measure that in turns, for a ratio that holds: often RUN/dense.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Timed inferences a process.")] = 50,
    processes: Annotated[int, typer.Option("--processes", min=1, help="One after another.")] = 3,
    provider: Annotated[str, typer.Option("--provider", metavar="cpu|cuda|tensorrt", help="Of ONNX Runtime.")] = "cpu",
    ssh: options.Ssh = None,
    remote_python: options.RemotePython = "python3",
    ssh_config: options.SshConfig = None,
    json: options.Json = False,
) -> None:
    """Measure latency, memory and energy of an exported network."""
    options.one_of("--provider", provider, "|".join(PROVIDERS))

    from pretrim.measure import Protocol
    from pretrim.measure import measure as measure_artifacts
    from pretrim.measure.compare import ratio, warning
    from pretrim.measure.ssh import Host

    host = None if ssh is None else Host(ssh, remote_python, ssh_config)
    providers = tuple(dict.fromkeys([PROVIDERS[provider], PROVIDERS["cpu"]]))
    protocol = Protocol(threads=threads, runs=runs, processes=processes, providers=providers)
    records: list[dict[str, Any]] = []
    for found in _artifacts(artifact):
        other = None if against is None else _counterpart(against, found)
        say(f"measuring {found.path}{f' against {other.path}' if other is not None else ''}")
        measured = measure_artifacts([found] if other is None else [found, other], protocol, host)
        record: dict[str, Any] = {**measured[0].to_json(), "against": None, "ratio": None, "warning": None}
        if other is not None:
            record["against"] = measured[1].to_json()
            record["ratio"] = ratio(measured[0], measured[1])
            record["warning"] = warning(found, measured[0], measured[1])
        records.append(record)
    if json:
        render.print_json(records)
    else:
        render.show_measurements(render.output(), records)


def _artifacts(path: Path) -> list[Artifact]:
    """The artifact, or all of a run."""
    from pretrim.deploy import SUFFIXES, read
    from pretrim.runs.record import ARTIFACT

    if not path.exists():
        raise UsageError(f"Expected a file of `pretrim export` or a run, but {path} is not there: check the path.")
    if not path.is_dir():
        return [read(path)]
    found = [file for file in sorted(path.glob(f"{ARTIFACT}.*")) if file.suffix in SUFFIXES.values()]
    if not found:
        raise ArtifactError(
            f"Expected an artifact in {path}, but there is none: make one with `pretrim export {path} --to onnx`."
        )
    return [read(file) for file in found]


def _counterpart(path: Path, artifact: Artifact) -> Artifact:
    """What to compare with: the artifact, or that of the same kind in a run."""
    from pretrim.deploy import read

    file = path / artifact.path.name if path.is_dir() else path
    if not file.exists():
        int8 = " --int8 --calibrate DATA" if artifact.data_type == "int8" else ""
        raise ArtifactError(
            f"Expected {file} to compare with, but it is not there: make it with "
            f"`pretrim export {path} --to {artifact.runtime}{int8}`."
        )
    return read(file)

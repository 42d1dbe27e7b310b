"""Measure latency, memory and energy of artifacts in separate processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pretrim.compat.optional import requirement_of
from pretrim.deploy.artifact import Artifact
from pretrim.deploy.runtimes import runtime
from pretrim.errors import MeasureError, UsageError

from .deadline import Patience, awaited
from .record import Answer, Latency, Measurement, parse_answer

WORKER = Path(__file__).with_name("worker.py")
MISSING = "missing: "
CPU = ("CPUExecutionProvider",)

Runner: TypeAlias = Callable[[dict[str, Any], Sequence[Path]], str]
"""Runs the worker once with a request about these files, and returns its output. Raises MeasureError."""


@dataclass(frozen=True)
class Protocol:
    """How to measure latency.

    Attributes:
        threads: number of threads of the runtime.
        runs: number of timed inferences of each artifact in each process.
        processes: number of processes, one after another: memory layout, and with it the time, differs between them.
        rounds: number of turns in a process; compared artifacts take turns, so that both see the same machine state.
        warmup_s: seconds of warm-up before the first timed inference.
        providers: ONNX Runtime's execution providers, in order of preference.
    """

    threads: int = 1
    runs: int = 50
    processes: int = 3
    rounds: int = 5
    warmup_s: float = 0.3
    providers: tuple[str, ...] = CPU

    def __post_init__(self) -> None:
        for name in ("threads", "runs", "processes", "rounds"):
            if getattr(self, name) < 1:
                raise UsageError(f"Expected {name} to be at least 1, but got {getattr(self, name)}.")


def measure(
    artifacts: Sequence[Artifact], protocol: Protocol | None = None, ask: Runner | None = None
) -> list[Measurement]:
    """Measure artifacts of one runtime; several are interleaved, so that their ratio is reliable on a noisy machine.

    Args:
        artifacts: the artifacts to measure.
        protocol: how to measure.
        ask: runs the worker; by default on this machine.

    Raises:
        UsageError: the artifacts are of several runtimes, or the runtime is not installed.
        MeasureError: the measurement failed.
    """
    protocol, ask = protocol or Protocol(), ask or here
    if len({artifact.runtime for artifact in artifacts}) != 1:
        raise UsageError("Expected artifacts of one runtime to compare: export the others to it as well.")
    answers = [_run_worker(ask, artifacts, protocol, protocol.runs) for _ in range(protocol.processes)]
    separate = (  # the memory of each artifact needs a process without the others
        [answers[0]]
        if len(artifacts) == 1
        else [_run_worker(ask, [artifact], protocol, protocol.rounds) for artifact in artifacts]
    )
    return [
        _measurement(number, artifact, protocol, answers, separate[number]) for number, artifact in enumerate(artifacts)
    ]


def _run_worker(ask: Runner, artifacts: Sequence[Artifact], protocol: Protocol, runs: int) -> Answer:
    request = {
        "artifacts": [
            {
                "path": artifact.path.name,
                "runtime": artifact.runtime,
                "inputs": [
                    {"shape": list(entry["shape"]), "data_type": entry["data_type"]} for entry in artifact.inputs
                ],
            }
            for artifact in artifacts
        ],
        "threads": protocol.threads,
        "runs": runs,
        "rounds": min(protocol.rounds, runs),
        "warmup_s": protocol.warmup_s,
        "providers": list(protocol.providers),
    }
    return parse_answer(ask(request, [artifact.path for artifact in artifacts]), len(artifacts))


def _measurement(
    number: int, artifact: Artifact, protocol: Protocol, answers: Sequence[Answer], separate: Answer
) -> Measurement:
    before, peak = separate.memory_before_bytes, separate.memory_peak_bytes
    energies = [answer.energy_j[number] for answer in answers]
    known = [energy for energy in energies if energy is not None]
    return Measurement(
        artifact=str(artifact.path),
        runtime=artifact.runtime,
        data_type=artifact.data_type,
        provider=answers[0].providers[number],
        threads=protocol.threads,
        latency=Latency.of([answer.samples_s[number] for answer in answers]),
        file_bytes=artifact.file_bytes,
        memory_peak_bytes=peak,
        memory_added_bytes=None if peak is None or before is None else peak - before,
        energy_j=sum(known) / len(known) if known and len(known) == len(energies) else None,
        energy_source=answers[0].energy_source[number],
        machine=answers[0].machine,
    )


def with_loaders(request: dict[str, Any]) -> dict[str, Any]:
    """Add the source code of the artifact loaders to a request, so that the worker is self-contained."""
    names = {entry["runtime"] for entry in request["artifacts"]}
    return {**request, "loaders": {name: runtime(name).loader() for name in sorted(names)}}


def here(request: dict[str, Any], files: Sequence[Path], patience: Patience | None = None) -> str:
    """Run the worker in a process on this machine.

    Args:
        request: what to measure, as plain JSON.
        files: the artifacts.
        patience: how long to wait, and where to report that it is still running.
    """
    paths = [str(file.resolve()) for file in files]
    entries = [entry | {"path": path} for entry, path in zip(request["artifacts"], paths, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        request_file = Path(folder) / "request.json"
        request_file.write_text(json.dumps(with_loaders(request) | {"artifacts": entries}), encoding="utf-8")
        # Not isolated (-I): the runtime may be on the user's PYTHONPATH.
        command = [sys.executable, str(WORKER), str(request_file)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with process, awaited(process, patience or Patience(), "the measurement"):
            answer, errors = process.communicate()
    check_ended(process.returncode, errors.decode(errors="replace"), "on this machine")
    return answer.decode(errors="replace")


def check_ended(code: int, errors: str, where: str) -> None:
    """Raises MeasureError if the worker failed, or UsageError if the runtime is not installed.

    Args:
        code: the worker's exit status.
        errors: the worker's stderr.
        where: the machine, for error messages.
    """
    if code == 0:
        return
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    missing = next((line.removeprefix(MISSING) for line in lines if line.startswith(MISSING)), None)
    if missing is not None:
        package = printable(missing.split()[0])
        requirement = requirement_of(package.replace("-", "_"))
        command = f"pip install '{requirement}'" if where == "on this machine" else f"pip install {package} there"
        raise UsageError(f"{package} is not installed {where}: {command}.")
    if code == -signal.SIGKILL:
        raise MeasureError(f"The artifact was killed {where}, probably for lack of memory: free some.")
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        raise MeasureError(f"The runtime crashed {where} ({name}): export it again.")
    message = printable(lines[-1]) if lines else f"exit code {code}"
    raise MeasureError(f"The artifact did not run {where}: {message}. Export it again.")


def printable(text: str) -> str:
    """Shorten untrusted output of a process, and drop control characters that would move the terminal's cursor."""
    return "".join(letter for letter in text if letter.isprintable())[:300]

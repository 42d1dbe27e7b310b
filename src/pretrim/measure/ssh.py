"""Measure on another machine over ssh, with one connection, without leaving files there or passing it shell code.

The remote shell only sees a fixed command. `remote.py`, `worker.py` and the artifacts go through the connection's
stdin. The machine needs Python 3.8 and the runtime. ssh must log in without a password (BatchMode), to a host whose key
is known.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pretrim.errors import MeasureError, UsageError, shown

from .deadline import Patience, awaited
from .remote import MARK
from .run import WORKER, check_ended, printable, with_loaders

REMOTE = Path(__file__).with_name("remote.py")
BOOT = "import sys; s = sys.stdin.buffer; exec(compile(s.read(int(s.readline())), 'remote.py', 'exec'))"
MAX_ANSWER_BYTES = 16 << 20
_HOST = re.compile(
    r"(ssh://)?([A-Za-z0-9_.][A-Za-z0-9_.-]*@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.][A-Za-z0-9_.-]*)(:\d+)?/?"
)
_PYTHON = re.compile(r"[A-Za-z0-9_./~][A-Za-z0-9_./~+-]*")


@dataclass(frozen=True)
class Host:
    """A machine to measure on; a `Runner` for `measure`.

    Attributes:
        name: ``host``, ``user@host``, ``ssh://user@host:port``, or a host of the ssh configuration.
        python: the remote interpreter that has the runtime.
        config: an ssh configuration file to use instead of the user's.
        patience: how long to wait for an answer.
    """

    name: str
    python: str = "python3"
    config: Path | None = None
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        """Raises UsageError for names that ssh or a shell could misinterpret."""
        if not _HOST.fullmatch(self.name):
            raise UsageError(
                f"Expected --ssh to be user@host, host or ssh://user@host:port, but got {shown(self.name)}."
            )
        if not _PYTHON.fullmatch(self.python):
            raise UsageError(f"Expected --remote-python to be a path of an interpreter, but got {shown(self.python)}.")

    def __call__(self, request: dict[str, Any], files: Sequence[Path]) -> str:
        """Run the worker on the host with these files.

        Raises:
            MeasureError: the host cannot be reached, or the worker failed.
            UsageError: ssh is missing on this machine, or the runtime on the host.
        """
        names = [f"{number}{file.suffix}" for number, file in enumerate(files)]
        entries = [entry | {"path": name} for entry, name in zip(request["artifacts"], names, strict=True)]
        request_json = json.dumps(with_loaders(request) | {"artifacts": entries}).encode()
        parts = [("worker.py", WORKER.read_bytes()), ("request.json", request_json)]
        try:
            parts += [(name, file.read_bytes()) for name, file in zip(names, files, strict=True)]
        except OSError as error:
            raise MeasureError(f"Cannot read {error.filename}: {error.strerror}. Try again.") from error
        code, output, errors = self._exchange(_bundle(parts))
        lines = [line for line in output.decode(errors="replace").splitlines() if line.startswith(MARK)]
        try:
            answer = json.loads(lines[-1].removeprefix(MARK))
            worker_code, out, worker_errors = int(answer["code"]), str(answer["out"]), str(answer["errors"])
        except (IndexError, KeyError, TypeError, ValueError):
            raise self._unreachable(code, errors) from None
        check_ended(worker_code, worker_errors, f"on {self.name}")
        return out

    def _exchange(self, bundle: bytes) -> tuple[int, bytes, str]:
        """Send the bundle over ssh: its exit status, stdout and stderr."""
        options = ["BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=10", "ServerAliveInterval=15"]
        command = ["ssh", "-T", *(["-F", str(self.config)] if self.config is not None else [])]
        command += [part for option in options for part in ("-o", option)]
        command += ["--", self.name, f"{self.python} -c {_quoted(BOOT)}"]
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except FileNotFoundError:
            raise UsageError("ssh is not installed: install the OpenSSH client.") from None
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        errors: list[bytes] = []
        listener = threading.Thread(target=lambda stream: errors.append(stream.read()), args=(process.stderr,))
        listener.start()
        try:
            with awaited(process, self.patience, f"the measurement on {self.name}"):
                _send(process.stdin, bundle)
                answer = process.stdout.read(MAX_ANSWER_BYTES)  # stdin stays open until the answer has arrived
        finally:
            listener.join()
            for stream in (process.stdin, process.stdout, process.stderr):
                _close(stream)
        return process.returncode, answer, b"".join(errors).decode(errors="replace")

    def _unreachable(self, code: int, errors: str) -> MeasureError:
        lines = [line.strip() for line in errors.splitlines() if line.strip() and not line.startswith("**")]
        message = printable(lines[-1] if lines else f"exit code {code}")
        return MeasureError(
            f"Cannot measure on {self.name}: {message}. Check that `ssh {self.name} {self.python} -V` works "
            f"without a password."
        )


def _quoted(code: str) -> str:
    """Quote code for a shell; only for our own code, which has no double quotes."""
    return f'"{code}"'


def _bundle(parts: Sequence[tuple[str, bytes]]) -> bytes:
    """Pack `remote.py`, preceded by its length, and the header and files that it reads."""
    code = REMOTE.read_bytes()
    header = json.dumps({"files": [{"name": name, "bytes": len(content)} for name, content in parts]}).encode()
    return b"%d\n" % len(code) + code + header + b"\n" + b"".join(content for _, content in parts)


def _send(stream: IO[bytes], content: bytes) -> None:
    try:
        stream.write(content)
        stream.flush()
    except BrokenPipeError:  # the process has ended; its stderr says why
        pass


def _close(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        pass

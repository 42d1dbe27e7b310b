"""Runs on the remote machine: unpack the files that follow on stdin, run the worker on them, answer, and clean up.

Needs only the standard library of Python 3.8 or newer. The temporary folder is private (0700) and always removed: when
the worker ends, when this process is told to stop, and when the connection breaks (which ends stdin).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any

MAX_OUTPUT_BYTES = 4 << 20
MARK = "pretrim-answer:"


def main() -> None:
    """Read a line of JSON, {"files": [{"name", "bytes"}]}, and then the files; answer with a line of JSON."""
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        signal.signal(getattr(signal, name), stop)
    stream = sys.stdin.buffer
    files = json.loads(stream.readline())["files"]
    folder = tempfile.mkdtemp(prefix="pretrim-")
    try:
        for entry in files:
            unpack(stream, os.path.join(folder, os.path.basename(entry["name"])), entry["bytes"])
        command = [sys.executable, "worker.py", "request.json"]
        worker = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        threading.Thread(target=end_with_input, args=(stream, worker), daemon=True).start()
        try:
            out, errors = worker.communicate()
        finally:
            worker.kill()
        answer = {"code": worker.returncode, "out": text(out), "errors": text(errors)}
        sys.stdout.write("\n" + MARK + json.dumps(answer) + "\n")  # the login shell may have printed something before
        sys.stdout.flush()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stop(number: int, frame: Any) -> None:
    sys.exit(128 + number)


def unpack(stream: Any, path: str, size: int) -> None:
    """Write one file of a packed stream.

    Args:
        stream: the incoming stream.
        path: the file to write.
        size: size of the file in bytes.
    """
    with open(path, "wb") as file:
        while size > 0:
            chunk = stream.read(min(size, 1 << 20))
            if not chunk:
                sys.exit("the files ended early")
            file.write(chunk)
            size -= len(chunk)


def end_with_input(stream: Any, worker: Any) -> None:
    """Kill the worker when the input ends: the other side keeps it open until it has the answer."""
    if not stream.read(1):
        worker.kill()


def text(content: bytes) -> str:
    return content[-MAX_OUTPUT_BYTES:].decode("utf-8", "replace")


if __name__ == "__main__":
    main()

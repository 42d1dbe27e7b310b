"""Sent to another machine and run there: unpack what follows on the input, run the worker on it, answer, clean up.

Python 3.8 or newer, nothing but its standard library. The folder is private (0700) and goes whatever happens: when the
worker ends, when this process is told to stop, and when the connection breaks (its input ends then).
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

LONGEST = 4 << 20
MARK = "pretrim-answer:"


def main() -> None:
    """Read a line of JSON, {"files": [{"name", "bytes"}]}, and the files behind it; answer with a line of JSON."""
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
        sys.stdout.write("\n" + MARK + json.dumps(answer) + "\n")  # a shell there may have printed before
        sys.stdout.flush()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stop(number: int, frame: Any) -> None:
    sys.exit(128 + number)


def unpack(stream: Any, path: str, size: int) -> None:
    """Write one file of a packed stream.

    Args:
        stream: what arrives.
        path: the file to write.
        size: its bytes.
    """
    with open(path, "wb") as file:
        while size > 0:
            part = stream.read(min(size, 1 << 20))
            if not part:
                sys.exit("the files ended early")
            file.write(part)
            size -= len(part)


def end_with_input(stream: Any, worker: Any) -> None:
    """The other side holds its end open until it has the answer."""
    if not stream.read(1):
        worker.kill()


def text(content: bytes) -> str:
    return content[-LONGEST:].decode("utf-8", "replace")


if __name__ == "__main__":
    main()

"""Owner names of processes, from which others on this machine can tell whether the process is still alive."""

from __future__ import annotations

import os
import platform
import secrets
from pathlib import Path


def new_owner() -> str:
    """``MACHINE:PROCESS:TOKEN``, unique for each call."""
    return f"{machine()}:{os.getpid()}:{secrets.token_hex(4)}"


def machine() -> str:
    """Name of this machine and its PID namespace, since containers on one host have several."""
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return f"{platform.node()}/{namespace}"


def is_dead(owner: str) -> bool:
    """Whether the owner's process ran on this machine and has ended, or the text is not an owner name."""
    parts = owner.rsplit(":", 2)
    if len(parts) != 3 or not (parts[1].isascii() and parts[1].isdigit()):
        return True
    return parts[0] == machine() and not _is_alive(int(parts[1]))


def shown(owner: str) -> str:
    """The owner as readable text: ``process 12 on host``."""
    where, process, _ = owner.rsplit(":", 2)
    return f"process {process} on {where.partition('/')[0]}"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False

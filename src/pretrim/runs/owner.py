"""Who works on something: a name for this process that others, on this machine or another, can tell dead from alive."""

from __future__ import annotations

import os
import platform
import secrets
from pathlib import Path


def new_owner() -> str:
    """``MACHINE:PROCESS:TOKEN``, unique for each call."""
    return f"{machine()}:{os.getpid()}:{secrets.token_hex(4)}"


def machine() -> str:
    """This machine, and its space of process numbers: containers of one host have several."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    return f"{platform.node()}/{space}"


def is_dead(owner: str) -> bool:
    """Whether the owner's process ran on this machine and is gone, or the text names no owner at all."""
    parts = owner.rsplit(":", 2)
    if len(parts) != 3 or not (parts[1].isascii() and parts[1].isdigit()):
        return True
    return parts[0] == machine() and not _is_alive(int(parts[1]))


def shown(owner: str) -> str:
    """For people: ``process 12 on host``."""
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

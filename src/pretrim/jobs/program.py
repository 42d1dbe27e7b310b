"""What the command line tells the rest: that this process is a program of its own, which a signal may end."""

from __future__ import annotations

from pretrim.compat.signals import program as program

__all__ = ["program"]

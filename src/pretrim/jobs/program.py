"""How the command line declares that this process is a standalone program, which signals may end."""

from __future__ import annotations

from pretrim.compat.signals import program as program

__all__ = ["program"]

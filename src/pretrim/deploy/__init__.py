"""Artifacts: a network in the form of a runtime (ONNX Runtime, LiteRT, ExecuTorch), float32 or int8, proved equal.

Each runtime is an extra (``pretrim[onnx]``, ``[litert]``, ``[executorch]``), imported where it is used.
"""

from .artifact import Artifact, read, runtime_of
from .check import check
from .export import check_installed, check_target, export, open_session
from .proof import Proof
from .runtime import RUNTIMES, SUFFIXES, TITLES, RuntimeName
from .sources import write_sources

__all__ = [
    "RUNTIMES",
    "SUFFIXES",
    "TITLES",
    "Artifact",
    "Proof",
    "RuntimeName",
    "check",
    "check_installed",
    "check_target",
    "export",
    "open_session",
    "read",
    "runtime_of",
    "write_sources",
]

"""Export of networks to artifacts for ONNX Runtime, LiteRT or ExecuTorch, in float32 or int8, compared with PyTorch.

Each runtime is an extra (``pretrim[onnx]``, ``[litert]``, ``[executorch]``), imported where it is used. The names below
are loaded on first use, so that runtimes can be listed without importing torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .artifact import Artifact as Artifact
    from .artifact import read as read
    from .artifact import runtime_of as runtime_of
    from .board import arena_on as arena_on
    from .board import check as check
    from .exporter import check_target as check_target
    from .exporter import export as export
    from .exporter import litert_file as litert_file
    from .firmware import Firmware as Firmware
    from .firmware import firmware_layers as firmware_layers
    from .firmware import write_firmware as write_firmware
    from .folder import check_sources as check_sources
    from .micro import check_operators as check_operators
    from .proof import Judge as Judge
    from .proof import Proof as Proof
    from .runtime import Conversion as Conversion
    from .runtime import Converted as Converted
    from .runtime import Runtime as Runtime
    from .runtime import RuntimeName as RuntimeName
    from .runtime import Session as Session
    from .runtimes import RUNTIMES as RUNTIMES
    from .runtimes import SUFFIXES as SUFFIXES
    from .runtimes import TITLES as TITLES
    from .runtimes import check_installed as check_installed
    from .runtimes import open_session as open_session
    from .sources import known_operators as known_operators
    from .sources import write_sources as write_sources

_MODULES = {
    "RUNTIMES": "runtimes",
    "SUFFIXES": "runtimes",
    "TITLES": "runtimes",
    "Artifact": "artifact",
    "Conversion": "runtime",
    "Converted": "runtime",
    "Firmware": "firmware",
    "Judge": "proof",
    "Proof": "proof",
    "Runtime": "runtime",
    "RuntimeName": "runtime",
    "Session": "runtime",
    "arena_on": "board",
    "check": "board",
    "check_installed": "runtimes",
    "check_operators": "micro",
    "check_sources": "folder",
    "check_target": "exporter",
    "export": "exporter",
    "firmware_layers": "firmware",
    "known_operators": "sources",
    "litert_file": "exporter",
    "open_session": "runtimes",
    "read": "artifact",
    "runtime_of": "artifact",
    "write_firmware": "firmware",
    "write_sources": "sources",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)

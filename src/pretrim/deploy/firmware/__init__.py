"""Plain C for a microcontroller from an int8 ``.tflite``: no interpreter, no library, no heap.

The arithmetic is LiteRT's to the bit, the memory is planned here, and what is written was compiled and run in tests.
"""

from __future__ import annotations

from .project import Firmware, firmware_layers, write_firmware

__all__ = ["Firmware", "firmware_layers", "write_firmware"]

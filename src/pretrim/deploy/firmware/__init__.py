"""Generate plain C for a microcontroller from an int8 ``.tflite``: no interpreter, no library, no heap.

The arithmetic matches LiteRT's to the bit, memory is planned at generation, and tests compile and run the generated C.
"""

from __future__ import annotations

from .project import Firmware, firmware_layers, write_firmware

__all__ = ["Firmware", "firmware_layers", "write_firmware"]

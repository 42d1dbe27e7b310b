"""Measure latency, memory and energy of artifacts, on this machine or over ssh."""

from .record import Latency, Measurement
from .run import Protocol, measure

__all__ = ["Latency", "Measurement", "Protocol", "measure"]

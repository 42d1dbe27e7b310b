"""Latency as a cost of a network: by a table of single layers, measured here or on the board."""

from .calibrate import measured_cost
from .cost import LatencyCost, latency_cost, wanted_axes
from .table import PROVIDERS, LatencyKey, Table, load_table, measure_table, save_table

__all__ = [
    "PROVIDERS",
    "LatencyCost",
    "LatencyKey",
    "Table",
    "latency_cost",
    "load_table",
    "measure_table",
    "measured_cost",
    "save_table",
    "wanted_axes",
]

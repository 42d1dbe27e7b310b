"""The 32-bit arena against TensorFlow Lite for Microcontrollers itself, compiled to wasm32 in mcufit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from int8_networks import draw

from pretrim.deploy.graph import graph_of

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))  # scripts beside each other, not a package
import mcufit_arena

SEEDS = (0, 1, 2, 4, 6, 12, 13, 30, 37, 44, 50, 53)
"""Networks with operators that mcufit's interpreter supports"""
TOLERANCE_BYTES = 48
"""Tolerance in bytes for the structures of a network of a few operators; their alignment is not modelled"""


@pytest.mark.skipif(mcufit_arena.missing() is not None, reason=str(mcufit_arena.missing()))
@pytest.mark.parametrize("seed", SEEDS)
def test_the_arena_of_random_networks_matches_the_interpreter(seed: int) -> None:
    """Activations match exactly, the rest within a few bytes; the constants were fitted on other networks."""
    content = draw(seed)
    graph, real = graph_of(content), mcufit_arena.arena(content)
    assert real is not None
    assert graph.head() == real.head_bytes
    assert abs(graph.arena() - (real.total_bytes - mcufit_arena.MORE_THAN_A_BOARD)) <= TOLERANCE_BYTES, graph.names

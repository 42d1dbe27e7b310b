"""The arena in 32 bits against the interpreter itself: TensorFlow Lite for Microcontrollers as wasm32, in mcufit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from int8_networks import draw

from pretrim.deploy.graph import graph_of

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))  # scripts beside each other, not a package
import mcufit_arena

SEEDS = (0, 1, 2, 4, 6, 12, 13, 30, 37, 44, 50, 53)
"""Networks whose operators the interpreter there knows"""
MOST = 48
"""Bytes that the structures of a network of a few operators may be off: what is aligned in the arena is not followed"""


@pytest.mark.skipif(mcufit_arena.missing() is not None, reason=str(mcufit_arena.missing()))
@pytest.mark.parametrize("seed", SEEDS)
def test_the_arena_of_random_networks_is_the_interpreter_s(seed: int) -> None:
    """Activations to the byte, the rest to a few; these networks are not what the numbers were fitted on."""
    content = draw(seed)
    graph, real = graph_of(content), mcufit_arena.arena(content)
    assert real is not None
    assert graph.head() == real.head_bytes
    assert abs(graph.arena() - (real.total_bytes - mcufit_arena.MORE_THAN_A_BOARD)) <= MOST, graph.names

"""Preserves the caller's random number generators across a call."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def _preserved_generators() -> Iterator[None]:
    """Restore the global random number generators of Python, NumPy and torch on exit."""
    import numpy as np
    import torch

    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def keeps_chance(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that seeds the global generators, so that the caller's random numbers are not affected."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with _preserved_generators():
            return function(*args, **kwargs)

    return call

"""Random numbers of the caller's, which a call leaves to come as they would have been."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def _chance_kept() -> Iterator[None]:
    """Generators of random numbers that everybody shares, Python's, NumPy's and torch's, are left as they were."""
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def keeps_chance(function: Callable[P, T]) -> Callable[P, T]:
    """A call that seeds generators for itself, and leaves the caller's numbers to come as they would have been."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with _chance_kept():
            return function(*args, **kwargs)

    return call

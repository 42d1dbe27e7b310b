"""Identify a model and its inputs: a fingerprint of names and shapes, and a plain description of the inputs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the names and shapes of a model's parameters and buffers, regardless of their values."""
    entries = [(name, list(t.shape)) for part in (model.named_parameters(), model.named_buffers()) for name, t in part]
    return hashlib.sha256(json.dumps(sorted(entries)).encode()).hexdigest()


def describe(example: Any) -> Any:
    """Shapes and data types of the inputs as plain JSON; :func:`make_example` turns them into zeros again.

    >>> describe((torch.zeros(1, 3, 8, 8), 2))
    [{'shape': [1, 3, 8, 8], 'dtype': 'float32'}, {'value': 2}]
    """
    if isinstance(example, torch.Tensor):
        return {"shape": list(example.shape), "dtype": str(example.dtype).removeprefix("torch.")}
    if isinstance(example, dict):
        return {"named": {name: describe(value) for name, value in example.items()}}
    if isinstance(example, (tuple, list)):
        return [describe(value) for value in example]
    return {"value": example}


def make_example(described: Any) -> Any:
    """Inputs of zeros from a description made by :func:`describe`."""
    if isinstance(described, list):
        return tuple(make_example(value) for value in described)
    if "named" in described:
        return {name: make_example(value) for name, value in described["named"].items()}
    if "shape" in described:
        return torch.zeros(described["shape"], dtype=getattr(torch, described["dtype"]))
    return described["value"]

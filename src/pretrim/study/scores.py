"""Scores of networks that were never trained, to choose among plans of one budget. Higher is better.

Whether they choose well is to be measured (`benchmarks/search.py`); none is used unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pretrim.analysis.network import IntArray, Network
from pretrim.data import DataSet, normalise
from pretrim.errors import UsageError
from pretrim.planning.allocate import allocate
from pretrim.planning.budget import Budget
from pretrim.planning.options import Options
from pretrim.planning.search import plan_of_widths
from pretrim.train import split_outputs

from .settings import Asked

IMAGES = 32
"""in a batch; ZiCo takes two"""
SMALLEST = 1e-12
Score = Callable[[nn.Module, torch.Tensor, torch.Tensor], float]


def naswot(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """How differently a network's ReLUs divide images: the log-determinant of the kernel of their codes.

    Mellor, Turner, Storkey, Crowley 2021, "Neural architecture search without training", section 3.

    Args:
        model: with any weights; N x C x H x W in.
        images: a batch.
        labels: not used.
    """
    count = len(images)
    kernel = torch.zeros((count, count), dtype=torch.float64)

    def add(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        code = (output.detach().reshape(count, -1) > 0).to(torch.float32)
        kernel.add_((code @ code.T + (1 - code) @ (1 - code).T).double())

    units = [module for module in model.modules() if isinstance(module, (nn.ReLU, nn.ReLU6))]
    if not units:
        raise UsageError("Expected a network with ReLU modules for the score naswot, but it has none: take synflow.")
    hooks = [module.register_forward_hook(add) for module in units]
    try:
        with torch.no_grad():
            model.train()(images)
    finally:
        for hook in hooks:
            hook.remove()
    return float(torch.linalg.slogdet(kernel + SMALLEST * torch.eye(count, dtype=torch.float64))[1])


def synflow(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The flow through all weights: the sum of ``|weight * gradient|`` for an image of ones and absolute weights.

    Tanaka, Kunin, Yamins, Ganguli 2020, "Pruning neural networks without any data by iteratively conserving synaptic
    flow", section 5; its logarithm, as the sum spans many orders of magnitude. Norms are left in eval mode.

    Args:
        model: with any weights.
        images: for their shape alone.
        labels: not used.
    """
    model = model.eval().double()
    signs = {name: tensor.sign() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in signs:
                tensor.abs_()
    try:
        model.zero_grad()
        split_outputs(model(torch.ones_like(images[:1], dtype=torch.float64)))[0].sum().backward()  # type: ignore[no-untyped-call]
        flows = [(p * p.grad).abs().sum() for p in model.parameters() if p.grad is not None]
        return float(torch.stack(flows).sum().clamp_min(SMALLEST).log().detach())
    finally:
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                if name in signs:
                    tensor.mul_(signs[name])
        model.float().zero_grad()


def zico(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """How steady gradients are between batches: per layer the log of the sum of ``mean |g| / std |g|``, summed up.

    Li, Yang, Bhardwaj, Marculescu 2023, "ZiCo: zero-shot NAS via inverse coefficient of variation on gradients",
    equation 12; two batches, as there.

    Args:
        model: with any weights.
        images: both batches.
        labels: their classes.
    """
    gradients: dict[str, list[torch.Tensor]] = {}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    model.train()
    for part in (slice(0, len(images) // 2), slice(len(images) // 2, None)):
        model.zero_grad()
        outputs = split_outputs(model(images[part]))[0]
        functional.cross_entropy(outputs, labels[part]).backward()  # type: ignore[no-untyped-call]
        for name, layer in layers.items():
            if layer.weight.grad is not None:
                gradients.setdefault(name, []).append(layer.weight.grad.abs().flatten().clone())
    model.zero_grad()
    total = 0.0
    for pair in gradients.values():
        both = torch.stack(pair)
        mean, deviation = both.mean(dim=0), both.std(dim=0, unbiased=False)
        there = deviation > 0
        if there.any():
            total += float((mean[there] / deviation[there]).sum().clamp_min(SMALLEST).log())
    return total


SCORES: Mapping[str, Score] = {"naswot": naswot, "synflow": synflow, "zico": zico}


def best_of(
    network: Network,
    module: nn.Module,
    data: DataSet,
    limits: Mapping[str, Any],
    options: Options,
    asked: Asked,
    latency: Any = None,
) -> tuple[IntArray, dict[str, Any]]:
    """Draw plans within a budget, score each once, and take the best.

    Raises UsageError for a score that does not exist, or that the network does not have.
    """
    if asked.score not in SCORES:
        raise UsageError(f"Expected a score out of {', '.join(SCORES)}, but got {asked.score!r}.")
    bounds = Budget.parse(limits, "float32", latency).resolve(network)
    rows = np.unique(allocate(network, bounds, options, asked.candidates), axis=0)
    part = data.train.take(np.linspace(0, len(data.train) - 1, min(2 * IMAGES, len(data.train))).astype(np.int64))
    images = normalise(part.images, data.mean, data.std)  # type: ignore[arg-type]
    found = []
    for row in rows:
        torch.manual_seed(asked.seed)
        slim = plan_of_widths(network, row).apply(module)
        used = images if asked.score == "zico" else images[:IMAGES]
        found.append(SCORES[asked.score](slim, used, part.labels[: len(used)]))
    best = int(np.nanargmax(found))
    chosen: IntArray = rows[best]
    return chosen, {"score": {"name": asked.score, "value": found[best], "of": len(rows), "all": sorted(found)}}

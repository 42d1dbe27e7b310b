"""How steps are run on the machine at hand: device, precision, memory layout, threads. What is not pinned is timed.

No choice wins everywhere: on a CPU with bfloat16 instructions ResNet-20 trains twice as fast with them, on one without
fifteen times slower, and the layouts differ by the network. So a few steps are timed, on the network itself, and its
values are put back.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import nn

from pretrim.errors import UsageError, check_is, shown

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]

TIMED = 3
"""steps a candidate is timed for; the first also makes what is kept, and does not count"""
SMALLEST_SHARE = 1 / 20
"""of the training's steps that the timing may take: below it, it does not pay"""
HOPELESS = 2.0
"""a candidate whose first step takes so many times the best one's is given up"""
MOST_THREADS = 1024
"""what OpenMP is asked for: with far more it does not fail, it crashes"""
COMPILING_PAYS_S = 600.0
"""training on a GPU, at the eager speed, above which a minute of compiling is soon won back"""


@dataclass(frozen=True)
class Execution:
    """How steps are run. None: chosen when training starts, by timing a few steps where that pays.

    Attributes:
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ...
        precision: of convolutions and matrix products; the weights are float32 in every case. With float16 the loss
            is scaled, so that small gradients do not vanish (Micikevicius et al. 2018).
        channels_last: the memory layout of feature maps and kernels.
        compile: by torch.compile.
        threads: of the CPU; a sum over other numbers of threads rounds differently.
        deterministic: on a GPU, only kernels that give the same result twice (slower). A CPU always does.
    """

    device: str = "auto"
    precision: Precision | None = None
    channels_last: bool | None = None
    compile: bool | None = None
    threads: int | None = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        check_is(self.device, str, "device to be the name of one, such as 'auto', 'cpu' or 'cuda'")
        for name in ("channels_last", "compile"):
            check_is(getattr(self, name), bool | None, f"{name} to be True, False or None")
        is_whole = isinstance(self.threads, int | None) and not isinstance(self.threads, bool)
        check_is(self.threads, object if is_whole else (), "threads to be a whole number or None")
        if self.precision is not None and self.precision not in get_args(Precision):
            choices = " or ".join(get_args(Precision))
            raise UsageError(f"Expected precision to be {choices}, but got {shown(self.precision)}.")
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(f"Expected threads to be from 1 to {MOST_THREADS}, but got {self.threads}.")

    @property
    def dtype(self) -> torch.dtype:
        """The data type of products."""
        return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.precision or "", torch.float32)

    def __str__(self) -> str:
        layout = "channels_last" if self.channels_last else "contiguous"
        compiled = ", compiled" if self.compile else ""
        threads = "" if self.device.startswith("cuda") else f", {self.threads} thread{'s' if self.threads != 1 else ''}"
        return f"{self.device}, {self.precision}, {layout}{compiled}{threads}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Execution:
        """Read what :meth:`to_json` wrote."""
        return cls(**{field.name: data[field.name] for field in fields(cls)})

    def keeps(self, wish: Execution) -> bool:
        """Whether everything that `wish` pins, apart from the device, is so here."""
        names = ("precision", "channels_last", "compile", "threads")
        pinned = {name: getattr(wish, name) for name in names if getattr(wish, name) is not None}
        return all(getattr(self, name) == value for name, value in pinned.items()) and (
            self.deterministic or not wish.deterministic
        )


@dataclass(frozen=True)
class ExecutionChoice:
    """What was chosen, and the images a second that each candidate reached; none where nothing was timed."""

    execution: Execution
    speeds: Mapping[str, float]


Step: TypeAlias = Callable[[Execution], None]
"""Runs one training step in a way, and waits for its end."""


def choose(
    wish: Execution, model: nn.Module, device: torch.device, run: Step, *, steps: int, batch: int
) -> ExecutionChoice:
    """Pin what is open in `wish`: by timing `run` on a CPU if `steps` are many, by what is known else.

    The model's values and gradients are put back; its memory layout is the caller's to set.

    Args:
        wish: what is pinned, and what is open.
        model: the network.
        device: to train on.
        run: one training step.
        steps: of the whole training.
        batch: images in a step.
    """
    wish = replace(wish, device=str(device), threads=wish.threads or torch.get_num_threads())
    options = candidates(wish, device, bfloat16_is_fast(device))
    is_open = len(options) > 1 or (device.type == "cuda" and wish.compile is None)
    if not is_open or len(options) * TIMED > steps * SMALLEST_SHARE:
        chosen = options[0]
        return ExecutionChoice(replace(chosen, compile=bool(chosen.compile)), {})
    with _restored(model), threads(wish.threads):
        seconds = fastest(options, lambda option: _seconds(run, option))
    best = min(seconds, key=seconds.__getitem__)
    compiled = best.compile if best.compile is not None else pays_to_compile(device, seconds[best] * steps)
    speeds = {_label(option): batch / took for option, took in seconds.items() if math.isfinite(took)}
    return ExecutionChoice(replace(best, compile=compiled), speeds)


def candidates(wish: Execution, device: torch.device, bfloat16: bool) -> list[Execution]:
    """Every way that agrees with what is pinned; first the one to take if nothing is timed.

    Args:
        wish: what is pinned.
        device: to train on.
        bfloat16: whether it computes in it.
    """
    layouts = [True, False] if wish.channels_last is None else [wish.channels_last]
    precisions: list[Precision] = ["float32", "bfloat16"] if bfloat16 else ["float32"]
    if device.type == "cuda" and wish.channels_last is None:
        layouts = [True]
    if device.type == "cuda":  # without bfloat16, float16 is what tensor cores take; older GPUs are slow in it
        precisions = ["bfloat16"] if bfloat16 else ["float32", "float16"]
    if wish.precision is not None:
        precisions = [wish.precision]
    return [
        replace(wish, channels_last=layout, precision=precision) for precision, layout in product(precisions, layouts)
    ]


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether the device has instructions for it; without them a product is emulated, and far slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(supported is not None and supported())


def pays_to_compile(device: torch.device, seconds: float) -> bool:
    """Whether so long a training is worth a minute of compiling; on a CPU only where the user says so."""
    return device.type == "cuda" and seconds > COMPILING_PAYS_S


def fastest(options: list[Execution], time_once: Callable[[Execution], float]) -> dict[Execution, float]:
    """Seconds a step of each option: its best of a few, infinite for one that its first step shows to be hopeless."""
    seconds: dict[Execution, float] = {}
    for option in options:
        first = time_once(option)
        best = min(seconds.values(), default=math.inf)
        hopeless = first > HOPELESS * best
        seconds[option] = math.inf if hopeless else min(time_once(option) for _ in range(TIMED - 1))
    return seconds


def _seconds(run: Step, option: Execution) -> float:
    started = time.perf_counter()
    run(option)
    return time.perf_counter() - started


def _label(option: Execution) -> str:
    return f"{'channels_last' if option.channels_last else 'contiguous'} {option.precision}"


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """The model's tensors have their values again after, and no gradients."""
    tensors = [*model.parameters(), *model.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        model.zero_grad(set_to_none=True)


@contextmanager
def layout_warnings_ignored() -> Iterator[None]:
    """Torch warns where a gradient has another memory format than its weight, whose format is not the user's choice."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "grad and param do not obey the gradient layout contract")
        yield


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many threads inside, as many as before after."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def kernels(execution: Execution) -> Iterator[None]:
    """cuDNN as the execution wants it: the fastest kernels, or those that give the same result twice."""
    cudnn = torch.backends.cudnn
    before = (cudnn.benchmark, cudnn.deterministic)
    cudnn.benchmark, cudnn.deterministic = not execution.deterministic, execution.deterministic
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before

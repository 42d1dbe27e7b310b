"""How steps are run on this machine: device, precision, memory layout, threads. Options that are not set are timed.

No choice is best everywhere: in bfloat16, ResNet-20 trains twice as fast on a CPU with bfloat16 instructions and
fifteen times slower on one without, and the better memory layout depends on the network. So a few steps are timed on
the network itself, and its values are restored afterwards.
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

TIMED_STEPS = 3
"""Steps run per candidate; the first one warms up caches and is not counted."""
SMALLEST_SHARE = 1 / 20
"""Largest share of the training's steps that the timing may take; otherwise it does not pay and is skipped."""
HOPELESS_FACTOR = 2.0
"""A candidate whose first step takes more than this many times the best step so far is given up."""
MAX_THREADS = 1024
"""Largest number of threads accepted: OpenMP crashes, instead of failing, with far more."""
COMPILING_PAYS_S = 600.0
"""Seconds of a training on a GPU, at eager speed, above which a minute of compiling soon pays off."""


@dataclass(frozen=True)
class Execution:
    """How steps are run. Options that are None are chosen when training starts, by timing a few steps where that pays.

    Attributes:
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ...
        precision: data type of convolutions and matrix products; the weights are always float32. With float16 the loss
            is scaled, so that small gradients do not vanish (Micikevicius et al. 2018).
        channels_last: whether feature maps and kernels are in the channels-last memory layout.
        compile: whether to use torch.compile.
        threads: number of CPU threads; sums round differently with another number of threads.
        deterministic: on a GPU, use only deterministic kernels (slower). A CPU is always deterministic.
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
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise UsageError(f"Expected threads to be from 1 to {MAX_THREADS}, but got {self.threads}.")

    @property
    def dtype(self) -> torch.dtype:
        """The data type of convolutions and matrix products."""
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

    def keeps(self, requested: Execution) -> bool:
        """Whether this execution agrees with every option that `requested` sets, apart from the device."""
        names = ("precision", "channels_last", "compile", "threads")
        pinned = {name: getattr(requested, name) for name in names if getattr(requested, name) is not None}
        return all(getattr(self, name) == value for name, value in pinned.items()) and (
            self.deterministic or not requested.deterministic
        )


@dataclass(frozen=True)
class ExecutionChoice:
    """The chosen execution, and the images per second of each candidate; empty where nothing was timed."""

    execution: Execution
    speeds: Mapping[str, float]


Step: TypeAlias = Callable[[Execution], None]
"""Runs one training step in the given way and waits until it has finished."""


def choose(
    requested: Execution, model: nn.Module, device: torch.device, run: Step, *, steps: int, batch: int
) -> ExecutionChoice:
    """Decide the open options of `requested`: by timing `run` if the training has enough `steps`, else by a default.

    The model's values are restored and its gradients cleared; the caller must set its memory layout.

    Args:
        requested: the requested execution; its options that are None are open.
        model: the network.
        device: the device to train on.
        run: runs one training step.
        steps: number of steps of the whole training.
        batch: images per step.
    """
    requested = replace(requested, device=str(device), threads=requested.threads or torch.get_num_threads())
    options = candidates(requested, device, bfloat16_is_fast(device))
    is_open = len(options) > 1 or (device.type == "cuda" and requested.compile is None)
    if not is_open or len(options) * TIMED_STEPS > steps * SMALLEST_SHARE:
        chosen = options[0]
        return ExecutionChoice(replace(chosen, compile=bool(chosen.compile)), {})
    with _restored(model), threads(requested.threads):
        seconds = fastest(options, lambda option: _seconds(run, option))
    best = min(seconds, key=seconds.__getitem__)
    compiled = best.compile if best.compile is not None else pays_to_compile(device, seconds[best] * steps)
    speeds = {_label(option): batch / duration for option, duration in seconds.items() if math.isfinite(duration)}
    return ExecutionChoice(replace(best, compile=compiled), speeds)


def candidates(requested: Execution, device: torch.device, bfloat16: bool) -> list[Execution]:
    """List every execution that agrees with `requested`; the first one is the default if nothing is timed.

    Args:
        requested: the requested execution.
        device: the device to train on.
        bfloat16: whether the device computes in bfloat16.
    """
    layouts = [True, False] if requested.channels_last is None else [requested.channels_last]
    precisions: list[Precision] = ["float32", "bfloat16"] if bfloat16 else ["float32"]
    if device.type == "cuda" and requested.channels_last is None:
        layouts = [True]
    if device.type == "cuda":  # without bfloat16, tensor cores take float16, which is slow on older GPUs
        precisions = ["bfloat16"] if bfloat16 else ["float32", "float16"]
    if requested.precision is not None:
        precisions = [requested.precision]
    return [
        replace(requested, channels_last=layout, precision=precision)
        for precision, layout in product(precisions, layouts)
    ]


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether the device has bfloat16 instructions; without them products are emulated, which is far slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(supported is not None and supported())


def pays_to_compile(device: torch.device, seconds: float) -> bool:
    """Whether a training of that many seconds is worth a minute of compiling; never on a CPU unless the user asks."""
    return device.type == "cuda" and seconds > COMPILING_PAYS_S


def fastest(options: list[Execution], time_once: Callable[[Execution], float]) -> dict[Execution, float]:
    """Time each option: its best seconds per step of a few, or infinity if its first step was hopelessly slow."""
    seconds: dict[Execution, float] = {}
    for option in options:
        first = time_once(option)
        best = min(seconds.values(), default=math.inf)
        is_hopeless = first > HOPELESS_FACTOR * best
        seconds[option] = math.inf if is_hopeless else min(time_once(option) for _ in range(TIMED_STEPS - 1))
    return seconds


def _seconds(run: Step, option: Execution) -> float:
    started = time.perf_counter()
    run(option)
    return time.perf_counter() - started


def _label(option: Execution) -> str:
    return f"{'channels_last' if option.channels_last else 'contiguous'} {option.precision}"


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """On exit, restore the values of the model's tensors and clear its gradients."""
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
    """Silence torch's warning about gradients in another memory format than their weights: users do not choose it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "grad and param do not obey the gradient layout contract")
        yield


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Use this many CPU threads inside, and restore the previous number on exit; None changes nothing."""
    previous = torch.get_num_threads()
    torch.set_num_threads(count or previous)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


@contextmanager
def kernels(execution: Execution) -> Iterator[None]:
    """Set cuDNN to the fastest kernels, or to deterministic ones if the execution asks for them; restore it on exit."""
    cudnn = torch.backends.cudnn
    previous = (cudnn.benchmark, cudnn.deterministic)
    cudnn.benchmark, cudnn.deterministic = not execution.deterministic, execution.deterministic
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = previous

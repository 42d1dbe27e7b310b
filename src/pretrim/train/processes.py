"""Coordination of several processes through Hugging Face Accelerate: devices, gradients, and shared decisions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pretrim.errors import UsageError, shown

from .execution import Precision
from .optimizer import Average
from .stop import StopRequest

if TYPE_CHECKING:
    from accelerate import Accelerator


def is_main() -> bool:
    """Whether this is the process that writes and prints; it is known before any setup from torchrun's RANK."""
    return int(os.environ.get("RANK", "0")) == 0


def make_accelerator(device: str = "auto", trackers: Sequence[str] = (), tracking: Path | None = None) -> Accelerator:
    """Create an Accelerator for this process, as `accelerate launch`, `torchrun` or a plain start set it up.

    Args:
        device: the device, as in :class:`Execution`.
        trackers: names of the trackers (``"tensorboard"``, ``"wandb"``, ...) to log epochs to.
        tracking: the folder that they write to.

    Raises:
        UsageError: the device does not exist.
    """
    from accelerate import Accelerator
    from accelerate.state import is_initialized
    from accelerate.utils import DistributedDataParallelKwargs

    check_device(device)
    cpu = device == "cpu" or not torch.cuda.is_available()
    # A head that a batch does not use has no gradient; without this flag the processes would wait for it forever.
    return Accelerator(
        cpu=cpu,
        # Any other value would wrap the model's forward, but the loop has its own autocast. It is set once per process.
        mixed_precision=None if is_initialized() else "no",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        log_with=list(trackers) or None,
        project_dir=tracking,
    )


def wanted_precision(accelerator: Accelerator) -> Precision | None:
    """The precision that the user set in accelerate's configuration or in their own Accelerator; None if neither."""
    settings = (accelerator.mixed_precision, os.environ.get("ACCELERATE_MIXED_PRECISION"))
    return "bfloat16" if "bf16" in settings else "float16" if "fp16" in settings else None


def check_device(device: str) -> None:
    """Raise UsageError for a device that does not exist."""
    if device == "auto":
        return
    try:
        if torch.empty(0, device=device).is_meta:
            raise RuntimeError("nothing is computed there")
    except Exception as error:  # devices that this build of torch lacks raise ImportError or AttributeError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = (
            "torch knows no such device" if "device type at start of device string" in reason else reason.rstrip(".")
        )
        raise UsageError(
            f"Expected a device of this machine (auto, cpu, cuda), but got {shown(device)}: {message}."
        ) from error


def from_main(accelerator: Accelerator, value: Any) -> Any:
    """Return the main process's value in all processes. Plain objects only, as they are pickled between processes."""
    if accelerator.num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def agreed(accelerator: Accelerator, stop: StopRequest, *, looks: bool) -> bool:
    """Whether to stop now. Several processes agree on it when they check, and stop if any of them was asked to.

    Args:
        accelerator: the Accelerator that connects the processes.
        stop: the stop request of this process.
        looks: whether all processes check now; a single process always does.
    """
    if accelerator.num_processes == 1:
        return bool(stop.number)
    if not looks:
        return False
    number = torch.tensor(stop.number, device=accelerator.device)
    torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
    stop.number = int(number)
    return bool(stop.number)


def total(accelerator: Accelerator, *values: torch.Tensor) -> list[float]:
    """Return the sum of each value over all processes."""
    if accelerator.num_processes > 1:
        values = tuple(value.clone() for value in values)
        for value in values:
            torch.distributed.all_reduce(value)
    return [float(value) for value in values]


def same_on_all(accelerator: Accelerator, model: nn.Module, average: Average | None) -> None:
    """Copy the main process's buffers and averages to every process, as each has seen different images.

    Args:
        accelerator: the Accelerator that connects the processes.
        model: the network.
        average: the moving average of its weights, if there is one.
    """
    if accelerator.num_processes == 1:
        return
    tensors = [*model.buffers(), *(average.values.values() if average is not None else ())]
    for tensor in tensors:
        contiguous = tensor.detach().contiguous()
        torch.distributed.broadcast(contiguous, src=0)
        tensor.detach().copy_(contiguous)

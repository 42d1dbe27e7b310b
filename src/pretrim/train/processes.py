"""Several processes as one, through Hugging Face Accelerate: devices, gradients, and what they agree on."""

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
    """Whether this is the process that writes and prints, known before anything is set up (RANK of torchrun)."""
    return int(os.environ.get("RANK", "0")) == 0


def make_accelerator(device: str = "auto", trackers: Sequence[str] = (), tracking: Path | None = None) -> Accelerator:
    """An Accelerator for this process, as `accelerate launch`, `torchrun` or a plain start set it up.

    Args:
        device: as in :class:`Execution`.
        trackers: names of trackers (``"tensorboard"``, ``"wandb"``, ...) that epochs are handed to.
        tracking: the folder they write to.

    Raises:
        UsageError: a device that is not there.
    """
    from accelerate import Accelerator
    from accelerate.state import is_initialized
    from accelerate.utils import DistributedDataParallelKwargs

    check_device(device)
    cpu = device == "cpu" or not torch.cuda.is_available()
    # A head that a batch does not use has no gradient; without this flag the processes would wait for it for ever.
    return Accelerator(
        cpu=cpu,
        # With another value it would wrap the model's forward; the loop has its own autocast. Fixed once in a process.
        mixed_precision=None if is_initialized() else "no",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        log_with=list(trackers) or None,
        project_dir=tracking,
    )


def wanted_precision(accelerator: Accelerator) -> Precision | None:
    """What the user told accelerate's configuration, or an Accelerator of theirs, if anything."""
    said = (accelerator.mixed_precision, os.environ.get("ACCELERATE_MIXED_PRECISION"))
    return "bfloat16" if "bf16" in said else "float16" if "fp16" in said else None


def check_device(device: str) -> None:
    """Raises UsageError for a device that is not there."""
    if device == "auto":
        return
    try:
        if torch.empty(0, device=device).is_meta:
            raise RuntimeError("nothing is computed there")
    except Exception as error:  # of devices that torch knows and this build of it lacks: ImportError, AttributeError
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        said = "torch knows no such device" if "device type at start of device string" in why else why.rstrip(".")
        raise UsageError(
            f"Expected a device of this machine (auto, cpu, cuda), but got {shown(device)}: {said}."
        ) from error


def from_main(accelerator: Accelerator, value: Any) -> Any:
    """The main process's value, in all of them. Plain objects only: they travel between our own processes."""
    if accelerator.num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def agreed(accelerator: Accelerator, stop: StopRequest, *, looks: bool) -> bool:
    """Whether to stop now: at once in one process; in several, when they look, if any of them was asked to.

    Args:
        accelerator: knows the other processes.
        stop: whether this one was asked to.
        looks: whether all look now.
    """
    if accelerator.num_processes == 1:
        return bool(stop.number)
    if not looks:
        return False
    asked = torch.tensor(stop.number, device=accelerator.device)
    torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
    stop.number = int(asked)
    return bool(stop.number)


def total(accelerator: Accelerator, *values: torch.Tensor) -> list[float]:
    """Sums over all processes."""
    if accelerator.num_processes > 1:
        values = tuple(value.clone() for value in values)
        for value in values:
            torch.distributed.all_reduce(value)
    return [float(value) for value in values]


def same_on_all(accelerator: Accelerator, model: nn.Module, average: Average | None) -> None:
    """The main process's running statistics and averages in every process: each has seen other images.

    Args:
        accelerator: knows the other processes.
        model: the network.
        average: of its weights, if one is kept.
    """
    if accelerator.num_processes == 1:
        return
    tensors = [*model.buffers(), *(average.values.values() if average is not None else ())]
    for tensor in tensors:
        contiguous = tensor.detach().contiguous()
        torch.distributed.broadcast(contiguous, src=0)
        tensor.detach().copy_(contiguous)

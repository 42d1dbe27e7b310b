"""ExecuTorch (``.pte``) with the XNNPACK backend; int8 by torchao's PT2E quantisation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pretrim.compat.optional import need, silence
from pretrim.errors import ExportError

from .runtime import Converted, Images, Outputs

LAYOUT = "NCHW"


def convert(network: nn.Module, example: torch.Tensor) -> Converted:
    """The network as a program with one input, NCHW float32, of the example's shape.

    Raises:
        UsageError: the package is missing.
        ExportError: an operator has no counterpart.
    """
    need("executorch.exir")
    try:
        with silence():
            return _lowered(torch.export.export(network, (example,)))
    except Exception as error:  # the exporters raise many kinds
        raise ExportError.by("ExecuTorch", error) from error


def quantise(network: nn.Module, example: torch.Tensor, calibration: Images) -> Converted:
    """The same in static int8: weights by channel, activations by the calibration (N x C x H x W).

    Raises ExportError where that cannot be done.
    """
    need("executorch.exir")
    pt2e = need("torchao.quantization.pt2e.quantize_pt2e")
    rules = need("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
    try:
        with silence():
            quantizer = rules.XNNPACKQuantizer()
            quantizer.set_global(rules.get_symmetric_quantization_config(is_per_channel=True))
            exported = torch.export.export(network, (example,), strict=False).module()
            observed = pt2e.prepare_pt2e(exported, quantizer)
            with torch.no_grad():
                for image in calibration:
                    observed(torch.from_numpy(image)[None])
            return _lowered(torch.export.export(pt2e.convert_pt2e(observed), (example,), strict=False))
    except Exception as error:
        raise ExportError.by("ExecuTorch's quantisation", error) from error


def _lowered(exported: torch.export.ExportedProgram) -> Converted:
    """The program, and the operators that XNNPACK did not take: portable kernels run those 100 times more slowly."""
    exir, partitioner = need("executorch.exir"), need("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    edge = exir.to_edge_transform_and_lower(exported, partitioner=[partitioner.XnnpackPartitioner()])
    program = edge.to_executorch()
    names = {operator.name for plan in program.executorch_program.execution_plan for operator in plan.operators}
    return Converted(bytes(program.buffer), tuple(sorted(names)))


class Session:
    """A program in ExecuTorch's runtime. Its number of threads is that of the whole process."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        runtime = need("executorch.runtime")
        with silence():
            library = need("executorch.extension.pybindings.portable_lib")
            library._unsafe_reset_threadpool(threads)
            self.program = runtime.Runtime.get().load_program(path, verification=runtime.Verification.Minimal)
            self.method = self.program.load_method("forward")

    def __call__(self, images: Images) -> Outputs:
        """Each output for N images, which the program takes one at a time."""
        found = [self._one(image) for image in images]
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _one(self, image: np.ndarray[Any, Any]) -> Outputs:
        outputs: Sequence[torch.Tensor] = self.method.execute([torch.from_numpy(np.ascontiguousarray(image[None]))])
        return [output.numpy().copy() for output in outputs]

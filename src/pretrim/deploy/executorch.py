"""ExecuTorch (``.pte``) with the XNNPACK backend; int8 by torchao's PT2E quantisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pretrim.compat.optional import need
from pretrim.compat.silence import silence

from .runtime import Conversion, Converted, Images, Outputs, Runtime, ones
from .runtime import Session as BaseSession
from .vendor_errors import export_error

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn


def convert(network: nn.Module, *examples: torch.Tensor) -> Converted:
    """Convert a network to a program with float32 inputs 1 x C x ..., in the shapes of the examples.

    Raises:
        UsageError: the package is missing.
        ExportError: an operator has no counterpart.
    """
    import torch

    need("executorch.exir")
    try:
        with silence():
            return _lowered(torch.export.export(network, examples))
    except Exception as error:  # the exporters raise many kinds
        raise export_error("ExecuTorch", error) from error


def quantise(network: nn.Module, examples: Sequence[torch.Tensor], calibration: Sequence[Images]) -> Converted:
    """Convert a network to a static int8 program: per-channel weights, calibrated activation ranges.

    Args:
        network: a float32 module in eval mode.
        examples: one tensor for each input, 1 x C x ...
        calibration: images for each input, N x C x ...

    Raises ExportError if the network cannot be quantised or converted.
    """
    import torch

    need("executorch.exir")
    pt2e = need("torchao.quantization.pt2e.quantize_pt2e")
    rules = need("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
    try:
        with silence():
            quantizer = rules.XNNPACKQuantizer()
            quantizer.set_global(rules.get_symmetric_quantization_config(is_per_channel=True))
            exported = torch.export.export(network, tuple(examples), strict=False).module()
            observed = pt2e.prepare_pt2e(exported, quantizer)
            with torch.no_grad():
                for image in ones(calibration):
                    observed(*map(torch.from_numpy, image))
            return _lowered(torch.export.export(pt2e.convert_pt2e(observed), tuple(examples), strict=False))
    except Exception as error:
        raise export_error("ExecuTorch's quantisation", error) from error


def _lowered(exported: torch.export.ExportedProgram) -> Converted:
    """Lower a program to XNNPACK, with a note on operators left to the portable kernels, which are 100 times slower."""
    exir, partitioner = need("executorch.exir"), need("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    edge = exir.to_edge_transform_and_lower(exported, partitioner=[partitioner.XnnpackPartitioner()])
    program = edge.to_executorch()
    names = {operator.name for plan in program.executorch_program.execution_plan for operator in plan.operators}
    slow = ", ".join(name.partition("::")[2] or name for name in sorted(names))
    notes = (f"ExecuTorch runs these operators with its slow portable kernels: {slow}",) if slow else ()
    return Converted(bytes(program.buffer), notes)


class Session(BaseSession):
    """A program loaded in ExecuTorch's runtime. The number of threads applies to the whole process."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        runtime = need("executorch.runtime")
        with silence():
            library = need("executorch.extension.pybindings.portable_lib")
            library._unsafe_reset_threadpool(threads)
            self.program = runtime.Runtime.get().load_program(path, verification=runtime.Verification.Minimal)
            self.method = self.program.load_method("forward")

    def run(self, *inputs: Images) -> Outputs:
        """Run one image and return each output."""
        import numpy as np
        import torch

        outputs: Sequence[torch.Tensor] = self.method.execute(
            [torch.from_numpy(np.ascontiguousarray(value)) for value in inputs]
        )
        return [output.numpy().copy() for output in outputs]


def load(path: str, inputs: list[Any], threads: int, providers: list[str]) -> tuple[Callable[[], Any], str]:
    """Load a program on the machine that measures it (`Runtime.load`).

    ExecuTorch's Python runtime needs torch, which its C++ runtime does not.

    Args:
        path: the .pte.
        inputs: one array for each input.
        threads: number of threads for the runtime.
        providers: not used here.
    """
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime, Verification

    portable_lib._unsafe_reset_threadpool(threads)
    program = Runtime.get().load_program(path, verification=Verification.Minimal)
    method = program.load_method("forward")
    tensors = [torch.from_numpy(value) for value in inputs]
    return lambda: (method.execute(tensors), program), "XNNPACK"  # the program must outlive its method


def _convert(job: Conversion) -> Converted:
    return convert(job.network, *job.examples)


def _quantise(job: Conversion) -> Converted:
    return quantise(job.network, job.examples, job.calibration)


RUNTIME = Runtime(
    name="executorch",
    title="ExecuTorch",
    suffix=".pte",
    requirement="pretrim[executorch]",
    modules=("executorch",),
    packages=("executorch", "torchao"),
    convert=_convert,
    quantise=_quantise,
    session=Session,
    load=load,
    device_packages=("executorch",),
)

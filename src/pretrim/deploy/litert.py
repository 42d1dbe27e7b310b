"""LiteRT (``.tflite``): litert-torch converts, ai-edge-quantizer quantises. Images are N x ... x C there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrim.compat.optional import need
from pretrim.compat.silence import silence

from .runtime import Conversion, Converted, Images, Outputs, Runtime, ones
from .runtime import Session as BaseSession
from .vendor_errors import export_error

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

SIGNATURE, INPUT, OUTPUT = "serving_default", "args", "output"
VIEW = "Cannot view a tensor"
"""What torch says of ``x.view(len(x), -1)`` where the channels of feature maps are last in memory"""


def convert(network: nn.Module, *examples: torch.Tensor) -> Converted:
    """The network as a flatbuffer with float32 inputs 1 x ... x C, of the examples' shapes.

    Raises:
        UsageError: a package is missing.
        ExportError: an operator has no counterpart.
    """
    from pretrim.compat.litert_expand import remove_expansions
    from pretrim.compat.litert_transposed import plain_transposed

    from .tflite import packed

    os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")
    litert = need("litert_torch")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.tflite"
        try:
            with silence():
                plain = remove_expansions(plain_transposed(network, *examples), *examples)
                spatial = [number for number, example in enumerate(examples) if example.ndim > 2]
                inputs = tuple(example.movedim(1, -1).contiguous() for example in examples)

                def export(module: nn.Module) -> None:
                    converted = litert.to_channel_last_io(module, args=spatial).eval() if spatial else module
                    litert.convert(converted, inputs).export(str(file))

                try:
                    export(plain)
                except Exception as error:
                    if VIEW not in str(error):
                        raise
                    export(contiguous_inputs(plain))
        except Exception as error:  # the converter raises many kinds
            raise export_error("LiteRT", error) from error
        return Converted(packed(file.read_bytes()))


def contiguous_inputs(network: nn.Module) -> nn.Module:
    """The network on copies of its inputs with the channels first in memory, as it has them in PyTorch.

    Only where the converter asks for it: the file of any other network stays what it was.
    """
    from torch import nn

    class Contiguous(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *inputs: torch.Tensor) -> Any:
            return self.network(*(each.contiguous() for each in inputs))

    return Contiguous().eval()


def quantise(content: bytes, *calibration: Images) -> Converted:
    """Static int8 of a model, its input and outputs too: weights by channel, activations by the calibration.

    The quantiser's own `calibrate` keeps a moving average of the ranges, which clips them (10 dB where the true
    ranges give 30); so the smallest and largest values are taken.

    Raises ExportError where the quantiser cannot do it.
    """
    from .tflite import packed

    quantizer, calibrator = need("ai_edge_quantizer.quantizer"), need("ai_edge_quantizer.calibrator")
    recipe, ranges = need("ai_edge_quantizer.recipe"), need("ai_edge_quantizer.utils.qsv_utils")
    samples = [
        dict(zip(_input_names(len(image)), map(_channels_last, image), strict=True)) for image in ones(calibration)
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.tflite"
        try:
            file.write_bytes(content)
            with silence():
                quantiser = quantizer.Quantizer(str(file), recipe.static_wi8_ai8())
                calibration_run = calibrator.Calibrator(str(file), num_threads=1, qsv_update_func=ranges.min_max_update)
                calibration_run.calibrate({SIGNATURE: samples}, quantiser._recipe_manager)
                found = quantiser.quantize(_wide(calibration_run.get_model_qsvs()), enable_progress_report=False)
                quantised = bytes(found.quantized_model)
        except Exception as error:
            raise export_error("the quantiser of LiteRT", error) from error
    return Converted(packed(quantised))


def _wide(ranges: dict[str, dict[str, NDArray[np.float32]]]) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Ranges with room for activations that were zero on all images (a squeeze that ReLU shuts).

    From such a range the quantiser makes a scale of 4e-12, which XNNPACK refuses, or ends the process over.
    """
    import numpy as np

    widest = max((float(np.abs(found[end]).max()) for found in ranges.values() for end in ("min", "max")), default=1.0)
    for found in ranges.values():
        if not found["min"].any() and not found["max"].any():
            found["max"] = np.full_like(found["max"], widest)
    return ranges


def _input_names(count: int) -> list[str]:
    """As the converter calls them."""
    return [f"{INPUT}_{number}" for number in range(count)]


def _channels_last(image: Images) -> Images:
    import numpy as np

    return np.ascontiguousarray(np.moveaxis(image, 1, -1))


class Session(BaseSession):
    """A model in LiteRT's interpreter, with its XNNPACK kernels, or with its plain reference kernels."""

    def __init__(self, path: Path, threads: int = 1, reference: bool = False) -> None:
        package = need("ai_edge_litert.interpreter")
        kernels = package.OpResolverType.BUILTIN_REF if reference else package.OpResolverType.AUTO
        with silence():
            self.interpreter = package.Interpreter(
                str(path), num_threads=threads, experimental_op_resolver_type=kernels
            )
            self.interpreter.allocate_tensors()
        self.inputs = sorted(self.interpreter.get_input_details(), key=_number_of)
        self.outputs = self.interpreter.get_output_details()
        self.scales = [_scale(tensor) for tensor in self.inputs]
        self.output_scales = [_scale(tensor) for tensor in self.outputs]

    def run(self, *inputs: Images) -> Outputs:
        """Each output for one image."""
        for value, tensor in zip(inputs, self.inputs, strict=True):
            self.interpreter.set_tensor(tensor["index"], quantised(_channels_last(value), tensor))
        self.interpreter.invoke()
        return [restored(self.interpreter.get_tensor(output["index"]), output) for output in self.outputs]


def reference_interpreter(content: bytes) -> Any:
    """An interpreter of a model's bytes with LiteRT's plain reference kernels, ready to run."""
    package = need("ai_edge_litert.interpreter")
    with silence():
        interpreter = package.Interpreter(
            model_content=content, experimental_op_resolver_type=package.OpResolverType.BUILTIN_REF
        )
        interpreter.allocate_tensors()
    return interpreter


def _number_of(tensor: dict[str, Any]) -> int:
    """Of an input ``serving_default_args_1:0`` or ``args_1``: the interpreter lists them in any order."""
    digits = str(tensor["name"]).partition(":")[0].rpartition("_")[2]
    return int(digits) if digits.isdigit() else 0


def _scale(tensor: dict[str, Any]) -> tuple[float, int] | None:
    import numpy as np

    scale, zero = tensor["quantization"]
    return (float(scale), int(zero)) if tensor["dtype"] == np.int8 else None


def quantised(values: NDArray[np.float32], tensor: dict[str, Any]) -> NDArray[Any]:
    """Values as a tensor takes them."""
    import numpy as np

    if tensor["dtype"] == np.float32:
        return np.ascontiguousarray(values)
    scale, zero = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    whole: NDArray[Any] = np.clip(np.rint(values / scale + zero), limits.min, limits.max).astype(tensor["dtype"])
    return whole


def restored(values: NDArray[Any], tensor: dict[str, Any]) -> NDArray[np.float32]:
    """A tensor's values in float32."""
    import numpy as np

    if tensor["dtype"] == np.float32:
        return values.copy()
    scale, zero = tensor["quantization"]
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)


def load(path: str, inputs: list[Any], threads: int, providers: list[str]) -> tuple[Callable[[], Any], str]:
    """Load a model on the machine that measures it (`Runtime.load`).

    Older boards have the interpreter under the names of tflite_runtime or tensorflow.

    Args:
        path: the .tflite.
        inputs: one array for each input.
        threads: of the runtime.
        providers: not used here.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError:
            from tensorflow.lite import Interpreter
    interpreter = Interpreter(path, num_threads=threads)
    interpreter.allocate_tensors()
    details = sorted(interpreter.get_input_details(), key=lambda tensor: tensor["name"])
    for tensor, value in zip(details, inputs):  # noqa: B905  # Python 3.8
        interpreter.set_tensor(tensor["index"], value)
    return interpreter.invoke, "CPU"


def _convert(job: Conversion) -> Converted:
    return convert(job.network, *job.examples)


def _quantise(job: Conversion) -> Converted:
    return quantise(_convert(job).content, *job.calibration)


RUNTIME = Runtime(
    name="litert",
    title="LiteRT",
    suffix=".tflite",
    requirement="pretrim[litert]",
    modules=("litert_torch", "ai_edge_quantizer", "ai_edge_litert"),
    packages=("litert-torch", "ai-edge-quantizer", "ai-edge-litert"),
    convert=_convert,
    quantise=_quantise,
    session=Session,
    load=load,
    device_packages=("ai-edge-litert", "tflite-runtime", "tensorflow"),
    channels_last=True,
)

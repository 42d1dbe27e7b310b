"""The interface of a runtime: a frozen `Runtime` record, defined in the module that converts to it.

Such a module imports neither torch nor the runtime at the top, so that listing all runtimes is fast.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from pretrim.errors import MeasureError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    RUNTIMES: tuple[str, ...]
    TITLES: dict[str, str]
    SUFFIXES: dict[str, str]

RuntimeName: TypeAlias = str
Images: TypeAlias = "NDArray[np.float32]"
"""Images as the network takes them, normalised: N x C x ..., whatever layout the artifact uses."""
Outputs: TypeAlias = "list[NDArray[Any]]"
"""Each output of a network in float32, N x ..., in the order of the leaves of its `forward`'s return value."""
SPATIAL = {0: "", 1: "L", 2: "HW", 3: "DHW"}
"""Layout letters by the number of spatial dimensions."""


@dataclass(frozen=True)
class ConversionOptions:
    """Options that only some runtimes have; a runtime names those that it takes in `Runtime.options`.

    Attributes:
        opset: the ONNX opset; None for the exporter's default.
        dynamic_batch: whether the artifact takes any batch size; otherwise it takes one image.
        signed: int8 activations, for ARM's kernels, instead of uint8, for x86's.
    """

    opset: int | None = None
    dynamic_batch: bool = False
    signed: bool = False


@dataclass(frozen=True)
class Conversion:
    """The arguments of a converter.

    Attributes:
        network: a copy of the user's network, on the CPU, in eval mode; it returns a tensor or a flat tuple of tensors.
        examples: one tensor for each input of its ``forward``, 1 x C x ...
        calibration: for int8, one array N x C x ... for each input, as the network takes them; empty for float32.
        options: options of the runtime.
    """

    network: nn.Module
    examples: tuple[torch.Tensor, ...]
    calibration: tuple[Images, ...] = ()
    options: ConversionOptions = field(default_factory=ConversionOptions)

    @property
    def is_int8(self) -> bool:
        """Whether to convert to int8: only int8 has calibration images."""
        return bool(self.calibration)

    def samples(self) -> Iterator[tuple[Images, ...]]:
        """The calibration images one at a time, 1 x C x ... for each input."""
        return ones(self.calibration)


@dataclass(frozen=True)
class Converted:
    """A converted network.

    Attributes:
        content: bytes of the runtime's file.
        notes: notes for the user, such as operators without a fast kernel.
    """

    content: bytes
    notes: tuple[str, ...] = ()


class Session(ABC):
    """An artifact loaded in its runtime. Each runtime's subclass implements `run`.

    Attributes:
        scales: (scale, zero point) of each int8 input, None for a float32 input; empty if all are float32.
        output_scales: (scale, zero point) of each int8 output of the file, None for float32; empty if all are float32.
    """

    scales: Sequence[tuple[float, int] | None] = ()
    output_scales: Sequence[tuple[float, int] | None] = ()

    @abstractmethod
    def run(self, *inputs: Images) -> Outputs:
        """Run one image, 1 x C x ... for each input of the network, and return each output; float32 in and out."""

    def __call__(self, *inputs: Images) -> Outputs:
        """Run N images one at a time, N x C x ... for each input of the network, and return each output (N x ...)."""
        import numpy as np

        rows = [self.run(*image) for image in ones(inputs)]
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def ones(inputs: Sequence[Images]) -> Iterator[tuple[Images, ...]]:
    """Iterate over single images: from N x ... for each input to N tuples of 1 x ... for each input."""
    return zip(*([value[number : number + 1] for number in range(len(value))] for value in inputs), strict=True)


@dataclass(frozen=True)
class Runtime:
    """A runtime: its names, and how networks are converted, loaded and timed.

    Attributes:
        name: name that users type.
        title: name that its vendor uses.
        suffix: suffix of its files, with the dot.
        requirement: pip requirement that installs it.
        modules: modules that must be importable, to convert and to run.
        packages: packages whose versions are recorded with an artifact.
        convert: converts a network to float32; raises ExportError if it cannot.
        session: loads a file, with a number of threads.
        load: loads a file on the machine that measures it. It is sent there as source code, so it must be a plain
            function, in Python 3.8, that uses the runtime, NumPy and its own imports, but nothing else of its module.
            It takes the file's path, the inputs as NumPy arrays in the artifact's own layout and data type, a number
            of threads and the execution providers to try; it returns a function that runs one inference, and the name
            of the backend that runs it.
        device_packages: distributions that may contain the runtime on that machine, the usual one first.
        quantise: converts a network to int8, with calibration images; None for a runtime without int8.
        channels_last: whether its files take images as N x ... x C; otherwise as N x C x ...
        options: fields of `ConversionOptions` that it takes.
    """

    name: str
    title: str
    suffix: str
    requirement: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    convert: Callable[[Conversion], Converted]
    session: Callable[[Path, int], Session]
    load: Callable[[str, list[Any], int, list[str]], tuple[Callable[[], Any], str]]
    device_packages: tuple[str, ...]
    quantise: Callable[[Conversion], Converted] | None = None
    channels_last: bool = False
    options: frozenset[str] = frozenset()

    def layout(self, dimensions: int) -> str:
        """The layout that its files take for an input with this number of dimensions: NCHW, NHWC, NCL, NLC, ..."""
        spatial = SPATIAL[dimensions - 2]
        return f"N{spatial}C" if self.channels_last else f"NC{spatial}"

    def shape(self, shape: Sequence[int]) -> list[int]:
        """A shape N x C x ... in the layout of its files."""
        return [shape[0], *shape[2:], shape[1]] if self.channels_last else list(shape)

    def loader(self) -> dict[str, Any]:
        """`load` as it is sent to the measuring machine: source, function name, and packages that may have the runtime.

        Raises MeasureError if the source cannot be read.
        """
        try:
            source = inspect.getsource(self.load)
        except OSError as error:
            raise MeasureError(
                f"The source of {self.title}'s loader cannot be read ({error}): install it again."
            ) from error
        return {"source": source, "function": self.load.__name__, "packages": list(self.device_packages)}

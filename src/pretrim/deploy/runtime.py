"""What pretrim needs to know of a runtime: one frozen record, in the file that converts to it.

Such a file imports neither torch nor the runtime at its top, so that all runtimes can be listed in a moment.
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
"""Images as the network takes them, normalised: N x C x ..., in whatever layout the artifact wants them."""
Outputs: TypeAlias = "list[NDArray[Any]]"
"""Each output of a network in float32, N x ..., in the order of the leaves of what its `forward` returns."""
SPATIAL = {0: "", 1: "L", 2: "HW", 3: "DHW"}
"""Letters of a layout, by the number of spatial dimensions"""


@dataclass(frozen=True)
class ConversionOptions:
    """What one runtime alone is asked for; each is named in its record's `Runtime.options`.

    Attributes:
        opset: of ONNX; None for the exporter's default.
        dynamic_batch: the artifact takes any number of images at a time; without it, one.
        signed: int8 activations for ARM's kernels in the place of uint8 for x86's.
    """

    opset: int | None = None
    dynamic_batch: bool = False
    signed: bool = False


@dataclass(frozen=True)
class Conversion:
    """What a converter is given.

    Attributes:
        network: a copy of the user's, on the CPU, in eval mode; it returns a tensor or a flat tuple of tensors.
        examples: one tensor for each input of its ``forward``, 1 x C x ...
        calibration: for int8, inputs as the network takes them, an array N x C x ... for each; empty for float32.
        options: of the runtime.
    """

    network: nn.Module
    examples: tuple[torch.Tensor, ...]
    calibration: tuple[Images, ...] = ()
    options: ConversionOptions = field(default_factory=ConversionOptions)

    @property
    def is_int8(self) -> bool:
        """Whether integers are wanted: only they are calibrated."""
        return bool(self.calibration)

    def samples(self) -> Iterator[tuple[Images, ...]]:
        """The calibration one image at a time, each input of 1 x C x ..."""
        return ones(self.calibration)


@dataclass(frozen=True)
class Converted:
    """A network in the form of a runtime.

    Attributes:
        content: the file's.
        notes: what its user should know, such as operators without a fast kernel.
    """

    content: bytes
    notes: tuple[str, ...] = ()


class Session(ABC):
    """An artifact that is loaded in its runtime. A runtime's own class has a method ``run``.

    Attributes:
        scales: (scale, zero point) of each input that takes int8, None for one that takes float32; empty: all float32.
        output_scales: the same of each output, as the file itself gives it.
    """

    scales: Sequence[tuple[float, int] | None] = ()
    output_scales: Sequence[tuple[float, int] | None] = ()

    @abstractmethod
    def run(self, *inputs: Images) -> Outputs:
        """Each output for one image: 1 x C x ... for each input of the network, float32 in and out."""

    def __call__(self, *inputs: Images) -> Outputs:
        """Each output for N images, which are run one at a time: N x C x ... for each input of the network."""
        import numpy as np

        found = [self.run(*image) for image in ones(inputs)]
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def ones(inputs: Sequence[Images]) -> Iterator[tuple[Images, ...]]:
    """One image after another, N x ... of each input as N times 1 x ... of each."""
    return zip(*([value[number : number + 1] for number in range(len(value))] for value in inputs), strict=True)


@dataclass(frozen=True)
class Runtime:
    """A runtime: what it is called, how a network gets there, and how it is loaded and timed.

    Attributes:
        name: as users type it.
        title: as its makers call it.
        suffix: of its files, with the dot.
        requirement: what pip is to install for it.
        modules: that must be importable, to convert and to run.
        packages: whose versions are recorded with an artifact.
        convert: a network to float32. Raises ExportError where it cannot.
        session: loads a file, with a number of threads.
        load: loads a file on the machine that measures it. It is sent there as source code, so it is a plain function,
            in Python 3.8, that uses the runtime, NumPy and what it imports itself, and nothing else of its file. It
            takes the file's path, the inputs as NumPy arrays in the artifact's own layout and data type, a number of
            threads and the execution providers to try; it returns a function that runs one inference, and the name of
            what runs it.
        device_packages: distributions that may hold the runtime there, the usual one first.
        quantise: a network to int8, with a calibration; None where there is no int8.
        channels_last: its files take images as N x ... x C; without it, as N x C x ...
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
        """Letters of an input of so many dimensions, as its files take it: NCHW, NHWC, NCL, NLC, ..."""
        spatial = SPATIAL[dimensions - 2]
        return f"N{spatial}C" if self.channels_last else f"NC{spatial}"

    def shape(self, shape: Sequence[int]) -> list[int]:
        """A shape N x C x ... as its files take it."""
        return [shape[0], *shape[2:], shape[1]] if self.channels_last else list(shape)

    def loader(self) -> dict[str, Any]:
        """`load` as it is sent to the machine that measures: its source and name, and what may hold the runtime."""
        try:
            source = inspect.getsource(self.load)
        except OSError as error:
            raise MeasureError(
                f"The source of {self.title}'s loader cannot be read ({error}): install it again."
            ) from error
        return {"source": source, "function": self.load.__name__, "packages": list(self.device_packages)}

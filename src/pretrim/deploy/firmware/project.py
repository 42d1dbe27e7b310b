"""The folder with everything that a firmware takes: the network in C, its kernels, a self-test, and a Makefile."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray

from pretrim.deploy.artifact import Artifact
from pretrim.deploy.folder import write_texts
from pretrim.deploy.graph import graph_of
from pretrim.deploy.micro import missing_operators
from pretrim.errors import ExportError, UsageError

from .conversion import labels_definition, pixel_table, pixels_declaration, pixels_definition, values_text
from .ctext import comment, table
from .known import known_answers
from .layer import Layer, place
from .model import OTHER_WAY, Model, Tensor, read_model
from .operators import layers

COPIED = ("kernels.h", "kernels.c", "main.c", "port.h", "port_host.c", "port_mps2.c", "mps2.ld", "Makefile")
"""Files that are the same for every network"""


@dataclass(frozen=True)
class Firmware:
    """What was written.

    Attributes:
        files: in the folder.
        constant_bytes: of flash, for weights, biases, factors and layers, on a chip with 32-bit pointers.
        arena_bytes: of RAM, for activations.
    """

    files: tuple[Path, ...]
    constant_bytes: int
    arena_bytes: int


def firmware_layers(content: bytes) -> tuple[Model, list[Layer]]:
    """An int8 ``.tflite``'s bytes as a model, and its layers in C.

    Raises ExportError where they cannot be written; the interpreter is the other way only where it runs the file.
    """
    try:
        model = read_model(content)
        return model, layers(model)
    except ExportError as error:
        if not (missing := missing_operators(content)):
            raise
        it = "it" if len(missing) == 1 else "them"
        instead = f"its interpreter has no {', '.join(missing)} either, replace {it} in the network"
        raise ExportError(str(error).replace(OTHER_WAY, instead)) from error


def write_firmware(artifact: Artifact, folder: Path) -> Firmware:
    """Write an int8 network as plain C into a folder, which is made if it is not there: all files, or none.

    Args:
        artifact: an int8 .tflite.
        folder: to write into.

    Raises:
        UsageError: no int8 ``.tflite``, or a folder that cannot be written, or holds files of these names already that
            pretrim did not make.
        ExportError: an operator without a C kernel, which is named.
    """
    if artifact.runtime != "litert" or artifact.data_type != "int8":
        raise UsageError(
            f"Expected an int8 .tflite for C sources, but got {artifact.path.name} ({artifact.data_type}): "
            f"export with --runtime litert --int8."
        )
    content = artifact.path.read_bytes()
    model, built = firmware_layers(content)
    texts = {
        **_network(artifact, content, model, built),
        **_samples(*known_answers(artifact.path)),
        **{name: _file(name) for name in COPIED},
    }
    written = write_texts(folder, texts)
    return Firmware(tuple(written), sum(one.constant_bytes for one in built), model.arena_bytes)


def _network(artifact: Artifact, content: bytes, model: Model, built: list[Layer]) -> dict[str, str]:
    """network.h and network.c."""
    pixels = pixel_table(artifact.input)
    entries = {
        "file": artifact.path.name,
        "sha256": artifact.sha256,
        "macs": f"{sum(operator.macs for operator in graph_of(content).operators):,}",
        "constants": f"{sum(one.constant_bytes for one in built):,}",
        "arena": model.arena_bytes,
        "arena_text": f"{model.arena_bytes:,}",
        **_end("input", model.input),
        **_end("output", model.outputs[0]),
        "outputs": len(model.outputs),
        "output_shapes": comment(f"Each output, int8: {', then '.join(_shape(output) for output in model.outputs)}."),
        "outputs_definition": ",\n".join(_output(output) for output in model.outputs),
        "values": comment(f"The same from real values: {values_text(artifact.input)}."),
        "pixels_declaration": pixels_declaration(pixels),
        "pixels_definition": pixels_definition(pixels),
        "definitions": "\n\n".join(_definition(one) for one in built if one.definitions),
        "calls": "\n".join(f"    {one.call}" for one in built),
        "labels": labels_definition(artifact.classes, model.outputs[0].size),
    }
    return {name: Template(_file(f"{name}.in")).substitute(entries) for name in ("network.h", "network.c")}


def _end(name: str, tensor: Tensor) -> dict[str, object]:
    """What the templates say of the input or the output."""
    return {
        f"{name}_shape": _shape(tensor),
        f"{name}_size": tensor.size,
        f"{name}_scale": f"{tensor.scale:.9e}",
        f"{name}_zero": tensor.zero,
        f"{name}_offset": tensor.offset,
    }


def _output(tensor: Tensor) -> str:
    """An element of `network_outputs`."""
    return f"    {{{place(tensor)}, {tensor.size}, {tensor.scale:.9e}f, {tensor.zero}}}"


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape[1:]))


def _definition(one: Layer) -> str:
    return "\n".join((comment(one.title), *one.definitions))


def _samples(images: NDArray[np.int8], answers: NDArray[np.int8]) -> dict[str, str]:
    """samples.h and samples.c."""
    rows = {"samples_input": images, "samples_output": answers}
    extern = "".join(f"extern const int8_t {name}[SAMPLES][{values.shape[1]}];\n" for name, values in rows.items())
    head = "/* Made by pretrim: random inputs, and what LiteRT's reference kernels give for them. */\n"
    definitions = "\n".join(f"{table(name, values)}\n" for name, values in rows.items())
    return {
        "samples.h": f"{head}#ifndef SAMPLES_H\n#define SAMPLES_H\n\n#include <stdint.h>\n\n"
        f"#define SAMPLES {len(images)}\n\n{extern}\n#endif\n",
        "samples.c": f'{head}#include "samples.h"\n\n{definitions}',
    }


def _file(name: str) -> str:
    return files(__package__).joinpath("files", name).read_text(encoding="utf-8")

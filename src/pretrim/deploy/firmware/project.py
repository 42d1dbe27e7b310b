"""Write the folder of a firmware: the network in C, its kernels, a self-test, and a Makefile."""

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
"""Files that are the same for every network."""


@dataclass(frozen=True)
class Firmware:
    """The written sources and the memory that they need.

    Attributes:
        files: paths of the written files.
        constant_bytes: flash for weights, biases, factors and layer structures, on a chip with 32-bit pointers.
        arena_bytes: RAM for activations.
    """

    files: tuple[Path, ...]
    constant_bytes: int
    arena_bytes: int


def firmware_layers(content: bytes) -> tuple[Model, list[Layer]]:
    """Read an int8 ``.tflite``'s bytes; returns the model and its layers in C.

    Raises ExportError if C cannot be generated; the message suggests the interpreter only if that can run the file.
    """
    try:
        model = read_model(content)
        return model, layers(model)
    except ExportError as error:
        if not (missing := missing_operators(content)):
            raise
        pronoun = "it" if len(missing) == 1 else "them"
        instead = f"its interpreter has no {', '.join(missing)} either, replace {pronoun} in the network"
        raise ExportError(str(error).replace(OTHER_WAY, instead)) from error


def write_firmware(artifact: Artifact, folder: Path) -> Firmware:
    """Write an int8 network as plain C into a folder, which is created if necessary: all files, or none.

    Args:
        artifact: an int8 .tflite.
        folder: the folder to write into.

    Raises:
        UsageError: the artifact is not an int8 ``.tflite``, or the folder cannot be written, or has files of these
            names that pretrim did not make.
        ExportError: an operator has no C kernel; the message names it.
    """
    if artifact.runtime != "litert" or artifact.data_type != "int8":
        raise UsageError(
            f"Expected an int8 .tflite for C sources, but got {artifact.path.name} ({artifact.data_type}): "
            f"export with --runtime litert --int8."
        )
    content = artifact.path.read_bytes()
    model, layers_in_c = firmware_layers(content)
    texts = {
        **_network(artifact, content, model, layers_in_c),
        **_samples(*known_answers(artifact.path)),
        **{name: _file(name) for name in COPIED},
    }
    written = write_texts(folder, texts)
    return Firmware(tuple(written), sum(layer.constant_bytes for layer in layers_in_c), model.arena_bytes)


def _network(artifact: Artifact, content: bytes, model: Model, layers: list[Layer]) -> dict[str, str]:
    """The texts of network.h and network.c, by file name."""
    pixels = pixel_table(artifact.input)
    entries = {
        "file": artifact.path.name,
        "sha256": artifact.sha256,
        "macs": f"{sum(operator.macs for operator in graph_of(content).operators):,}",
        "constants": f"{sum(layer.constant_bytes for layer in layers):,}",
        "arena": model.arena_bytes,
        "arena_text": f"{model.arena_bytes:,}",
        **_tensor_entries("input", model.input),
        **_tensor_entries("output", model.outputs[0]),
        "outputs": len(model.outputs),
        "output_shapes": comment(f"Each output, int8: {', then '.join(_shape(output) for output in model.outputs)}."),
        "outputs_definition": ",\n".join(_output(output) for output in model.outputs),
        "values": comment(f"The same from real values: {values_text(artifact.input)}."),
        "pixels_declaration": pixels_declaration(pixels),
        "pixels_definition": pixels_definition(pixels),
        "definitions": "\n\n".join(_definition(layer) for layer in layers if layer.definitions),
        "calls": "\n".join(f"    {layer.call}" for layer in layers),
        "labels": labels_definition(artifact.classes, model.outputs[0].size),
    }
    return {name: Template(_file(f"{name}.in")).substitute(entries) for name in ("network.h", "network.c")}


def _tensor_entries(name: str, tensor: Tensor) -> dict[str, object]:
    """The entries of the templates about the input or the first output."""
    return {
        f"{name}_shape": _shape(tensor),
        f"{name}_size": tensor.size,
        f"{name}_scale": f"{tensor.scale:.9e}",
        f"{name}_zero": tensor.zero,
        f"{name}_offset": tensor.offset,
    }


def _output(tensor: Tensor) -> str:
    """An output's element of the C array `network_outputs`."""
    return f"    {{{place(tensor)}, {tensor.size}, {tensor.scale:.9e}f, {tensor.zero}}}"


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape[1:]))


def _definition(layer: Layer) -> str:
    return "\n".join((comment(layer.title), *layer.definitions))


def _samples(images: NDArray[np.int8], answers: NDArray[np.int8]) -> dict[str, str]:
    """The texts of samples.h and samples.c, by file name."""
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

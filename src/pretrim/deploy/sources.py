"""C++ sources for TensorFlow Lite for Microcontrollers: the model's bytes as an array, and a minimal program."""

from __future__ import annotations

from pathlib import Path

from pretrim.cost.micro_operators import METHODS
from pretrim.errors import UsageError

from .artifact import Artifact
from .folder import write_texts
from .micro import MissingOperators, missing_operators
from .tflite import operators

ARENA_ROOM = 1.1
"""Factor on the arena size in the sources: a vendor's kernels may need additional scratch buffers."""
COLUMNS = 16


def write_sources(artifact: Artifact, folder: Path, arena_bytes: int) -> list[Path]:
    """Write ``model_data.h``, ``model_data.cc`` and ``main.cc`` into a folder, which is created if necessary.

    pretrim's tests compile the array, but not ``main.cc``: the library that it needs is not available as a package.

    Args:
        artifact: a .tflite.
        folder: the folder to write into.
        arena_bytes: size of the tensor arena, before the addition of `ARENA_ROOM`.

    Raises:
        UsageError: the artifact is not a ``.tflite``, or the folder cannot be written.
        ExportError: an operator has no known kernel.
    """
    if artifact.runtime != "litert":
        raise UsageError(
            f"Expected a .tflite for C++ sources, but got {artifact.path.name}: export with --runtime litert."
        )
    content = artifact.path.read_bytes()
    used = known_operators(content)
    texts = {
        "model_data.h": _header(len(content), round(ARENA_ROOM * arena_bytes)),
        "model_data.cc": _array(content),
        "main.cc": _program(used, artifact),
    }
    return write_texts(folder, texts)


def known_operators(content: bytes) -> list[str]:
    """Operators of a ``.tflite``'s bytes. Raises ExportError, which names all operators without a known kernel."""
    if missing := missing_operators(content):
        raise MissingOperators(missing)
    return operators(content)


def _header(size: int, arena: int) -> str:
    return (
        "// Made by pretrim.\n#pragma once\n#include <cstddef>\n#include <cstdint>\n\n"
        f"constexpr std::size_t kModelSize = {size};\n"
        f"// The arena that the interpreter took on a 64-bit host, plus 10 %.\n"
        f"constexpr std::size_t kArenaSize = {-(-arena // 16) * 16};\n"
        "extern const std::uint8_t kModel[kModelSize];\n"
    )


def _array(content: bytes) -> str:
    rows = (
        ",".join(str(byte) for byte in content[start : start + COLUMNS]) + ","
        for start in range(0, len(content), COLUMNS)
    )
    body = "\n".join(rows)
    head = '// Made by pretrim.\n#include "model_data.h"\n\nalignas(16) const std::uint8_t kModel[kModelSize] = {'
    return f"{head}\n{body}\n}};\n"


def _program(operator_names: list[str], artifact: Artifact) -> str:
    registrations = "\n".join(f"  if (resolver.{METHODS[name]}() != kTfLiteOk) return 1;" for name in operator_names)
    field = "int8" if artifact.input["data_type"] == "int8" else "f"
    shape = " x ".join(map(str, artifact.input["shape"]))
    note = ""
    if field == "int8":
        normalisation = "x as the training's data set gave it" if artifact.input.get("as_given") else "x normalised"
        note = f" value = round(x / {artifact.input['scale']:.9g}) + {artifact.input['zero_point']}, {normalisation}"
    return f"""// Made by pretrim. Not compiled there: it needs TensorFlow Lite for Microcontrollers.
#include "model_data.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {{
alignas(16) std::uint8_t arena[kArenaSize];
}}

int main() {{
  tflite::InitializeTarget();
  tflite::MicroMutableOpResolver<{len(operator_names)}> resolver;
{registrations}
  tflite::MicroInterpreter interpreter(tflite::GetModel(kModel), resolver, arena, kArenaSize);
  if (interpreter.AllocateTensors() != kTfLiteOk) return 2;

  // One image, {shape} ({artifact.input["layout"]}).{note}
  TfLiteTensor* input = interpreter.input(0);
  for (std::size_t i = 0; i < input->bytes / sizeof(*input->data.{field}); ++i) input->data.{field}[i] = 0;
  if (interpreter.Invoke() != kTfLiteOk) return 3;

  const TfLiteTensor* output = interpreter.output(0);
  const std::size_t count = output->bytes / sizeof(*output->data.{field});
  std::size_t best = 0;
  for (std::size_t i = 1; i < count; ++i) {{
    if (output->data.{field}[i] > output->data.{field}[best]) best = i;
  }}
  return static_cast<int>(best);
}}
"""

"""Plain C for microcontrollers: compiled here and for Cortex-M, run here and in QEMU, equal to LiteRT to the bit."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from int8_networks import Builder, draw, draw_one
from numpy.typing import NDArray

import pretrim
from pretrim.cost.microcontroller import arena_cost, artifact_cost
from pretrim.data import normalise
from pretrim.deploy import Artifact, Firmware, export, firmware_layers, litert, litert_file, micro, write_firmware
from pretrim.deploy.firmware.operators import BUILDERS
from pretrim.deploy.graph import graph_of
from pretrim.errors import ExportError, PretrimError, UsageError
from pretrim.models import BUILTIN

Call = Callable[..., tuple[int, str, str]]
CC = shutil.which("cc")
BOARDS = ("an386", "an500", "an521")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic")
CHECKED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
"""A read or write outside of an array, and every overflow, ends the program"""
CONSTANT = r"_\d+(_(weights|bias|multiplier|shift|table|exponential|operand|rows|columns))?$"
"""The names of a layer's structure and arrays"""
KERNELS = Path(pretrim.__file__).parent / "deploy" / "firmware" / "files"
PIPE = """#include "network.h"
#include <stdio.h>
int main(void)
{
    while (fread(network_input(), 1, NETWORK_INPUT_SIZE, stdin) == NETWORK_INPUT_SIZE) {
        network_run();
        fwrite(network_output(), 1, NETWORK_OUTPUT_SIZE, stdout);
    }
    return 0;
}
"""
ROUNDING = [
    ("convolution", 3),
    ("depthwise", 3),
    ("average_pool", 3),
    ("residual", 3),
    ("mean", 3),
    ("rescaling", 401),
    ("dense", 3),
    ("product", 0),
    ("softmax", 4),
    ("transposed", 0),
    ("transposed", 2),
    *(("nearest", seed) for seed in range(2)),
    *(("bilinear", seed) for seed in range(3)),
]
"""Operators, and seeds with which both ways of rounding give different outputs (an average has a way of its own, and
with softmax it is float's and fixed point's)"""
MISSING = [tool for tool in ("make", "arm-none-eabi-gcc", "qemu-system-arm") if shutil.which(tool) is None]
needs_cc = pytest.mark.skipif(CC is None, reason="there is no C compiler")
needs_make = pytest.mark.skipif(CC is None or shutil.which("make") is None, reason="there is no C compiler, or no make")


def artifact_of(content: bytes, path: Path, **known: Any) -> Artifact:
    """An int8 artifact by its file, as `export` would record it."""
    path.write_bytes(content)
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0)).subgraphs[0]
    source = graph.tensors[graph.inputs[0]]
    port: Any = {"layout": "NHWC", "shape": tuple(source.shape.tolist()), "data_type": "int8"}
    port |= {"scale": float(source.quantization.scale[0]), "zero_point": int(source.quantization.zeroPoint[0])}
    return Artifact(
        path=path,
        runtime="litert",
        data_type="int8",
        file_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        input=port | {"normalisation": known.get("normalisation")},
        outputs=(),
        classes=known.get("classes"),
        plan=None,
        calibration=None,
        proof={},
        notes=(),
        versions={},
    )


def reference(content: bytes) -> Any:
    """LiteRT's interpreter with its reference kernels."""
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    return interpreter


def answers(content: bytes, images: NDArray[np.int8]) -> NDArray[np.int8]:
    """What LiteRT gives for images, one a row."""
    interpreter = reference(content)
    (source,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        interpreter.set_tensor(source["index"], image.reshape(source["shape"]))
        interpreter.invoke()
        found.append(interpreter.get_tensor(output["index"]).ravel().copy())
    return np.array(found)


def compiled(folder: Path, program: str, kernels: Path | None = None) -> Path:
    """A program beside the sources of a network, with every warning an error and every access checked."""
    (folder / "program.c").write_text(program)
    sources = [folder / "program.c", folder / "network.c", kernels or folder / "kernels.c"]
    call = [str(CC), *STRICT, *CHECKED, "-I", str(folder), *map(str, sources), "-lm", "-o", str(folder / "program")]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "program"


def piped(program: Path, content: bytes, *arguments: str) -> bytes:
    done = subprocess.run([program, *arguments], input=content, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


# ---------------------------------------------------------------------------------------- the family of operators


@needs_cc
def test_random_networks_of_every_operator_are_equal_to_litert_to_the_bit(tmp_path: Path) -> None:
    """Strides, SAME and VALID, dilations, groups, depth multipliers, per-channel scales, odd sizes, zero points."""
    kernels = tmp_path / "kernels.o"
    subprocess.run([str(CC), *STRICT, *CHECKED, "-c", str(KERNELS / "kernels.c"), "-o", str(kernels)], check=True)
    seen: set[str] = set()
    for seed in range(40):
        content = draw(seed)
        folder = tmp_path / str(seed)
        artifact = artifact_of(content, tmp_path / "model.tflite")
        write_firmware(artifact, folder)
        images = np.random.default_rng(seed).integers(-128, 128, (5, *artifact.input["shape"]), dtype=np.int8)
        images[0], images[1] = -128, 127
        wanted = answers(content, images)
        got = np.frombuffer(piped(compiled(folder, PIPE, kernels), images.tobytes()), np.int8)
        graph = graph_of(content)
        assert np.array_equal(got.reshape(wanted.shape), wanted), (seed, graph.names)
        seen |= set(graph.names)
    assert seen == set(BUILDERS)


@needs_cc
@pytest.mark.parametrize(("kind", "seed"), ROUNDING)
def test_rounding_is_litert_s_in_the_rare_cases_too(kind: str, seed: int, tmp_path: Path) -> None:
    """Rounding once or twice differs in one value of a thousand: many images of each operator that rounds."""
    content = draw_one(kind, seed)
    artifact = artifact_of(content, tmp_path / "model.tflite")
    write_firmware(artifact, tmp_path / "sources")
    images = np.random.default_rng(1).integers(-128, 128, (2000, *artifact.input["shape"]), dtype=np.int8)
    wanted = answers(content, images)
    got = np.frombuffer(piped(compiled(tmp_path / "sources", PIPE), images.tobytes()), np.int8)
    assert np.array_equal(got.reshape(wanted.shape), wanted)


# ---------------------------------------------------------------------------------------- slim networks on boards


def keywords() -> ModuleType:
    """The example whose network is a DS-CNN."""
    file = Path(__file__).parent.parent / "examples" / "keyword_spotting" / "keywords.py"
    spec = importlib.util.spec_from_file_location("keywords", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Excited(torch.nn.Module):
    """Squeeze and excitation: channels weighted by what two small layers make of their means."""

    def __init__(self, channels: int, gate: torch.nn.Module) -> None:
        super().__init__()
        self.squeeze, self.excite = torch.nn.Conv2d(channels, 8, 1), torch.nn.Conv2d(8, channels, 1)
        self.gate = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squeezed = self.squeeze(x.mean((2, 3), keepdim=True)).relu()
        return x * self.gate(self.excite(squeezed))


def mobile(activation: Callable[[], torch.nn.Module], gate: torch.nn.Module) -> torch.nn.Module:
    """Blocks as in MobileNetV3 and EfficientNet, and probabilities at the end."""
    nn = torch.nn

    def normed(*args: int, **options: int) -> list[torch.nn.Module]:
        return [nn.Conv2d(*args, **options, bias=False), nn.BatchNorm2d(args[1]), activation()]

    deep = [*normed(16, 32, 1), *normed(32, 32, 5, 2, 2, groups=32), Excited(32, gate), *normed(32, 24, 1)]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10), nn.Softmax(-1)]
    return nn.Sequential(*normed(3, 16, 3, 2, 1), *deep, *end)


NETWORKS: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, int, int], dict[str, str]]] = {
    "resnet20": (BUILTIN["resnet20"], (3, 16, 16), {"macs": "0.3x"}),
    "mobilenetv2": (BUILTIN["mobilenetv2"], (3, 32, 32), {"params": "0.1x", "macs": "0.15x"}),
    "ds-cnn": (lambda: keywords().build(), (1, 49, 10), {"macs": "0.4x"}),
    "mobilenetv3": (lambda: mobile(torch.nn.Hardswish, torch.nn.Hardsigmoid()), (3, 24, 24), {"macs": "0.5x"}),
    "efficientnet": (lambda: mobile(torch.nn.SiLU, torch.nn.Sigmoid()), (3, 24, 24), {"macs": "0.5x"}),
}


@dataclass(frozen=True)
class Slim:
    """A slim network, what was predicted of it before it existed, and its sources."""

    content: bytes
    predicted_file: int
    predicted_activations: int
    folder: Path
    firmware: Firmware


def slim(name: str, folder: Path) -> Slim:
    """By the way that users go: a plan, the slim network, its int8 file, its sources."""
    build, shape, limits = NETWORKS[name]
    torch.manual_seed(0)
    model = build()
    network = pretrim.analyze(model, torch.zeros(1, *shape))
    plan = network.plan(**limits)
    images = torch.randn(4, *shape)
    content = litert_file(settled(plan.apply(model), images), images)
    firmware = write_firmware(artifact_of(content, folder / "model.tflite"), folder / "sources")
    arena = arena_cost(network)
    activations = int(arena(plan.widths) - arena.tail(plan.widths))
    return Slim(content, int(artifact_cost(network)(plan.widths)), activations, folder / "sources", firmware)


def settled(model: torch.nn.Module, images: torch.Tensor) -> torch.nn.Module:
    """With running statistics of its norms: without them, activations of deep networks vanish, and so would errors."""
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(images)
    return model.eval()


@needs_make
@pytest.mark.parametrize("name", NETWORKS)
def test_a_slim_network_gives_litert_s_outputs_here_and_on_three_cortex_m(name: str, tmp_path: Path) -> None:
    """To the bit, in QEMU; flash and RAM as the linker placed them, against what was predicted."""
    made = slim(name, tmp_path)
    check_known_answers(made)
    assert passed(make(made.folder, "test"))
    if MISSING:
        pytest.skip(f"passed here; not tried on a Cortex-M, missing: {', '.join(MISSING)} (docs/deploy.md)")
    for board in BOARDS:
        assert passed(make(made.folder, "run", f"BOARD={board}")), board
        check_sizes(made, made.folder / "build" / board)


def make(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["make", "-s", "--no-print-directory", "-C", str(folder), *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def passed(said: str) -> bool:
    return said.count("10 of 10 outputs equal to LiteRT's") == 4 and said.endswith("passed\n")


def check_known_answers(made: Slim) -> None:
    """Those of the self-test are LiteRT's, no two the same; those of the interpreter for microcontrollers are within a
    step, for it rounds twice in fully connected layers."""
    images = numbers(made.folder, "samples_input").reshape(4, -1)
    known = numbers(made.folder, "samples_output").reshape(4, -1)
    assert np.array_equal(known, answers(made.content, images))
    (source,) = reference(made.content).get_input_details()
    theirs = micro.run(made.content, images.reshape(4, *source["shape"][1:]))
    assert np.abs(known.astype(int) - theirs).max() <= 1
    assert len({bytes(row) for row in known}) == 4


def numbers(folder: Path, name: str) -> NDArray[np.int8]:
    """An array of samples.c."""
    body = (folder / "samples.c").read_text().partition(f" {name}[")[2].partition("= {")[2].partition("\n};")[0]
    return np.array(re.findall(r"-?\d+", body), np.int8)


def check_sizes(made: Slim, built: Path) -> None:
    """By the sources: arena and constants to the byte, the code at most 6 KiB. By the plan: activations to 1 %."""
    elf, firmware = built / "firmware.elf", made.firmware
    sections = sizes(["arm-none-eabi-size", "-A", str(elf)], r"^(\.\w+) +(\d+)", 10)
    symbols = sizes(["arm-none-eabi-nm", "-S", str(elf)], r"^\w+ (\w+) \w (\w+)$", 16)
    assert symbols["arena"] == firmware.arena_bytes == graph_of(made.content).head()
    assert sections[".data"] + sections[".bss"] == firmware.arena_bytes
    assert firmware.arena_bytes == pytest.approx(made.predicted_activations, rel=0.01)
    layers = [size for name, size in symbols.items() if re.search(CONSTANT, name)]
    assert sum(-(-size // 4) * 4 for size in layers) == firmware.constant_bytes  # objects begin at words
    linked = flash_of(built / "firmware.map", "network.o", "kernels.o")
    assert firmware.constant_bytes < linked < firmware.constant_bytes + 6144
    assert linked < made.predicted_file


def sizes(call: list[str], pattern: str, base: int) -> dict[str, int]:
    """Sizes by name that a tool prints; the name is the group that is no number."""
    printed = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    pairs = re.findall(pattern, printed, re.MULTILINE)
    return {a: int(b, base) for a, b in pairs} if base == 10 else {b: int(a, base) for a, b in pairs}


def flash_of(file: Path, *objects: str) -> int:
    """Bytes that the linker's map has of object files in flash."""
    text = file.read_text().partition("Linker script and memory map")[2].partition("\n.data")[0]
    found = re.findall(r"^ \.\S+\s+0x[0-9a-f]+\s+(0x[0-9a-f]+) (\S+)$", text, re.MULTILINE)
    return sum(int(size, 16) for size, name in found if Path(name).name in objects)


# ---------------------------------------------------------------------------------------- several outputs


class Detector(torch.nn.Module):
    """Boxes and scores of anchors at two sizes, a mask, and a number for the whole image."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.fine = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())
        self.boxes, self.scores = nn.Conv2d(20, 2 * 4, 1), nn.Conv2d(12, 2 * 3, 1)
        self.mask = nn.Sequential(nn.ConvTranspose2d(20, 4, 4, 2, 1), nn.ReLU(), nn.Conv2d(4, 1, 1))
        self.number = nn.Linear(12, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        fine = self.fine(x)
        coarse = self.coarse(fine)
        both = torch.cat([fine, torch.nn.functional.interpolate(coarse, scale_factor=2)], 1)
        boxes = self.boxes(both).permute(0, 2, 3, 1).reshape(len(x), -1, 4)
        scores = self.scores(coarse).permute(0, 2, 3, 1).reshape(len(x), -1, 3)
        smooth = torch.nn.functional.interpolate(self.mask(both), scale_factor=1.5, mode="bilinear")
        return boxes, scores, smooth, self.number(coarse.mean((2, 3)))


@pytest.fixture(scope="module")
def detector() -> tuple[Detector, bytes]:
    """And its int8 file."""
    torch.manual_seed(0)
    model, images = Detector().eval(), torch.randn(8, 3, 12, 12)
    return model, litert_file(model, images)


@needs_make
def test_every_output_of_a_detector_is_litert_s_in_its_place(detector: tuple[Detector, bytes], tmp_path: Path) -> None:
    model, content = detector
    write_firmware(artifact_of(content, tmp_path / "model.tflite"), tmp_path)
    assert {"RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "TRANSPOSE_CONV"} <= set(graph_of(content).names)
    sizes = [2 * 36 * 4, 2 * 9 * 3, 18 * 18, 1]
    known = numbers(tmp_path, "samples_output").reshape(4, -1)
    session = reference(content)
    (source,) = session.get_input_details()
    for image, row in zip(numbers(tmp_path, "samples_input").reshape(4, *source["shape"]), known, strict=True):
        scale, zero = source["quantization"]
        real = torch.from_numpy((image.astype(np.float32) - zero) * np.float32(scale)).permute(0, 3, 1, 2)
        wanted = [output.detach().numpy().ravel() for output in model(real)]
        assert [len(each) for each in wanted] == sizes
        for output, values, found in zip(
            wanted, np.split(row, np.cumsum(sizes)[:-1]), session.get_output_details(), strict=True
        ):
            scale, zero = found["quantization"]
            assert len(output) == 1 or np.corrcoef(values, output)[0, 1] > 0.7
    for call in (["test"], *([] if MISSING else [["run", "BOARD=an386"]])):
        said = make(tmp_path, *call)
        assert said.count(f"{sum(sizes)} of {sum(sizes)} outputs equal to LiteRT's\n") == 4 and said.endswith(
            "passed\n"
        )


@needs_cc
def test_outputs_are_described_in_c(detector: tuple[Detector, bytes], tmp_path: Path) -> None:
    """Their sizes, scales and zero points are those of the file, each where its values lie."""
    _, content = detector
    write_firmware(artifact_of(content, tmp_path / "model.tflite"), tmp_path)
    program = """#include "network.h"
#include <stdio.h>
int main(void)
{
    for (int i = 0; i < NETWORK_OUTPUTS; i++) {
        const network_tensor *one = &network_outputs[i];
        printf("%d %.9e %d\\n", (int)one->size, (double)one->scale, (int)one->zero);
    }
    return network_output() != network_outputs[0].values || NETWORK_OUTPUT_SIZE != network_outputs[0].size;
}
"""
    said = [line.split() for line in piped(compiled(tmp_path, program), b"").decode().splitlines()]
    for (size, scale, zero), output in zip(said, reference(content).get_output_details(), strict=True):
        assert int(size) == np.prod(output["shape"])
        assert (np.float32(scale), int(zero)) == (np.float32(output["quantization"][0]), output["quantization"][1])


def test_an_output_that_is_not_computed_is_refused() -> None:
    build = Builder()
    source = build.tensor((1, 4, 4, 2), np.float32(0.1), 0)
    build.add("RELU", [source], build.tensor((1, 4, 4, 2), np.float32(0.1), 0))
    with pytest.raises(ExportError, match="Expected outputs that are computed for C sources, but 1 of them are not"):
        firmware_layers(build.content(source, source))


# ---------------------------------------------------------------------------------------- pixels, values, labels


LABELS = ("plain", 'a "quoted" \\ one', "what??)", "Fuß, 日本")
INPUTS = """#include "network.h"
#include <stdio.h>
static union {
    uint8_t pixels[NETWORK_INPUT_SIZE];
    float values[NETWORK_INPUT_SIZE];
} given;
int main(int count, char **arguments)
{
    (void)arguments;
    if (count == 1) {
        while (fread(given.pixels, 1, sizeof given.pixels, stdin) == sizeof given.pixels) {
            network_set_pixels(given.pixels);
            fwrite(network_input(), 1, NETWORK_INPUT_SIZE, stdout);
        }
    } else if (count == 2) {
        while (fread(given.values, 1, sizeof given.values, stdin) == sizeof given.values) {
            network_set_values(given.values);
            fwrite(network_input(), 1, NETWORK_INPUT_SIZE, stdout);
        }
    } else {
        for (int i = 0; i < NETWORK_OUTPUT_SIZE; i++) {
            puts(network_label(i));
        }
    }
    return 0;
}
"""


def dense_network(shape: tuple[int, ...], outputs: int) -> bytes:
    """One fully connected layer on an image."""
    build, inputs = Builder(), int(np.prod(shape))
    source = build.tensor(shape, np.float32(0.0187), -3)
    weights = build.tensor((outputs, inputs), np.float32(0.01), 0, np.full((outputs, inputs), 5, np.int8))
    bias = build.tensor((outputs,), np.float32(0.000187), 0, np.zeros(outputs, np.int32))
    output = build.tensor((1, outputs), np.float32(0.1), 0)
    build.add("FULLY_CONNECTED", [source, weights, bias], output, "FullyConnectedOptions")
    return build.content(source, output)


@needs_cc
def test_pixels_values_and_labels_are_those_of_python(tmp_path: Path) -> None:
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    artifact = artifact_of(
        dense_network((1, 16, 16, 3), 4), tmp_path / "m.tflite", normalisation=[mean, deviation], classes=LABELS
    )
    write_firmware(artifact, tmp_path / "sources")
    program = compiled(tmp_path / "sources", INPUTS)
    tensor = {"dtype": np.int8, "quantization": (artifact.input["scale"], artifact.input["zero_point"])}
    levels = np.stack([np.roll(np.arange(256, dtype=np.uint8), 7 * c) for c in range(3)]).reshape(1, 3, 16, 16)
    wanted = litert.quantised(np.moveaxis(normalise(torch.from_numpy(levels), mean, deviation).numpy(), 1, -1), tensor)
    assert piped(program, np.ascontiguousarray(np.moveaxis(levels, 1, -1)).tobytes()) == wanted.tobytes()
    values = np.random.default_rng(0).normal(0, 2, (4, 768)).astype(np.float32)
    values[0] = (np.arange(768) - 384) * np.float32(0.5 * artifact.input["scale"])  # ties, and beyond both ends
    values[1, :4] = (1e30, -1e30, np.inf, -np.inf)
    assert piped(program, values.tobytes(), "values") == litert.quantised(values, tensor).tobytes()
    assert piped(program, b"", "all", "labels").decode() == "\n".join(LABELS) + "\n"


ON_BOARD = """#include "network.h"
#include "port.h"
static const float values[NETWORK_INPUT_SIZE] = {%s};
static const uint8_t pixels[NETWORK_INPUT_SIZE] = {%s};
static const int8_t of_values[NETWORK_INPUT_SIZE] = {%s};
static const int8_t of_pixels[NETWORK_INPUT_SIZE] = {%s};
static int differing(const int8_t *wanted)
{
    int count = 0;
    for (int i = 0; i < NETWORK_INPUT_SIZE; i++) {
        count += network_input()[i] != wanted[i];
    }
    return count;
}
int main(void)
{
    network_set_values(values);
    int count = differing(of_values);
    network_set_pixels(pixels);
    count += differing(of_pixels);
    for (int i = 0; i < NETWORK_OUTPUT_SIZE; i++) {
        port_write(network_label(i));
        port_write("\\n");
    }
    return count;
}
"""


@pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
def test_they_are_on_a_cortex_m_without_floats_too(tmp_path: Path) -> None:
    artifact = artifact_of(
        dense_network((1, 16, 16, 1), 4), tmp_path / "m.tflite", normalisation=[[0.3], [0.2]], classes=LABELS
    )
    write_firmware(artifact, tmp_path / "sources")
    tensor = {"dtype": np.int8, "quantization": (artifact.input["scale"], artifact.input["zero_point"])}
    values = np.arange(-128, 128, dtype=np.float32) * np.float32(0.75 * artifact.input["scale"])
    pixels = np.arange(256, dtype=np.uint8)
    normalised = normalise(torch.from_numpy(pixels).reshape(1, 1, 256), (0.3,), (0.2,)).numpy().ravel()
    given = (
        map(float.hex, values.tolist()),
        pixels,
        litert.quantised(values, tensor),
        litert.quantised(normalised, tensor),
    )
    texts = [", ".join(f"{value}f" if isinstance(value, str) else str(value) for value in each) for each in given]
    (tmp_path / "sources" / "main.c").write_text(ON_BOARD % tuple(texts))
    assert make(tmp_path / "sources", "run") == "\n".join(LABELS) + "\n"


def test_inputs_that_are_no_pixels_have_no_table(tmp_path: Path) -> None:
    """Data that came ready, and a normalisation that is not known."""
    for pair in (None, [[0.0], [1 / 255]]):
        artifact = artifact_of(dense_network((1, 5, 5, 1), 2), tmp_path / "m.tflite", normalisation=pair)
        write_firmware(artifact, tmp_path / "sources")
        assert "network_set_pixels" not in (tmp_path / "sources" / "network.h").read_text()


@pytest.mark.skipif(CC is None or shutil.which("c++") is None, reason="there is no C++ compiler")
def test_a_program_in_c_plus_plus_takes_the_header(tmp_path: Path) -> None:
    write_firmware(artifact_of(dense_network((1, 4, 4, 1), 2), tmp_path / "m.tflite"), tmp_path)
    (tmp_path / "program.cc").write_text(
        '#include "network.h"\nint main() { network_run(); return network_largest(); }\n'
    )
    for call in (
        ["cc", "-c", "network.c", "kernels.c"],
        ["c++", "program.cc", "network.o", "kernels.o", "-o", "program"],
    ):
        subprocess.run(call, cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "program"]).returncode == 0


@needs_make
def test_the_self_test_notices_a_byte_that_is_off_by_one(tmp_path: Path) -> None:
    write_firmware(artifact_of(dense_network((1, 4, 4, 1), 10), tmp_path / "m.tflite"), tmp_path / "sources")
    file = tmp_path / "sources" / "samples.c"
    before, output, after = file.read_text().partition(" samples_output[")
    size, first, rest = re.split(r"(?<=    )(-?\d+)", after, maxsplit=1)
    file.write_text(f"{before}{output}{size}{int(first) + 1}{rest}")
    done = subprocess.run(
        ["make", "-s", "--no-print-directory", "-C", str(file.parent), "test"], capture_output=True, text=True
    )
    assert done.returncode != 0 and done.stdout.startswith("sample 0: 9 of 10 outputs equal"), done.stdout
    assert done.stdout.endswith("FAILED\n")


# ---------------------------------------------------------------------------------------- what cannot be written


def odd_network(name: str, options: str | None, second: tuple[int, ...] | None = None) -> bytes:
    """One operator on a small activation; with the shape of a second one."""
    build = Builder()
    source = build.tensor((1, 4, 4, 2), np.float32(0.1), 0)
    inputs = [source]
    if second is not None:
        inputs.append(build.tensor(second, np.float32(0.1), 0, np.ones(second, np.int8)))
    output = build.tensor((1, 4, 4, 2), np.float32(1 / 256), -128)
    build.add(name, inputs, output, options)
    return build.content(source, output)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (odd_network("DIV", "DivOptions"), "There is no C kernel for DIV: replace it in the network, or"),
        (odd_network("SPACE_TO_DEPTH", None), "There is no C kernel for SPACE_TO_DEPTH"),
        (odd_network("ADD", "AddOptions", (2, 1, 4, 4, 2)), "The C kernel of ADD does not support 5 dimensions"),
        (odd_network("MUL", "MulOptions", (2, 1, 4, 4, 2)), "The C kernel of MUL does not support 5 dimensions"),
    ],
)
def test_what_has_no_kernel_is_named_and_nothing_is_written(content: bytes, said: str, tmp_path: Path) -> None:
    artifact = artifact_of(content, tmp_path / "model.tflite")
    with pytest.raises(ExportError, match=said) as error:
        write_firmware(artifact, tmp_path / "sources")
    assert "--sources-for tflm" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "sources").exists()


def test_they_are_found_before_a_file_is_written(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReflectionPad2d(1))
    images = torch.randn(4, 1, 8, 8)
    with pytest.raises(ExportError, match="There is no C kernel for MIRROR_PAD: replace it"):
        export(
            model,
            tmp_path / "m.tflite",
            "litert",
            images=images,
            calibration=images,
            accept=firmware_layers,
            force=True,
        )
    assert not list(tmp_path.iterdir())


def test_what_is_no_int8_tflite_and_what_somebody_else_wrote(tmp_path: Path) -> None:
    artifact = artifact_of(dense_network((1, 4, 4, 1), 2), tmp_path / "model.tflite")
    for other in (replace(artifact, runtime="onnx"), replace(artifact, data_type="float32")):
        with pytest.raises(UsageError, match=r"Expected an int8 \.tflite for C sources, but got model.tflite"):
            write_firmware(other, tmp_path / "sources")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "Makefile").write_text("all:\n")
    with pytest.raises(PretrimError, match="Makefile is not pretrim's own and would be replaced: choose an empty"):
        write_firmware(artifact, folder)
    assert [file.name for file in folder.iterdir()] == ["Makefile"]
    (folder / "Makefile").unlink()
    write_firmware(artifact, folder)
    write_firmware(artifact, folder)  # its own are replaced


def test_sources_of_a_float32_export_are_refused_before_it(call: Call) -> None:
    code, _, said = call("export", "RUN", "--runtime", "litert", "--no-int8", "--sources", "src")
    assert (code, said) == (
        2,
        "error: --sources are plain C for int8 networks: add --int8, or --sources-for tflm.\n",
    )

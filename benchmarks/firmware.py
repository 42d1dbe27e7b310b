"""Claim: arena and constants of the firmware in C are known to the byte before it is compiled; its code is below 6 KiB.

For slim and dense networks in int8: the file size and activations predicted by the plan, the sizes stated in the C
sources, and the sizes that the linker places in flash and RAM for three Cortex-M cores (MPS2 boards AN386, AN500 and
AN521), without the self-test. Each firmware image is run in QEMU, and counts only if every output equals LiteRT's.
Quantisation ranges come from random images; the sizes do not depend on them. QEMU counts instructions with the plugin
in `arm/`: the total over the self-test's four images, divided by four.

    python benchmarks/firmware.py        # about 5 minutes; writes results/firmware.md

Needs `pretrim[litert]`, gcc, gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import nn

import pretrim
from pretrim.cost.costs import cost
from pretrim.cost.microcontroller import arena_cost, artifact_cost
from pretrim.deploy import export, write_firmware
from pretrim.models import BUILTIN

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).parent / "results" / "firmware.md"
BOARDS = {"an386": "Cortex-M4", "an500": "Cortex-M7", "an521": "Cortex-M33"}


def keyword_spotter() -> nn.Module:
    """The DS-CNN of examples/keyword_spotting."""
    spec = importlib.util.spec_from_file_location("keywords", ROOT / "examples" / "keyword_spotting" / "keywords.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "ResNet-20": (BUILTIN["resnet20"], (3, 32, 32)),
    "MobileNetV2": (BUILTIN["mobilenetv2"], (3, 32, 32)),
    "DS-CNN": (keyword_spotter, (1, 49, 10)),
}
PLANS = {"dense": {}, "half the MACs": {"macs": "0.5x"}, "a fifth": {"macs": "0.2x"}}


def flash_of(file: Path) -> int:
    """Bytes of the network and its kernels in flash, from the linker map."""
    text = file.read_text().partition("Linker script and memory map")[2].partition("\n.data")[0]
    sections = re.findall(r"^ \.\S+\s+0x[0-9a-f]+\s+(0x[0-9a-f]+) (\S+)$", text, re.MULTILINE)
    return sum(int(size, 16) for size, name in sections if Path(name).name in ("network.o", "kernels.o"))


def ram_of(file: Path) -> int:
    """Bytes of variables, from the sections of the firmware image; the stack is not included."""
    output = subprocess.run(["arm-none-eabi-size", "-A", file], capture_output=True, text=True, check=True).stdout
    return sum(int(size) for size in re.findall(r"^\.(?:data|bss) +(\d+)", output, re.MULTILINE))


@cache
def count_plugin() -> Path:
    """Compile the QEMU plugin that counts instructions."""
    library = Path(tempfile.mkdtemp()) / "count.so"
    source = Path(__file__).parent / "arm" / "count.c"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def instructions_of(sources: Path, board: str) -> float:
    """Instructions per input image; raises CalledProcessError if the run fails."""
    command = ["make", "-s", "-C", sources, "run", f"BOARD={board}", f"QEMU=qemu-system-arm -plugin {count_plugin()}"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    (total,) = re.findall(r"all instructions (\d+)", result.stderr)
    return int(total) / result.stdout.count("outputs equal to LiteRT's")


def measure_row(name: str, title: str, limits: dict[str, str]) -> list[str]:
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    model = build()
    network = pretrim.analyze(model, torch.zeros(1, *shape))
    plan = network.plan(**limits) if limits else None
    widths = network.dense if plan is None else plan.widths
    macs = int(cost(network, "macs")(widths))
    slim = (model if plan is None else plan.apply(model)).eval()
    images = torch.randn(4, *shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        artifact = export(slim, path, "litert", images=images, calibration=images, force=True)
        firmware = write_firmware(artifact, Path(folder) / "src")
        flash, instructions, ram = [], [], set()
        for board in BOARDS:
            count = instructions_of(Path(folder) / "src", board)
            instructions.append(f"{count / 1e6:.1f} M ({count / macs:.1f})")
            build_folder = Path(folder) / "src" / "build" / board
            flash.append(flash_of(build_folder / "firmware.map"))
            ram.add(ram_of(build_folder / "firmware.elf"))
    (same_ram,) = ram
    assert same_ram == firmware.arena_bytes
    arena = arena_cost(network)
    predicted = [int(artifact_cost(network)(widths)), int(arena(widths) - arena.tail(widths))]
    cells = [*predicted, artifact.file_bytes, firmware.constant_bytes, *flash, same_ram]
    row = [name, title, *(f"{cell:,}" for cell in cells), *instructions]
    print(*row, sep=" | ", flush=True)
    return row


def main() -> None:
    flash, counts = (
        " | ".join(f"{quantity}, {core}" for core in BOARDS.values()) for quantity in ("flash", "instructions")
    )
    lines = [
        "# Firmware in plain C: predicted, and as the linker placed it",
        "",
        "Bytes; int8, 10 classes; ResNet-20 and MobileNetV2 for 3x32x32, DS-CNN for 1x49x10. Flash is that of network",
        "and kernels; RAM is the arena, to which the linker script adds 2,048 bytes of stack. Every image ran in QEMU,",
        "with LiteRT's outputs. The plan predicts the `.tflite` and the activations from widths alone.",
        "Instructions are those of an image, in brackets for each multiply-accumulate; AN521's Cortex-M33 has no DSP",
        f"extension. Compiled with {compiler()}, -O2.",
        "",
        f"| network | | plan: .tflite | activations | real: .tflite | constants in C | {flash} | RAM | {counts} |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in NETWORKS:
        for title, limits in PLANS.items():
            lines.append(f"| {' | '.join(measure_row(name, title, limits))} |")
    RESULT.write_text("\n".join(lines) + "\n")


def compiler() -> str:
    version = subprocess.run(["arm-none-eabi-gcc", "--version"], capture_output=True, text=True, check=True).stdout
    return f"arm-none-eabi-gcc {version.splitlines()[0].rpartition(') ')[2]}"


if __name__ == "__main__":
    main()

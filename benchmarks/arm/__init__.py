"""Instructions of an inference on an ARM processor, counted in emulation: the same number every time, on any machine.

LiteRT's aarch64 build runs under qemu-user, with a plugin that counts. Instructions are not cycles (no cache, no width
of issue): they rank networks, and they show what padding to a kernel's width costs.

`prepare` needs Debian, with qemu-user, debootstrap and gcc installed; what it makes goes into an ignored folder.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent / "build" / "arm"
MIRROR = "http://deb.debian.org/debian"
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
CORES = {
    # What /proc/cpuinfo says there: LiteRT picks its kernels by it, and would read this machine's otherwise.
    "cortex-a76": (
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc asimddp",
    ),
    "cortex-a53": ("0xd03", "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"),
}


def prepare() -> None:
    """An arm64 Debian with Python and LiteRT, and the plugin. Once; a minute, 300 MB."""
    if (ROOT / "ready").exists():
        return
    missing = [name for name in ("qemu-aarch64", "debootstrap", "gcc") if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"Expected {', '.join(missing)}: apt-get install qemu-user debootstrap gcc.")
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    system = ROOT / "system"
    packages = "--include=python3.11,libstdc++6"
    _run("debootstrap", "--foreign", "--arch=arm64", "--variant=minbase", packages, "bookworm", str(system), MIRROR)
    for package in sorted((system / "var/cache/apt/archives").glob("*.deb")):
        _run("dpkg", "-x", str(package), str(system))
    wanted = [f"{name}=={version(name)}" for name in ("ai-edge-litert", "numpy")]
    only = [f"--platform={name}" for name in PLATFORMS] + ["--python-version=3.11", "--only-binary=:all:", "--no-deps"]
    _run(sys.executable, "-m", "pip", "install", "--quiet", f"--target={ROOT / 'packages'}", *only, *wanted)
    _run("gcc", "-O2", "-shared", "-fPIC", "-o", str(ROOT / "count.so"), str(HERE / "count.c"))
    (ROOT / "ready").touch()


def instructions(artifact: Path, core: str) -> int:
    """Of one inference of a .tflite on one thread of a core (a key of `CORES`)."""
    part, features = CORES[core]
    processor = ROOT / "system" / "proc" / "cpuinfo"
    processor.parent.mkdir(exist_ok=True)
    lines = ["processor\t: 0", f"Features\t: {features}", "CPU implementer\t: 0x41", "CPU architecture: 8"]
    processor.write_text("\n".join([*lines, "CPU variant\t: 0x0", f"CPU part\t: {part}", "CPU revision\t: 4", ""]))
    python = ROOT / "system" / "usr/bin/python3.11"
    command = ["qemu-aarch64", "-L", str(ROOT / "system"), "-cpu", core, "-plugin", str(ROOT / "count.so")]
    command += ["-E", f"PYTHONPATH={ROOT / 'packages'}", "-E", "OMP_NUM_THREADS=1", str(python)]
    done = subprocess.run([*command, str(HERE / "run.py"), str(artifact)], capture_output=True, text=True, check=False)
    counts = [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("instructions ")]
    if done.returncode or len(counts) < 4:
        raise SystemExit(f"{artifact.name} on {core}: exit {done.returncode}: {done.stderr[-300:]}")
    return counts[-1]  # of the third: Python's own steps around the first ones differ by a hundred or two


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

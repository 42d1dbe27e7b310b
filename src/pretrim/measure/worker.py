"""Measure artifacts on this machine. A single file that needs only the runtime and NumPy, so it can be sent to a board.

    python worker.py REQUEST.json > answer.json

Needs Python 3.8 or newer. It runs in its own process, so a runtime that crashes on a damaged file harms nothing else.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import platform
import sys
import time
from typing import Any, Callable  # noqa: UP035  # Python 3.8 cannot subscript that of collections.abc

MARK = "pretrim-measurement:"


def main(request_path: str) -> dict[str, Any]:
    """Answer a request (see `run.py` for its contents) by measuring its artifacts in turns."""
    with open(request_path) as file:
        request = json.load(file)
    if request.get("each"):
        return measure_each(request)
    before = memory("VmRSS")
    runners = [open_artifact(artifact, request) for artifact in request["artifacts"]]
    for runner in runners:
        warm_up(runner, request["warmup_s"])
    samples: list[list[float]] = [[] for _ in runners]
    energies_j = [0.0 for _ in runners]
    sources = [energy_source(runner.provider) for runner in runners]
    rounds, runs = request["rounds"], request["runs"]
    for turn in range(rounds):
        chunk = runs * (turn + 1) // rounds - runs * turn // rounds
        order = range(len(runners)) if turn % 2 == 0 else reversed(range(len(runners)))
        for index in order:
            runners[index].run()  # refill the caches after the other artifacts
            reading = sources[index].read()
            times = []
            for _ in range(chunk):
                start = time.perf_counter()
                runners[index].run()
                times.append(time.perf_counter() - start)
            if reading is not None:
                energies_j[index] += sources[index].spent(reading, sum(times))
            samples[index].extend(times)
    results = [
        {
            "provider": runner.provider,
            "samples_s": times,
            "energy_j": energy_j / len(times) if source.name else None,
            "energy_source": source.name,
        }
        for runner, times, energy_j, source in zip(runners, samples, energies_j, sources)
    ]
    answer: dict[str, Any] = {"machine": machine(request), "results": results}
    answer["memory_before_bytes"], answer["memory_peak_bytes"] = before, memory("VmHWM")
    return answer


def measure_each(request: dict[str, Any]) -> dict[str, Any]:
    """Time many small artifacts one after another: each is loaded, timed and released."""
    results = []
    for artifact in request["artifacts"]:
        runner = open_artifact(artifact, request)
        warm_up(runner, request["warmup_s"])
        times: list[float] = []
        end = time.perf_counter() + request["seconds"]
        while len(times) < request["runs"] or time.perf_counter() < end:
            start = time.perf_counter()
            runner.run()
            times.append(time.perf_counter() - start)
        median = sorted(times)[len(times) // 2]
        results.append({"provider": runner.provider, "samples_s": [median], "energy_j": None, "energy_source": None})
    answer = {"machine": machine(request), "results": results}
    return {**answer, "memory_before_bytes": None, "memory_peak_bytes": None}


def warm_up(runner: Any, seconds: float) -> None:
    """Run for a while, at least three times, to raise the clock rate and fill the caches."""
    start, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - start < seconds:
        runner.run()
        count += 1


# ---------------------------------------------------------------------------------------- the runtimes


class Runner:
    """A loaded artifact: `run` performs one inference on the execution provider `provider`."""

    def __init__(self, run: Callable[[], Any], provider: str) -> None:
        self.run, self.provider = run, provider


def open_artifact(artifact: dict[str, Any], request: dict[str, Any]) -> Runner:
    """Load an artifact with its runtime's function, whose source comes with the request (`Runtime.load`)."""
    import numpy as np

    loader = request["loaders"][artifact["runtime"]]
    namespace: dict[str, Any] = {}
    exec(compile(loader["source"], artifact["runtime"], "exec"), namespace)
    inputs = [pixels(np, entry["shape"], entry["data_type"]) for entry in artifact.get("inputs", [artifact])]
    try:
        load = namespace[loader["function"]]
        return Runner(*load(artifact["path"], inputs, request["threads"], request["providers"]))
    except ImportError as error:
        raise SystemExit(f"missing: {loader['packages'][0]} ({error})") from error


def pixels(np: Any, shape: list[int], data_type: str) -> Any:
    """Create a random input, the same every time.

    Args:
        np: NumPy, passed in because the board may lack it.
        shape: shape of the input.
        data_type: data type of the input.
    """
    random = np.random.RandomState(0)
    if data_type in ("int8", "uint8"):
        return random.randint(0, 256, size=shape).astype(np.uint8).astype(data_type)
    return random.randn(*shape).astype(np.float32)


# ---------------------------------------------------------------------------------------- the machine


def machine(request: dict[str, Any]) -> dict[str, Any]:
    """Description of the machine that the measurements were made on."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "runtime": runtime_version(request["loaders"][request["artifacts"][0]["runtime"]]["packages"]),
        "governor": first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    }


def cpu_name() -> str:
    board = first_line("/proc/device-tree/model")
    fields: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                key, _, value = line.partition(":")
                fields.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    cpu = fields.get("model name") or fields.get("Hardware") or platform.processor() or "unknown"
    return f"{board}, {cpu}" if board else cpu


def runtime_version(packages: list[str]) -> str:
    """Name and version of the first of these packages that is installed."""
    from importlib.metadata import PackageNotFoundError, version

    for package in packages:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return "unknown"


def first_line(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.readline().strip().rstrip("\0") or None
    except (OSError, UnicodeDecodeError):
        return None


def read_int(path: str) -> int:
    """Read an integer from a file. Raises ValueError if there is none."""
    return int(first_line(path) or "none")


def memory(field: str) -> int | None:
    """Bytes of this process on Linux; None elsewhere. VmHWM is its peak: getrusage's starts with the parent's."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


# ---------------------------------------------------------------------------------------- energy


class Counter:
    """Energy from a counter in joules that counts up and wraps around at its range."""

    def __init__(self, name: str, read: Callable[[], float], range_j: float | None = None) -> None:
        self.name, self.read, self.range_j = name, read, range_j

    def spent(self, start: float, seconds: float) -> float:
        difference = self.read() - start
        return difference + self.range_j if difference < 0 and self.range_j else difference


class Power:
    """Energy from a power meter read at the start and end of the work: only accurate for long enough runs."""

    def __init__(self, name: str, read: Callable[[], float]) -> None:
        self.name, self.read = name, read

    def spent(self, start: float, seconds: float) -> float:
        return 0.5 * (start + self.read()) * seconds


class NoEnergy:
    """Placeholder if this process can read no counter."""

    name = None

    def read(self) -> None:
        return None


def energy_source(provider: str) -> Any:
    """The best source here: the GPU's counter if the GPU runs the model, else RAPL, else a Jetson's meter."""
    if "CUDA" in provider or "Tensorrt" in provider:
        counter = nvml()
        if counter is not None:
            return counter
    return rapl() or jetson() or NoEnergy()


def rapl() -> Counter | None:
    """Intel's and AMD's package counters; on most systems only root can read them."""
    files = sorted(glob.glob("/sys/class/powercap/intel-rapl:?/energy_uj"))

    def read() -> float:
        return sum(read_int(file) for file in files) * 1e-6

    try:
        if not files or read() <= 0:
            return None
        ranges = [read_int(file.replace("energy_uj", "max_energy_range_uj")) for file in files]
        return Counter("RAPL", read, sum(ranges) * 1e-6)
    except (OSError, TypeError, ValueError):
        return None


def jetson() -> Power | None:
    """The power meter of the board's main supply, read in millivolts and milliamperes."""
    for label in sorted(glob.glob("/sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*/in*_label")):
        if first_line(label) not in ("VDD_IN", "POM_5V_IN"):
            continue
        volts = label.replace("_label", "_input")
        amperes = volts.replace("/in", "/curr")

        def read(volts: str = volts, amperes: str = amperes) -> float:
            return read_int(volts) * read_int(amperes) * 1e-6

        try:
            read()
            return Power("INA3221", read)
        except (OSError, TypeError, ValueError):
            continue
    return None


def nvml() -> Counter | None:
    """NVIDIA's energy counter of the first GPU (Volta and later)."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)):
            return None

        def read() -> float:
            if library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)):
                raise OSError("NVML has no energy counter")
            return millijoules.value * 1e-3

        read()
        return Counter("NVML", read)
    except (OSError, AttributeError):
        return None


if __name__ == "__main__":
    sys.stdout.write("\n" + MARK + json.dumps(main(sys.argv[1])) + "\n")

"""Time artifacts on this machine. One file that needs the runtime and NumPy alone, so that it can be sent to a board.

    python worker.py REQUEST.json > answer.json

Python 3.8 or newer. It is run in a process of its own: a runtime that crashes on a damaged file takes nothing with it.
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
    """Answer a request: its artifacts are measured in turns (`run.py` says what it holds)."""
    with open(request_path) as file:
        request = json.load(file)
    if request.get("each"):
        return measure_each(request)
    before = memory("VmRSS")
    runners = [open_artifact(artifact, request) for artifact in request["artifacts"]]
    for runner in runners:
        warm_up(runner, request["warmup_s"])
    samples: list[list[float]] = [[] for _ in runners]
    used = [0.0 for _ in runners]
    joules = [energy_source(runner.provider) for runner in runners]
    rounds, runs = request["rounds"], request["runs"]
    for turn in range(rounds):
        chunk = runs * (turn + 1) // rounds - runs * turn // rounds
        order = range(len(runners)) if turn % 2 == 0 else reversed(range(len(runners)))
        for place in order:
            runners[place].run()  # the others have emptied the caches
            started = joules[place].read()
            times = []
            for _ in range(chunk):
                start = time.perf_counter()
                runners[place].run()
                times.append(time.perf_counter() - start)
            if started is not None:
                used[place] += joules[place].spent(started, sum(times))
            samples[place].extend(times)
    results = [
        {
            "provider": runner.provider,
            "samples_s": times,
            "energy_j": spent / len(times) if source.name else None,
            "energy_source": source.name,
        }
        for runner, times, spent, source in zip(runners, samples, used, joules)
    ]
    answer: dict[str, Any] = {"machine": machine(request), "results": results}
    answer["memory_before_bytes"], answer["memory_peak_bytes"] = before, memory("VmHWM")
    return answer


def measure_each(request: dict[str, Any]) -> dict[str, Any]:
    """Many small artifacts, one after another: each is loaded, timed and let go."""
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
        middle = sorted(times)[len(times) // 2]
        results.append({"provider": runner.provider, "samples_s": [middle], "energy_j": None, "energy_source": None})
    found = {"machine": machine(request), "results": results}
    return {**found, "memory_before_bytes": None, "memory_peak_bytes": None}


def warm_up(runner: Any, seconds: float) -> None:
    """Run for a while, so that the clock is up and the caches are filled; at least three times."""
    start, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - start < seconds:
        runner.run()
        count += 1


# ---------------------------------------------------------------------------------------- the runtimes


class Runner:
    """An artifact that is loaded: `run` is one inference, `provider` what runs it."""

    def __init__(self, run: Callable[[], Any], provider: str) -> None:
        self.run, self.provider = run, provider


def open_artifact(artifact: dict[str, Any], request: dict[str, Any]) -> Runner:
    """Load an artifact by its runtime's own function, which comes with the request as source (`Runtime.load`)."""
    import numpy as np

    loader = request["loaders"][artifact["runtime"]]
    names: dict[str, Any] = {}
    exec(compile(loader["source"], artifact["runtime"], "exec"), names)
    inputs = [pixels(np, entry["shape"], entry["data_type"]) for entry in artifact.get("inputs", [artifact])]
    try:
        return Runner(*names[loader["function"]](artifact["path"], inputs, request["threads"], request["providers"]))
    except ImportError as error:
        raise SystemExit(f"missing: {loader['packages'][0]} ({error})") from error


def pixels(np: Any, shape: list[int], data_type: str) -> Any:
    """An input with no special values, the same every time.

    Args:
        np: NumPy, which the board may lack.
        shape: of the input.
        data_type: of the input.
    """
    random = np.random.RandomState(0)
    if data_type in ("int8", "uint8"):
        return random.randint(0, 256, size=shape).astype(np.uint8).astype(data_type)
    return random.randn(*shape).astype(np.float32)


# ---------------------------------------------------------------------------------------- the machine


def machine(request: dict[str, Any]) -> dict[str, Any]:
    """What the figures were measured on."""
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
    names: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                key, _, value = line.partition(":")
                names.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    known = names.get("model name") or names.get("Hardware") or platform.processor() or "unknown"
    return f"{board}, {known}" if board else known


def runtime_version(packages: list[str]) -> str:
    """Of the first distribution that is there."""
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


def number(path: str) -> int:
    """Raises ValueError where there is none."""
    return int(first_line(path) or "none")


def memory(field: str) -> int | None:
    """Bytes of this process, by Linux; None elsewhere. VmHWM is its peak: getrusage's begins with the parent's."""
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
    """Joules that a counter gives: it counts up, and starts again at its range."""

    def __init__(self, name: str, read: Callable[[], float], range_j: float | None = None) -> None:
        self.name, self.read, self.range_j = name, read, range_j

    def spent(self, started: float, seconds: float) -> float:
        difference = self.read() - started
        return difference + self.range_j if difference < 0 and self.range_j else difference


class Power:
    """Joules by a meter of power, read when work ends: for long enough runs alone."""

    def __init__(self, name: str, read: Callable[[], float]) -> None:
        self.name, self.read = name, read

    def spent(self, started: float, seconds: float) -> float:
        return 0.5 * (started + self.read()) * seconds


class Nothing:
    """No counter that this process may read."""

    name = None

    def read(self) -> None:
        return None


def energy_source(provider: str) -> Any:
    """The best that this machine has: the GPU's own counter where that runs the model, RAPL, a Jetson's meter."""
    if "CUDA" in provider or "Tensorrt" in provider:
        counter = nvml()
        if counter is not None:
            return counter
    return rapl() or jetson() or Nothing()


def rapl() -> Counter | None:
    """Intel's and AMD's package counters; most systems let root alone read them."""
    files = sorted(glob.glob("/sys/class/powercap/intel-rapl:?/energy_uj"))

    def read() -> float:
        return sum(number(file) for file in files) * 1e-6

    try:
        if not files or read() <= 0:
            return None
        ranges = [number(file.replace("energy_uj", "max_energy_range_uj")) for file in files]
        return Counter("RAPL", read, sum(ranges) * 1e-6)
    except (OSError, TypeError, ValueError):
        return None


def jetson() -> Power | None:
    """The meter of the board's main supply, in millivolts and milliamperes."""
    for label in sorted(glob.glob("/sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*/in*_label")):
        if first_line(label) not in ("VDD_IN", "POM_5V_IN"):
            continue
        volts = label.replace("_label", "_input")
        amperes = volts.replace("/in", "/curr")

        def read(volts: str = volts, amperes: str = amperes) -> float:
            return number(volts) * number(amperes) * 1e-6

        try:
            read()
            return Power("INA3221", read)
        except (OSError, TypeError, ValueError):
            continue
    return None


def nvml() -> Counter | None:
    """NVIDIA's counter of the first GPU (Volta and later)."""
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

"""What another package adds by entry points: it lies in a folder on sys.path, as pip would install it."""

import json
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import pretrim
from pretrim import devices
from pretrim.cli import main
from pretrim.compat.optional import EXTRAS, requirement_of
from pretrim.cost import quantities
from pretrim.deploy import check_installed, check_target, export, open_session, read, runtimes
from pretrim.devices import board, boards
from pretrim.errors import ArtifactError, ExportError, UsageError
from pretrim.measure import Protocol, measure

Install = Callable[..., Path]

NUMPY_RUNTIME = '''
"""A runtime in one file: stacks of linear layers, kept as .npz and run by NumPy."""

import io

import numpy as np

from pretrim.deploy import Conversion, Converted, Runtime, Session
from pretrim.errors import ExportError


def convert(job: Conversion) -> Converted:
    from torch import nn

    arrays = {}
    for number, layer in enumerate(job.network.network):
        if isinstance(layer, nn.Linear):
            arrays[f"{number}.weight"], arrays[f"{number}.bias"] = layer.weight.numpy(), layer.bias.numpy()
        elif not isinstance(layer, nn.Flatten):
            raise ExportError(f"NumPy has no {type(layer).__name__}.")
    file = io.BytesIO()
    np.savez(file, **arrays)
    return Converted(file.getvalue(), ("made by NumPy",))


class NumPySession(Session):
    def __init__(self, path, threads):
        self.arrays = list(np.load(path).values())

    def run(self, *inputs):
        x = inputs[0].reshape(len(inputs[0]), -1)
        for weight, bias in zip(self.arrays[::2], self.arrays[1::2]):
            x = x @ weight.T + bias
        return [x]


def load(path, inputs, threads, providers):
    import numpy as np

    arrays = list(np.load(path).values())

    def run():
        x = inputs[0].reshape(1, -1)
        for weight, bias in zip(arrays[::2], arrays[1::2]):
            x = x @ weight.T + bias

    return run, "NumPy"


RUNTIME = Runtime(
    name="numpy",
    title="NumPy",
    suffix=".npz",
    requirement="numpy",
    modules=("numpy",),
    packages=("numpy",),
    convert=convert,
    session=NumPySession,
    load=load,
    device_packages=("numpy",),
)
'''
BOARD = """
title = "A board"
kind = "microcontroller"
core = "core"
architecture = "armv7e-m"
cores = 1
clock_hz = 64_000_000
flash_bytes = 1_048_576
ram_bytes = 262_144
simd_bits = 32
runtime = "litert"
data_type = "int8"
round_to = 4

[sources]
flash = "its datasheet"
"""


def forget() -> None:
    for kept in (runtimes._plugins, devices._plugins, devices.boards):
        kept.cache_clear()
    for function in (quantities.quantities, quantities.by_option):
        function.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Write a package's files and its metadata, and put it on sys.path."""
    before = set(sys.modules)

    def put(points: str, files: dict[str, str]) -> Path:
        site = tmp_path / "site"
        for name, text in {
            "added-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: added\nVersion: 1.0\n",
            "added-1.0.dist-info/entry_points.txt": textwrap.dedent(points),
            **files,
        }.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(text)
        monkeypatch.syspath_prepend(str(site))
        forget()
        return site

    yield put
    for name in set(sys.modules) - before:
        if name.startswith("added"):
            del sys.modules[name]
    monkeypatch.undo()
    forget()


POINT = "[pretrim.runtimes]\nnumpy = added_runtime:RUNTIME\n"


def test_a_runtime_of_another_package(install: Install, tmp_path: Path) -> None:
    """One file and one line: exported, proved, read, run and measured as pretrim's own."""
    install(POINT, {"added_runtime.py": NUMPY_RUNTIME})
    assert [entry.name for entry in runtimes.runtimes()] == ["onnx", "litert", "executorch", "numpy"]
    check_installed("numpy")
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Linear(8, 3)).eval(), torch.randn(5, 3, 4, 4)
    file = tmp_path / "model.npz"
    made = export(network, file, "numpy", images=images, labels=torch.zeros(5, dtype=torch.int64))
    assert made.proof["relative_error"] < 1e-5 and made.notes == ("made by NumPy",)
    assert read(file) == made and made.runtime == "numpy" and "numpy" in made.versions
    got = open_session("numpy", file)(images.numpy())[0]
    assert torch.allclose(torch.from_numpy(got), network(images), atol=1e-5)
    found = measure([made], Protocol(runs=4, processes=1, rounds=2, warmup_s=0.0))[0]
    assert (found.runtime, found.provider, found.latency.runs) == ("numpy", "NumPy", 4)
    assert found.machine["runtime"].startswith("numpy ")
    assert json.loads((tmp_path / "model.npz.json").read_text())["runtime"] == "numpy"


def test_what_a_runtime_of_another_package_cannot_do_is_one_line(install: Install, tmp_path: Path) -> None:
    install(POINT, {"added_runtime.py": NUMPY_RUNTIME})
    images = torch.randn(5, 3, 4, 4)
    with pytest.raises(ExportError, match=r"^NumPy has no Conv2d\.$"):
        export(nn.Sequential(nn.Conv2d(3, 3, 1)), tmp_path / "model.npz", "numpy", images=images)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    with pytest.raises(UsageError, match="NumPy has no int8: leave the calibration out"):
        export(network, tmp_path / "model.npz", "numpy", images=images, calibration=images)
    with pytest.raises(UsageError, match="NumPy has no dynamic batch"):
        export(network, tmp_path / "model.npz", "numpy", images=images, dynamic_batch=True)
    assert not list(tmp_path.glob("model*"))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, r"added's pretrim\.runtimes entry numpy cannot be loaded \(ModuleNotFoundError: No module named 'added_"),
        ({"added_runtime.py": "RUNTIME = 3"}, r"\(TypeError: it is a int, not a pretrim\.deploy\.Runtime\): update or"),
        (
            {"added_runtime.py": NUMPY_RUNTIME.replace('".npz"', '".onnx"')},
            "pretrim's own onnx has that name, or the suffix",
        ),
    ],
    ids=["missing", "no runtime", "a suffix that is taken"],
)
def test_a_broken_package_stops_nothing_else(
    files: dict[str, str], said: str, install: Install, tmp_path: Path
) -> None:
    install(POINT, files)
    assert [entry.name for entry in runtimes.runtimes()] == ["onnx", "litert", "executorch"]
    with pytest.raises(UsageError, match=said) as caught:
        check_target(tmp_path / "model.npz", "numpy", overwrite=False)
    assert "\n" not in str(caught.value)
    with pytest.raises(ArtifactError, match=r"Expected an artifact \(\.onnx, \.tflite, \.pte\)"):
        read(tmp_path / "model.npz")


def test_runtimes_are_listed_without_torch_or_any_of_them() -> None:
    heavy = ["torch", "numpy", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert", "executorch"]
    code = (
        "import sys; from pretrim.deploy import RUNTIMES, TITLES, SUFFIXES; "
        f"print(RUNTIMES, TITLES['onnx'], SUFFIXES['litert'], [name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "('onnx', 'litert', 'executorch') ONNX Runtime .tflite []\n"


def test_what_is_to_be_installed_is_an_extra_of_the_project() -> None:
    """Every runtime's requirement, and the extra of every module, by pyproject.toml."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for entry in runtimes.BUILTIN:
        assert entry.requirement == f"pretrim[{entry.name}]" and entry.name in extras
        assert all(requirement_of(module) == entry.requirement for module in entry.modules)
    assert set(EXTRAS.values()) <= set(extras)
    assert requirement_of("of_another_package") == "of_another_package"


@pytest.mark.parametrize(
    ("point", "files"),
    [
        ("folder = added_boards", {"added_boards/__init__.py": "", "added_boards/my-board.toml": BOARD}),
        (
            "record = added_boards:BOARDS",
            {
                "added_boards.py": "from pretrim.devices import read_board\n"
                f"BOARDS = [read_board({BOARD!r}, 'my-board.toml')]"
            },
        ),
    ],
    ids=["a folder of TOML files", "records"],
)
def test_a_board_of_another_package(point: str, files: dict[str, str], install: Install) -> None:
    count = len(boards())
    install(f"[pretrim.boards]\n{point}\n", files)
    assert len(boards()) == count + 1
    found = board("my-board")
    assert (found.title, found.ram_bytes) == ("A board", 262_144)
    assert found.limits() == {
        "artifact_bytes": 684_032,
        "arena_bytes": 196_608,
    }  # 3/4 of 1 MiB less 100 KiB, 3/4 of 256 KiB


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("ram_bytes = 262_144", "ram_bytes = true"),
            r"my-board\.toml is damaged: at \$\.ram_bytes, expected `int`, got `bool`",
        ),
        (("cores = 1", "cores = 0"), r"at \$\.cores, expected `int` >= 1"),
        (('kind = "microcontroller"', 'kind = "toaster"'), r"at \$\.kind, invalid enum value 'toaster'"),
        (('title = "A board"', ""), "object missing required field `title`"),
        (("cores = 1", "cores = "), r"my-board\.toml is not valid TOML \(Invalid value"),
    ],
)
def test_a_damaged_board_is_named(change: tuple[str, str], said: str, install: Install) -> None:
    count = len(boards())
    files = {"added_boards/__init__.py": "", "added_boards/my-board.toml": BOARD.replace(*change)}
    install("[pretrim.boards]\nfolder = added_boards\n", files)
    assert len(boards()) == count
    with pytest.raises(UsageError, match=f"got 'my-board'.*Note that added's pretrim.boards entry folder .*{said}"):
        board("my-board")


def test_a_board_that_pretrim_has(install: Install) -> None:
    files = {"added_boards/__init__.py": "", "added_boards/rp2040.toml": BOARD}
    install("[pretrim.boards]\nfolder = added_boards\n", files)
    assert board("rp2040").title == "Raspberry Pi Pico (RP2040)"
    with pytest.raises(UsageError, match="pretrim has a board of the name rp2040"):
        board("toaster")


# ---------------------------------------------------------------------------------------- costs

MULTIPLICATIONS = '''
"""A cost in one file: picojoules, 3 for each multiply-accumulate and 100 for each parameter that is read."""

import numpy as np

from pretrim.cost.costs import macs, params
from pretrim.cost.quantities import Quantity


class Energy:
    name = "energy_pj"

    def __init__(self, network):
        self.parts = ((3, macs(network)), (100, params(network)))

    def __call__(self, widths):
        return sum(factor * np.asarray(cost(widths)) for factor, cost in self.parts)


def energy(network, dtype):
    return Energy(network)


QUANTITY = Quantity("energy_pj", "energy", "energy", "count", "params", "added_cost:energy", help="Picojoules.")
'''


def test_a_cost_of_another_package(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install('[pretrim.costs]\nenergy = "added_cost:QUANTITY"\n'.replace('"', ""), {"added_cost.py": MULTIPLICATIONS})
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 1))
    network = pretrim.analyze(model, torch.zeros(1, 3, 8, 8))
    plan = pretrim.plan(network, energy="0.5x", macs="0.8x", round_to=1)
    both = {"dense": plan.dense, "slim": plan.slim}
    by_hand = {which: 3 * costs["macs"] + 100 * costs["params"] for which, costs in both.items()}
    assert by_hand["slim"] <= 0.5 * by_hand["dense"]
    assert plan.device == {which: {"energy_pj": value} for which, value in by_hand.items()}
    assert pretrim.Plan.from_json(plan.to_json()).limits == {"energy_pj": "0.5x", "macs": "0.8x"}
    with pytest.raises(SystemExit) as end:
        main(["plan", "resnet20", "--input", "1x8x8", "--at-most", "energy=0.5x", "--json"])
    assert end.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["limits"] == {"energy_pj": "0.5x"}
    assert printed["device"]["slim"]["energy_pj"] <= 0.5 * printed["device"]["dense"]["energy_pj"]

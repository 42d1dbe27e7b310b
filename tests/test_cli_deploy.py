"""From a network to a microcontroller on the command line, and all the ways in which that can fail."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrim.deploy import arena_on, micro, read
from pretrim.devices import board as find_board

Call = Callable[..., tuple[int, str, str]]
MCU = "pip install 'pretrim[mcu]'"
TRAIN = ("--data", "digits", "--input", "1x16x16", "--epochs", "2", "--limit", "400", "--batch-size", "20")
TRAIN += ("--threads", "1", "--layout", "channels_last", "--precision", "float32")


def test_from_compress_to_a_verified_artifact(call: Call, tmp_path: Path) -> None:
    """ResNet-20's arena for 16 x 16 images is 31 KB; with 85 % of the board for the application, 19.7 KB are left."""
    run = tmp_path / "run"
    # stm32f407: 131,072 bytes of contiguous RAM.
    arguments = ("resnet20", *TRAIN, "--device", "stm32f407", "--application", "0.85", "-o", run)
    code, output, errors = call("compress", *arguments, "--qat", "--json")
    assert code == 0, errors
    assert "On stm32f407, int8, predicted" in errors and "tensor arena in RAM" in errors
    record = json.loads(output)
    assert record["results"]["recipe"]["qat"] == 1
    file = run / "model.int8.tflite"
    artifact = read(file)
    board = record["artifact"]["board"]
    assert (board["verified"], board["problems"]) == (True, [])
    assert board["host_arena_bytes"] == micro.arena(file.read_bytes()).total_bytes > board["arena_bytes"]
    assert board["arena_bytes"] == arena_on(file.read_bytes(), find_board("stm32f407")).total_bytes
    assert board["arena_bytes"] <= board["limits"]["arena_bytes"] <= 0.15 * 131_072
    assert artifact.file_bytes <= board["limits"]["artifact_bytes"]
    assert artifact.plan is not None and artifact.plan["device"]["converted"]["arena_bytes"] == board["arena_bytes"]
    assert "Converted before the training: a file of" in errors
    assert artifact.plan is not None and artifact.plan["device"]["name"] == "stm32f407"
    assert board["arena_bytes"] == pytest.approx(artifact.plan["device"]["slim"]["arena_bytes"], rel=0.03)
    assert artifact.file_bytes == pytest.approx(artifact.plan["device"]["slim"]["artifact_bytes"], rel=0.01)
    assert artifact.proof["failed"] == [] and artifact.proof["sqnr_db"] > 20
    assert artifact.proof["inputs"] == "179 test images of digits"
    # Rounding for the board: to multiples of 4, or of an eighth of the width where that is finer.
    assert all(group["kept"] % min(4, group["channels"] // 8) == 0 for group in artifact.plan["groups"])

    # Each step on its own, on the same run.
    code, output, errors = call("export", run, "--runtime", "onnx")
    assert code == 0 and "proved on         random pixels" in output
    code, _, errors = call("export", run, "--runtime", "onnx")
    assert (code, errors) == (
        2,
        f"error: {run}/model.onnx exists: choose another file, or --overwrite.\n",
    )
    code, _, errors = call("export", run, "--runtime", "onnx", "--dynamic-batch", "--opset", "17", "--overwrite")
    record = json.loads((run / "model.onnx.json").read_text())
    assert code == 0 and record["input"]["dynamic_batch"] is True
    code, output, errors = call("measure", run, "--runs", "4", "--processes", "1", "--json")
    assert code == 0
    assert [entry["runtime"] for entry in json.loads(output)] == ["litert", "onnx"]
    code, _, errors = call("measure", run / "model.onnx", "--against", run / "model.onnx", "--runs", "4")
    assert (code, errors) == (
        2,
        f"error: --against {run}/model.onnx is the artifact itself: name another one, often RUN/dense.\n",
    )
    code, _, errors = call("measure", run / "model.onnx", "--against", "nowhere")
    assert (code, errors) == (
        1,
        "error: No file nowhere to compare with: give a file of `pretrim export`, or a run.\n",
    )
    code, _, errors = call("export", run, "--runtime", "litert", "--no-int8")
    assert code == 0, errors
    code, output, errors = call("measure", file, "--against", run / "model.tflite", "--runs", "4")
    assert code == 0 and "of the other" in output
    # The folder holds an ordinary run: it can be overwritten, and its artifacts are removed with it.
    code, _, errors = call("compress", "resnet20", *TRAIN, "--macs", "0.3x", "-o", run, "--overwrite")
    assert code == 0 and not list(run.glob("model.*"))


def test_a_network_that_does_not_convert_is_still_trained(call: Call, tmp_path: Path) -> None:
    """LiteRT has no transposed convolution with this padding."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(\n"
        "        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 8, 3, 2, 1),\n"
        "        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))\n"
    )
    run = tmp_path / "run"
    limits = ("--input", "1x8x8", "--macs", "0.5x", "--epochs", "1", "--runtime", "litert", "-o", run)
    code, _, errors = call("compress", f"{tmp_path / 'net.py'}:build", "--data", "digits", *limits)
    last_line = errors.splitlines()[-1]
    assert code == 1 and last_line.startswith("error: LiteRT did not take the network"), errors
    assert last_line.endswith(f"The trained network is in {run}: `pretrim export` takes it from there.")
    assert (run / "run.json").exists() and not list(run.glob("*.tflite*"))


def test_a_network_that_fits_is_left_as_it_is(call: Call) -> None:
    code, output, errors = call("plan", "resnet20", "--device", "stm32h743", "--json")
    plan = json.loads(output)
    assert code == 0 and "note: the dense network fits on stm32h743 as it is" in errors
    assert plan["slim"] == plan["dense"]
    code, output, _ = call("plan", "resnet20", "--device", "stm32h743", "--macs", "0.5x", "--json")
    assert code == 0 and json.loads(output)["slim"]["macs"] < 0.5 * plan["dense"]["macs"]


def test_the_applications_share_in_percent(call: Call) -> None:
    command = ("plan", "resnet20", "--input", "1x16x16", "--device", "stm32f407", "--json", "--application")
    fraction, percent = (json.loads(call(*command, share)[1])["limits"] for share in ("0.85", "85%"))
    assert fraction == percent


def test_devices(call: Call) -> None:
    code, output, _ = call("devices")
    assert code == 0 and "esp32-s3" in output and "raspberry-pi-zero-2-w" in output
    code, output, _ = call("devices", "stm32h743", "--json")
    assert json.loads(output)[0]["limits"] == {"artifact_bytes": 1_470_464, "arena_bytes": 393_216}
    code, output, _ = call("devices", "rp2350")
    assert "ram: RP2350 datasheet" in output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("devices", "toaster"), 2, "Expected a device that pretrim knows, but got 'toaster'"),
        (("plan", "resnet20", "--device", "raspberry-pi-5"), 2, "No limit given: raspberry-pi-5 has ample RAM"),
        (("plan", "resnet20", "--application", "0.5", "--macs", "0.5x"), 2, "--application needs --device"),
        (("plan", "resnet20", "--device", "rp2040", "--application", "1"), 2, "share to be from 0 to below 1"),
        (("plan", "resnet20", "--device", "rp2040", "--application", "all"), 2, "share such as 0.85 or 85%, but got"),
        (("plan", "resnet20", "--device", "rp2040", "--application", "100%"), 2, "share to be from 0 to below 1"),
        (
            ("plan", "resnet20", "--device", "raspberry-pi-4", "--macs", "0.5x", "--application", "0.5"),
            2,
            "--application is a share of a microcontroller's flash and RAM, of which raspberry-pi-4 makes no limits",
        ),
        (
            ("plan", "vgg16", "--device", "stm32f407", "--min-width", "128"),
            1,
            "--device stm32f407 leaves [0-9,]+ bytes for the (.tflite file|tensor arena), but the narrowest needs ",
        ),
        (
            ("plan", "vgg16", "--device", "stm32f407", "--application", "0.95"),
            2,
            "Expected room for a model in the flash",
        ),
        (("export", "RUN"), 2, "Say where it will run: --runtime onnx, litert or executorch, or --device"),
        (("export", "RUN", "--runtime", "tensorrt"), 2, "Expected --runtime to be one of onnx, litert, executorch"),
        (
            ("export", "RUN", "--runtime", "onnx", "--int8"),
            2,
            "int8 needs images to take its ranges from: add --calibrate DATA",
        ),
        (
            ("export", "RUN", "--device", "rp2040", "--runtime", "onnx"),
            2,
            "rp2040 is a microcontroller, which runs litert, not onnx",
        ),
        (
            ("export", "/nowhere", "--runtime", "onnx", "-o", "x.onnx"),
            1,
            "No run in /nowhere .*run.json: No such file",
        ),
        (
            ("compress", "resnet20", *TRAIN, "--macs", "0.5x", "--int8", "-o", "x"),
            2,
            "--int8 needs --runtime or --device",
        ),
        (("measure", "/nowhere.onnx"), 2, "No file /nowhere.onnx: give a file of `pretrim export`, or a run"),
        (("measure", "."), 1, "No artifact in .*: make one with `pretrim export"),
        (
            ("measure", ".", "--provider", "npu"),
            2,
            'Invalid value "npu" for --provider. Choose from: "cpu", "cuda", "tensorrt"',
        ),
        (("measure", ".", "--ssh=-oProxyCommand=x"), 2, "Expected --ssh to be user@host"),
    ],
)
def test_errors(call: Call, arguments: tuple[str, ...], code: int, message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    exit_code, output, errors = call(*arguments)
    last_line = errors.splitlines()[-1]
    assert (exit_code, output) == (code, ""), errors
    assert re.match(f"error: .*({message})", last_line), last_line
    assert list(tmp_path.iterdir()) == []


def test_packages_for_sources_are_checked_before_the_export(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    code, _, errors = call("export", "RUN", "--runtime", "litert", "--sources", "src", "--sources-for", "tflm")
    assert (code, errors) == (2, f"error: tflite_micro is not installed: {MCU}.\n")


def test_without_any_extra_the_core_imports_and_plans(tmp_path: Path) -> None:
    """The packages of the runtimes are hidden by None in sys.modules, which makes their import fail."""
    hidden = ["onnx", "onnxruntime", "onnxscript", "litert_torch", "ai_edge_litert", "ai_edge_quantizer", "executorch"]
    hidden += ["tflite_micro", "sklearn", "pyarrow", "datasets", "tensorboard", "torchvision", "timm", "flatbuffers"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden}));"
        "from pretrim.cli import main;"
        "main(['plan', 'resnet20', '--device', 'nrf52840', '--macs', '0.5x', '-o', 'plan.json'])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "plan.json").exists()
    code = code.replace("'plan', 'resnet20', '--device', 'nrf52840', '--macs', '0.5x', '-o', 'plan.json'", "ARGS")
    missing = code.replace(
        "ARGS", "'compress', 'resnet20', '--data', 'digits', '--device', 'rp2040', '--macs', '0.5x', '-o', 'run'"
    )
    result = subprocess.run([sys.executable, "-c", missing], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: litert_torch is not installed: pip install")


def test_latency_on_the_command_line(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = ("resnet20", "--input", "1x8x8", "--latency", "0.6x", "--json")
    code, _, errors = call("plan", *arguments, "--device", "raspberry-pi-4")
    assert code == 2 and "No latencies of raspberry-pi-4 are known for this network" in errors
    code, _, errors = call("plan", *arguments, "--device", "rp2040")
    assert code == 2 and "rp2040 is a microcontroller, whose latency cannot be measured from here" in errors
    code, _, errors = call("plan", "resnet20", "--macs", "0.5x", "--estimate")
    assert code == 2 and "--ssh and --estimate need a latency" in errors
    code, output, errors = call("plan", *arguments, "--device", "raspberry-pi-4", "--estimate", "--dtype", "float32")
    device = json.loads(output)["device"]
    assert code == 0 and "note: latency is an estimate: this machine's" in errors
    assert device["latency_on"].endswith(" estimate")
    assert device["slim"]["latency_ns"] <= 0.6 * device["dense"]["latency_ns"]
    # It is stored under this machine's name: the board still has no latencies of its own.
    code, _, errors = call("plan", *arguments, "--device", "raspberry-pi-4", "--dtype", "float32")
    assert code == 2
    code, output, errors = call("plan", *arguments)
    assert (code, errors) == (0, "") and json.loads(output)["device"]["latency_on"] == "this machine"


def test_latency_of_another_runtime_on_the_command_line(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # The limit is loose since the time to start a call cannot be cut.
    arguments = ("resnet20", "--input", "1x8x8", "--latency", "0.85x", "--json")
    code, output, errors = call("plan", *arguments, "--runtime", "onnx")
    assert code == 0, errors
    device = json.loads(output)["device"]
    assert device["latency_on"] == "this machine, ONNX Runtime"
    assert device["slim"]["latency_ns"] <= 0.85 * device["dense"]["latency_ns"]
    assert [file.name.split("_")[-4:] for file in (tmp_path / "pretrim" / "latency").iterdir()] == [
        ["onnx", "float32", "CPUExecutionProvider", "1t.json"]
    ]
    code, output, errors = call("plan", *arguments, "--runtime", "executorch")
    assert code == 0 and "note: latency is that of LiteRT, whose kernels" in errors
    assert json.loads(output)["device"]["latency_on"] == "this machine"
    code, _, errors = call("plan", "resnet20", "--macs", "0.5x", "--runtime", "onnx")
    assert code == 2 and "--runtime says whose latency counts" in errors
    code, _, errors = call("plan", *arguments, "--runtime", "tensorrt")
    assert code == 2 and "Expected --runtime to be one of onnx, litert, executorch, but got 'tensorrt'" in errors

"""Artifacts in their real runtimes: they compute what PyTorch does, or are refused, and nothing is left behind."""

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import SHAPE, images, small
from torch import nn

import pretrim
from pretrim.compat import optional as quiet
from pretrim.deploy import RUNTIMES, SUFFIXES, export, litert, onnx, open_session, read
from pretrim.deploy.proof import prove
from pretrim.errors import ArtifactError, ExportError, ModelError, UsageError


@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("to", RUNTIMES)
def test_an_artifact_computes_what_pytorch_does(to: Any, int8: bool, tmp_path: Path) -> None:
    network, inputs = small(), images(20)
    labels = network(inputs).argmax(1)
    file = tmp_path / f"model{SUFFIXES[to]}"
    before = {name: value.clone() for name, value in network.state_dict().items()}
    made = export(
        network,
        file,
        to,
        images=inputs,
        labels=labels,
        calibration=images(50, seed=2) if int8 else None,
        classes=("a", "b", "c", "d"),
        normalisation=((0.1, 0.2), (0.3, 0.4)),
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, f"{file.name}.json"]
    assert read(file) == made
    assert made.notes == ()  # every operator has a fast kernel
    # Independently of the proof: load the file again and compare.
    got = open_session(to, file)(inputs.numpy())[0]
    wanted = network(inputs).detach().numpy()
    if int8:
        noise = 10 * np.log10((wanted**2).sum() / ((got - wanted) ** 2).sum())
        assert made.proof["sqnr_db"] == pytest.approx(noise, abs=0.01)
        assert noise > 20
        assert made.proof["accuracy"][0] == 1.0
        assert made.calibration == {"data": "images that were given", "images": 50}
    else:
        assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    record = json.loads((tmp_path / f"{file.name}.json").read_text())
    assert record["classes"] == ["a", "b", "c", "d"]
    assert record["input"]["normalisation"] == [[0.1, 0.2], [0.3, 0.4]]
    channels_last = to == "litert"
    assert record["input"]["shape"] == ([1, 16, 16, 2] if channels_last else [1, 2, 16, 16])
    assert record["input"]["layout"] == ("NHWC" if channels_last else "NCHW")
    assert record["versions"]["torch"] == torch.__version__
    assert b"site-packages" not in file.read_bytes() and b"/tests/" not in file.read_bytes()  # no stack traces


def test_an_operator_without_a_fast_kernel_is_told(tmp_path: Path) -> None:
    """XNNPACK takes means that keep their dimensions alone."""
    network = nn.Sequential(nn.Conv2d(2, 3, 3), Mean()).eval()
    made = export(network, tmp_path / "model.pte", "executorch", images=images(2))
    assert made.notes == ("ExecuTorch runs these operators with its slow portable kernels: mean",)


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def test_several_outputs_in_a_dict_keep_their_order(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": self.conv(x), "aux": x.mean((2, 3))}

    network, inputs = Two().eval(), images(3)
    made = export(network, tmp_path / "model.onnx", "onnx", images=inputs)
    assert [entry["shape"] for entry in made.outputs] == [[1, 3, 14, 14], [1, 2]]
    assert made.proof["agreement"] is None
    first, second = open_session("onnx", made.path)(inputs.numpy())
    assert np.allclose(first, network(inputs)["out"].detach(), atol=1e-5)
    assert np.allclose(second, network(inputs)["aux"], atol=1e-6)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 5, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.conv(x).mean((2, 3)), self.other(x).mean((2, 3))


def test_a_record_tells_how_int8_outputs_are_restored(tmp_path: Path) -> None:
    """By the record alone: a runtime of anybody's gives int8, and scale x (value - zero point) is PyTorch's."""
    torch.manual_seed(0)
    made = export(Pair().eval(), tmp_path / "m.tflite", "litert", images=images(5), calibration=images(9), force=True)
    outputs = json.loads(made.record_path.read_text())["outputs"]
    assert [(entry["shape"], entry["data_type"]) for entry in outputs] == [([1, 3], "int8"), ([1, 5], "int8")]
    interpreter = litert.reference_interpreter(made.path.read_bytes())
    wanted = open_session("litert", made.path)(images(1).numpy())
    given = interpreter.get_input_details()[0]
    interpreter.set_tensor(given["index"], litert.quantised(np.moveaxis(images(1).numpy(), 1, -1), given))
    interpreter.invoke()
    for entry, tensor, value in zip(outputs, interpreter.get_output_details(), wanted, strict=True):
        restored = entry["scale"] * (interpreter.get_tensor(tensor["index"]).astype(float) - entry["zero_point"])
        assert np.abs(restored - value).max() <= entry["scale"] * 1.01
    plain = export(Pair().eval(), tmp_path / "f.tflite", "litert", images=images(5))
    assert plain.outputs == ({"shape": [1, 3], "data_type": "float32"}, {"shape": [1, 5], "data_type": "float32"})


def test_a_slim_network_brings_its_plan(tmp_path: Path) -> None:
    network = small()
    plan = pretrim.analyze(network, torch.zeros(1, *SHAPE)).plan(macs="0.5x")
    slim = plan.apply(network, init="inherit").eval()
    made = export(slim, tmp_path / "model.onnx", "onnx", images=images(3))
    assert made.plan is not None
    assert pretrim.Plan.from_json(made.plan).widths.tolist() == plan.widths.tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"to": "tensorrt"}, "Expected --runtime to be one of onnx, litert, executorch, but got 'tensorrt'"),
        ({"path": "model.tflite"}, r"Expected a file that ends in \.onnx, but got 'model\.tflite'"),
        ({"path": "none/model.onnx"}, "is not a folder: make it first"),
        ({"opset": 9}, "Expected an opset from 11 to 23, but got 9"),
        ({"images": torch.zeros(0, 2, 16, 16)}, "Expected images of N x C x H x W in float32"),
        ({"images": torch.zeros(2, 2, 16, 16, dtype=torch.uint8)}, "in float32, but got .* in torch.uint8"),
        ({"calibration": torch.zeros(9, 3, 16, 16)}, r"calibration images of \[2, 16, 16\] .* but got \[3, 16, 16\]"),
        ({"calibration": torch.zeros(1, 2, 16, 16)}, "Expected 2 or more calibration images, but got 1"),
        ({"calibration": torch.full((3, 2, 16, 16), torch.nan)}, "Expected finite calibration images"),
        ({"images": torch.full((3, 2, 16, 16), torch.inf)}, "Expected finite images, but some hold NaN or infinity"),
        ({"images": [images(1)]}, r"Expected images as a torch\.Tensor, but got a list"),
        ({"labels": torch.zeros(5)}, r"Expected labels as a torch\.Tensor of \[2\], one per image, but got \[5\]"),
        (
            {"normalisation": ((0.1, torch.nan), (1, 1))},
            r"Expected a normalisation of 2 finite means .* got \[\[0\.1, nan",
        ),
        ({"normalisation": ((0.1,), (1,))}, "Expected a normalisation of 2 finite means"),
    ],
)
def test_wrong_use_leaves_nothing(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"path": "model.onnx", "to": "onnx", "images": images(2), **change}
    with pytest.raises(UsageError, match=said):
        export(small(), tmp_path / arguments.pop("path"), arguments.pop("to"), **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (nn.Conv2d(3, 4, 1), "run on one image of 2x16x16: its forward raised RuntimeError: .*to have 3 channels"),
        (nn.Flatten(0), r"to return tensors of one row an image, but for one got \[\[512\]\]"),
        (nn.LazyConv2d(4, 1), "Expected a model whose parameters have shapes, but got a lazy one"),
    ],
    ids=["channels", "rows", "lazy"],
)
def test_a_network_that_does_not_take_the_images_leaves_nothing(network: nn.Module, said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said):
        export(network, tmp_path / "model.onnx", "onnx", images=images(2))
    assert list(tmp_path.iterdir()) == []


def test_a_network_as_a_training_leaves_it(tmp_path: Path) -> None:
    """In train mode, in float64, with its last features kept; the images know of gradients."""

    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.drop = nn.Conv2d(2, 3, 1), nn.Dropout()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.last = self.layer(x)
            return self.drop(self.last)

    network = Keeps().double()
    network(images(2).double())
    made = export(network, tmp_path / "model.onnx", "onnx", images=images(2).requires_grad_())
    wanted = network.layer(images(2).double()).detach().numpy()
    assert np.allclose(open_session("onnx", made.path)(images(2).numpy())[0], wanted, atol=1e-5)
    assert network.training and network.layer.weight.dtype == torch.float64


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    made = export(nn.Conv2d(2, 2, 1), tmp_path / "model.onnx", "onnx", images=images(2))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit, error, said in (
        (4000, ArtifactError, "Cannot write .*: File too large"),
        (100, ExportError, "No room for temporary files"),
    ):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(error, match=said):
                export(nn.Conv2d(2, 2, 1), made.path, "onnx", images=images(2), classes=["x" * 5000])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert read(made.path) == made
        assert len(list(tmp_path.iterdir())) == 2


def test_a_network_that_is_not_finite_is_told_so(tmp_path: Path) -> None:
    network = nn.Conv2d(2, 2, 1)
    nn.init.constant_(network.weight, torch.inf)
    with pytest.raises(ExportError, match=r"outputs are not finite: PyTorch's own are not either, train it again"):
        export(network, tmp_path / "model.onnx", "onnx", images=images(2))


def test_an_operator_that_a_runtime_lacks_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(x[:, 0]).real

    said = "ONNX did not take the network .*aten.linalg_eig"
    with pytest.raises(ExportError, match=said) as caught:
        export(Odd(), tmp_path / "model.onnx", "onnx", images=images(2))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_that_is_not_proved_is_refused_or_marked(tmp_path: Path) -> None:
    """Calibrated on images that are all but black, int8 clips everything else."""
    arguments: dict[str, Any] = {"images": images(9), "calibration": 1e-3 * images(9)}
    with pytest.raises(ExportError, match=r"Expected the int8 artifact .* the signal is .* dB above the noise, not 20"):
        export(small(), tmp_path / "model.onnx", "onnx", **arguments)
    assert list(tmp_path.iterdir()) == []
    kept = export(small(), tmp_path / "model.onnx", "onnx", force=True, **arguments)
    assert kept.notes[0].startswith("not proved, kept by force: the signal is")
    assert read(kept.path).proof["failed"]


def test_a_network_that_magnifies_rounding_is_told_so(tmp_path: Path) -> None:
    """Sums of about 1e5 that cancel to about 1: float32 keeps 2 digits of them, and each runtime other ones."""

    class Cancels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weight = torch.randn(4, 512, generator=torch.Generator().manual_seed(0))
            self.weight = nn.Parameter(weight - weight.mean(1, keepdim=True))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x.flatten(1) + 1e4, self.weight)

    said = r"outputs differ by .*: the network magnifies rounding \(PyTorch's float32 is .* from its float64\), which"
    with pytest.raises(ExportError, match=said):
        export(Cancels(), tmp_path / "model.onnx", "onnx", images=images(4))
    assert list(tmp_path.iterdir()) == []


def test_the_opset_is_the_one_asked_for(tmp_path: Path) -> None:
    made = export(small(), tmp_path / "model.onnx", "onnx", images=images(2), opset=19)
    assert onnx.opset_of(made.path.read_bytes()) == 19


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "SHA-256 .* it is truncated or edited"),
        (lambda file: file.unlink(), r"cannot read .*model\.onnx \(No such file"),
        (lambda file: file.with_name("model.onnx.json").unlink(), r"cannot read .*model\.onnx\.json"),
        (
            lambda file: file.with_name("model.onnx.json").write_text("{"),
            r"model\.onnx\.json is not valid JSON \(.*line 1",
        ),
        (
            lambda file: file.with_name("model.onnx.json").write_text("[]"),
            r"model\.onnx\.json is not a pretrim-artifact record",
        ),
        (
            lambda file: file.with_name("model.onnx.json").write_text('{"format": "pretrim-artifact", "version": 1}'),
            r"model\.onnx\.json is damaged: object missing required field `\w+`\. Export again",
        ),
    ],
)
def test_a_damaged_artifact(damage: Any, said: str, tmp_path: Path) -> None:
    made = export(nn.Conv2d(2, 2, 1).eval(), tmp_path / "model.onnx", "onnx", images=images(2))
    damage(made.path)
    with pytest.raises(ArtifactError, match=said):
        read(made.path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": None}, "at $.sha256, expected `str`, got `null`"),
        ({"input": ["shape", "data_type"]}, "at $.input, expected `object`, got `array`"),
        ({"input": {"shape": "abc", "data_type": "float32"}}, "at $.input.shape, expected `array`, got `str`"),
        ({"input": {"shape": [1, 2, 16, 16]}}, "at $.input, object missing required field `data_type`"),
        ({"input": {"shape": [1, True], "data_type": "int8"}}, "at $.input.shape[1], expected `int`, got `bool`"),
        ({"input": {"shape": [1, 0], "data_type": "int8"}}, "at $.input.shape[1], expected `int` >= 1"),
        ({"input": {"shape": [1], "data_type": "int4"}}, "at $.input.data_type, invalid enum value 'int4'"),
        ({"plan": {"slim": {"macs": 1}}}, "at $.plan, The file is JSON, but not a plan of pretrim"),
        ({"file_bytes": "many"}, "at $.file_bytes, expected `int`, got `str`"),
        ({"file_bytes": 10**30}, "at $.file_bytes, expected an integer of at most 64 bits"),
        ({"proof": None}, "at $.proof, expected `object`, got `null`"),
        ({"runtime": "litert"}, "at $.runtime, expected 'onnx', got 'litert'"),
        ({"more_inputs": [{}]}, "at $.more_inputs[0], object missing required field"),
    ],
    ids=str,
)
def test_a_record_with_fields_of_other_kinds(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    record = {"format": "pretrim-artifact", "version": 1, "runtime": "onnx", "data_type": "float32", "file_bytes": 1}
    record |= {"sha256": hashlib.sha256(b"x").hexdigest(), "outputs": [], "classes": None, "plan": None, "notes": []}
    record |= {"input": {"shape": [1], "data_type": "float32"}, "calibration": None, "proof": {}, "versions": {}}
    (tmp_path / "model.onnx").write_bytes(b"x")
    (tmp_path / "model.onnx.json").write_text(json.dumps(record))
    assert read(tmp_path / "model.onnx").file_bytes == 1
    (tmp_path / "model.onnx.json").write_text(json.dumps(record | change))
    with pytest.raises(ArtifactError) as caught:
        read(tmp_path / "model.onnx")
    text = str(caught.value)
    assert "\n" not in text and text.endswith(" Export again.")
    assert f"model.onnx.json is damaged: {said}" in text


def test_a_file_of_another_kind() -> None:
    with pytest.raises(
        ArtifactError, match=r"Expected an artifact \(\.onnx, \.tflite, \.pte\), but got 'weights\.pth'"
    ):
        read(Path("weights.pth"))


@pytest.mark.parametrize(
    ("module", "extra"), [("onnxscript", "onnx"), ("litert_torch", "litert"), ("torchao", "executorch")]
)
def test_a_runtime_that_is_not_installed(module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # Python's own way to say that it is not there
    with pytest.raises(UsageError, match=rf"{module} is not installed: pip install 'pretrim\[{extra}\]'"):
        quiet.need(module)


def test_onnx_runtime_is_not_to_report_its_use(tmp_path: Path) -> None:
    """Where it does, it first leaves a mark of the session, ``.ses``, in the temporary folder."""
    environment = {name: value for name, value in os.environ.items() if name != quiet.NO_TELEMETRY}
    code = "from pretrim.compat.optional import need; need('onnxruntime')"
    subprocess.run([sys.executable, "-c", code], env=environment | {"TMPDIR": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------- what the proof says


def test_the_proof_by_hand() -> None:
    wanted, got = np.array([[4.0, 1.0], [0.0, 2.0]]), np.array([[4.0, 1.2], [0.4, 2.0]])
    found = prove([wanted], [got], is_int8=True, inputs="two", labels=np.array([0, 0]))
    assert found.relative_error == pytest.approx(0.4 / 4)
    assert found.sqnr_db == pytest.approx(10 * np.log10(21 / (0.04 + 0.16)))
    assert (found.agreement, found.accuracy, found.failed) == (1.0, (0.5, 0.5), ())
    assert prove([wanted], [got], is_int8=False, inputs="two").failed == (
        "outputs differ by 1.0e-01 of the largest, not by at most 1e-04",
    )
    assert prove([wanted], [wanted], is_int8=False, inputs="two").sqnr_db is None


@pytest.mark.parametrize(("images", "flipped", "fails"), [(100, 2, False), (10_000, 110, False), (10_000, 200, True)])
def test_a_point_of_accuracy_is_lost_where_the_images_can_tell(images: int, flipped: int, fails: bool) -> None:
    """Of 100 images two that flip may be chance: their standard error is 1.4 points. Of 10,000 it is 0.14 for 200."""
    labels = np.arange(images) % 10
    wanted = np.eye(10)[labels]
    got = wanted.copy()
    got[:flipped] = np.roll(wanted[:flipped], 1, axis=1)
    failed = prove([wanted], [got], is_int8=True, inputs="x", labels=labels).failed
    assert any("by more than a point" in said for said in failed) == fails


def test_the_proof_of_an_int8_artifact_that_loses_accuracy_or_is_not_finite() -> None:
    wanted = np.eye(100)[np.arange(100) % 10] * 10
    got = wanted.copy()
    got[:10] = wanted[1:11] * 1.01
    found = prove([wanted], [got], is_int8=True, inputs="x", labels=np.arange(100) % 10)
    assert found.accuracy == (1.0, 0.9)
    assert found.failed[-1] == "accuracy falls from 100.00 % to 90.00 %, by more than a point"
    broken = prove([wanted], [wanted * np.nan], is_int8=True, inputs="x")
    assert (broken.relative_error, broken.failed) == (None, ("outputs are not finite",))
    other = prove([wanted], [wanted[:, :5]], is_int8=False, inputs="x")
    assert other.failed == ("outputs are [[100, 5]], not [[100, 100]]",)


def test_quantised_values_by_hand() -> None:
    tensor = {"dtype": np.int8, "quantization": (0.5, 3)}
    whole = litert.quantised(np.array([0.0, 0.26, 100.0, -100.0], dtype=np.float32), tensor)
    assert whole.tolist() == [3, 4, 127, -128]
    assert litert.restored(whole, tensor).tolist() == [0.0, 0.5, 62.0, -65.5]

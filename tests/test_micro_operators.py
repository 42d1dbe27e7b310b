"""One truth about the operators of TensorFlow Lite for Microcontrollers, from the plan to the sources."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pretrim
from pretrim.compat.optional import need
from pretrim.cost.micro_operators import FLOAT_ONLY, METHODS
from pretrim.cost.microcontroller import refused_by_micro
from pretrim.deploy import check_operators, export, firmware_layers, known_operators, litert_file, micro
from pretrim.errors import ExportError, UsageError
from pretrim.jobs.check import check
from pretrim.jobs.measure import MeasureOptions, measure
from pretrim.jobs.report import report

Call = Callable[..., tuple[int, str, str]]
ABSENT = "GELU"
"""Put behind what is asked about, so that the interpreter ends before it runs a malformed operator"""


def two_operators(first: str, second: str) -> bytes:
    """A file of two operators with one input and one output each."""
    schema, flatbuffers = need("ai_edge_litert.schema_py_generated"), need("flatbuffers")
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.subgraphs = 3, [schema.BufferT()], [graph]
    graph.tensors, graph.operators, model.operatorCodes = [], [], []
    for number in range(3):
        tensor = schema.TensorT()
        tensor.shape, tensor.buffer, tensor.name = np.array([1, 4], np.int32), 0, str(number)
        graph.tensors.append(tensor)
    for number, name in enumerate((first, second)):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        value = getattr(schema.BuiltinOperator, name)
        code.builtinCode, code.deprecatedBuiltinCode, code.version = value, min(value, 127), 1
        operator.opcodeIndex = number
        if name == "VAR_HANDLE":  # the package's Python reads its options
            operator.builtinOptionsType = schema.BuiltinOptions.VarHandleOptions
            operator.builtinOptions = schema.VarHandleOptionsT()
        operator.inputs, operator.outputs = (np.array([place], np.int32) for place in (number, number + 1))
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([2], np.int32)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def names_of_all_operators() -> list[str]:
    kinds = need("ai_edge_litert.schema_py_generated").BuiltinOperator
    return sorted(name for name, value in vars(kinds).items() if isinstance(value, int))


def test_the_table_is_what_the_installed_interpreter_has() -> None:
    """It names the first operator that it misses: the one that is asked about, or the one behind it."""
    have = []
    for name in names_of_all_operators():
        with pytest.raises(micro.MissingOperators) as missing:
            micro.arena(two_operators(name, ABSENT))
        if missing.value.names[0] != name:
            have.append(name)
    assert have == sorted(METHODS)
    assert METHODS.keys() >= FLOAT_ONLY


class Behind(nn.Module):
    """A function of feature maps behind a convolution, and a mean."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 8, 3, padding=1), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.conv(x)).mean((2, 3))


IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
RUN = {"exp": torch.exp, "rsqrt": lambda v: torch.rsqrt(v.abs() + 0.5), "log": lambda v: torch.log(v.abs() + 1)}
RUN |= {"cumsum": lambda v: torch.cumsum(v, 3), "pow2": lambda v: v**2}
REFUSED = {"gelu": nn.functional.gelu, "elu": nn.functional.elu, "softplus": nn.functional.softplus}
REFUSED |= {"mish": nn.functional.mish, "where": lambda v: torch.where(v > 0, v, v * 2), "pow3": lambda v: v**3}
REFUSED |= {"sqrt": lambda v: torch.sqrt(v.abs() + 0.1), "celu": nn.functional.celu}


@pytest.mark.parametrize("name", [*RUN, *REFUSED])
def test_plan_check_and_sources_say_what_the_interpreter_does(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Behind({**RUN, **REFUSED}[name]).eval()
    content = litert_file(model, IMAGES)
    network, file = pretrim.analyze(model, IMAGES[:1]), tmp_path / "model.tflite"
    file.write_bytes(content)
    found = check(file, "stm32f407").boards[0]
    if name in RUN:
        micro.arena(content)
        assert refused_by_micro(network) is None and found.fits and not micro.missing_operators(content)
        known_operators(content)
        return
    with pytest.raises(ExportError) as error:
        micro.arena(content)
    said = refused_by_micro(network)
    assert said is not None and found.missing == micro.missing_operators(content) and not found.fits
    assert all(operator in str(error.value) for operator in found.missing)
    assert re.search(rf"it has no ({'|'.join(found.missing)}) \(of ", said), said
    with pytest.raises(ExportError, match=found.missing[0]):
        known_operators(content)


def test_without_the_interpreter_the_table_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = litert_file(Behind(nn.functional.gelu).eval(), IMAGES)
    file = tmp_path / "model.tflite"
    file.write_bytes(content)
    for module in ("pretrim.deploy.micro", "pretrim.deploy.board"):
        monkeypatch.setattr(f"{module}.is_installed", lambda name: False)
    with pytest.raises(micro.MissingOperators, match="but GELU is not among them: replace it"):
        check_operators(content)
    assert check(file, "stm32f407").boards[0].missing == ("GELU",)


def test_a_plan_does_not_say_fits(call: Call, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(\n        nn.Conv2d(1, 8, 3), nn.Mish(),"
        " nn.Conv2d(8, 8, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))\n"
    )
    ask = ("plan", f"{tmp_path / 'net.py'}:build", "--input", "1x16x16", "--device", "stm32f407")
    for more in ((), ("--macs", "0.5x")):
        code, out, said = call(*ask, *more)
        assert code == 0 and "does not run there" in out and not re.search(r"\bfits\b", out + said)
        assert "it has no SELECT (of mish in 1), GELU (of gelu in 3)" in " ".join(out.split())
    assert "SELECT" in json.loads(call(*ask, "--json")[1])["device"]["refused"]


def test_no_study_is_begun_for_a_board_that_does_not_run_it(call: Call, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.GELU(),"
        " nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))\n"
    )
    folder = tmp_path / "study"
    ask = ("--data", "digits", "--device", "raspberry-pi-4,stm32f407", "--macs", "0.5x", "--dtype", "int8")
    code, out, said = call("sweep", f"{tmp_path / 'net.py'}:build", *ask, "--epochs", "1", "-o", folder)
    assert (code, out) == (1, "") and "GELU is not among them: replace it in the network." in said
    assert not folder.exists()


def test_nothing_is_written_for_a_board_that_does_not_run_it(tmp_path: Path) -> None:
    """And what has no kernel in C, but one in the interpreter, can be had as sources for that."""
    file = tmp_path / "model.tflite"
    with pytest.raises(ExportError, match="GELU is not among them"):
        export(
            Behind(nn.functional.gelu).eval(),
            file,
            "litert",
            images=IMAGES,
            calibration=IMAGES,
            accept=check_operators,
        )
    assert not list(tmp_path.iterdir())
    for function, way in (
        (RUN["rsqrt"], "--sources-for tflm"),
        (REFUSED["elu"], "its interpreter has no SELECT either"),
    ):
        with pytest.raises(ExportError, match=way):
            firmware_layers(litert_file(Behind(function).eval(), IMAGES))


def test_an_export_for_a_board_leaves_the_run_as_it_was(call: Call, tmp_path: Path) -> None:
    """Python users may name files by text as well."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.GELU(),"
        " nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))\n"
    )
    model, folder = f"{tmp_path / 'net.py'}:build", tmp_path / "run"
    ask = ("--input", "1x8x8", "--macs", "0.5x", "--epochs", "1", "--max-images", "60", "--threads", "1")
    assert call("compress", model, "--data", "digits", *ask, "-o", folder)[0] == 0
    before = {file: file.read_bytes() for file in folder.rglob("*")}
    ask = ("--model", model, "--device", "stm32f407", "--calibrate", "digits", "--force")
    code, out, said = call("export", folder, *ask)
    assert (code, out) == (1, "") and "GELU is not among them: replace it in the network." in said
    assert {file: file.read_bytes() for file in folder.rglob("*")} == before

    run = pretrim.open_run(str(folder), model=model)
    made = run.export("litert", int8=True, data="digits", sources=str(folder / "src"), output=str(folder / "m.tflite"))
    assert made.path == folder / "m.tflite" and (folder / "src" / "Makefile").exists()
    measured = measure(str(made.path), MeasureOptions(runs=2, processes=1), against=None)
    assert measured[0].latency_s > 0
    assert report(str(folder), str(folder / "page.html")) == folder / "page.html"
    with pytest.raises(UsageError, match="Expected sources to be the name of a file or folder, but got"):
        run.export("litert", sources=3)

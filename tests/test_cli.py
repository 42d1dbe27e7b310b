"""Tests of the command line: exit codes, error messages, and output that agrees with the library."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from pretrim.__main__ import main as command_line
from pretrim.cli import app, main
from pretrim.cost.costs import CostName, Mode
from pretrim.cost.formula import DType
from pretrim.data import load as load_data
from pretrim.jobs import target
from pretrim.models.resolve import build, resolve
from pretrim.planning.options import Coupling, Method, Options, ShareUpdate, Step
from pretrim.planning.plan import Plan
from pretrim.runs.load import load, read
from pretrim.runs.save import save
from pretrim.train import scores

NET = """
import torch
from torch import nn

def build(num_classes=10, in_channels=1):
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, num_classes),
    )

def named(num_classes=10, in_channels=1):
    net = nn.Sequential()
    net.add_module("[red]bold[/red]", nn.Conv2d(in_channels, 16, 3))
    net.add_module("[/]", nn.Flatten())
    net.add_module("head", nn.LazyLinear(num_classes))
    net(torch.zeros(1, in_channels, 8, 8))
    return net

class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
    def forward(self, x):
        raise ValueError("the cable is loose")

def fails():
    return Fails()

class Chatty(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = build()
    def forward(self, x):
        print("forward!")
        return self.net(x)

def chatty():
    print("building!")
    return Chatty()

def wide(in_channels=1):
    return build(1000, in_channels)
"""
SMALL = ("--input", "1x8x8")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The only line that starts with "error: "; it must be the last one."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and self.err.splitlines()[-1] == lines[0], self.err
        assert "Traceback" not in self.err
        return lines[0]


Call = Callable[..., Result]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(exit_info.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's file with several networks."""
    path = tmp_path_factory.mktemp("user") / "net.py"
    path.write_text(NET)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with a built-in network."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["compress", "resnet20", "--data", "digits", *SMALL, "--macs", "0.5x", "--epochs", "2"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--batch-size", "32", "-o", str(folder)])
    assert not end.value.code
    return folder


# ---------------------------------------------------------------------------------------- the command itself


def test_help_does_not_import_torch() -> None:
    code = "import sys, pretrim.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_python_m_pretrim_is_the_command_line() -> None:
    result = subprocess.run([sys.executable, "-m", "pretrim", "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    for command in ("profile", "plan", "compress", "evaluate", "predict"):
        assert f"\n│ {command} " in result.stdout


def test_the_list_of_commands_shows_whole_sentences(call: Call) -> None:
    lines = call("--help").out.partition("─ Commands ")[2].splitlines()[1:]
    commands = [line.strip("│ ") for line in lines if line.startswith("│") and not line.startswith("│ --")]
    assert len(commands) == 17
    assert all(line.endswith(".") and "..." not in line for line in commands)


@pytest.mark.parametrize("command", [name for name in app if not name.startswith("-")])
def test_help_texts_are_single_lines_in_the_source(command: str) -> None:
    """The help would show the indentation of a second line and break there regardless of the terminal's width."""
    assert not re.search(r"\S\n\S", app[command].help)
    arguments = app[command].assemble_argument_collection(parse_docstring=True)
    texts = [argument.parameter.help or "" for argument in arguments]
    assert any(texts) or command in ("init", "run", "demo")
    assert not [text for text in texts if "\n" in text]


def test_help_shows_every_option_once_and_in_sections(call: Call) -> None:
    text = call("compress", "--help").out
    titles = ["Arguments", "Parameters", "Limits", "Device and runtime", "How widths are chosen"]
    titles += ["Advanced: the paper's sampling", "Data", "Training", "Where to train"]
    assert re.findall(r"╭─ (.+?) ─+╮", text) == titles
    limits = text.partition("╭─ Limits ")[2].partition("╭─ Device")[0]
    assert re.findall(r"│ (--[a-z-]+)", limits) == [
        f"--{name}"
        for name in (
            "params",
            "macs",
            "flash",
            "ram",
            "activation",
            "latency",
            "at-most",
            "drop",
            "accuracy",
            "limit-of",
        )
    ]
    shown = re.findall(r"│ [* ]*(--[a-z0-9-]+)", text)
    assert len(shown) == len(set(shown)) == 57


def test_options_of_earlier_versions_keep_working_with_a_notice(call: Call) -> None:
    result = call("plan", "resnet20", *SMALL, "--macs", "0.5x", "--mode", "macs", "--weights", "adaptive", "--json")
    assert result.json["options"]["share_update"] == "adaptive"
    assert result.err == "note: --weights is now called --share-update\n"
    result = call("compress", "resnet20", *SMALL, "--data", "nowhere", "--macs", "0.5x", "--with-dense", "-o", "x")
    assert result.err.startswith("note: --with-dense is now called --dense\n") and result.code == 2


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_closed_pipe_gives_exit_code_141_and_no_message(options: tuple[str, ...]) -> None:
    """``pretrim devices | head -1`` ends with exit code 141 and prints nothing, like the usual shell commands."""
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "pretrim", "devices", *options]
        result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(write)
    assert (result.returncode, result.stderr) == (141, "")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_full_stdout_gives_a_one_line_error(options: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "pretrim", "devices", *options]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    message = "error: Cannot use a file or stream: No space left on device. Check its permissions and the free space."
    assert (result.returncode, result.stderr.count("\n")) == (1, 1) and result.stderr.startswith(message), result.stderr


def test_names_that_the_terminal_cannot_encode_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET.replace("[red]bold[/red]", r"\xe4\udce9"))
    command = [sys.executable, "-m", "pretrim", "profile", f"{tmp_path}/net.py:named", *SMALL]
    for encoding in ("ascii", "utf-8"):
        result = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
        assert (result.returncode, b"\\udce9" in result.stdout) == (0, True), result.stderr


def test_a_folder_without_permission_gives_a_one_line_error(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:  # root is never refused, so fake it
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refused)
    result = call("profile", "theirs/net.py:build", *SMALL)
    assert (result.code, "theirs/net.py: Permission denied" in result.error) == (1, True)


def test_version(call: Call) -> None:
    assert call("--version").out.startswith("pretrim 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("profile",), "MODEL is missing. `pretrim profile -h` shows"),
        (("profile", "resnet20", "--colour"), "Unknown option: --colour. `pretrim profile -h` shows how it is used."),
        (("profile", "resnet20", "--classes", "0"), 'Invalid value "0" for --classes. '),
        (("plan", "photos", "resnet 20"), "Unexpected 'resnet 20': options have names, such as --data DATA. `pre"),
        (("profil",), 'Unknown command "profil". Did you mean "profile"? '),
    ],
)
def test_wrong_options_give_one_line_and_exit_code_2(call: Call, arguments: tuple[str, ...], message: str) -> None:
    result = call(*arguments)
    assert result.code == 2 and result.error.startswith(f"error: {message}") and result.err.count("\n") == 1


def test_without_arguments_the_help_is_shown(call: Call) -> None:
    assert (call().code, call().out) == (0, call("--help").out)


def test_choices_and_defaults_are_those_of_the_library(call: Call) -> None:
    """Choices and defaults are defined once, in the options of the planner; the help reads them from there."""
    text = " ".join(call("plan", "--help").out.replace("│", " ").split())
    for name, literal in (("mode", Method), ("step", Step), ("share-update", ShareUpdate), ("coupling", Coupling)):
        choices, default = ", ".join(get_args(literal)), getattr(Options, name.replace("-", "_"))
        assert re.search(rf"--{name} CHOICE .*?\[choices: {choices}\] \[default: {default}\]", text), name
    assert f"choices: {', '.join(get_args(DType))}" in text
    assert target.ROUND_TO == Options().round_to  # the default of --round-to is the device's, or this
    for name in ("fraction", "min_width", "seed"):
        assert re.search(rf"--{name.replace('_', '-')} [A-Z]+ .*?\[default: {getattr(Options, name)}\]", text), name


def interruptible(*command: str) -> subprocess.Popen[str]:
    """Start a command that reacts to Ctrl-C even if a shell runs these tests in the background.

    A background shell makes its children ignore SIGINT. A signal that has a handler in this process is reset to its
    default action in the child. `preexec_fn` would also work, but it forks, and JAX, which another test in this process
    may have imported, warns about that.
    """
    previous_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, previous_handler)


@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_gives_one_line_and_its_exit_code(
    tmp_path: Path, signal_number: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "pretrim", "compress", "resnet20", "--data", "digits", "--macs", "0.5x"]
    with interruptible(*command, "-o", str(tmp_path / "run")) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("data: "):
            assert process.poll() is None
        time.sleep(0.2)
        process.send_signal(signal_number)
        last_line = process.stderr.read().splitlines()[-1]
    assert (process.returncode, last_line) == (code, "error: Interrupted.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["cyclopts", "pretrim.jobs"])
def test_an_interruption_during_imports_gives_one_line(tmp_path: Path, module: str) -> None:
    """Ctrl-C arrives while the command line is importing a package."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
""")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    previous_handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # if tests run in the background
    try:
        result = subprocess.run(
            [sys.executable, "-m", "pretrim", "devices"],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
    finally:
        signal.signal(signal.SIGINT, previous_handler)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "error: Interrupted.\n")


def test_the_installed_command_is_the_one_that_is_tested() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {"pretrim": f"{command_line.__module__}:{command_line.__name__}"}


def test_placeholders_of_options_are_not_python_types(call: Call) -> None:
    """No placeholder is the name of a Python type."""
    for name in ("profile", "plan", "compress", "slim", "export", "measure", "sweep", "recommend", "report"):
        output = call(name, "--help").out
        assert not re.search(r"MAPPING|STR\.\.\.|ANY\]|\bLITERAL|\bTUPLE", output), name


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--epochs", "1.5", "a whole number"),
        ("--seed", "0.5", "a whole number"),
        ("--batch-size", "1e3", "a whole number"),
        ("--threads", "nan", "a whole number"),
        ("--round-to", "half", "a whole number"),
        ("--lr", "0,1", "a number"),
    ],
)
def test_values_that_are_not_valid_numbers_are_refused_not_rounded(
    call: Call, option: str, value: str, expected: str
) -> None:
    result = call("compress", "resnet20", "--data", "digits", "--macs", "0.5x", "-o", "/nowhere/run", option, value)
    message = (
        f'error: Invalid value for {option}: expected {expected}, but got "{value}". `pretrim compress -h` shows how'
    )
    assert (result.code, result.out) == (2, "") and result.error.startswith(message)


def test_an_integer_may_be_written_with_a_decimal_point(call: Call) -> None:
    result = call("plan", "resnet20", "--macs", "0.5x", "--round-to", "4.0", "--json")
    assert result.code == 0 and json.loads(result.out)["options"]["round_to"] == 4


# ---------------------------------------------------------------------------------------- profile


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2"])
def test_profile_totals_equal_an_independent_count(call: Call, name: str) -> None:
    result = call("profile", name, "--json", "--classes", "7")
    record = result.json
    model = build(resolve(name, num_classes=7, input_shape=(3, 32, 32))).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 32, 32))
    assert record["totals"]["macs"] == counter.get_total_flops() / 2
    assert record["totals"]["params"] == sum(p.numel() for p in model.parameters())
    assert record["totals"]["weight_bytes"] == 4 * record["totals"]["params"]
    assert record["totals"]["macs"] == sum(layer["macs"] for layer in record["layers"])
    assert record["totals"]["activation_bytes"] == sum(layer["activation_bytes"] for layer in record["layers"])
    for mode in get_args(Mode):
        assert sum(layer["shares"][mode] for layer in record["layers"]) == pytest.approx(1.0)
    assert (record["model"], record["input"], result.err) == (name, [3, 32, 32], "")


def test_profile_prints_layers_groups_and_frozen_layers(call: Call) -> None:
    output = call("profile", "resnet20").out
    for text in ("stem.0", "stages.2.2.conv2", "40.8 M", "40,813,184", "192 KiB", "the network's output", "█"):
        assert text in output
    assert "stem.0, stages.0.0.conv2, stages.0.1.conv2, stages.0.2.conv2" in output


def test_markup_in_the_name_of_a_layer_is_printed_literally(call: Call, net: Path) -> None:
    result = call("profile", f"{net}:named", *SMALL)
    assert "[red]bold[/red]" in result.out
    assert "[red]bold[/red]" in call("plan", f"{net}:named", *SMALL, "--macs", "0.5x").out


def test_output_printed_by_a_model_goes_to_stderr(call: Call, net: Path) -> None:
    result = call("profile", f"{net}:chatty", *SMALL, "--json")
    assert result.json["totals"] == call("profile", f"{net}:build", *SMALL, "--json").json["totals"]
    assert "building!" in result.err and "forward!" in result.err


def test_an_int8_profile_counts_one_byte_per_value(call: Call) -> None:
    float32, int8 = (call("profile", "resnet20", *SMALL, "--dtype", d, "--json").json for d in ("float32", "int8"))
    assert float32["totals"]["activation_bytes"] == 4 * int8["totals"]["activation_bytes"]


# ---------------------------------------------------------------------------------------- plan


def test_a_plan_is_printed_and_written_and_names_its_model(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    result = call("plan", "resnet20", *SMALL, "--macs", "0.5x", "-o", path)
    plan = Plan.load(path)
    assert plan.model == {"name": "resnet20", "arguments": {"in_channels": 1}}
    assert plan.slim["macs"] <= 0.5 * plan.dense["macs"]
    assert "0.5x" in result.out and "stages.2.0.conv2" in result.out
    to_stdout = call("plan", "resnet20", *SMALL, "--macs", "0.5x", "-o", "-")
    assert to_stdout.json == plan.to_json() and "stages.2.0.conv2" in to_stdout.err
    as_json = call("plan", "resnet20", *SMALL, "--macs", "0.5x", "--json")
    assert as_json.json == plan.to_json() and as_json.err == ""


def test_a_pipe_is_written_to_and_not_replaced(call: Call, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read_end = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    result = call("plan", "resnet20", *SMALL, "--macs", "0.5x", "-o", tmp_path / "pipe", "--json")
    assert json.loads(os.read(read_end, 1 << 16)) == result.json and (tmp_path / "pipe").is_fifo()
    os.close(read_end)


def test_plan_passes_every_option_on(call: Call) -> None:
    options = {"mode": "macs", "step": "filter", "fraction": 0.1, "share_update": "adaptive", "coupling": "mean"}
    options |= {"round_to": 4, "min_width": 2, "seed": 3}
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    limits = ["--params", "0.9x", "--macs", "0.6x", "--flash", "0.9x", "--ram", "0.9x", "--activation", "0.9x"]
    record = call("plan", "resnet20", *SMALL, *limits, "--dtype", "int8", "--json", *flags).json
    assert {name: record["options"][name] for name in options} == options
    assert record["dtype"] == "int8"
    assert record["limits"].keys() == set(get_args(CostName))


# ---------------------------------------------------------------------------------------- compress and after


def test_a_run_contains_its_results_and_no_pickles(trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [
        "README.md",
        "confusion.json",
        "confusion.png",
        "curve.png",
        "log.jsonl",
        "run.json",
        "weights.safetensors",
    ]
    record = read(trained)
    assert record.reference is not None and record.reference.name == "resnet20"
    assert record.results is not None and len(record.results["epochs"]) == 2
    assert record.classes == tuple("0123456789") and record.input_shape == (1, 8, 8)
    slim = load(trained)
    assert sum(p.numel() for p in slim.parameters()) == record.plan.slim["params"]
    with FlopCounterMode(display=False) as counter:
        slim(torch.zeros(1, 1, 8, 8))
    assert counter.get_total_flops() / 2 == record.plan.slim["macs"] <= 0.5 * record.plan.dense["macs"]


def test_evaluate_reproduces_the_saved_accuracy(call: Call, trained: Path) -> None:
    results = read(trained).results
    result = call("evaluate", trained, "--data", "digits", "--json")
    assert results is not None and result.json["accuracy"] == results["test_accuracy"] > 0.5
    assert sum(entry["images"] for entry in result.json["classes"]) == result.json["images"]
    table = call("evaluate", trained, "--data", "digits").out
    assert f"{100 * results['test_accuracy']:.2f} %" in table


def test_predict_labels_images(call: Call, trained: Path, tmp_path: Path) -> None:
    test = load_data("digits", image_size=8).test
    paths = []
    for number in range(20):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(test.images[number, 0].numpy()).save(paths[-1])
    record = call("predict", trained, *paths, "--top", "2", "--json").json
    assert [entry["image"] for entry in record] == [str(path) for path in paths]
    correct = [int(e["predictions"][0]["class"]) == int(t) for e, t in zip(record, test.labels[:20], strict=True)]
    assert sum(correct) > 10
    for entry in record:
        first, second = entry["predictions"]
        assert 1 >= first["probability"] >= second["probability"] >= 0
    assert "0.png" in call("predict", trained, paths[0]).out


def test_predict_pads_images_like_the_data_set(call: Call, tmp_path: Path) -> None:
    """Training pads 28x28 images with zeros, so `predict` must pad an image file in the same way."""
    random = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 4)):
        for name, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            values = random.integers(0, 2 if len(shape) == 1 else 256, shape).astype(np.uint8)
            header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
            (tmp_path / f"{part}-{name}-ubyte").write_bytes(header + values.tobytes())
    run = tmp_path / "run"
    short_training = ("--epochs", "1", "--batch-size", "8")
    assert call("compress", "resnet20", "--data", tmp_path, "--macs", "0.5x", *short_training, "-o", run).code == 0
    image = load_data(str(tmp_path)).test.images[:1]
    Image.fromarray(image[0, 0, 2:-2, 2:-2].numpy()).save(tmp_path / "one.png")
    normalisation = read(run).normalisation
    assert normalisation is not None
    expected = scores(load(run), image, *normalisation).softmax(dim=1).max()
    prediction = call("predict", run, tmp_path / "one.png", "--json").json[0]["predictions"][0]
    assert prediction["probability"] == pytest.approx(float(expected), abs=1e-5)


def test_compress_prints_one_table_for_a_network_of_a_users_file(call: Call, net: Path, tmp_path: Path) -> None:
    run, model = tmp_path / "run", f"{net}:build"
    common = ("compress", model, "--data", "digits", *SMALL, "--params", "0.5x", "--round-to", "1", "--limit", "200")
    result = call(*common, "--epochs", "1", "-o", run, "--dense")
    assert result.code == 0
    for text in ("parameters", "MACs", "activation memory", "peak memory", "test accuracy", f"Saved in {run}"):
        assert text in result.out
    assert "data: digits of scikit-learn" in result.err and "200 training images" in result.err
    without_model = call("evaluate", run, "--data", "digits")
    assert (without_model.code, "--model" in without_model.error) == (2, True)
    evaluation = call("evaluate", run, "--data", "digits", "--model", model, "--json").json
    results = read(run).results
    assert results is not None and evaluation["accuracy"] == results["test_accuracy"]
    assert f"{100 * results['dense']['test_accuracy']:.2f} %" in result.out
    repeated = call(*common, "--epochs", "1", "-o", run, "--overwrite", "--json").json
    assert repeated["slim"]["test_accuracy"] == results["test_accuracy"]
    assert repeated["dense"]["test_accuracy"] is None


def test_compress_with_a_plan(call: Call, net: Path, tmp_path: Path) -> None:
    path, model = tmp_path / "plan.json", f"{net}:build"
    call("plan", model, *SMALL, "--classes", 10, "--macs", "0.5x", "-o", path)
    common = ("compress", model, "--data", "digits", "--plan", path, "--limit", "100", "--epochs", "1")
    record = call(*common, "-o", tmp_path / "run", "--json").json
    assert record["slim"]["macs"] == Plan.load(path).slim["macs"]
    other_model = call("compress", "resnet20", *common[2:], "-o", tmp_path / "other")
    assert other_model.code == 2
    assert "Expected a plan for resnet20 with images of 1x8x8, but it was made for" in other_model.error
    other_shape = call(*common, "--input", "1x16x16", "-o", tmp_path / "other")
    assert (other_shape.code, "another input" in other_shape.error) == (2, True)
    both = call(*common, "--macs", "0.5x", "-o", tmp_path / "other")
    assert (both.code, "Expected limits or --plan, but got both" in both.error) == (2, True)
    path.write_text('{"format": "other"}')
    other_format = call(*common, "-o", tmp_path / "other")
    assert (other_format.code, "is JSON, but not a plan of pretrim" in other_format.error) == (2, True)
    assert not (tmp_path / "other").exists()


# ---------------------------------------------------------------------------------------- errors

PLAN = ("plan", "resnet20", *SMALL)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("profile", "resnet21"), 2, "Expected a model that pretrim knows .* but got 'resnet21'. Did you mean"),
        (("profile", "resnet20", "--input", "32"), 2, "--input to be CHANNELSxHEIGHTxWIDTH .* got '32'"),
        (
            ("profile", "resnet20", "--input", "32x32"),
            2,
            r"input_shape to be \(channels, height, width\), but got \(32, 32\)",
        ),
        (("profile", "resnet20", "--input", "0x8x8"), 2, "--input to be CHANNELSxHEIGHTxWIDTH .* got '0x8x8'"),
        (("profile", "resnet20", "--input", "3x99999999x99999999"), 2, "An input of 3x9+x9+ does not fit in memory"),
        (("profile", "vgg16", "--input", "3x8x8"), 1, "run on an input of 1x3x8x8: its forward raised .*Error"),
        (("profile", "missing.py:build"), 2, "there is no file missing.py. Check the path"),
        (("profile", f"{__file__}:build"), 2, "A network of your own file needs --input CxHxW"),
        (("profile", "missing.py:build", *SMALL), 2, "there is no file missing.py"),
        (
            ("profile", "resnet20", *SMALL, "--dtype", "int4"),
            2,
            'Invalid value "int4" for --dtype. Choose from: "float32", "float16", "int8"',
        ),
        (PLAN, 2, "No limit given"),
        ((*PLAN, "--macs", "0"), 2, "Expected macs to be more than 0, but got '0'"),
        ((*PLAN, "--macs", "-5"), 2, "Expected macs to be more than 0, but got '-5'"),
        ((*PLAN, "--macs", "100G"), 2, "Nothing to trim: the dense network needs [0-9,]+ and meets --macs 100G"),
        ((*PLAN, "--macs", "2x"), 2, "Expected macs to be at most the dense network's"),
        ((*PLAN, "--ram", "much"), 2, "Expected ram to be an amount such as '512KiB' .* got 'much'"),
        ((*PLAN, "--macs", "nan"), 2, "Expected macs to be an amount"),
        ((*PLAN, "--macs", "10"), 1, "--macs 10 cannot be met; the narrowest network needs [0-9,]+: raise"),
        ((*PLAN, "--macs", "0.5x", "--mode", "best"), 2, 'Invalid value "best" for --mode. Choose from: '),
        ((*PLAN, "--macs", "0.5x", "--round-to", "0"), 2, "round_to to be at least 1, but got 0"),
        (
            (*PLAN, "--macs", "0.5x", "-o", "/nowhere/plan.json"),
            1,
            "Cannot write /nowhere/plan.json: its folder is missing",
        ),
        ((*PLAN, "--macs", "0.5x", "-o", "/tmp"), 1, "Cannot write /tmp: it is a folder"),
        (("evaluate", "/nowhere", "--data", "digits"), 1, "No run in /nowhere .*run.json: No such file"),
        (("predict", "/nowhere", "x.png"), 1, "No run in /nowhere .*run.json: No such file"),
    ],
)
def test_error_messages_and_exit_codes(call: Call, arguments: tuple[str, ...], code: int, message: str) -> None:
    result = call(*arguments)
    assert (result.code, result.out) == (code, "")
    assert re.search(message, result.error), result.error


@pytest.mark.parametrize("option", [("--min-features", "3"), ("--mode", "params"), ("--round-to", "4")])
def test_search_options_together_with_a_plan_are_refused(call: Call, tmp_path: Path, option: tuple[str, str]) -> None:
    file = tmp_path / "plan.json"
    call("plan", "resnet20", *SMALL, "--classes", "10", "--macs", "0.5x", "-o", file)
    result = call("compress", "resnet20", "--data", "digits", "--plan", file, *option, "-o", tmp_path / "run")
    assert (result.code, result.out) == (2, "")
    assert result.error.endswith(f"or options to make one with, but got both: leave out {option[0]} or --plan.")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("plan", "resnet20", "--macs", "0.5x", "-o", ""), "-o"),
        (("compress", "resnet20", "--macs", "0.5x", "--data", "digits", "--output", ""), "--output"),
        (("compress", "resnet20", "--macs", "0.5x", "--teacher", "", "-o", "run"), "--teacher"),
        (("sweep", "resnet20", "-o", ""), "-o"),
        (("evaluate", ""), "RUN"),
    ],
)
def test_an_empty_path_is_refused(call: Call, command: tuple[str, ...], name: str) -> None:
    result = call(*command)
    assert (result.code, f"Invalid value for {name}: it is empty, name a file or folder." in result.error) == (2, True)


@pytest.mark.parametrize("command", ["compress", "sweep"])
def test_a_wrong_model_or_output_folder_is_refused_before_the_data_is_read(
    call: Call, tmp_path: Path, command: str
) -> None:
    (tmp_path / "file").touch()
    limit = ("--macs", "0.5x", "--data", "digits")
    for model, output, message in (
        ("resnt20", tmp_path / "run", "Expected a model that pretrim knows"),
        (f"{tmp_path}/no.py:build", tmp_path / "run", "there is no file"),
        ("torchvision:resnet19", tmp_path / "run", "resnet19"),
        ("resnet20", tmp_path / "file", "file"),
    ):
        result = call(command, model, *limit, "-o", output)
        assert result.code and message in result.error and "data: " not in result.error, result.error


def test_more_threads_than_cores_give_a_note(call: Call, tmp_path: Path) -> None:
    result = call(
        "compress", "resnt20", "--macs", "0.5x", "--data", "digits", "--threads", "999", "-o", tmp_path / "run"
    )
    assert "note: 999 threads share " in result.err and "which is slow: --threads " in result.err
    assert "threads share" not in call("compress", "resnt20", "--macs", "0.5x", "-o", tmp_path, "--threads", "1").err


def test_the_error_of_a_failing_forward_is_shown(call: Call, net: Path) -> None:
    result = call("profile", f"{net}:fails", *SMALL)
    assert result.code == 1
    assert "forward raised ValueError: the cable is loose (net.py:" in result.error


def run_until_stopped(net: Path, run: Path, *options: str, after: str = "epoch 2/") -> None:
    """Run a real `pretrim compress` and stop it with Ctrl-C."""
    with interruptible(sys.executable, "-m", "pretrim", *training_command(net), *options, "-o", str(run)) as process:
        assert process.stderr is not None
        while after not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        last_line = process.stderr.read().splitlines()[-1]
    assert (process.returncode, "--resume goes on from there" in last_line) == (130, True), last_line


def training_command(net: Path) -> list[str]:
    common = ["compress", f"{net}:build", "--data", "digits", *SMALL, "--params", "0.5x", "--round-to", "1"]
    # Fixed, since settings chosen by timing could differ.
    execution = ["--threads", "1", "--layout", "channels_last", "--precision", "float32"]
    return [*common, "--epochs", "40", "--set", "ema=0.99", *execution]


def test_a_stopped_run_is_resumed_to_the_same_weights(call: Call, net: Path, tmp_path: Path) -> None:
    run, uninterrupted = tmp_path / "run", tmp_path / "whole"
    run_until_stopped(net, run, "--dense", after="dense: epoch 1/")
    assert {"training.safetensors", "log.jsonl", "dense"} <= {path.name for path in run.iterdir()}
    unfinished = call("evaluate", run, "--data", "digits", "--model", f"{net}:build")
    assert (unfinished.code, "was stopped: go on with" in unfinished.error) == (1, True)
    report = call("report", run, "-o", tmp_path / "page.html")
    assert (report.code, report.error) == (1, unfinished.error)
    again = call(*training_command(net), "--dense", "-o", run)
    assert (again.code, "--resume continues it, --overwrite starts over" in again.error) == (1, True)
    changed = call(*training_command(net), "--dense", "-o", run, "--resume", "--lr", "0.2")
    assert (changed.code, "recipe's learning_rate (0.05, not 0.2)" in changed.error) == (2, True)
    for option, value, message in (
        ("--params", "0.4x", "had a different limit on params ('0.5x', not '0.4x')"),
        ("--macs", "0.4x", "had a different limit on macs (None, not '0.4x')"),
        ("--mode", "uniform", "had a different search's mode ('balanced', not 'uniform')"),
    ):
        changed = call(*training_command(net), "--dense", "-o", run, "--resume", option, value)
        assert (changed.code, message in changed.error) == (2, True), changed.error
    same_limit = ("--params", "50%")  # the same as 0.5x
    assert call(*training_command(net), "--dense", "-o", run, "--resume", *same_limit).code == 0
    assert call(*training_command(net), "--dense", "-o", uninterrupted).code == 0
    for part in ("", "dense"):
        files = [(folder / part / "weights.safetensors").read_bytes() for folder in (run, uninterrupted)]
        assert files[0] == files[1]
        assert len((run / part / "log.jsonl").read_text().splitlines()) == 40
    assert not list(run.rglob("training.safetensors"))
    finished = call(*training_command(net), "--dense", "-o", run, "--resume")
    assert (finished.code, "is finished" in finished.error) == (2, True)


def test_resume_without_a_run_starts_a_new_one(call: Call, net: Path, tmp_path: Path) -> None:
    assert call(*training_command(net), "--epochs", "1", "-o", tmp_path / "run", "--resume").code == 0


def test_a_teacher_changes_what_is_learnt(call: Call, trained: Path, net: Path, tmp_path: Path) -> None:
    def compressed(name: str, *options: object) -> dict[str, Any]:
        common = ("compress", "resnet20", "--data", "digits", *SMALL, "--macs", "0.3x", "--limit", "200")
        record = call(*common, "--epochs", "1", *options, "-o", tmp_path / name, "--json").json
        return dict(record["results"])

    with_teacher, alone = compressed("taught", "--teacher", trained), compressed("alone")
    assert with_teacher["epochs"][0]["train_loss"] != alone["epochs"][0]["train_loss"]
    zero_weight = compressed("same", "--teacher", trained, "--set", "distillation=0")
    assert zero_weight["epochs"][0]["train_loss"] == pytest.approx(alone["epochs"][0]["train_loss"], rel=1e-5)
    mismatch = call(*COMPRESS, "--data", "digits", "--teacher", trained, "-o", tmp_path / "x")
    assert (mismatch.code, "has 10 classes and images of 1x8x8" in mismatch.error) == (2, True)


def test_a_trained_network_is_pruned_and_fine_tuned(call: Call, net: Path, tmp_path: Path) -> None:
    """The dense network of one run is saved the way a user would do it, then pruned by the L1 norms of its filters."""
    common = ("compress", "resnet20", "--data", "digits", *SMALL, "--macs", "0.7x", "--batch-size", "32")
    call(*common, "--epochs", "4", "--dense", "-o", tmp_path / "run")
    dense = load(tmp_path / "run" / "dense")
    torch.save({"state_dict": dense.state_dict(), "epoch": 4}, tmp_path / "dense.pth")
    normalisation = read(tmp_path / "run").normalisation
    assert normalisation is not None
    (mean,), (std,) = normalisation
    inherit = ("--from", tmp_path / "dense.pth", "--mean", str(mean), "--std", str(std))
    result = call(*common, "--epochs", "1", *inherit, "-o", tmp_path / "slim", "--json")
    record = result.json
    inherited = record["results"]["inherited"]
    assert inherited["dense_test_accuracy"] == read(tmp_path / "run" / "dense").results["test_accuracy"]  # type: ignore[index]
    assert record["dense"]["test_accuracy"] == inherited["dense_test_accuracy"] > 0.9
    assert record["slim"]["test_accuracy"] > 0.85
    assert record["results"]["recipe"]["learning_rate"] == pytest.approx(0.01 * 32 / 128)  # scaled with the batch size
    assert "inherited: test accuracy" in result.err
    for options, message in (
        (("--from", tmp_path / "none.pth"), "Cannot read the weights in "),
        (("--mean", "0.5"), "Expected --mean and --std, but got one"),
        (
            ("--mean", "0.5,0.5", "--std", "1,1"),
            "--mean to be 1 number, as the images have 1 channel, but got 2: 0.5,0.5.",
        ),
        (("--mean", "0.5", "--std", "inf"), "--std to be numbers above 0, for pixels from 0 to 1, but got inf."),
        (("--mean", "0.5", "--std", "0"), "--std to be numbers above 0, for pixels from 0 to 1, but got 0."),
        (("--mean", "nan", "--std", "1"), "--mean to be finite numbers, for pixels from 0 to 1, but got nan."),
        (("--set", "learning_rate=1", "--lr", "1"), "learning_rate is given twice"),
        (("--set", "colour=1"), "Expected NAME=VALUE with a name of epochs"),
        (("--set", "mixup=much"), "Expected mixup to be a number, but got 'much'"),
        (("--layout", "sideways"), 'Invalid value "sideways" for --layout. Choose from: "channels_last", "contiguous"'),
        (("--precision", "float8"), 'Invalid value "float8" for --precision. Choose from: "float32", "bfloat16"'),
        (("--train-on", "abacus"), "Expected a device of this machine"),
        (("--train-on", "meta"), "Expected a device of this machine"),
        (("--tracker", "paper"), "Expected a tracker of"),
        (("--resume", "--overwrite"), "--resume continues a training, --overwrite starts over: give one of them"),
    ):
        refused = call(*common, *options, "-o", tmp_path / "x")
        assert (refused.code, message in refused.error) == (2, True), refused.err
    assert not (tmp_path / "x").exists()


def test_a_tracker_receives_every_epoch(call: Call, net: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    assert call(*training_command(net), "--epochs", "3", "--tracker", "tensorboard", "-o", run).code == 0
    events = EventAccumulator(str(run / "tracking" / "pretrim"))
    events.Reload()
    scalars = events.Scalars("slim/train_loss")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [event.step for event in scalars] == [1, 2, 3]
    assert [event.value for event in scalars] == pytest.approx([line["train_loss"] for line in log])


COMPRESS = ("compress", "resnet20", "--macs", "0.5x", "--epochs", "1")


def test_compress_reports_wrong_arguments_before_it_trains(call: Call, net: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "there").mkdir()
    output = ("-o", tmp_path / "run")
    cases: list[tuple[tuple[object, ...], int, str]] = [
        (
            (*COMPRESS, "--data", "digits", "-o", tmp_path / "there"),
            1,
            "there exists: choose another folder, or --overwrite",
        ),
        ((*COMPRESS, "--data", "digits", "-o", tmp_path / "file" / "x"), 1, "Cannot write the folder"),
        ((*COMPRESS, "--data", "digitz", *output), 2, "but got 'digitz'. Did you mean digits?"),
        (
            (*COMPRESS, "--data", "digits", "--input", "1x8", *output),
            2,
            "Expected --input CxHxW for images, but got 1x8: signals",
        ),
        ((*COMPRESS, "--data", "digits", "--lr", "0", *output), 2, "Expected --lr to be more than 0"),
        ((*COMPRESS, "--data", "digits", "--batch-size", "0", *output), 2, "Expected --batch-size to be at least 2"),
        (
            (*COMPRESS, "--data", "digits", "--max-images", "0", *output),
            2,
            "Expected --max-images to be at least 10 images",
        ),
        ((*COMPRESS, "--data", "digits", "--epochs", "0", *output), 2, "Expected --epochs to be at least 1"),
        (("compress", "resnet20", "--data", "digits", *output), 2, "No limit given"),
        (("compress", f"{net}:wide", "--data", "digits", *SMALL, "--macs", "0.5x", *output), 1, "10 class scores"),
    ]
    for arguments, code, message in cases:
        result = call(*arguments)
        assert (result.code, message in result.error) == (code, True), result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "there"]


def test_a_data_folder_that_is_empty_or_has_one_class_is_refused(call: Call, trained: Path, tmp_path: Path) -> None:
    data, output = tmp_path / "data", ("-o", tmp_path / "run")
    data.mkdir()
    empty = call(*COMPRESS, "--data", data, *output)
    assert (empty.code, "the folder is empty" in empty.error) == (1, True)
    (data / "cat").mkdir()
    for number in range(3):
        Image.new("L", (8, 8), number).save(data / "cat" / f"{number}.png")
    one_class = call(*COMPRESS, "--data", data, *output)
    assert (one_class.code, "Expected at least 2 classes" in one_class.error) == (1, True)
    (data / "dog").mkdir()
    for number in range(4):
        Image.new("L", (8, 8), 200 + number).save(data / "dog" / f"{number}.png")
    other = call("evaluate", trained, "--data", data)
    assert (other.code, "Expected the run's classes (0, 1, 2, 3, 4, ... 10 in all)" in other.error) == (1, True)


def test_a_damaged_run_gives_a_one_line_error(call: Call, trained: Path, tmp_path: Path) -> None:
    def damaged_copy(name: str, change: Callable[[bytes], bytes]) -> Path:
        run = tmp_path / name.replace(".", "-")
        run.mkdir()
        for path in trained.iterdir():
            content = path.read_bytes()
            (run / path.name).write_bytes(change(content) if path.name == name else content)
        return run

    truncated = call("evaluate", damaged_copy("weights.safetensors", lambda c: c[: len(c) // 2]), "--data", "digits")
    assert (truncated.code, "truncated or edited" in truncated.error) == (1, True)
    other_format = call("predict", damaged_copy("run.json", lambda _: b'{"format": "mine"}'), "x.png")
    assert (other_format.code, "is JSON, but not that of a run" in other_format.error) == (1, True)


def test_evaluate_and_predict_handle_scores_that_overflow(call: Call, trained: Path, tmp_path: Path) -> None:
    network, record = load(trained), read(trained)
    with torch.no_grad():
        network.get_parameter("classifier.weight").fill_(torch.finfo(torch.float32).max)
    description = {"classes": record.classes, "normalisation": record.normalisation, "data": record.data}
    save(network, tmp_path / "run", input_shape=record.input_shape, **description)
    assert call("evaluate", tmp_path / "run", "--data", "digits", "--json").json["loss"] is None
    Image.new("L", (8, 8), 99).save(tmp_path / "x.png")
    refused = call("predict", tmp_path / "run", tmp_path / "x.png")
    assert (refused.code, "x.png that are not finite" in refused.error) == (1, True)


def test_predict_says_which_image_cannot_be_read(call: Call, trained: Path, tmp_path: Path) -> None:
    missing = call("predict", trained, tmp_path / "x.png")
    assert (missing.code, f"No file {tmp_path}/x.png" in missing.error) == (1, True)
    (tmp_path / "x.png").write_text("no image")
    damaged = call("predict", trained, tmp_path / "x.png")
    assert (damaged.code, "Cannot read the image in" in damaged.error) == (1, True)


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody can write to. Root ignores permissions, so for root the folder is made immutable."""
    folder = tmp_path / "read_only"
    folder.mkdir()
    is_root = os.geteuid() == 0
    if is_root and subprocess.run(["chattr", "+i", folder], capture_output=True).returncode:
        pytest.skip("this file system has no immutable folders")
    folder.chmod(0o555) if not is_root else None
    yield folder
    subprocess.run(["chattr", "-i", folder], check=True) if is_root else folder.chmod(0o755)


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "resnet20", "--macs", "0.5x", "-o", "PLACE/plan.json"),
        ("compress", "resnet20", "--data", "digits", *SMALL, "--macs", "0.5x", "-o", "PLACE/run"),
        ("sweep", "resnet20", "--data", "digits", *SMALL, "--budget-fraction", "0.5", "-o", "PLACE/study"),
        ("export", "RUN", "--runtime", "onnx", "-o", "PLACE/net.onnx"),
        ("export", "RUN", "--runtime", "litert", "--int8", "--data", "digits", "-o", "OTHER", "--sources", "PLACE/src"),
        ("slim", "RUN", "--dead", "-o", "PLACE/slim"),
        ("report", "RUN", "-o", "PLACE/report.html"),
    ],
    ids=lambda arguments: " ".join(arguments[:1] + arguments[-2:-1]),
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    call: Call, arguments: tuple[str, ...], trained: Path, read_only_folder: Path, tmp_path: Path
) -> None:
    paths = {"RUN": str(trained), "OTHER": str(tmp_path / "net.tflite")}
    result = call(*(paths.get(word, word.replace("PLACE", str(read_only_folder))) for word in arguments))
    assert result.code and not result.out
    assert result.error.startswith("error: Cannot write") and str(read_only_folder) in result.error
    assert not any(word in result.err for word in ("exporting:", "epoch", "training:")), result.err
    assert not list(read_only_folder.iterdir()) and not (tmp_path / "net.tflite").exists()

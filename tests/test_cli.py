"""The command line: exit codes, the text of every error, and that what it prints is what the library says."""

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
        """The one line that starts with "error: "."""
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
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(end.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's file."""
    path = tmp_path_factory.mktemp("user") / "net.py"
    path.write_text(NET)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a built-in network."""
    run = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["compress", "resnet20", "--data", "digits", *SMALL, "--macs", "0.5x", "--epochs", "2"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--batch-size", "32", "-o", str(run)])
    assert not end.value.code
    return run


# ---------------------------------------------------------------------------------------- the outside


def test_help_does_not_import_torch() -> None:
    code = "import sys, pretrim.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_python_m_pretrim_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "pretrim", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for command in ("profile", "plan", "compress", "evaluate", "predict"):
        assert f"\n│ {command} " in done.stdout


def test_the_list_of_commands_cuts_no_sentence(call: Call) -> None:
    lines = call("--help").out.partition("─ Commands ")[2].splitlines()[1:]
    commands = [line.strip("│ ") for line in lines if line.startswith("│") and not line.startswith("│ --")]
    assert len(commands) == 17
    assert all(line.endswith(".") and "..." not in line for line in commands)


@pytest.mark.parametrize("command", [name for name in app if not name.startswith("-")])
def test_texts_of_the_help_are_one_line_in_the_source(command: str) -> None:
    """The help would show the indentation of a second line, and break there whatever the terminal's width."""
    assert not re.search(r"\S\n\S", app[command].help)
    arguments = app[command].assemble_argument_collection(parse_docstring=True)
    texts = [argument.parameter.help or "" for argument in arguments]
    assert any(texts) or command in ("init", "run", "demo")
    assert not [text for text in texts if "\n" in text]


def test_help_has_every_option_once_in_sections(call: Call) -> None:
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
    said = call("plan", "resnet20", *SMALL, "--macs", "0.5x", "--mode", "macs", "--weights", "adaptive", "--json")
    assert said.json["options"]["share_update"] == "adaptive"
    assert said.err == "note: --weights is now called --share-update\n"
    said = call("compress", "resnet20", *SMALL, "--data", "nowhere", "--macs", "0.5x", "--with-dense", "-o", "x")
    assert said.err.startswith("note: --with-dense is now called --dense\n") and said.code == 2


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_reader_that_leaves_is_told_by_the_exit_code_alone(more: tuple[str, ...]) -> None:
    """As of a shell's own commands, ``pretrim devices | head -1`` ends with 141, and says nothing."""
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "pretrim", "devices", *more]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_full_stdout_is_one_line(more: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "pretrim", "devices", *more]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    said = "error: Cannot use a file or stream: No space left on device. Check its permissions and the free space."
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and done.stderr.startswith(said), done.stderr


def test_names_that_the_terminal_lacks_are_shown_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET.replace("[red]bold[/red]", r"\xe4\udce9"))
    command = [sys.executable, "-m", "pretrim", "profile", f"{tmp_path}/net.py:named", *SMALL]
    for encoding in ("ascii", "utf-8"):
        done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
        assert (done.returncode, b"\\udce9" in done.stdout) == (0, True), done.stderr


def test_a_folder_of_others_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:  # root is refused nothing
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refused)
    done = call("profile", "theirs/net.py:build", *SMALL)
    assert (done.code, "theirs/net.py: Permission denied" in done.error) == (1, True)


def test_version(call: Call) -> None:
    assert call("--version").out.startswith("pretrim 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("profile",), "MODEL is missing. `pretrim profile -h` shows"),
        (("profile", "resnet20", "--colour"), "Unknown option: --colour. `pretrim profile -h` shows how it is used."),
        (("profile", "resnet20", "--classes", "0"), 'Invalid value "0" for --classes. '),
        (("plan", "photos", "resnet 20"), "Unexpected 'resnet 20': options have names, such as --data DATA. `pre"),
        (("profil",), 'Unknown command "profil". Did you mean "profile"? '),
    ],
)
def test_wrong_options_are_one_line_and_exit_2(call: Call, arguments: tuple[str, ...], said: str) -> None:
    done = call(*arguments)
    assert done.code == 2 and done.error.startswith(f"error: {said}") and done.err.count("\n") == 1


def test_without_arguments_it_shows_its_help(call: Call) -> None:
    assert (call().code, call().out) == (0, call("--help").out)


def test_choices_and_defaults_are_those_of_the_library(call: Call) -> None:
    """They are written once: in the core's options, which the help reads."""
    text = " ".join(call("plan", "--help").out.replace("│", " ").split())
    for name, kind in (("mode", Method), ("step", Step), ("share-update", ShareUpdate), ("coupling", Coupling)):
        choices, default = ", ".join(get_args(kind)), getattr(Options, name.replace("-", "_"))
        assert re.search(rf"--{name} CHOICE .*?\[choices: {choices}\] \[default: {default}\]", text), name
    assert f"choices: {', '.join(get_args(DType))}" in text
    assert target.ROUND_TO == Options().round_to  # the default of --round-to is the device's, or this
    for name in ("fraction", "min_width", "seed"):
        assert re.search(rf"--{name.replace('_', '-')} [A-Z]+ .*?\[default: {getattr(Options, name)}\]", text), name


def interruptible(*command: str) -> subprocess.Popen[str]:
    """A command that heeds Ctrl-C also where a shell runs this in the background, which ignores it for its children.

    A handler of this process becomes the default action of the child's. Not by `preexec_fn`: that forks, and JAX, which
    another test of the process may have imported, warns of it.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_is_one_line_and_its_exit_code(tmp_path: Path, by: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "pretrim", "compress", "resnet20", "--data", "digits", "--macs", "0.5x"]
    with interruptible(*command, "-o", str(tmp_path / "run")) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("data: "):
            assert process.poll() is None
        time.sleep(0.2)
        process.send_signal(by)
        last = process.stderr.read().splitlines()[-1]
    assert (process.returncode, last) == (code, "error: Interrupted.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", ["cyclopts", "pretrim.jobs"])
def test_an_interruption_while_it_starts_is_one_line(tmp_path: Path, at: str) -> None:
    """Ctrl-C comes while a package of the command line is imported."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {at!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
""")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # of tests that run in the background, too
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pretrim", "devices"],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: Interrupted.\n")


def test_the_installed_command_is_the_one_that_is_tested() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {"pretrim": f"{command_line.__module__}:{command_line.__name__}"}


def test_placeholders_of_options_say_what_is_typed(call: Call) -> None:
    """None shows a type of Python's."""
    for name in ("profile", "plan", "compress", "slim", "export", "measure", "sweep", "recommend", "report"):
        out = call(name, "--help").out
        assert not re.search(r"MAPPING|STR\.\.\.|ANY\]|\bLITERAL|\bTUPLE", out), name


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--epochs", "1.5", "a whole number"),
        ("--seed", "0.5", "a whole number"),
        ("--batch-size", "1e3", "a whole number"),
        ("--threads", "nan", "a whole number"),
        ("--round-to", "half", "a whole number"),
        ("--lr", "0,1", "a number"),
    ],
)
def test_a_number_that_is_none_is_never_rounded(call: Call, option: str, value: str, wanted: str) -> None:
    result = call("compress", "resnet20", "--data", "digits", "--macs", "0.5x", "-o", "/nowhere/run", option, value)
    said = f'error: Invalid value for {option}: expected {wanted}, but got "{value}". `pretrim compress -h` shows how'
    assert (result.code, result.out) == (2, "") and result.error.startswith(said)


def test_a_whole_number_may_be_written_with_a_point(call: Call) -> None:
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
    out = call("profile", "resnet20").out
    for said in ("stem.0", "stages.2.2.conv2", "40.8 M", "40,813,184", "192 KiB", "the network's output", "█"):
        assert said in out
    assert "stem.0, stages.0.0.conv2, stages.0.1.conv2, stages.0.2.conv2" in out


def test_markup_in_a_layers_name_is_text(call: Call, net: Path) -> None:
    result = call("profile", f"{net}:named", *SMALL)
    assert "[red]bold[/red]" in result.out
    assert "[red]bold[/red]" in call("plan", f"{net}:named", *SMALL, "--macs", "0.5x").out


def test_what_a_model_prints_is_no_result(call: Call, net: Path) -> None:
    said = call("profile", f"{net}:chatty", *SMALL, "--json")
    assert said.json["totals"] == call("profile", f"{net}:build", *SMALL, "--json").json["totals"]
    assert "building!" in said.err and "forward!" in said.err


def test_int8_profile_counts_bytes_of_int8(call: Call) -> None:
    whole, small = (call("profile", "resnet20", *SMALL, "--dtype", d, "--json").json for d in ("float32", "int8"))
    assert whole["totals"]["activation_bytes"] == 4 * small["totals"]["activation_bytes"]


# ---------------------------------------------------------------------------------------- plan


def test_plan_is_printed_written_and_carries_its_model(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    result = call("plan", "resnet20", *SMALL, "--macs", "0.5x", "-o", path)
    made = Plan.load(path)
    assert made.model == {"name": "resnet20", "arguments": {"in_channels": 1}}
    assert made.slim["macs"] <= 0.5 * made.dense["macs"]
    assert "0.5x" in result.out and "stages.2.0.conv2" in result.out
    to_stdout = call("plan", "resnet20", *SMALL, "--macs", "0.5x", "-o", "-")
    assert to_stdout.json == made.to_json() and "stages.2.0.conv2" in to_stdout.err
    as_json = call("plan", "resnet20", *SMALL, "--macs", "0.5x", "--json")
    assert as_json.json == made.to_json() and as_json.err == ""


def test_a_pipe_is_written_to_and_not_replaced(call: Call, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    said = call("plan", "resnet20", *SMALL, "--macs", "0.5x", "-o", tmp_path / "pipe", "--json")
    assert json.loads(os.read(reading, 1 << 16)) == said.json and (tmp_path / "pipe").is_fifo()
    os.close(reading)


def test_plan_passes_every_option_on(call: Call) -> None:
    given = {"mode": "macs", "step": "filter", "fraction": 0.1, "share_update": "adaptive", "coupling": "mean"}
    given |= {"round_to": 4, "min_width": 2, "seed": 3}
    flags = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]
    limits = ["--params", "0.9x", "--macs", "0.6x", "--flash", "0.9x", "--ram", "0.9x", "--activation", "0.9x"]
    record = call("plan", "resnet20", *SMALL, *limits, "--dtype", "int8", "--json", *flags).json
    assert {name: record["options"][name] for name in given} == given
    assert record["dtype"] == "int8"
    assert record["limits"].keys() == set(get_args(CostName))


# ---------------------------------------------------------------------------------------- compress and after


def test_a_run_holds_its_results_and_nothing_pickled(trained: Path) -> None:
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


def test_evaluate_gives_the_accuracy_that_was_saved(call: Call, trained: Path) -> None:
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
    right = [int(e["predictions"][0]["class"]) == int(t) for e, t in zip(record, test.labels[:20], strict=True)]
    assert sum(right) > 10
    for entry in record:
        first, second = entry["predictions"]
        assert 1 >= first["probability"] >= second["probability"] >= 0
    assert "0.png" in call("predict", trained, paths[0]).out


def test_predict_pads_as_the_data_set_did(call: Call, tmp_path: Path) -> None:
    """28x28 images are trained on in a frame of zeros, so a file of one is shown to the network in that frame."""
    random = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 4)):
        for name, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            values = random.integers(0, 2 if len(shape) == 1 else 256, shape).astype(np.uint8)
            head = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
            (tmp_path / f"{part}-{name}-ubyte").write_bytes(head + values.tobytes())
    run = tmp_path / "run"
    few = ("--epochs", "1", "--batch-size", "8")
    assert call("compress", "resnet20", "--data", tmp_path, "--macs", "0.5x", *few, "-o", run).code == 0
    image = load_data(str(tmp_path)).test.images[:1]
    Image.fromarray(image[0, 0, 2:-2, 2:-2].numpy()).save(tmp_path / "one.png")
    normalisation = read(run).normalisation
    assert normalisation is not None
    expected = scores(load(run), image, *normalisation).softmax(dim=1).max()
    found = call("predict", run, tmp_path / "one.png", "--json").json[0]["predictions"][0]
    assert found["probability"] == pytest.approx(float(expected), abs=1e-5)


def test_compress_a_users_file_ends_with_one_table(call: Call, net: Path, tmp_path: Path) -> None:
    run, model = tmp_path / "run", f"{net}:build"
    common = ("compress", model, "--data", "digits", *SMALL, "--params", "0.5x", "--round-to", "1", "--limit", "200")
    result = call(*common, "--epochs", "1", "-o", run, "--dense")
    assert result.code == 0
    for said in ("parameters", "MACs", "activation memory", "peak memory", "test accuracy", f"Saved in {run}"):
        assert said in result.out
    assert "data: digits of scikit-learn" in result.err and "200 training images" in result.err
    without = call("evaluate", run, "--data", "digits")
    assert (without.code, "--model" in without.error) == (2, True)
    given = call("evaluate", run, "--data", "digits", "--model", model, "--json").json
    results = read(run).results
    assert results is not None and given["accuracy"] == results["test_accuracy"]
    assert f"{100 * results['dense']['test_accuracy']:.2f} %" in result.out
    again = call(*common, "--epochs", "1", "-o", run, "--overwrite", "--json").json
    assert again["slim"]["test_accuracy"] == results["test_accuracy"]
    assert again["dense"]["test_accuracy"] is None


def test_compress_with_a_plan(call: Call, net: Path, tmp_path: Path) -> None:
    path, model = tmp_path / "plan.json", f"{net}:build"
    call("plan", model, *SMALL, "--classes", 10, "--macs", "0.5x", "-o", path)
    common = ("compress", model, "--data", "digits", "--plan", path, "--limit", "100", "--epochs", "1")
    record = call(*common, "-o", tmp_path / "run", "--json").json
    assert record["slim"]["macs"] == Plan.load(path).slim["macs"]
    other = call("compress", "resnet20", *common[2:], "-o", tmp_path / "other")
    assert other.code == 2
    assert "Expected a plan for resnet20 with images of 1x8x8, but it was made for" in other.error
    shape = call(*common, "--input", "1x16x16", "-o", tmp_path / "other")
    assert (shape.code, "another input" in shape.error) == (2, True)
    both = call(*common, "--macs", "0.5x", "-o", tmp_path / "other")
    assert (both.code, "Expected limits or --plan, but got both" in both.error) == (2, True)
    path.write_text('{"format": "other"}')
    foreign = call(*common, "-o", tmp_path / "other")
    assert (foreign.code, "is JSON, but not a plan of pretrim" in foreign.error) == (2, True)
    assert not (tmp_path / "other").exists()


# ---------------------------------------------------------------------------------------- errors

PLAN = ("plan", "resnet20", *SMALL)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
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
def test_errors(call: Call, arguments: tuple[str, ...], code: int, said: str) -> None:
    result = call(*arguments)
    assert (result.code, result.out) == (code, "")
    assert re.search(said, result.error), result.error


@pytest.mark.parametrize("option", [("--min-features", "3"), ("--mode", "params"), ("--round-to", "4")])
def test_a_plan_is_not_drawn_again(call: Call, tmp_path: Path, option: tuple[str, str]) -> None:
    file = tmp_path / "plan.json"
    call("plan", "resnet20", *SMALL, "--classes", "10", "--macs", "0.5x", "-o", file)
    said = call("compress", "resnet20", "--data", "digits", "--plan", file, *option, "-o", tmp_path / "run")
    assert (said.code, said.out) == (2, "")
    assert said.error.endswith(f"or options to make one with, but got both: leave out {option[0]} or --plan.")
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
def test_an_empty_path_is_not_this_folder(call: Call, command: tuple[str, ...], name: str) -> None:
    said = call(*command)
    assert (said.code, f"Invalid value for {name}: it is empty, name a file or folder." in said.error) == (2, True)


@pytest.mark.parametrize("command", ["compress", "sweep"])
def test_a_model_and_a_folder_that_cannot_be_are_said_before_the_data_are_read(
    call: Call, tmp_path: Path, command: str
) -> None:
    (tmp_path / "file").touch()
    limit = ("--macs", "0.5x", "--data", "digits")
    for model, output, said in (
        ("resnt20", tmp_path / "run", "Expected a model that pretrim knows"),
        (f"{tmp_path}/no.py:build", tmp_path / "run", "there is no file"),
        ("torchvision:resnet19", tmp_path / "run", "resnet19"),
        ("resnet20", tmp_path / "file", "file"),
    ):
        found = call(command, model, *limit, "-o", output)
        assert found.code and said in found.error and "data: " not in found.error, found.error


def test_more_threads_than_cores_are_noted(call: Call, tmp_path: Path) -> None:
    said = call("compress", "resnt20", "--macs", "0.5x", "--data", "digits", "--threads", "999", "-o", tmp_path / "run")
    assert "note: 999 threads share " in said.err and "which is slow: --threads " in said.err
    assert "threads share" not in call("compress", "resnt20", "--macs", "0.5x", "-o", tmp_path, "--threads", "1").err


def test_the_error_of_a_failing_forward_is_shown(call: Call, net: Path) -> None:
    result = call("profile", f"{net}:fails", *SMALL)
    assert result.code == 1
    assert "forward raised ValueError: the cable is loose (net.py:" in result.error


def stopped_run(net: Path, run: Path, *more: str, after: str = "epoch 2/") -> None:
    """A real `pretrim compress` that Ctrl-C stopped."""
    with interruptible(sys.executable, "-m", "pretrim", *training_of(net), *more, "-o", str(run)) as process:
        assert process.stderr is not None
        while after not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        last = process.stderr.read().splitlines()[-1]
    assert (process.returncode, "--resume goes on from there" in last) == (130, True), last


def training_of(net: Path) -> list[str]:
    common = ["compress", f"{net}:build", "--data", "digits", *SMALL, "--params", "0.5x", "--round-to", "1"]
    pinned = ["--threads", "1", "--layout", "channels_last", "--precision", "float32"]  # what is timed may differ
    return [*common, "--epochs", "40", "--set", "ema=0.99", *pinned]


def test_a_stopped_run_is_resumed_to_the_same_weights(call: Call, net: Path, tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    stopped_run(net, run, "--dense", after="dense: epoch 1/")
    assert {"training.safetensors", "log.jsonl", "dense"} <= {path.name for path in run.iterdir()}
    unfinished = call("evaluate", run, "--data", "digits", "--model", f"{net}:build")
    assert (unfinished.code, "was stopped: go on with" in unfinished.error) == (1, True)
    page = call("report", run, "-o", tmp_path / "page.html")
    assert (page.code, page.error) == (1, unfinished.error)
    again = call(*training_of(net), "--dense", "-o", run)
    assert (again.code, "--resume continues it, --overwrite starts over" in again.error) == (1, True)
    other = call(*training_of(net), "--dense", "-o", run, "--resume", "--lr", "0.2")
    assert (other.code, "recipe's learning_rate (0.05, not 0.2)" in other.error) == (2, True)
    for option, value, said in (
        ("--params", "0.4x", "had a different limit on params ('0.5x', not '0.4x')"),
        ("--macs", "0.4x", "had a different limit on macs (None, not '0.4x')"),
        ("--mode", "uniform", "had a different search's mode ('balanced', not 'uniform')"),
    ):
        other = call(*training_of(net), "--dense", "-o", run, "--resume", option, value)
        assert (other.code, said in other.error) == (2, True), other.error
    same = ("--params", "50%")  # is 0.5x
    assert call(*training_of(net), "--dense", "-o", run, "--resume", *same).code == 0
    assert call(*training_of(net), "--dense", "-o", whole).code == 0
    for part in ("", "dense"):
        files = [(folder / part / "weights.safetensors").read_bytes() for folder in (run, whole)]
        assert files[0] == files[1]
        assert len((run / part / "log.jsonl").read_text().splitlines()) == 40
    assert not list(run.rglob("training.safetensors"))
    finished = call(*training_of(net), "--dense", "-o", run, "--resume")
    assert (finished.code, "is finished" in finished.error) == (2, True)


def test_resume_of_nothing_starts(call: Call, net: Path, tmp_path: Path) -> None:
    assert call(*training_of(net), "--epochs", "1", "-o", tmp_path / "run", "--resume").code == 0


def test_a_teacher_changes_what_is_learnt(call: Call, trained: Path, net: Path, tmp_path: Path) -> None:
    def accuracy(name: str, *more: object) -> dict[str, Any]:
        common = ("compress", "resnet20", "--data", "digits", *SMALL, "--macs", "0.3x", "--limit", "200")
        record = call(*common, "--epochs", "1", *more, "-o", tmp_path / name, "--json").json
        return dict(record["results"])

    taught, alone = accuracy("taught", "--teacher", trained), accuracy("alone")
    assert taught["epochs"][0]["train_loss"] != alone["epochs"][0]["train_loss"]
    same = accuracy("same", "--teacher", trained, "--set", "distillation=0")
    assert same["epochs"][0]["train_loss"] == pytest.approx(alone["epochs"][0]["train_loss"], rel=1e-5)
    wrong = call(*COMPRESS, "--data", "digits", "--teacher", trained, "-o", tmp_path / "x")
    assert (wrong.code, "has 10 classes and images of 1x8x8" in wrong.error) == (2, True)


def test_a_trained_network_is_cut_and_fine_tuned(call: Call, net: Path, tmp_path: Path) -> None:
    """The dense network of one run is saved as a user would, and slimmed by the strength of its filters."""
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
    found = record["results"]["inherited"]
    assert found["dense_test_accuracy"] == read(tmp_path / "run" / "dense").results["test_accuracy"]  # type: ignore[index]
    assert record["dense"]["test_accuracy"] == found["dense_test_accuracy"] > 0.9
    assert record["slim"]["test_accuracy"] > 0.85
    assert record["results"]["recipe"]["learning_rate"] == pytest.approx(0.01 * 32 / 128)  # it follows the batch
    assert "inherited: test accuracy" in result.err
    for more, said in (
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
        refused = call(*common, *more, "-o", tmp_path / "x")
        assert (refused.code, said in refused.error) == (2, True), refused.err
    assert not (tmp_path / "x").exists()


def test_trackers_get_every_epoch(call: Call, net: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    assert call(*training_of(net), "--epochs", "3", "--tracker", "tensorboard", "-o", run).code == 0
    events = EventAccumulator(str(run / "tracking" / "pretrim"))
    events.Reload()
    scalars = events.Scalars("slim/train_loss")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [event.step for event in scalars] == [1, 2, 3]
    assert [event.value for event in scalars] == pytest.approx([line["train_loss"] for line in log])


COMPRESS = ("compress", "resnet20", "--macs", "0.5x", "--epochs", "1")


def test_compress_refuses_before_it_trains(call: Call, net: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "there").mkdir()
    out = ("-o", tmp_path / "run")
    cases: list[tuple[tuple[object, ...], int, str]] = [
        (
            (*COMPRESS, "--data", "digits", "-o", tmp_path / "there"),
            1,
            "there exists: choose another folder, or --overwrite",
        ),
        ((*COMPRESS, "--data", "digits", "-o", tmp_path / "file" / "x"), 1, "Cannot write the folder"),
        ((*COMPRESS, "--data", "digitz", *out), 2, "but got 'digitz'. Did you mean digits?"),
        (
            (*COMPRESS, "--data", "digits", "--input", "1x8", *out),
            2,
            "Expected --input CxHxW for images, but got 1x8: signals",
        ),
        ((*COMPRESS, "--data", "digits", "--lr", "0", *out), 2, "Expected --lr to be more than 0"),
        ((*COMPRESS, "--data", "digits", "--batch-size", "0", *out), 2, "Expected --batch-size to be at least 2"),
        (
            (*COMPRESS, "--data", "digits", "--max-images", "0", *out),
            2,
            "Expected --max-images to be at least 10 images",
        ),
        ((*COMPRESS, "--data", "digits", "--epochs", "0", *out), 2, "Expected --epochs to be at least 1"),
        (("compress", "resnet20", "--data", "digits", *out), 2, "No limit given"),
        (("compress", f"{net}:wide", "--data", "digits", *SMALL, "--macs", "0.5x", *out), 1, "10 class scores"),
    ]
    for arguments, code, said in cases:
        result = call(*arguments)
        assert (result.code, said in result.error) == (code, True), result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "there"]


def test_a_data_folder_that_is_empty_or_has_one_class_is_refused(call: Call, trained: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", ("-o", tmp_path / "run")
    data.mkdir()
    empty = call(*COMPRESS, "--data", data, *out)
    assert (empty.code, "the folder is empty" in empty.error) == (1, True)
    (data / "cat").mkdir()
    for number in range(3):
        Image.new("L", (8, 8), number).save(data / "cat" / f"{number}.png")
    one = call(*COMPRESS, "--data", data, *out)
    assert (one.code, "Expected at least 2 classes" in one.error) == (1, True)
    (data / "dog").mkdir()
    for number in range(4):
        Image.new("L", (8, 8), 200 + number).save(data / "dog" / f"{number}.png")
    other = call("evaluate", trained, "--data", data)
    assert (other.code, "Expected the run's classes (0, 1, 2, 3, 4, ... 10 in all)" in other.error) == (1, True)


def test_a_damaged_run_is_one_line(call: Call, trained: Path, tmp_path: Path) -> None:
    def damaged(name: str, change: Callable[[bytes], bytes]) -> Path:
        run = tmp_path / name.replace(".", "-")
        run.mkdir()
        for path in trained.iterdir():
            content = path.read_bytes()
            (run / path.name).write_bytes(change(content) if path.name == name else content)
        return run

    cut = call("evaluate", damaged("weights.safetensors", lambda c: c[: len(c) // 2]), "--data", "digits")
    assert (cut.code, "truncated or edited" in cut.error) == (1, True)
    foreign = call("predict", damaged("run.json", lambda _: b'{"format": "mine"}'), "x.png")
    assert (foreign.code, "is JSON, but not that of a run" in foreign.error) == (1, True)


def test_a_network_whose_scores_overflow(call: Call, trained: Path, tmp_path: Path) -> None:
    network, record = load(trained), read(trained)
    with torch.no_grad():
        network.get_parameter("classifier.weight").fill_(torch.finfo(torch.float32).max)
    about = {"classes": record.classes, "normalisation": record.normalisation, "data": record.data}
    save(network, tmp_path / "run", input_shape=record.input_shape, **about)
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
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nobody may write. Root may, whatever the permissions say, unless it is immutable."""
    folder = tmp_path / "read_only"
    folder.mkdir()
    is_root = os.geteuid() == 0
    if is_root and subprocess.run(["chattr", "+i", folder], capture_output=True).returncode:
        pytest.skip("this file system has no immutable folders")
    folder.chmod(0o555) if not is_root else None
    yield folder
    subprocess.run(["chattr", "-i", folder], check=True) if is_root else folder.chmod(0o755)


@pytest.mark.parametrize(
    "asked",
    [
        ("plan", "resnet20", "--macs", "0.5x", "-o", "PLACE/plan.json"),
        ("compress", "resnet20", "--data", "digits", *SMALL, "--macs", "0.5x", "-o", "PLACE/run"),
        ("sweep", "resnet20", "--data", "digits", *SMALL, "--budget-fraction", "0.5", "-o", "PLACE/study"),
        ("export", "RUN", "--runtime", "onnx", "-o", "PLACE/net.onnx"),
        ("export", "RUN", "--runtime", "litert", "--int8", "--data", "digits", "-o", "OTHER", "--sources", "PLACE/src"),
        ("slim", "RUN", "--dead", "-o", "PLACE/slim"),
        ("report", "RUN", "-o", "PLACE/report.html"),
    ],
    ids=lambda asked: " ".join(asked[:1] + asked[-2:-1]),
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    call: Call, asked: tuple[str, ...], trained: Path, read_only: Path, tmp_path: Path
) -> None:
    names = {"RUN": str(trained), "OTHER": str(tmp_path / "net.tflite")}
    done = call(*(names.get(word, word.replace("PLACE", str(read_only))) for word in asked))
    assert done.code and not done.out
    assert done.error.startswith("error: Cannot write") and str(read_only) in done.error
    assert not any(word in done.err for word in ("exporting:", "epoch", "training:")), done.err
    assert not list(read_only.iterdir()) and not (tmp_path / "net.tflite").exists()

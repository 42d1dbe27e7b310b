"""The project file: every command reads it, the command line wins, and what is wrong with it is one line."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TypeAlias

import pytest

from pretrim.cli import app, main
from pretrim.cli.project import with_project
from pretrim.jobs.sweep import StudyOptions, _specs

Call: TypeAlias = Callable[..., tuple[int, str, str]]
NET = """
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(1, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
"""
PROJECT = """
model = "net.py:build"
data = "digits"
input = "1x16x16"
max_images = 200
[limits]
macs = "50%"
[recipe]
epochs = 1
set = { ema = 0.9 }
[machine]
threads = 1
precision = "float32"
layout = "contiguous"
[compress]
output = "first"
[sweep]
modes = ["balanced", "uniform"]
budget-fraction = [0.8]
output = "study"
"""


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return int(end.value.code or 0), out, err

    return run


def test_a_command_takes_what_the_file_says_and_the_command_line_wins(call: Call) -> None:
    Path("pretrim.toml").write_text(PROJECT)
    code, out, said = call("plan", "--json")
    assert code == 0, said
    assert said == "note: pretrim.toml adds net.py:build --input 1x16x16 --macs 50%\n"
    plan = json.loads(out)
    assert plan["limits"] == {"macs": "50%"} and plan["model"]["name"] == "net.py:build"
    code, out, said = call("plan", "--macs", "0.3x", "--json")
    assert json.loads(out)["limits"] == {"macs": "0.3x"} and "--macs" not in said
    code, out, said = call("plan", "--json", "resnet20", "--input=1x16x16")
    assert json.loads(out)["model"]["name"] == "resnet20" and "net.py" not in said
    assert call("devices", "nrf52840")[2] == ""  # it takes nothing of these


PARTS = {
    "modes": ("balanced", "uniform"),
    "budget-fraction": ("0.5", "0.25"),
    "mean": ("0.5", "0.25"),
    "std": ("0.5", "0.25"),
    "min-width": ("4", "layer1=16"),
    "at-most": ("flash=20k", "macs=1M"),
    "set": ("ema=0.9", "mixup=0.2"),
}
"""Two values of options that take several; of the others any text is one"""
SEVERAL = ("any number of times", "separated by commas", "Per-channel")
"""How the help says that an option takes several values"""


def _several() -> list[tuple[str, str]]:
    """Every command's options that take several values, by their types or by what their help says."""
    found = [
        (command, argument.names[0].removeprefix("--"))
        for command in app
        if not command.startswith("-")
        for argument in app[command].assemble_argument_collection()
        if argument.names[0].startswith("--")
        and (argument.token_count()[1] or any(said in (argument.parameter.help or "") for said in SEVERAL))
    ]
    assert {*PARTS} < {option for _, option in found}
    return found


def _given(words: list[str]) -> str:
    """What a command is called with, as text."""
    return repr(app.parse_args(words, exit_on_error=False, print_error=False)[1].arguments)


@pytest.mark.parametrize(("command", "option"), _several())
def test_no_value_of_an_option_that_takes_several_is_dropped(command: str, option: str, call: Call) -> None:
    first, second = PARTS.get(option, ("first", "second"))
    start = [command, "net", *(["-o", "out"] if command in ("compress", "sweep", "slim") else [])]
    typed = _given([*start, f"--{option}", first, f"--{option}", second])
    alone = _given([*start, f"--{option}", first])
    for part in (*first.split("="), *second.split("=")):
        assert part in typed, typed
    assert typed != alone
    Path("pretrim.toml").write_text(f"{option} = {json.dumps([first, second])}")
    assert _given(with_project(app, start)) == typed


def test_lists_with_commas_and_lists_given_again_are_the_same(call: Call) -> None:
    start = ["sweep", "net", "-o", "out"]
    commas = _given([*start, "--modes", "balanced,uniform", "--budget-fraction", "0.5,0.25", "--device", "a,b"])
    again = ["--modes", "balanced", "--budget-fraction=0.5", "--device", "a", "--modes=uniform"]
    assert _given([*start, *again, "--budget-fraction", "0.25", "--device=b"]) == commas


@pytest.mark.parametrize("option", ["modes", "budget-fraction"])
def test_an_empty_list_in_the_file_is_not_the_default(option: str, call: Call) -> None:
    Path("pretrim.toml").write_text(f"model = 'net.py:build'\n[sweep]\noutput = 'study'\n{option} = []\nfreeze = []")
    code, _, said = call("sweep")
    assert code == 2 and "but got none" in said


def test_the_template_is_the_study_that_it_says(call: Call) -> None:
    assert call("init", "net.py:build")[0] == 0
    content = tomllib.loads(Path("pretrim.toml").read_text())
    bound = app.parse_args(with_project(app, ["sweep"]), exit_on_error=False, print_error=False)[1].arguments
    specs = _specs(StudyOptions(grid=bound["tried"], limits=bound["limits"]))
    tried = {(spec.mode, spec.budget_fraction) for spec in specs if spec.mode != "dense"}
    assert tried == {*product(content["sweep"]["modes"], content["sweep"]["budget-fraction"])}
    assert len(tried) == 4
    assert {("balanced", 1.0)} <= tried  # the project's own limit
    assert next(spec for spec in specs if spec.budget_fraction == 1 and spec.mode == "balanced").amounts == {
        "macs": content["limits"]["macs"]
    }


def test_the_whole_job_of_a_file(call: Call) -> None:
    Path("pretrim.toml").write_text(PROJECT)
    code, _, said = call("run")
    assert code == 0, said
    record = json.loads(Path("first/run.json").read_text())
    assert record["plan"]["limits"] == {"macs": "50%"}
    assert (record["results"]["recipe"]["epochs"], record["results"]["recipe"]["ema"]) == (1, 0.9)
    assert Path("study/study.db").exists() and Path("study-report.html").exists()
    assert "--set ema=0.9" in said and "--modes balanced --modes uniform" in said
    again, _, said = call("run")
    assert again == 0 and "first is finished" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 3", "Expected options in pretrim.toml, but epoch is not one: did you mean epochs?"),
        ("[recipes]", "Expected tables of options in pretrim.toml, but got [recipes]: did you mean recipe?"),
        ("[devices]\nepochs = 3", "Expected options in [devices] of pretrim.toml, but epochs is not one: "),
        ("x = [", "Expected TOML in pretrim.toml, but: "),
        ("x = " + "[" * 100_000, "Expected TOML in pretrim.toml, but: "),
        ("model = 'resnet20'\nmacs = true", "--macs needs a value"),
        ("model = 'resnet20'\nmacs = 'half'", "Expected macs to be an amount such as '250k'"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(call: Call, text: str, said: str) -> None:
    Path("pretrim.toml").write_text(text)
    code, out, err = call("plan")
    *notes, error = err.splitlines()
    assert (code, out) == (2, "") and all(note.startswith("note: ") for note in notes)
    assert error.startswith("error: ") and said in err


def test_init_writes_a_file_that_every_command_takes(call: Call) -> None:
    code, out, _ = call("init", "net.py:build", "--data", "my photos", "--device", "nrf52840")
    assert code == 0 and "pretrim run" in out
    code, _, said = call("plan", "--input", "1x16x16")
    assert code == 0, said
    assert "net.py:build --device nrf52840" in said
    code, _, said = call("init")
    assert code == 2 and "pretrim.toml exists" in said
    Path("pretrim.toml").unlink()
    code, _, said = call("init", "--device", "nrf52")
    assert code == 2 and not Path("pretrim.toml").exists()
    code, _, said = call("run")
    assert code == 2 and "`pretrim init` writes one" in said


@pytest.fixture
def finished(call: Call) -> str:
    """A project whose run is finished, without a study; the text of its file."""
    text = PROJECT.partition("[sweep]")[0]
    Path("pretrim.toml").write_text(text)
    assert call("run")[0] == 0
    return text


def test_a_finished_run_does_not_hide_what_is_wrong_with_the_file_or_new_in_it(call: Call, finished: str) -> None:
    """One training for all of them: each change of the file, with the exit code and what is said."""
    changes = [
        ("", "", 0, "first is finished: remove it to train again."),
        ('macs = "50%"', 'macs = "0.5x"', 0, "first is finished"),
        ("threads = 1", "threads = 2", 0, "first is finished"),
        ('macs = "50%"', 'macs = "0.4x"', 1, "(macs was 50%, is 0.4x): remove it to train again, or name another"),
        ("epochs = 1", "epochs = 2", 1, "(epochs was 1, is 2)"),
        ('macs = "50%"', 'macs = "50%"\nram = "0.9x"', 1, "(ram was not set, is 0.9x)"),
        ("ema = 0.9", "ema = 0.8", 1, "(set was ema=0.9, is ema=0.8)"),
        ("max_images = 200", "", 1, "(max-images was 200, is not set)"),
        ("max_images = 200", "max_images = 200\nmode = 'balanced'", 0, "first is finished"),
        ("max_images = 200", "max_images = 200\nmode = 'uniform'", 1, "(mode was not set, is uniform)"),
        ("net.py:build", "net.py:other", 1, "(model was net.py:build, is net.py:other)"),
        ("epochs = 1", "epoch = 1", 2, "epoch is not one: did you mean epochs?"),
        ("[recipe]", "[recipes]", 2, "but got [recipes]: did you mean recipe?"),
        ('model = "net.py:build"', "", 2, "MODEL is missing. `pretrim compress -h`"),
        ("epochs = 1", "epochs = 'many'", 2, 'expected a whole number, but got "many"'),
        ("ema = 0.9", "emma = 0.9", 2, "emma"),
        ('macs = "50%"', 'macs = "half"', 2, "Expected macs to be an amount"),
        ("[machine]", "[sweep]\nseeds = 'all'\n[machine]", 2, 'expected a whole number, but got "all"'),
        ("[machine]", "[sweep]\n[report]\nwatch = 3\n[machine]", 2, "Unexpected 3"),
        ("[limits]", "sweep = 3\n[limits]", 2, "sweep is not one"),
    ]
    for old, new, code, said in changes:
        assert old in finished
        Path("pretrim.toml").write_text(finished.replace(old, new, 1))
        got, _, err = call("run")
        assert (got, said in err, len(err.splitlines())) == (code, True, 1), (new, got, err)
    Path("pretrim.toml").write_text(finished)
    record = json.loads(Path("first/run.json").read_text())
    del record["results"]["asked"]  # a run of an earlier version does not say
    Path("first/run.json").write_text(json.dumps(record))
    assert call("run")[0] == 0


def test_nothing_is_trained_where_the_study_of_the_file_is_wrong(call: Call) -> None:
    Path("pretrim.toml").write_text(PROJECT.replace("[0.8]", "[0.8]\nseeds = 'all'"))
    code, _, said = call("run")
    assert code == 2 and "--seeds" in said and not Path("first").exists()

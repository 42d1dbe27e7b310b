"""Damaged files of every kind that is read, and command lines that nobody would type: one line each.

PRETRIM_FUZZ_SEED chooses another sequence; the counts are `MUTATIONS` and `COMMANDS`.
"""

import copy
import hashlib
import json
import os
import re
import shutil
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_study import ASKED, SETTINGS, record
from torch import nn

import pretrim
from pretrim import records
from pretrim.cli import main
from pretrim.data import DataSet
from pretrim.data import load as load_data
from pretrim.deploy import artifact as artifacts
from pretrim.errors import PretrimError
from pretrim.jobs.options import DataOptions, JobOptions, Limits, MachineOptions, Search, TargetOptions, TrainingOptions
from pretrim.jobs.slim import SlimOptions
from pretrim.jobs.study import open_study
from pretrim.jobs.sweep import GridOptions, SweepOptions
from pretrim.latency import LatencyKey
from pretrim.latency.table import Correction, Table, load_table, save_table
from pretrim.models.weights import load_weights
from pretrim.planning.plan import Plan
from pretrim.report import Shown, contents
from pretrim.runs.save import save
from pretrim.study.description import NETWORK, read_network
from pretrim.study.sweep import make_study
from pretrim.train import Recipe, train
from pretrim.train import state as states

MUTATIONS, COMMANDS = 560, 320
SEED = int(os.environ.get("PRETRIM_FUZZ_SEED", "0"))
NET = """
from torch import nn

def build(num_classes=10, in_channels=1):
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, num_classes))
"""
RECIPE = Recipe(epochs=2, batch_size=32, ema=0.9)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))


# ---------------------------------------------------------------------------------------- files


@dataclass(frozen=True)
class Kind:
    """A kind of file, or of row, that is read.

    Attributes:
        file: that is damaged.
        use: reads it, and does with it what commands do; may raise PretrimError alone.
        put: writes damaged text in its place; by default to the file.
    """

    file: Path
    use: Callable[[], object]
    put: Callable[[bytes], None] | None = None
    get: Callable[[], bytes] | None = None


@pytest.fixture(scope="module")
def data() -> DataSet:
    return load_data("digits", image_size=8, limit=40)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory, data: DataSet) -> Iterator[dict[str, Kind]]:
    folder = tmp_path_factory.mktemp("kinds")
    cache = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    yield {**run_kinds(folder, data), **study_kinds(folder), **other_kinds(folder, data)}
    os.environ.pop("XDG_CACHE_HOME")
    if cache is not None:
        os.environ["XDG_CACHE_HOME"] = cache


def run_kinds(folder: Path, data: DataSet) -> dict[str, Kind]:
    dense = net()
    network = pretrim.analyze(dense, torch.zeros(1, 1, 8, 8))
    plan = network.plan(params="0.5x", round_to=1)
    slim = plan.apply(dense, network=network)
    plan.save(folder / "plan.json")
    run = folder / "run"
    save(
        slim,
        run,
        classes=data.classes,
        normalisation=(data.mean, data.std),
        data=data.to_json(),
        forward=network.forward,
        results={"test_accuracy": 0.5, "warnings": ["a warning"], "dense": {"test_accuracy": 0.75}},
    )
    Image.new("L", (8, 8)).save(folder / "image.png")
    save_file(dense.state_dict(), folder / "weights.safetensors")
    torch.save(dense.state_dict(), folder / "weights.pth")

    def use_plan() -> None:
        found = Plan.load(folder / "plan.json")
        found.apply(net(), network=network)
        found.to_json()

    def use_run() -> None:
        found = pretrim.open_run(run, model=net())
        found.predict([folder / "image.png"])
        json.dumps(found.to_json(), allow_nan=False)

    def use_image() -> None:
        pretrim.open_run(run, model=net()).predict([folder / "image.png"])

    return {
        "plan": Kind(folder / "plan.json", use_plan),
        "run": Kind(run / "run.json", use_run),
        "weights": Kind(run / "weights.safetensors", use_run),
        "image": Kind(folder / "image.png", use_image),
        "trained": Kind(folder / "weights.safetensors", lambda: load_weights(net(), folder / "weights.safetensors")),
        "pickled": Kind(folder / "weights.pth", lambda: load_weights(net(), folder / "weights.pth")),
    }


def study_kinds(folder: Path) -> dict[str, Kind]:
    study = folder / "study"
    store = make_study(study, SETTINGS)
    store.add(ASKED[:3])
    right = {"images": 8, "bits": "8A=="}
    evaluation = {"images": 8, "interval_95": [0.2, 0.8], "right": right}
    for accuracy in (0.5, 0.25):
        trial = store.claim()
        assert trial is not None
        store.finish(trial.key, record(accuracy) | {"validation": evaluation, "test": evaluation})
        store.measured(trial.key, {"latency_s": 0.25})
    store.close()
    described = {"model": "net", "input_shape": [1, 8, 8], "classes": ["a"], "data": "digits", "groups": ["0"]}
    (study / NETWORK).write_text(json.dumps(described | {"channels": [8], "layers": ["0"], "shares": {"macs": [1.0]}}))

    def use() -> None:
        opened = open_study(study)
        opened.recommend(macs="0.9x") if any(trial.state == "done" for trial in opened.trials) else None
        shown = Shown("study", opened.trials, read_network(study), study / "trials", opened.store.config())
        json.dumps(contents(shown), allow_nan=False)
        opened.store.close()

    def column(table: str, name: str) -> Kind:
        def get() -> bytes:
            return str(query(f"select {name} from {table} where rowid = 1")[0][0]).encode()

        def put(text: bytes) -> None:
            query(f"update {table} set {name} = ? where rowid = 1", text.decode("utf-8", "replace"))

        def query(statement: str, *values: str) -> list[Any]:
            database = sqlite3.connect(study / "study.db", isolation_level=None)
            try:
                return database.execute(statement, values).fetchall()
            finally:
                database.close()

        return Kind(study / "study.db", use, put, get)

    return {
        "study": Kind(study / "study.json", use),
        "network": Kind(study / NETWORK, use),
        "database": Kind(study / "study.db", use),
        "settings": column("pretrim_studies", "settings"),
        "asked": column("pretrim_trials", "asked"),
        "record": column("pretrim_trials", "record"),
        "measured": column("pretrim_trials", "measured"),
        "key": column("pretrim_trials", "key"),
    }


def other_kinds(folder: Path, data: DataSet) -> dict[str, Kind]:
    place = LatencyKey("here", "litert", "float32", "XNNPACK", 1)
    save_table(Table(place, {"cpu": "one"}, 1e-6, {}, {"net": Correction(1.0, 1.1)}))
    (table,) = (folder / "cache").rglob("*.json")
    state = folder / "state"
    train(net(), data, RECIPE, checkpoint=state)
    made = states.read(state)
    states.write(pretrim_state(made), state)
    model = folder / "model.onnx"
    content, port = b"not a model", artifacts.Port(shape=(1, 1, 8, 8), data_type="float32")
    sha256, given = hashlib.sha256(content).hexdigest(), json.loads((folder / "plan.json").read_text())
    artifacts.write(
        artifacts.Artifact(
            *(model, "onnx", "float32", len(content), sha256, port, ({"shape": [1, 10]},), None, given),
            *(None, {"passed": True}, ("a note",), {"torch": "2.12"}),
        ),
        content,
    )

    def use_header() -> None:
        train(net(), data, RECIPE, checkpoint=state, resume=True)

    def get_header() -> bytes:
        content = state.read_bytes()
        size = int.from_bytes(content[:8], "little")
        return str(json.loads(content[8 : 8 + size])["__metadata__"]["pretrim"]).encode()

    def put_header(text: bytes) -> None:
        """With the SHA-256 that belongs to it: whoever edits a state can do that."""
        metadata = {states.KEY: text.decode("utf-8", "replace"), states.DIGEST: states.BLANK}
        state.write_bytes(states._sealed(states.tensors_to_bytes(dict(made.tensors), metadata)))

    return {
        "table": Kind(table, lambda: load_table(place)),
        "state": Kind(state, lambda: states.read(state)),
        "header": Kind(state, use_header, put_header, get_header),
        "artifact": Kind(model.with_name("model.onnx.json"), lambda: json.dumps(artifacts.read(model).to_json())),
    }


def pretrim_state(made: states.State) -> states.State:
    """The state after the first of two epochs."""
    return states.State(**{**vars(made), "epochs": made.epochs[:1]})


VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 2**31, 2**63, 10**400, 0.5, -0.5, 1e308, float("nan"), float("inf")),
    *("", "x", "0", "1e999", "\x1b[2J", "../../../outside", "/outside", "a" * 5000, "\ud800", "\u202e", "{", "nan"),
    *([], {}, [[]], [None], {"": 0}, [1, 2, 3], [-1], ["a"], {"a": {"b": []}}),
]


def mutated(content: bytes, random: Random) -> bytes:
    """The same with one thing wrong."""
    try:
        plain = json.loads(content)
    except ValueError:
        return broken(content, random)
    if not isinstance(plain, dict | list) or random.random() < 0.15:
        return broken(content, random)
    plain = copy.deepcopy(plain)
    parent, place = random.choice(list(places(plain)))
    chance = random.random()
    if chance < 0.15:
        del parent[place]
    elif chance < 0.22:
        text = json.dumps(plain).replace(json.dumps(parent[place]), "[" * random.choice([150, 100_000]), 1)
        return text.encode()
    else:
        parent[place] = random.choice(VALUES)
    return json.dumps(plain).encode()


def places(plain: Any) -> Iterator[tuple[Any, Any]]:
    """Every entry at every depth, as its container and its name or number."""
    for name, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
        yield plain, name
        if isinstance(value, dict | list):
            yield from places(value)


def broken(content: bytes, random: Random) -> bytes:
    """Truncated, flipped, emptied, of something else."""
    changed = bytearray(content)
    for _ in range(random.choice([1, 3, 30])):
        if changed:
            changed[random.randrange(min(len(changed), random.choice([16, 400, len(changed)])))] = random.randrange(256)
    choices = [
        b"",
        content[: random.randrange(len(content) + 1)],
        bytes(changed),
        content + b"x",
        random.randbytes(100),
    ]
    return random.choice([*choices, bytes(changed), b"[]", b"null", b"\xff\xfe" + content])


def test_damaged_files_are_refused_in_one_line_or_used(
    kinds: dict[str, Kind], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is damaged: a PretrimError of one line, or the file is used as it is; nothing else happens."""
    monkeypatch.chdir(tmp_path)
    random, refused, failures = Random(SEED), dict.fromkeys(kinds, 0), list[str]()
    for kind in kinds.values():
        kind.use()  # undamaged
    each = -(-MUTATIONS // len(kinds))
    for name, kind in kinds.items():
        whole = kind.file.read_bytes()
        content = kind.get() if kind.get is not None else whole
        for number in range(each):
            damaged = mutated(content, random)
            (kind.put or kind.file.write_bytes)(damaged)
            try:
                kind.use()
            except PretrimError as error:
                refused[name] += 1
                if "\n" in str(error) or "\x1b" in str(error):
                    failures.append(f"{name} {number}: {str(error)[:500]!r}")
            except Exception as error:
                failures.append(f"{name} {number}: {traceback.format_exc()[-600:]}")
                failures.append(f"by {damaged[:600]!r} ({error!r:.200})")
            kind.file.write_bytes(whole)
        kind.use()  # nothing else was broken on the way
    assert not failures, f"seed {SEED}: {len(failures)}\n" + "\n".join(failures[:12])
    assert list(tmp_path.iterdir()) == [] and not Path("/outside").exists()
    assert sum(refused.values()) > MUTATIONS // 3, refused
    assert not [*next(iter(kinds.values())).file.parent.rglob("*.tmp")]


# ---------------------------------------------------------------------------------------- command lines

WORDS = [
    *("", "0", "-1", "1", "0.5x", "2x", "1e308G", "9e18", "9" * 5000, "nan", "inf", "-inf", "1e999", "50%", "0.5", "x"),
    *("macs", "int8", "onnx", "litert", "stm32h743", "auto", "cpu", "hpu", "cuda", "cuda:99", "balanced", "uniform"),
    *(
        "1x8x8",
        "1x9223372036854775808x1",
        "0x0x0",
        "1x8",
        "../x",
        "/nowhere/x",
        "\x1b[2J",
        "größe",
        "a=b",
        "ema=2",
        "-o",
    ),
    *("no.json", "loop", "file", "macs=1", "latency=5ms", "0.3,0.5", ",", "1,2,3", "--", "-", "{}", "a?b", "%s"),
]
NUMBERS = [
    *("0", "-1", "1", "2", "7", "64", "0.5", "0.5x", "50%", "1e308G", "9e18", "99999999999999999999", "9" * 5000),
    *("1e999", "nan", "0.3x", "1e-9", "1M", "3KiB", "-0.5"),
]
COMMON: dict[str, tuple[list[str], tuple[type[Any], ...]]] = {
    "profile": (["NET"], (DataOptions,)),
    "plan": (["NET"], (Limits, TargetOptions, Search)),
    "compress": (["NET", "--data", "nowhere", "-o", "run"],
                 (Limits, TargetOptions, Search, DataOptions, TrainingOptions, MachineOptions, JobOptions)),
    "sweep": (["NET", "--data", "nowhere", "-o", "study"],
              (GridOptions, Limits, SweepOptions, TrainingOptions, MachineOptions)),
    "slim": (["NET", "--dead", "-o", "run"], (DataOptions, SlimOptions)),
    "evaluate": (["nowhere"], (DataOptions,)),
    "predict": (["nowhere", "no.png"], (DataOptions,)),
    "export": (["nowhere"], (TargetOptions,)),
    "measure": (["nowhere.onnx"], ()),
    "recommend": (["nowhere"], (Limits,)),
    "report": (["nowhere"], ()),
    "devices": ([], ()),
    "nonsense": (["x"], ()),
}  # fmt: skip
UNUSED = ("ssh", "watch")
"""They wait, for others"""


def command_line(random: Random, network: str) -> list[str]:
    """A command with some of its options, and values that most of them do not take."""
    name = random.choice(list(COMMON))
    given, kinds = COMMON[name]
    words = [name, *(network if word == "NET" else word for word in given)]
    options = {field.name.strip("_").replace("_", "-"): str(field.type) for kind in kinds for field in fields(kind)}
    options |= {"json": "bool"}
    if name in ("profile", "plan", "slim") and random.random() < 0.8:
        words += ["--input", "1x8x8"]
    for _ in range(random.choice([0, 1, 1, 2, 3])):
        option = random.choice([option for option in options if option not in UNUSED])
        kind = options[option]
        if "bool" in kind:
            words += [f"--{option}"]
        elif random.random() < 0.6 and ("int" in kind or "float" in kind or "Amount" in kind):
            words += [f"--{option}", random.choice(NUMBERS)]
        else:
            words += [f"--{option}", random.choice(WORDS)]
    if random.random() < 0.2:
        words.insert(random.randrange(len(words) + 1), random.choice(WORDS))
    return words


def test_command_lines_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0 with results, or 1 or 2 with one line that begins with ``error:``; no trace, no half-written file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("mine")
    random, codes, failures = Random(SEED), dict.fromkeys((0, 1, 2), 0), list[str]()
    for number in range(COMMANDS):
        words = command_line(random, "net.py:build")
        with pytest.raises(SystemExit) as ended:
            main(words)
        out, said = capsys.readouterr()
        code = ended.value.code
        wrong = ["Traceback", "fault of pretrim", "\x1b"]
        is_one_line = code == 0 or re.search(r"(^|\n)error: [^\n]+\n$", said)
        if code not in codes or any(part in out + said for part in wrong) or not is_one_line:
            failures.append(f"command {number}: {[word[:60] for word in words]}: {code}, {said[-300:]!r}")
        else:
            codes[code] += 1
    assert not failures, f"seed {SEED}: {len(failures)}\n" + "\n".join(failures[:20])
    assert (tmp_path / "file").read_text() == "mine"
    left = [path.name for path in tmp_path.rglob("*") if path.name.endswith(".tmp") or path.name.startswith("pretrim-")]
    assert left == []
    assert all(codes.values()), codes
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_the_last_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An error that nobody expected: one line, and the trace in a file."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(records, "load", lambda *args, **options: 1 / 0)
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "net.py").write_text(NET)
    with pytest.raises(SystemExit) as ended:
        main(["compress", f"{tmp_path}/net.py:build", "--data", "digits", "--plan", f"{tmp_path}/plan.json", "-o", "x"])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.count("\n") == 1
    match = re.fullmatch(
        r"error: This is a fault of pretrim.*\(ZeroDivisionError: .*\): please report it with the file (.*)\.\n", said
    )
    assert match is not None and "Traceback" in Path(match[1]).read_text()

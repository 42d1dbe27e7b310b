"""Run folders: what is saved comes back exactly, and whatever else is there is refused in one line."""

import hashlib
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as tensors_to_bytes
from torch import nn

import pretrim
from pretrim.analysis.identity import fingerprint
from pretrim.errors import CheckpointError, UsageError
from pretrim.models.resolve import build, resolve
from pretrim.runs.folder import prepare_output
from pretrim.runs.load import load, read
from pretrim.runs.save import named_tensors_twice, save

EXAMPLE = torch.zeros(1, 3, 8, 8)


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


class Tied(nn.Module):
    """Two 1x1 convolutions that share one weight, and a table that is not part of the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.a = nn.Conv2d(16, 16, 1)
        self.b = nn.Conv2d(16, 16, 1)
        self.b.weight = self.a.weight
        self.head = nn.Linear(16, 5)
        self.register_buffer("scale", torch.ones(16, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x)) * self.scale
        x = torch.relu(self.b(torch.relu(self.a(x))))
        return self.head(x.mean((2, 3)))


def slim_of(model: nn.Module, macs: str = "0.6x") -> nn.Module:
    """A slim network with random values in every tensor."""
    slim = pretrim.analyze(model, EXAMPLE).plan(macs=macs, round_to=1).apply(model).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in [*slim.parameters(), *slim.buffers()]:
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1.0)
    return slim


def assert_same(a: nn.Module, b: nn.Module) -> None:
    first, second = (dict(named_tensors_twice(model)) for model in (a, b))
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        assert torch.equal(first[name], second[name]), name


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save(slim_of(net()), tmp_path / "run", classes=list("abcde"), results={"test_accuracy": 0.5})
    return tmp_path / "run"


# ---------------------------------------------------------------------------------------- what comes back


def test_a_built_in_network_is_rebuilt_alone(tmp_path: Path) -> None:
    reference = resolve("resnet20", num_classes=10, input_shape=(3, 8, 8))
    slim = slim_of(build(reference), "0.5x")
    save(slim, tmp_path / "run", reference=reference)
    loaded = load(tmp_path / "run")
    assert_same(slim, loaded)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(slim(images), loaded(images))
    assert not loaded.training
    assert pretrim.plan_of(loaded) == pretrim.plan_of(slim)


def test_the_folder_holds_two_files_and_no_pickle(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["README.md", "run.json", "weights.safetensors"]
    assert [path.name for path in saved.parent.iterdir()] == ["run"]
    header = int.from_bytes((saved / "weights.safetensors").read_bytes()[:8], "little")
    assert json.loads((saved / "weights.safetensors").read_bytes()[8 : 8 + header])


def test_the_record_says_what_was_saved(tmp_path: Path) -> None:
    dense = net()
    slim = slim_of(dense)
    save(
        slim,
        tmp_path / "run",
        classes=list("abcde"),
        normalisation=([0.5, 0.4, 0.3], [1, 1, 2]),
        data={"name": "made up"},
        results={"test_accuracy": 0.25},
    )
    record = read(tmp_path / "run")
    assert record.plan == pretrim.plan_of(slim)
    assert record.reference is None
    assert (record.dense_fingerprint, record.slim_fingerprint) == (fingerprint(dense), fingerprint(slim))
    weights = (tmp_path / "run" / "weights.safetensors").read_bytes()
    assert record.weights_sha256 == hashlib.sha256(weights).hexdigest()
    assert record.versions["torch"] == torch.__version__
    assert record.versions["pretrim"] == pretrim.__version__
    assert record.classes == tuple("abcde")
    assert (record.layout, record.input_shape) == ("NCHW", (3, 8, 8))
    assert record.normalisation == ((0.5, 0.4, 0.3), (1.0, 1.0, 2.0))
    assert (record.data, record.results) == ({"name": "made up"}, {"test_accuracy": 0.25})


@pytest.mark.parametrize("source", ["module", "callable", "slim"])
def test_a_network_of_ones_own_is_given(tmp_path: Path, source: str) -> None:
    dense = net()
    slim = slim_of(dense)
    save(slim, tmp_path / "run")
    other = pretrim.plan_of(slim).apply(dense)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    given: Any = {"module": dense, "callable": net, "slim": other}[source]
    loaded = load(tmp_path / "run", model=given)
    assert_same(slim, loaded)
    assert loaded is not given and pretrim.plan_of(loaded) == pretrim.plan_of(slim)
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_a_network_with_weight_norm_is_given_after_a_training_step(tmp_path: Path) -> None:
    """The weight that it computed is part of a graph, which copy.deepcopy refuses."""
    model = nn.Sequential(torch.nn.utils.weight_norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), nn.Conv2d(8, 2, 3))
    slim = slim_of(model)
    slim(EXAMPLE).sum().backward()
    pretrim.save(slim, tmp_path / "run")
    assert torch.equal(pretrim.load(tmp_path / "run", model=slim)(EXAMPLE), slim(EXAMPLE))


def test_tied_tensors_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    slim = slim_of(Tied())
    save(slim, tmp_path / "run")
    assert read(tmp_path / "run").aliases == {"b.weight": "a.weight"}
    loaded = load(tmp_path / "run", model=Tied())
    assert loaded.b.weight is loaded.a.weight
    assert_same(slim, loaded)


def test_one_storage_under_two_parameters_is_stored_once(tmp_path: Path) -> None:
    slim = slim_of(net())
    slim[1].bias.data = slim[1].weight.data
    save(slim, tmp_path / "run")
    assert read(tmp_path / "run").aliases == {"1.bias": "1.weight"}
    assert_same(slim, load(tmp_path / "run", model=net))


def test_parts_of_one_storage_are_stored_apart(tmp_path: Path) -> None:
    slim = slim_of(net())
    width = slim[1].num_features
    both = torch.rand(2 * width)
    slim[1].weight.data, slim[1].bias.data = both[:width], both[width:]
    save(slim, tmp_path / "run")
    assert read(tmp_path / "run").aliases == {}
    assert_same(slim, load(tmp_path / "run", model=net))


def test_buffers_outside_the_state_dict_are_kept(tmp_path: Path) -> None:
    slim = slim_of(Tied())
    save(slim, tmp_path / "run")
    assert torch.equal(load(tmp_path / "run", model=Tied()).scale, slim.scale)


@pytest.mark.parametrize("saved_last", [False, True])
@pytest.mark.parametrize("loaded_last", [False, True])
def test_memory_format_is_the_models_own(tmp_path: Path, saved_last: bool, loaded_last: bool) -> None:
    def formatted(model: nn.Module, last: bool) -> nn.Module:
        return model.to(memory_format=torch.channels_last) if last else model

    slim = formatted(slim_of(net()), saved_last)
    assert slim[0].weight.is_contiguous() != saved_last
    save(slim, tmp_path / "run")
    loaded = load(tmp_path / "run", model=formatted(net(), loaded_last))
    assert_same(slim, loaded)
    assert loaded[0].weight.is_contiguous(memory_format=torch.channels_last) == loaded_last


def test_data_types_come_back(tmp_path: Path) -> None:
    slim = slim_of(net()).to(torch.float16)
    save(slim, tmp_path / "run")
    assert_same(slim, load(tmp_path / "run", model=net))


# ---------------------------------------------------------------------------------------- whose code runs

FILE = """
import pathlib
from torch import nn
pathlib.Path(__file__).with_suffix(".ran").touch()

def build(num_classes=10, in_channels=1):
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""


def test_a_users_file_is_run_only_when_it_is_named(tmp_path: Path) -> None:
    file, ran = tmp_path / "my_net.py", tmp_path / "my_net.ran"
    file.write_text(FILE)
    reference = resolve(f"{file}:build", num_classes=5, input_shape=(3, 8, 8))
    slim = slim_of(build(reference))
    save(slim, tmp_path / "run", reference=reference)
    ran.unlink()
    file.write_text(FILE + "# changed, so that it would be run again")
    with pytest.raises(UsageError, match=r"Expected model= \(--model\) .* from '.*my_net.py:build'"):
        load(tmp_path / "run")
    assert not ran.exists()
    assert_same(slim, load(tmp_path / "run", model=f"{file}:build"))
    assert ran.exists()


def test_a_name_is_enough_for_a_run_without_reference(tmp_path: Path) -> None:
    reference = resolve("resnet20", num_classes=5, input_shape=(3, 8, 8))
    slim = slim_of(build(reference))
    save(slim, tmp_path / "run", classes=list("abcde"))
    with pytest.raises(UsageError, match="but got none: the run was made from a module"):
        load(tmp_path / "run")
    assert_same(slim, load(tmp_path / "run", model="resnet20"))


def test_another_network_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="Expected the model that the run was made from"):
        load(saved, model=nn.Linear(2, 2))
    with pytest.raises(UsageError, match=r"to be, or to return, a torch.nn.Module, but got int"):
        load(saved, model=lambda: 3)  # type: ignore[arg-type, return-value]


# ---------------------------------------------------------------------------------------- damage


def damage_text(old: str, new: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        text = (run / "run.json").read_text()
        assert old in text
        (run / "run.json").write_text(text.replace(old, new, 1))

    return damage


def truncate(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).write_bytes((run / name).read_bytes()[:-100])

    return damage


def flip_byte(run: Path) -> None:
    content = bytearray((run / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "weights.safetensors").write_bytes(content)


def replace_weights(content: bytes) -> Callable[[Path], None]:
    """Other weights with a record that agrees with their SHA-256."""

    def damage(run: Path) -> None:
        record = json.loads((run / "run.json").read_text())
        record["weights"]["sha256"] = hashlib.sha256(content).hexdigest()
        (run / "run.json").write_text(json.dumps(record))
        (run / "weights.safetensors").write_bytes(content)

    return damage


def narrow_plan(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["plan"]["groups"][0]["kept"] -= 1
    (run / "run.json").write_text(json.dumps(record))


def rename_group(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["plan"]["groups"][0]["name"] = "other"
    (run / "run.json").write_text(json.dumps(record))


def remove(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated weights": (truncate("weights.safetensors"), "to have the SHA-256 .*, but got .* truncated or edited"),
    "edited weights": (flip_byte, "to have the SHA-256 .*, but got .* truncated or edited"),
    "no weights": (remove("weights.safetensors"), r"Cannot read the weights in .* \(No such file or directory\)"),
    "weights of no format": (replace_weights(b"PK" * 50), "as safetensors"),
    "weights of another network": (
        replace_weights(tensors_to_bytes({"x": torch.zeros(2)})),
        "Expected the tensors of the rebuilt network, but 0.weight is missing",
    ),
    "truncated record": (
        truncate("run.json"),
        r"run\.json is not valid JSON \(.*\)\. The file is truncated or edited, copy it again",
    ),
    "deep record": (
        lambda run: (run / "run.json").write_text("[" * 100_000),
        "run.json is damaged: it is nested too deeply",
    ),
    "no record": (remove("run.json"), r"No run in .*its run\.json: No such file"),
    "foreign record": (damage_text("pretrim-run", "other"), "is JSON, but not that of a run"),
    "other version": (damage_text('"version": 1', '"version": 99'), "a run of version 1, but got 99: update pretrim"),
    "narrower plan": (narrow_plan, r"Expected 0.weight to be \(.*\) as planned, but got \(.*\): the run is edited"),
    "plan of other groups": (rename_group, "Expected a plan for this network's channel groups"),
    "plan of another model": (damage_text('"dense": "', '"dense": "0'), "damaged .*its plan is for another model"),
    "no classes": (
        damage_text('"classes": [', '"klasses": ['),
        "is damaged.*object missing required field `classes`",
    ),
    "odd classes": (damage_text('"a",', "1,"), r"damaged: at \$\.classes\[0\], expected `str`, got `int`"),
    "odd input": (
        damage_text('"layout": "NCHW"', '"layout": "NHWC"'),
        r"damaged: at \$\.input\.layout, invalid enum value 'NHWC'",
    ),
    "odd example": (damage_text('"dtype": "float32"', '"dtype": "nn"'), "damaged .*"),
    "odd seed": (
        damage_text('"data": null', '"data": {"split_seed": 1.5}'),
        r"damaged: at \$\.data\.split_seed, expected `int`, got `float`",
    ),
    "odd sizes": (
        damage_text('"data": null', '"data": {"sizes": {"test": "many"}}'),
        r"damaged: at \$\.data\.sizes\[\.\.\.\], expected `int`, got `str`",
    ),
    "odd model": (damage_text('"model": null', '"model": {"name": 3, "arguments": {}}'), "damaged .*name of a model"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_named(saved: Path, kind: str) -> None:
    damage, message = DAMAGES[kind]
    damage(saved)
    with pytest.raises(CheckpointError, match=message) as raised:
        load(saved, model=net)
    assert "\n" not in str(raised.value)


# ---------------------------------------------------------------------------------------- where it is written


def test_an_existing_folder_is_not_touched(saved: Path) -> None:
    before = (saved / "run.json").read_bytes()
    with pytest.raises(CheckpointError, match=r"run exists: choose another folder, or --overwrite"):
        save(slim_of(net()), saved)
    assert (saved / "run.json").read_bytes() == before


def test_a_run_is_overwritten_when_asked(saved: Path) -> None:
    slim = slim_of(net(), "0.3x")
    save(slim, saved, overwrite=True)
    assert_same(slim, load(saved, model=net))
    assert [path.name for path in saved.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("into", [False, True], ids=["a folder", "the folder of a training"])
def test_a_full_disk_leaves_the_old_run(saved: Path, into: bool) -> None:
    """The system refuses to write the weights, as it does on a full disk (a limit on file sizes needs no root)."""
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard[1]))
    try:
        with pytest.raises(CheckpointError, match=r"Cannot write the folder .*: File too large"):
            save(slim_of(net(), "0.9x"), saved, overwrite=True, into=into)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, hard)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]


def test_only_a_run_is_overwritten(saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"run also holds notes\.txt, which does not belong to a run"):
        save(slim_of(net()), saved, overwrite=True)
    with pytest.raises(CheckpointError, match=r"notes\.txt is a file, not a run folder"):
        save(slim_of(net()), saved / "notes.txt", overwrite=True)
    assert (saved / "notes.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "run", tmp_path / "file" / "deeper" / "run"):
        with pytest.raises(CheckpointError, match=r"Cannot write the folder .*run: .*(file|directory)"):
            save(slim_of(net()), path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_output_is_prepared_without_leaving_anything(tmp_path: Path) -> None:
    assert prepare_output(tmp_path / "runs" / "one") == (tmp_path / "runs" / "one").resolve()
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_plan_and_odd_metadata_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Expected a slim network made by pretrim"):
        save(net(), tmp_path / "run")
    for odd in ({"data": {"x": torch.zeros(1)}}, {"results": {"loss": float("nan")}}, {"input_shape": (3,)}):
        with pytest.raises(UsageError, match="Expected metadata of a run as plain JSON, but"):
            save(slim_of(net()), tmp_path / "run", **odd)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_perhaps_meant_is_named(tmp_path: Path) -> None:
    """The folder of a file, a run in a folder, a trial of a study; nothing where there is none."""
    run = tmp_path / "study" / "trials" / "1a"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    for given in (tmp_path / "study", tmp_path / "study" / "trials"):
        with pytest.raises(CheckpointError, match=rf"`pretrim compress -o` wrote, such as {run}\.$"):
            read(given)
    (run / "weights.safetensors").touch()
    with pytest.raises(CheckpointError, match=rf"wrote, such as {run}\.$"):
        read(run / "weights.safetensors")
    (tmp_path / "empty").mkdir()
    for given in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(CheckpointError, match=r"`pretrim compress -o` wrote\.$"):
            read(given)

"""References to models: what a name refers to, which arguments its builder gets, and the error messages."""

import copy
import importlib
import importlib.util
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from pretrim.errors import ModelError, UsageError
from pretrim.models import BUILTIN, zoo
from pretrim.models.resolve import ModelReference, build, resolve

needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
)
needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")

RGB = (3, 32, 32)
NET = """
from torch import nn

def build(num_classes=10, in_channels=3):
    features = nn.Conv2d(in_channels, 4, kernel_size=3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*features, nn.Linear(4, num_classes))

def fixed():
    return nn.Linear(2, 2)

def sized(image_size):
    return nn.Linear(image_size, 1)

def loose(**anything):
    return nn.Linear(len(anything) + 1, 1)

def needy(num_classes, width):
    return nn.Linear(width, num_classes)

def broken():
    width = -1
    raise ValueError(f"a bad width:\\n  {width}")

def deep():
    return nn.Conv2d(3, 4, kernel_size=3, groups=2)

def leaves():
    raise SystemExit(3)

def lazy():
    from blocks_of_test_resolve import Block
    return Block()

def data():
    return {"no": "network"}

class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.classifier = nn.Linear(1, num_classes)

network = 3
built = fixed()
"""


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with net.py and a module that one of its functions imports when it is called."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "blocks_of_test_resolve.py").write_text("from torch import nn\nclass Block(nn.Module): pass\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No connection can be opened, and the caches of earlier downloads are empty."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))


def message_of(error: type[Exception], call: Callable[..., object], *args: object, **options: object) -> str:
    """The message of the error that a call raises; checks that it is a single line."""
    with pytest.raises(error) as raised:
        call(*args, **options)
    message = str(raised.value)
    assert "\n" not in message
    return message


# The reference


def test_reference_survives_json() -> None:
    reference = ModelReference("timm:vit_tiny_patch16_224", {"num_classes": 10, "in_chans": 1, "img_size": 64})
    assert ModelReference.from_json(json.loads(json.dumps(reference.to_json()))) == reference


def test_reference_can_be_copied_and_hashed() -> None:
    reference = resolve("vgg16", num_classes=10)
    assert copy.deepcopy(reference) == reference
    assert len({reference, resolve("vgg16", num_classes=10)}) == 1


def test_reference_does_not_share_the_callers_arguments() -> None:
    arguments = {"num_classes": 10}
    reference = ModelReference("vgg16", arguments)
    arguments["num_classes"] = 3
    assert reference.arguments == {"num_classes": 10}


@pytest.mark.parametrize(
    ("name", "trusted"),
    [
        ("vgg16", True),
        ("torchvision:resnet18", True),
        ("timm:resnet18", True),
        ("net.py:build", False),
        ("vgg61", False),
    ],
)
def test_only_a_user_file_is_untrusted(name: str, trusted: bool) -> None:
    assert ModelReference(name).trusted is trusted


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("vgg16", "'vgg16'"),
        ({"name": "vgg16"}, "{'name': 'vgg16'}"),
        ({"name": "vgg16", "arguments": {}, "x": 1}, "{'arguments': {}, 'name': 'vgg16', 'x': 1}"),
        (None, "None"),
    ],
)
def test_from_json_names_the_expected_form(data: object, shown: str) -> None:
    message = f"Expected a model reference to be {{name, arguments}}, but got {shown}."
    assert message_of(UsageError, ModelReference.from_json, data) == message


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (3, {}, "Expected the name of a model to be text, but got 3."),
        ("", {}, "Expected the name of a model to be text, but got ''."),
        ("vgg16", [1], "Expected a model's arguments to be a mapping, but got [1]."),
        ("vgg16", {"num_classes": "10"}, "Expected num_classes to be a positive integer, but got '10'."),
        ("vgg16", {"num_classes": True}, "Expected num_classes to be a positive integer, but got True."),
        ("vgg16", {"in_channels": 0}, "Expected in_channels to be a positive integer, but got 0."),
        (
            "timm:resnet18",
            {"checkpoint_path": "weights.pth"},
            "Expected a model's arguments to be among num_classes, in_channels, in_chans, image_size, "
            "img_size, input_size, but got 'checkpoint_path'.",
        ),
    ],
)
def test_reference_refuses_other_arguments(name: str, arguments: dict[str, int], message: str) -> None:
    assert message_of(UsageError, ModelReference.from_json, {"name": name, "arguments": arguments}) == message


# Built-in networks


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin(name: str) -> None:
    reference = resolve(name, num_classes=7, input_shape=(1, 32, 32))
    assert reference == ModelReference(name, {"num_classes": 7, "in_channels": 1})
    with torch.device("meta"):
        assert build(reference)(torch.empty(2, 1, 32, 32)).shape == (2, 7)


def test_arguments_that_are_not_given_are_left_to_the_builder() -> None:
    assert resolve("alexnet").arguments == {}


FORMS = (
    "(alexnet, vgg16, resnet20, resnet56, resnet110, resnet50, mobilenetv2, "
    "torchvision:NAME, timm:NAME, FILE.py:FUNCTION)"
)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("vgg61", " Did you mean vgg16?"),
        ("MobileNet-V2", " Did you mean mobilenetv2?"),
        ("foo", ""),
        ("foo:bar", ""),
        ("", ""),
    ],
)
def test_unknown_name(name: str, hint: str) -> None:
    assert (
        message_of(UsageError, resolve, name) == f"Expected a model that pretrim knows {FORMS}, but got '{name}'.{hint}"
    )


def test_a_folder_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"That is a folder: of a run, name the network that it was made from\.$"):
        resolve(str(tmp_path))


def test_a_dotted_module_name_is_answered_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "mine.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"Did you mean nets/mine\.py:build\?"):
        resolve("nets.mine:build")


def test_unknown_name_in_a_reference() -> None:
    with pytest.raises(UsageError, match="Did you mean vgg16"):
        build(ModelReference("vgg61"))


def test_argument_that_a_builtin_does_not_take() -> None:
    message = r"^Expected vgg16 to be callable with img_size=32, but Python says: got an unexpected"
    with pytest.raises(UsageError, match=message):
        build(ModelReference("vgg16", {"img_size": 32}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "Expected num_classes to be a positive integer, but got 0."),
        (
            {"input_shape": (32, 32)},
            "Expected input_shape to be (channels, height, width), but got (32, 32).",
        ),
        (
            {"input_shape": (32, 32, 3)},
            "Expected the input of vgg16 as channels x height x width, but got 32x32x3. Did you mean 3x32x32?",
        ),
        ({"input_shape": (3, 32, 0)}, "Expected width to be a positive integer, but got 0."),
    ],
)
def test_invalid_numbers_are_refused(options: dict[str, object], message: str) -> None:
    assert message_of(UsageError, resolve, "vgg16", **options) == message


# A user's file


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("build", {"num_classes": 5, "in_channels": 1}),
        ("fixed", {}),
        ("sized", {"image_size": 32}),
        ("loose", {}),
        ("Net", {"num_classes": 5}),
    ],
)
@pytest.mark.usefixtures("in_folder")
def test_builder_gets_the_arguments_that_its_signature_names(function: str, arguments: dict[str, int]) -> None:
    reference = resolve(f"net.py:{function}", num_classes=5, input_shape=(1, 32, 32))
    assert reference.arguments == arguments
    assert isinstance(build(reference), nn.Module)


def test_file_in_another_folder(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    reference = resolve(f"{in_folder}/net.py:build", num_classes=5, input_shape=RGB)
    assert build(reference)(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.usefixtures("in_folder")
def test_file_may_import_its_neighbours_late() -> None:
    before = list(sys.path)
    assert type(build(resolve("net.py:lazy"))).__name__ == "Block"
    assert sys.path == before


def test_file_may_import_its_neighbours_early(in_folder: Path) -> None:
    before = list(sys.path)
    (in_folder / "early.py").write_text("from blocks_of_test_resolve import Block\n")
    assert type(build(resolve("early.py:Block"))).__name__ == "Block"
    assert sys.path == before


def test_file_is_run_once_until_it_changes(in_folder: Path) -> None:
    source = (
        "import log_of_test_resolve as log\nfrom torch import nn\nlog.runs += 1\ndef build(): return nn.Linear({}, 1)\n"
    )
    (in_folder / "log_of_test_resolve.py").write_text("runs = 0\n")
    for width in (1, 1, 2, 2):
        (in_folder / "changing.py").write_text(source.format(width))
        network = build(resolve("changing.py:build"))
        assert isinstance(network, nn.Linear)
        assert network.in_features == width
    assert sys.modules["log_of_test_resolve"].runs == 2


def test_importing_a_file_leaves_no_bytecode_beside_it(in_folder: Path) -> None:
    (in_folder / "only.py").write_text("from torch import nn\ndef build(): return nn.Identity()\n")
    build(resolve("only.py:build"))
    assert not (in_folder / "__pycache__").exists()


ADVICE = (
    "A builder is given those of num_classes, in_channels and image_size that are known and that its "
    "signature names; anything else needs a default."
)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "net.py",
            "Expected FILE.py:FUNCTION, but got 'net.py'. Name the function as well, as in net.py:build.",
        ),
        (
            "no.py:build",
            "Expected 'no.py:build' to name a file, but there is no file no.py. Check the path.",
        ),
        (
            "net.py:bild",
            "net.py has no function 'bild'. Did you mean net.py:build?",
        ),
        (
            "net.py:zzz",
            "net.py has no function 'zzz'. "
            "It defines build, fixed, sized, loose, needy, broken, deep, leaves, lazy, data, Net.",
        ),
        (
            "net.py:network",
            "Expected net.py:network to be a function that returns a network, but it is a int.",
        ),
        (
            "net.py:built",
            "Expected net.py:built to be a function that returns a network, but it is a Linear.",
        ),
        (
            "net.py:needy",
            "Expected net.py:needy to be callable with num_classes=5, but Python says: "
            f"missing a required argument: 'width'. {ADVICE}",
        ),
    ],
)
@pytest.mark.usefixtures("in_folder")
def test_wrong_name_of_a_file_or_function(name: str, message: str) -> None:
    assert message_of(UsageError, resolve, name, num_classes=5) == message


@pytest.mark.usefixtures("in_folder")
def test_image_size_is_one_number() -> None:
    message = "Expected square images for net.py:sized (its image_size is one number), but got 32x48."
    assert message_of(UsageError, resolve, "net.py:sized", input_shape=(3, 32, 48)) == message


def _line(text: str) -> int:
    """The number of the line in net.py that contains a text."""
    return 1 + next(index for index, line in enumerate(NET.splitlines()) if text in line)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "net.py:broken",
            "net.py:broken did not build a network from no arguments: it raised ValueError: "
            f"a bad width: -1 (net.py:{_line('raise ValueError')}).",
        ),
        (  # raised inside PyTorch: the message names the user's line that led there
            "net.py:deep",
            "net.py:deep did not build a network from no arguments: it raised ValueError: "
            f"in_channels must be divisible by groups (net.py:{_line('groups=2')}).",
        ),
        (
            "net.py:leaves",
            "net.py:leaves did not build a network from no arguments: it raised SystemExit: 3 "
            f"(net.py:{_line('raise SystemExit')}).",
        ),
        ("net.py:data", "Expected net.py:data to return a torch.nn.Module, but it returned a dict."),
    ],
)
@pytest.mark.usefixtures("in_folder")
def test_file_whose_function_fails(name: str, message: str) -> None:
    assert message_of(ModelError, build, resolve(name)) == message


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (
            "import torch\nimport no_such_module\n",
            "ModuleNotFoundError: No module named 'no_such_module' (bad.py:2)",
        ),
        ("x = 1\ndef f(:\n", "SyntaxError: invalid syntax (bad.py:2)"),
        ("raise RuntimeError\n", "RuntimeError (bad.py:1)"),
        (
            "from .blocks import B\n",
            "ImportError: attempted relative import with no known parent package (bad.py:1)",
        ),
    ],
)
def test_file_that_cannot_be_imported(in_folder: Path, source: str, error: str) -> None:
    (in_folder / "bad.py").write_text(source)
    assert message_of(ModelError, resolve, "bad.py:build") == f"Cannot import bad.py: it raised {error}."
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    assert str(in_folder / "bad.py") not in files


def test_file_whose_neighbour_fails(in_folder: Path) -> None:
    (in_folder / "failing_of_test_resolve.py").write_text("x = 1\nraise OSError('no disk')\n")
    (in_folder / "first.py").write_text("import failing_of_test_resolve\n")
    message = "Cannot import first.py: it raised OSError: no disk (failing_of_test_resolve.py:2)."
    assert message_of(ModelError, resolve, "first.py:build") == message


# torchvision and timm


def test_importing_the_models_imports_no_zoo() -> None:
    code = (
        "import sys, pretrim.models, pretrim.models.resolve\n"
        "print([name for name in ('torchvision', 'timm') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_missing_package(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "torchvision", zoo.torchvision if package == "torchvision" else lambda: None)
    monkeypatch.setitem(sys.modules, package, None)
    message = (
        f"Cannot import the package {package} (ModuleNotFoundError: "
        f"import of {package} halted; None in sys.modules). Install it with: pip install 'pretrim[zoo]' "
        "(with a CPU-only torch: pip install --no-deps torchvision timm)."
    )
    assert message_of(UsageError, resolve, f"{package}:resnet18") == message


def test_a_torchvision_that_matches_torch_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fitting = ModuleType("torchvision")
    monkeypatch.setitem(sys.modules, "torchvision", fitting)
    monkeypatch.setattr(zoo, "_torchvision_without_compiled_half", lambda: pytest.fail("declared operators"))
    assert zoo.torchvision() is fitting


def test_a_torchvision_that_fails_for_another_reason_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> ModuleType:
        raise RuntimeError("no such file\nlibcudart.so")

    monkeypatch.setattr(importlib, "import_module", fail)
    monkeypatch.setattr(zoo, "_torchvision_without_compiled_half", lambda: pytest.fail("declared operators"))
    with pytest.raises(UsageError, match=r"\(RuntimeError: no such file libcudart\.so\)\. Install it with"):
        zoo.torchvision()


@needs_torchvision
def test_torchvision_is_imported_once() -> None:
    assert zoo.torchvision() is zoo.torchvision()
    assert hasattr(torch.ops.torchvision, "nms")


@needs_torchvision
@pytest.mark.parametrize(
    ("name", "side", "arguments", "output"),
    [
        ("squeezenet1_1", 32, {}, (2, 10)),
        ("googlenet", 32, {}, (2, 10)),  # it warns unless init_weights is given
        ("quantized_resnet18", 32, {}, (2, 10)),
        ("lraspp_mobilenet_v3_large", 64, {}, (2, 10, 64, 64)),  # it downloads weights for its backbone by default
        ("vit_b_32", 64, {"image_size": 64}, (2, 10)),
        ("maxvit_t", 224, {"input_size": 224}, (2, 10)),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_torchvision(name: str, side: int, arguments: dict[str, int], output: tuple[int, ...]) -> None:
    reference = resolve(f"torchvision:{name}", num_classes=10, input_shape=(3, side, side))
    assert reference.arguments == {"num_classes": 10, **arguments}
    with torch.device("meta"):
        result = build(reference).eval()(torch.empty(2, 3, side, side))
    assert (result["out"] if isinstance(result, dict) else result).shape == output


@needs_torchvision
def test_torchvision_keeps_its_own_initialisation() -> None:
    torch.manual_seed(0)
    ours = build(resolve("torchvision:squeezenet1_1", num_classes=10)).state_dict()
    torch.manual_seed(0)
    theirs = zoo.torchvision().models.squeezenet1_1(num_classes=10).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@needs_torchvision
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "torchvision:mobilenet_v4",
            {},
            "Expected a model that torchvision has, but got 'torchvision:mobilenet_v4'. "
            "Did you mean torchvision:mobilenet_v2, torchvision:mobilenet_v3_small, "
            "torchvision:mobilenet_v3_large?",
        ),
        (
            "torchvision:?",
            {},
            "Expected a model that torchvision has, but got 'torchvision:?'. "
            "torchvision.models.list_models() names them all.",
        ),
        (
            "torchvision:resnet18",
            {"input_shape": (1, 32, 32)},
            "Expected images of 3 channels for torchvision:resnet18, as for all of torchvision, but got 1. "
            "Use a network of timm: or a function of your own that changes the first convolution.",
        ),
    ],
)
def test_torchvision_usage(name: str, options: dict[str, object], message: str) -> None:
    assert message_of(UsageError, resolve, name, **options) == message


@needs_torchvision
def test_torchvision_network_that_fails() -> None:
    message = r"^torchvision:raft_small did not build a network from num_classes=2: it raised TypeError: "
    with pytest.raises(ModelError, match=message):
        build(resolve("torchvision:raft_small", num_classes=2))


@needs_timm
@pytest.mark.parametrize(
    ("name", "shape", "arguments"),
    [
        ("mobilenetv2_100", (1, 32, 32), {"in_chans": 1}),
        ("mobilenetv2_100.ra_in1k", (3, 32, 48), {"in_chans": 3}),
        ("vit_tiny_patch16_224", (3, 224, 224), {"in_chans": 3}),
        ("vit_tiny_patch16_224", (3, 64, 64), {"in_chans": 3, "img_size": 64}),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_timm(name: str, shape: tuple[int, int, int], arguments: dict[str, int]) -> None:
    reference = resolve(f"timm:{name}", num_classes=10, input_shape=shape)
    assert reference.arguments == {"num_classes": 10, **arguments}
    with torch.device("meta"):
        assert build(reference).eval()(torch.empty(2, *shape)).shape == (2, 10)


@needs_timm
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "timm:?",
            {},
            "Expected a model that timm has, but got 'timm:?'. timm.list_models() names them all.",
        ),
        (
            "timm:resnet18.nonsense",
            {},
            "Expected a tag that timm has, but got 'timm:resnet18.nonsense': "
            "Invalid pretrained tag (nonsense) for resnet18. Leave it out.",
        ),
        (
            "timm:vit_tiny_patch16_224",
            {"input_shape": (3, 32, 64)},
            "Expected square images for timm:vit_tiny_patch16_224 (its img_size is one number), but got 32x64.",
        ),
    ],
)
def test_timm_usage(name: str, options: dict[str, object], message: str) -> None:
    assert message_of(UsageError, resolve, name, **options) == message


@needs_timm
def test_timm_name_with_a_typo() -> None:
    message = r"^Expected a model that timm has, but got 'timm:mobilnetv2_100'\. Did you mean timm:mobilenetv2_"
    with pytest.raises(UsageError, match=message):
        resolve("timm:mobilnetv2_100")


@needs_timm
@pytest.mark.parametrize(
    "name",
    [
        "hf-hub:timm/resnet18.a1_in1k",
        "local-dir:/tmp",
        "resnet18.x:hf-hub:timm/resnet18",
        "hf_hub:a/resnet18",
    ],
)
@pytest.mark.usefixtures("no_network")
def test_timm_reads_nothing_from_elsewhere(name: str) -> None:
    with pytest.raises(UsageError, match=r"^Expected a (model|tag) that timm has, but got"):
        build(ModelReference(f"timm:{name}"))


@pytest.mark.parametrize("package", ["torchvision", "timm", "lightning"])
def test_a_user_file_may_import_a_torchvision_that_does_not_match_torch(tmp_path: Path, package: str) -> None:
    """In a separate process, where torchvision's operators have not been declared yet."""
    (tmp_path / "net.py").write_text(
        f"import {package}\nfrom torch import nn\n\ndef build():\n    return nn.Conv2d(3, 4, 3)\n"
    )
    code = "import pathlib, pretrim.models.userfile as own; own.load_function(pathlib.Path('net.py'), 'build')()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr

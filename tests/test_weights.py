"""Weights from a user's file: all supported ways to save them, and all errors for files that do not fit."""

import hashlib
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pretrim.errors import CheckpointError, UsageError
from pretrim.models.weights import load_weights


def net(width: int = 3) -> nn.Module:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(1, width, 3), norm=nn.BatchNorm2d(width), head=nn.Linear(width, 2)))


def loaded(path: Path) -> dict[str, torch.Tensor]:
    model = net()
    assert load_weights(model, path) == hashlib.sha256(path.read_bytes()).hexdigest()
    return dict(model.state_dict())


WRAPPINGS: list[tuple[str, Any]] = [
    ("plain.pth", lambda s: s),
    ("lightning.ckpt", lambda s: {"epoch": 3, "state_dict": {f"model.{k}": v for k, v in s.items()}}),
    ("parallel.pt", lambda s: {"model": {f"module.{k}": v for k, v in s.items()}, "optimizer": {"lr": 0.1}}),
    ("compiled.bin", lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()}),
    ("attribute.ckpt", lambda s: {"state_dict": {f"net.backbone.{k}": v for k, v in s.items()}}),
    ("basicsr.pth", lambda s: {"params": {k: torch.zeros_like(v) for k, v in s.items()}, "params_ema": s}),
    ("profiled.pth", lambda s: {**s, "total_ops": torch.zeros(1), "conv.total_params": torch.zeros(1)}),
    ("old.pth", lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")}),
]


@pytest.mark.parametrize(("name", "wrap"), WRAPPINGS)
def test_torch_files_are_read_with_any_wrapping(tmp_path: Path, name: str, wrap: Any) -> None:
    state = net().state_dict()
    torch.save(wrap(state), tmp_path / name)
    for key, tensor in loaded(tmp_path / name).items():
        assert torch.equal(tensor, state[key]), key


def test_safetensors_are_read(tmp_path: Path) -> None:
    state = net().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, state[key]) for key, tensor in loaded(tmp_path / "w.safetensors").items())


class Malicious:
    def __reduce__(self) -> Any:
        return (print, ("code that a pickle runs",))


def test_a_file_that_holds_code_is_refused_and_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": Malicious()}, tmp_path / "bad.pth")
    torch.save(net(), tmp_path / "module.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Malicious()))
    for name in ("bad.pth", "module.pth", "raw.pth"):
        with pytest.raises(CheckpointError, match=r"save model\.state_dict\(\) instead|copy it again"):
            load_weights(net(), tmp_path / name)
    assert capsys.readouterr().out == ""


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    torch.save(net(width=4).state_dict(), tmp_path / "wide.pth")
    torch.save({"conv.weight": torch.zeros(3, 1, 3, 3)}, tmp_path / "part.pth")
    torch.save({**net().state_dict(), "more": torch.zeros(1)}, tmp_path / "more.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "noise.pth").write_bytes(b"noise")
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    for name, message in (
        ("wide.pth", r"Expected conv.weight of .* to be \(3, 1, 3, 3\), but it is \(4, 1, 3, 3\)"),
        ("part.pth", r"but conv.bias is missing \(the first of its 1 names is conv.weight\)"),
        ("more.pth", "but more is not in the model"),
        ("list.pth", "it holds list, not a state dict"),
        ("noise.pth", "Expected"),
        ("noise.safetensors", "as safetensors"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_weights(net(), tmp_path / name)
    with pytest.raises(UsageError, match=r"Cannot read the weights in .* \(No such file"):
        load_weights(net(), tmp_path / "nothing.pth")
    (tmp_path / "w.onnx").touch()
    with pytest.raises(UsageError, match=r"in \.safetensors or \.pth, but got w\.onnx"):
        load_weights(net(), tmp_path / "w.onnx")


def test_a_file_that_does_not_fit_leaves_the_model_unchanged(tmp_path: Path) -> None:
    torch.save(net(width=4).state_dict(), tmp_path / "wide.pth")
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_weights(model, tmp_path / "wide.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

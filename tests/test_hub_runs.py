"""Tests of model cards and of runs on the hub; a small local server stands in for huggingface.co."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from PIL import Image

import pretrim
from pretrim.cli import main
from pretrim.errors import CheckpointError, UsageError
from pretrim.jobs.hub import fetch, push
from pretrim.jobs.run import Run
from pretrim.runs.card import EXPORTS_BEGIN, EXPORTS_END, plain
from pretrim.runs.load import read

hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("huggingface_hub.constants")
COMMIT = "a" * 40
EVIL = "<script>|**x**`\n---\nlicense: mit"


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that is needed to push and fetch a few small files."""

    files: ClassVar[dict[str, dict[str, bytes]]] = {}
    requests: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.requests.append(f"POST {self.path}")
        if self.path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request['organization']}/{request['name']}" if request.get("organization") else request["name"]
            self.files.setdefault(name, {})
            self.answer({"url": f"http://{self.headers['Host']}/{name}"})
            return
        if self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
            return
        name = re.match(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self.path)
        assert name is not None, self.path
        if name[2] == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            self.answer({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]})
            return
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.files[name[1]][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        url = f"http://{self.headers['Host']}/{name[1]}/commit/{COMMIT}"
        self.answer({"commitUrl": url, "commitOid": COMMIT, "success": True})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.requests.append(f"{self.command} {path}")
        model = re.match(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/[^/]+)?$", path)
        file = re.match(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        repository = self.files.get(model[1] if model else file[1] if file else "")
        if repository is None or (file and file[2] not in repository):
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif model and model[2] == "tree":
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": blob(data)}
                for name, data in repository.items()
            ]
            self.answer(rows)
        elif model:
            siblings = [{"rfilename": name} for name in repository]
            self.answer({"id": model[1], "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})
        else:
            assert file is not None
            data = repository[file[2]]
            self.answer(data, 200, {"ETag": f'"{blob(data)}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if not isinstance(content, bytes):
            self.send_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{http_server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    Hub.files.clear()
    Hub.requests.clear()
    yield address
    http_server.shutdown()
    http_server.server_close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a built-in network that also trained the dense network."""
    options: Any = {"input": "1x8x8", "max_images": 60, "epochs": 1, "batch_size": 30, "threads": 1, "train_on": "cpu"}
    output = tmp_path_factory.mktemp("runs") / "run"
    return pretrim.compress("resnet20", "digits", output=output, macs="0.3x", dense=True, **options)


def code_of(card: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    return code


def test_a_card_describes_the_run(run: Run) -> None:
    card = (run.path / "README.md").read_text()
    for split in ("test", "validation"):
        low, high = (100 * end for end in run.results[split]["interval_95"])
        accuracy, images = 100 * run.results[split]["accuracy"], run.results[split]["images"]
        text = f"{accuracy:.1f} % (95 %: {low:.1f} % to {high:.1f} %, n = {images})"
        assert text in card
    assert f"| MACs | {run.plan.dense['macs']:,} | {run.plan.slim['macs']:,} |" in card
    assert f"| stages.0.0.conv1 | 16 | {run.plan.groups[1].kept} |" in card
    assert "Limits: macs at most 0.3x." in card and "mode balanced" in card
    assert (run.path / "dense" / "README.md").exists()


def test_the_header_of_a_card_is_valid_for_the_hub(run: Run) -> None:
    data = hub.ModelCard((run.path / "README.md").read_text()).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("pretrim", "image-classification", "unknown")
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_type) == ("digits", "accuracy")
    assert result.metric_value == pytest.approx(run.accuracy, abs=1e-4)


def test_the_three_lines_of_code_in_a_card_run_unchanged(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run.path, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    Image.new("L", (8, 8)).save("image.png")
    code = code_of(Path("README.md").read_text())
    assert len(code.splitlines()) == 3
    exec(code, {})
    assert "'predictions'" in capsys.readouterr().out


def test_the_card_of_a_module_leaves_its_file_to_the_owner(tmp_path: Path) -> None:
    """The card has a placeholder for the owner's file, and loads a network without classes without naming any."""
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1))
    network = pretrim.analyze(model, torch.zeros(1, 1, 8, 8))
    slim = pretrim.apply(model, pretrim.plan(network, params="0.5x", round_to=1), network=network)
    pretrim.save(slim, tmp_path / "run")
    code = code_of((tmp_path / "run" / "README.md").read_text())
    assert code.splitlines()[1:] == ['run = pretrim.open_run(".", model="FILE.py:FUNCTION")', "print(run.model)"]


def test_untrusted_names_are_escaped_in_a_card(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1))
    network = pretrim.analyze(model, torch.zeros(1, 1, 8, 8))
    slim = pretrim.apply(model, pretrim.plan(network, params="0.5x", round_to=1), network=network)
    evaluation = {"accuracy": 0.5, "interval_95": [0.1, 0.9], "images": 4}
    results = {"test_accuracy": 0.5, "test": evaluation, "warnings": [EVIL], "epochs": [{}], "recipe": {}}
    pretrim.save(slim, tmp_path / "run", classes=[EVIL, "b"], data={"name": EVIL, "source": EVIL}, results=results)
    card = (tmp_path / "run" / "README.md").read_text()
    parsed = hub.ModelCard(card).data
    assert parsed.license == "unknown" and parsed.eval_results[0].dataset_name == EVIL
    body = card.split("\n---\n", 1)[1]
    assert "<script>" not in body and "**x**" not in body and plain(EVIL) in body


def test_an_export_is_listed_in_the_card_and_the_owners_edits_are_kept(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    copied = pretrim.open_run(shutil.copytree(run.path, tmp_path / "copy"))
    card = copied.path / "README.md"
    card.write_text(card.read_text().replace("license: unknown", "license: mit") + "\nMine.\n")
    artifact = copied.export("onnx").artifact
    text = card.read_text()
    row = f"| model.onnx | onnx, float32 | {artifact.file_bytes / 1024:,.1f} KiB | computes the same as PyTorch |"
    assert row in text and "license: mit" in text and text.endswith("\nMine.\n")
    assert text.count(EXPORTS_BEGIN) == text.count(EXPORTS_END) == 1
    card.write_text("all mine")
    copied.export("onnx", overwrite=True)
    assert card.read_text() == "all mine"


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(exit_info.value.code or 0), captured.out, captured.err


def test_a_pushed_run_is_fetched_and_has_the_same_accuracy(
    run: Run, server: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output, errors = call(capsys, "push", run.path, "hf:me/slim")
    assert code == 0 and output.strip() == f"{server}/me/slim", errors
    assert f"pushing 7 files of {run.path} to me/slim at {server}" in errors
    pushed = Hub.files["me/slim"]
    assert pushed["weights.safetensors"] == (run.path / "weights.safetensors").read_bytes()
    assert not any(name.startswith(("dense", "tracking", "training")) for name in pushed)
    assert 'run = pretrim.open_run("hf:me/slim")' in code_of(pushed["README.md"].decode())
    Hub.requests.clear()
    code, output, errors = call(capsys, "evaluate", "hf:me/slim", "--data", "digits", "--json")
    assert code == 0 and json.loads(output)["accuracy"] == run.accuracy
    assert errors.splitlines()[0] == (
        f"fetching run.json and weights.safetensors of me/slim from {server}, or from its cache"
    )
    fetched = {line.rpartition("/")[2] for line in Hub.requests if "/resolve/" in line}
    assert fetched == {"run.json", "weights.safetensors"}, "safetensors and JSON alone"
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save("image.png")
    exec(code_of(pushed["README.md"].decode()), {})
    captured = capsys.readouterr()
    assert "'predictions'" in captured.out and "fetching run.json" in captured.err, "never in silence"


def test_an_export_of_a_fetched_run_is_written_to_the_current_folder(
    run: Run, server: str, tmp_path: Path, monkeypatch: Any
) -> None:
    pytest.importorskip("onnxruntime")
    push(run.path, "hf:me/slim")
    monkeypatch.chdir(tmp_path)
    fetched = pretrim.open_run("hf:me/slim")
    before = sorted(path.name for path in fetched.path.iterdir())
    assert fetched.export("onnx").path.resolve() == tmp_path / "model.onnx"
    assert sorted(path.name for path in fetched.path.iterdir()) == before


@pytest.mark.parametrize("name", ["hf:", "hf:slim", "me/slim", "hf:a/b/c", "hf:../x y"])
def test_invalid_names_of_repositories_are_refused(run: Run, name: str) -> None:
    with pytest.raises(UsageError, match="Expected hf:OWNER/NAME, but got"):
        push(run.path, name)


def test_fetching_a_missing_or_foreign_repository_is_an_error(run: Run, server: str) -> None:
    with pytest.raises(CheckpointError, match=r"^Cannot fetch hf:me/none \(.*\): check the name and the network.$"):
        fetch("hf:me/none")
    Hub.files["me/other"] = {"config.json": b"{}"}
    with pytest.raises(CheckpointError, match=r"hf:me/other is not a run of pretrim: it has no run.json"):
        fetch("hf:me/other")
    push(run.path, "hf:me/slim")
    Hub.files["me/slim"]["weights.safetensors"] = b"other"
    with pytest.raises(CheckpointError, match="truncated or edited"):
        pretrim.open_run("hf:me/slim")


def test_a_damaged_run_is_not_pushed(server: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"No run in .*its run\.json: No such file"):
        push(tmp_path, "hf:me/slim")
    assert Hub.requests == []


def test_an_older_run_without_a_card_is_pushed_without_one(run: Run, server: str, tmp_path: Path) -> None:
    copied = shutil.copytree(run.path, tmp_path / "copy")
    (copied / "README.md").unlink()
    assert "README.md" not in push(copied, "hf:me/old").files
    assert read(fetch("hf:me/old")).weights_sha256 == read(run.path).weights_sha256

"""Measurements by the real worker, locally and through a real sshd, and their interpretation."""

import ast
import builtins
import dis
import getpass
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pretrim.compat.optional import NO_TELEMETRY
from pretrim.deploy import Artifact, Runtime, export
from pretrim.deploy.artifact import Port, write
from pretrim.deploy.runtimes import runtimes
from pretrim.errors import MeasureError, UsageError
from pretrim.measure import Latency, Protocol, deadline, measure
from pretrim.measure.compare import warning
from pretrim.measure.deadline import Patience
from pretrim.measure.record import MARK, parse_answer
from pretrim.measure.run import WORKER, check_ended, here, with_loaders
from pretrim.measure.ssh import REMOTE, Host

QUICK = Protocol(runs=4, processes=2, rounds=2, warmup_s=0.01)
SSHD = "/usr/sbin/sshd"


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A large and a small network for ONNX Runtime; the large one has 32 times the work."""
    folder, exported = tmp_path_factory.mktemp("artifacts"), {}
    for name, width in (("large", 128), ("small", 4)):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 64, 3)).eval()
        path = folder / f"{name}.onnx"
        exported[name] = export(network, path, "onnx", images=torch.randn(2, 3, 40, 40))
    return exported


def test_measurements_of_two_artifacts(artifacts: dict[str, Artifact]) -> None:
    large, small = measure([artifacts["large"], artifacts["small"]], QUICK)
    assert large.latency.median_s > 2 * small.latency.median_s
    assert (large.latency.runs, large.latency.processes) == (8, 2)
    assert large.latency.fastest_s <= large.latency.median_s <= large.latency.p90_s
    assert large.provider == "CPUExecutionProvider"
    assert large.file_bytes == artifacts["large"].path.stat().st_size
    assert large.memory_peak_bytes is not None and large.memory_added_bytes is not None
    assert large.memory_added_bytes < large.memory_peak_bytes < 2**30
    assert large.machine["runtime"].startswith("onnxruntime ")
    assert json.loads(json.dumps(large.to_json()))["latency"]["runs"] == 8
    assert (large.energy_j is None) == (large.energy_source is None)


def test_a_provider_that_is_missing_is_refused(
    artifacts: dict[str, Artifact], call: Callable[..., tuple[int, str, str]]
) -> None:
    """ONNX Runtime here has no GPU support; the time of the CPU is never reported as that of another provider."""
    command = ("measure", artifacts["small"].path, "--runs", "2", "--processes", "1")
    code, out, error = call(*command, "--provider", "cuda")
    assert (code, out) == (2, "") and "by --provider cuda, but it took CPUExecutionProvider: install its build" in error
    code, out, error = call(*command)
    assert code == 0 and "2 runs in 1 process;" in out and re.search(r"\d us ", out)


def test_statistics_of_latencies_by_hand() -> None:
    latency = Latency.of([[0.4, 0.1, 0.3], [0.2, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]])
    assert (latency.median_s, latency.p90_s, latency.fastest_s) == (pytest.approx(0.55), 0.9, 0.1)
    assert (latency.runs, latency.processes, latency.mean_s) == (10, 2, pytest.approx(0.55))
    assert Latency.of([[0.5]]).std_s == 0


def test_an_artifact_that_its_runtime_cannot_load_is_an_error(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """The checksum in the record is checked elsewhere; here the worker itself gets a broken file."""
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(artifacts["small"].path.read_bytes()[:200])
    with pytest.raises(MeasureError, match=r"The artifact did not run on this machine: .*INVALID_PROTOBUF"):
        measure([replace(artifacts["small"], path=broken)], QUICK)


def test_a_crash_of_the_runtime_is_an_error() -> None:
    with pytest.raises(MeasureError, match=r"The runtime crashed here \(SIGSEGV\)"):
        check_ended(-11, "", "here")


@pytest.mark.parametrize(
    ("code", "errors", "message"),
    [
        (-9, "", "The artifact was killed on pi4, probably for lack of memory"),
        (-999, "", r"The runtime crashed on pi4 \(signal 999\)"),
        (1, "evil\x1b[2J", r"did not run on pi4: evil\[2J\. Export"),
    ],
)
def test_other_failures_of_a_worker(code: int, errors: str, message: str) -> None:
    with pytest.raises(MeasureError, match=message):
        check_ended(code, errors, "on pi4")


def test_exactly_the_requested_number_of_runs_is_timed(artifacts: dict[str, Artifact]) -> None:
    """Nine runs do not divide evenly into five rounds; one round has a single run."""
    measurements = measure([artifacts["small"]], Protocol(runs=9, processes=1, rounds=5, warmup_s=0.0))
    assert measurements[0].latency.runs == 9


def test_a_missing_runtime_is_an_error() -> None:
    code = f"import sys; sys.modules['onnxruntime'] = None; exec(open({str(WORKER)!r}).read())"
    with pytest.raises(
        UsageError, match=r"onnxruntime is not installed on this machine.* pip install 'pretrim\[onnx\]'"
    ):
        run_worker([sys.executable, "-c", code])
    with pytest.raises(UsageError, match=r"onnxruntime is not installed on pi4: pip install onnxruntime there"):
        check_ended(1, "missing: onnxruntime (No module named onnxruntime)", "on pi4")


def run_worker(command: list[str]) -> None:
    request = {"artifacts": [{"path": "x", "runtime": "onnx", "shape": [1], "data_type": "float32"}], "threads": 1}
    request |= {"providers": [], "runs": 1, "rounds": 1, "warmup_s": 0}
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"request-{os.getpid()}.json"
    path.write_text(json.dumps(with_loaders(request)))
    try:
        result = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    finally:
        path.unlink()
    check_ended(result.returncode, result.stderr, "on this machine")


def test_the_worker_disables_the_telemetry_of_onnx_runtime(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """When it does, it first leaves a session file, ``.ses``, in the temporary folder."""
    item = {"path": str(artifacts["small"].path), "runtime": "onnx", "shape": [1, 3, 40, 40], "data_type": "float32"}
    request = {"artifacts": [item], "threads": 1, "providers": [], "runs": 1, "rounds": 1, "warmup_s": 0}
    request_file, temporary = tmp_path / "request.json", tmp_path / "temporary"
    request_file.write_text(json.dumps(with_loaders(request)))
    temporary.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != NO_TELEMETRY}
    environment["TMPDIR"] = str(temporary)
    subprocess.run([sys.executable, WORKER, request_file], env=environment, stdout=subprocess.DEVNULL, check=True)
    assert list(temporary.iterdir()) == []


def test_several_runtimes_are_not_compared(artifacts: dict[str, Artifact]) -> None:
    with pytest.raises(UsageError, match="Expected artifacts of one runtime to compare"):
        measure([artifacts["large"], replace(artifacts["small"], runtime="litert")], QUICK)


def test_a_protocol_without_runs_is_refused() -> None:
    with pytest.raises(UsageError, match="Expected runs to be at least 1, but got 0"):
        Protocol(runs=0)


# ---------------------------------------------------------------------------------------- answers


def answer(**changes: Any) -> str:
    machine = dict.fromkeys(("architecture", "system", "python", "runtime", "governor"), "x") | {"cpu": "A", "cores": 2}
    result = {"provider": "CPU", "samples_s": [0.1, 0.2], "energy_j": None, "energy_source": None}
    data = {"machine": machine, "results": [result], "memory_before_bytes": 5, "memory_peak_bytes": None}
    return f"noise of a runtime\n{MARK}{json.dumps(data | changes)}\n"


def test_an_answer_is_read_and_cleaned() -> None:
    machine = json.loads(answer().split(MARK)[1])["machine"]
    parsed = parse_answer(answer(machine=machine | {"cpu": "evil\x1b[2J" + "x" * 999, "extra": 1}), 1)
    assert parsed.machine["cpu"].startswith("evil[2Jx") and len(parsed.machine["cpu"]) <= 200
    assert "extra" not in parsed.machine
    assert (parsed.samples_s, parsed.memory_before_bytes) == (((0.1, 0.2),), 5)


def result(**changes: Any) -> list[dict[str, Any]]:
    return [{"provider": "CPU", "samples_s": [1], "energy_j": None, "energy_source": None} | changes]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "The worker gave no measurement: run it again."),
        (MARK + "{", "The worker's answer is not valid JSON ("),
        (MARK + "[" * 600 + "]" * 600, "The worker's answer is damaged: at $[0]"),
        (answer(results=[]), "The worker's answer has 0 results for 1 artifacts."),
        (answer(results=result(samples_s=[])), "at $.results[0].samples_s, expected `array` of length >= 1"),
        (answer(results=result(samples_s=[1, -1])), "at $.results[0].samples_s[1], expected `float` > 0.0"),
        (answer(results=result(samples_s=[True])), "at $.results[0].samples_s[0], expected `float`, got `bool`"),
        (answer(results=result(provider=[])), "at $.results[0].provider, expected `str`, got `array`"),
        (answer(results=result(energy_j="NaN")), "at $.results[0].energy_j, expected `float | null`, got `str`"),
        (answer(results=result(energy_j=float("inf"))), "worker's answer is not valid JSON (Infinity is not a number"),
        (answer(machine={}), "at $.machine, object missing required field"),
        (answer(memory_before_bytes=-3), "at $.memory_before_bytes, expected `int` >= 0"),
        (answer(memory_peak_bytes="much"), "at $.memory_peak_bytes, expected `int | null`, got `str`"),
    ],
)
def test_a_damaged_answer_of_the_worker_is_refused(text: str, message: str) -> None:
    with pytest.raises(MeasureError) as caught:
        parse_answer(text, 1)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).lower().endswith("run it again.")


# ---------------------------------------------------------------------------------------- not faster


def plan_with(widths: list[int], macs: int) -> dict[str, Any]:
    groups = [{"kept": width, "channels": 64, "layers": ["a"]} for width in widths]
    return {"slim": {"macs": macs}, "dense": {"macs": 100}, "groups": groups}


def test_the_warning_says_why_a_slim_network_is_not_faster(artifacts: dict[str, Artifact]) -> None:
    slim, dense = measure([artifacts["small"], artifacts["large"]], QUICK)
    artifact = replace(artifacts["small"], plan=plan_with([32, 32], 50))
    assert warning(artifact, slim, dense) is None  # faster
    assert warning(replace(artifact, plan=None), dense, slim) is None
    assert warning(replace(artifact, plan=plan_with([63], 99)), dense, slim) is None  # hardly fewer MACs
    slow = replace(dense, latency=replace(dense.latency, median_s=1.0))
    fast = replace(slim, latency=replace(slim.latency, median_s=0.9))
    text = warning(replace(artifact, plan=plan_with([31, 32], 50)), slow, fast)
    assert text is not None and text.startswith(
        "50 % of the MACs, but 111 % of the time: 1 of 2 widths are not multiples of 8"
    )
    assert "memory traffic" in (warning(artifact, slow, fast) or "")
    short = replace(slow, latency=replace(slow.latency, median_s=1e-5))
    shorter = replace(fast, latency=replace(fast.latency, median_s=0.9e-5))
    assert "so short that starting them takes the time" in (warning(artifact, short, shorter) or "")


# ---------------------------------------------------------------------------------------- over ssh


def imported(tree: ast.Module) -> set[str]:
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("path", [WORKER, REMOTE])
def test_code_that_runs_on_a_board_is_python_3_8_and_does_not_import_pretrim(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    assert not any(name.startswith("pretrim") for name in imported(tree))
    annotations = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert annotations  # so that `str | None` is never evaluated


@pytest.mark.parametrize("runtime", runtimes(), ids=lambda runtime: runtime.name)
def test_the_loader_of_a_runtime_is_python_3_8_and_self_contained(runtime: Runtime) -> None:
    loader = runtime.loader()
    tree = ast.parse(loader["source"], feature_version=(3, 8))
    assert [type(node) for node in tree.body] == [ast.FunctionDef] and loader["packages"]
    assert "pretrim" not in {name.partition(".")[0] for name in imported(tree)}
    names: dict[str, Any] = {}
    code = "from __future__ import annotations\n" + loader["source"]
    exec(compile(code, runtime.name, "exec"), names)
    code_objects = [names[loader["function"]].__code__]
    for code_object in code_objects:  # functions inside it are appended as they are met
        code_objects += [constant for constant in code_object.co_consts if hasattr(constant, "co_code")]
    used = {
        entry.argval
        for code_object in code_objects
        for entry in dis.get_instructions(code_object)
        if entry.opname == "LOAD_GLOBAL"
    }
    assert used <= set(dir(builtins))


@pytest.mark.parametrize("name", ["-oProxyCommand=touch /tmp/x", "a b", "host;ls", "$(id)@host", "", "user@-x", "a\nb"])
def test_names_that_are_not_hosts_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="Expected --ssh to be user@host"):
        Host(name)


@pytest.mark.parametrize("python", ["-c", "python3; ls", "$HOME/python", "a b", ""])
def test_names_that_are_not_interpreters_are_refused(python: str) -> None:
    with pytest.raises(UsageError, match="Expected --remote-python to be a path"):
        Host("pi4", python)


def test_names_of_hosts_are_accepted() -> None:
    for name in ("pi4", "pi@raspberrypi.local", "ssh://pi@10.0.0.5:2222", "[::1]", "user_1@host"):
        assert Host(name, "~/venv/bin/python3.11").name == name


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A real server on loopback with its own keys; yields the client's configuration and the remote folder."""
    if not os.access(SSHD, os.X_OK) or shutil.which("ssh") is None:
        pytest.skip("OpenSSH's server is not installed")
    folder = tmp_path_factory.mktemp("sshd")
    remote_temporary = folder / "remote"
    remote_temporary.mkdir()
    for name in ("host", "user", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    with socket.socket() as probe_for_port:
        probe_for_port.bind(("127.0.0.1", 0))
        port = probe_for_port.getsockname()[1]
    Path("/run/sshd").mkdir(exist_ok=True) if os.geteuid() == 0 else None
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"StrictModes no\nPidFile {folder}/pid\nUsePAM no\nPasswordAuthentication no\n"
        f"SetEnv TMPDIR={remote_temporary}\n"
    )
    key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{port} {key}\n")
    (folder / "config").write_text(
        f"Host board\nHostName 127.0.0.1\nPort {port}\nUser {getpass.getuser()}\nIdentityFile {folder}/user\n"
        f"IdentitiesOnly yes\nUserKnownHostsFile {folder}/known\nGlobalKnownHostsFile /dev/null\n"
    )
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield folder / "config", remote_temporary
    finally:
        server.terminate()
        server.wait()


def test_measurements_over_ssh(sshd: tuple[Path, Path], artifacts: dict[str, Artifact]) -> None:
    config, remote = sshd
    host = Host("board", sys.executable, config)
    large, small = measure([artifacts["large"], artifacts["small"]], QUICK, host)
    assert large.latency.median_s > 2 * small.latency.median_s
    assert large.machine["runtime"].startswith("onnxruntime ")
    assert list(remote.glob("pretrim-*")) == []


@pytest.fixture
def loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake ssh that runs the command on this machine; its shell prints a greeting first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(
        '#!/bin/sh\necho "{}"\necho "Welcome to pi4!"\nfor last; do :; done\nexec sh -c "$last"\n'
    )
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_a_greeting_of_the_remote_shell_is_ignored(loopback: Path, artifacts: dict[str, Artifact]) -> None:
    assert loopback.is_dir()
    measurements = measure([artifacts["small"]], QUICK, Host("pi4", sys.executable))
    assert measurements[0].latency.runs == 8


def test_an_artifact_that_is_missing_when_it_is_sent_is_an_error(
    loopback: Path, artifacts: dict[str, Artifact]
) -> None:
    missing = replace(artifacts["small"], path=loopback / "gone.onnx")
    with pytest.raises(MeasureError, match=r"Cannot read .*gone\.onnx: No such file"):
        measure([missing], QUICK, Host("pi4", sys.executable))


def test_a_failing_remote_worker_leaves_no_files(
    sshd: tuple[Path, Path], artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    config, remote = sshd
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"none")
    with pytest.raises(MeasureError, match=r"The artifact did not run on board: .*INVALID_PROTOBUF"):
        measure([replace(artifacts["small"], path=broken)], QUICK, Host("board", sys.executable, config))
    assert list(remote.glob("pretrim-*")) == []


def test_an_interruption_leaves_no_remote_files(sshd: tuple[Path, Path], artifacts: dict[str, Artifact]) -> None:
    config, remote = sshd
    code = (
        "import json, sys; from pathlib import Path; from pretrim.measure import Protocol, measure; "
        "from pretrim.measure.ssh import Host; from pretrim.deploy import read; "
        f"measure([read(Path({str(artifacts['large'].path)!r}))], Protocol(warmup_s=600), "
        f"Host('board', sys.executable, Path({str(config)!r})))"
    )
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as local:
        for _ in range(600):
            if any(remote.glob("pretrim-*")):
                break
            time.sleep(0.1)
        folders = list(remote.glob("pretrim-*"))
        assert len(folders) == 1 and folders[0].stat().st_mode & 0o777 == 0o700
        time.sleep(0.5)
        os.killpg(local.pid, 9)
    for _ in range(100):
        if not any(remote.glob("pretrim-*")):
            break
        time.sleep(0.1)
    assert list(remote.glob("pretrim-*")) == []


def test_hosts_that_refuse_the_connection(
    sshd: tuple[Path, Path], artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    config, remote = sshd
    text = config.read_text()
    cases = {
        "Permission denied": text.replace("/user\n", "/stranger\n"),
        "Host key verification failed": text.replace("UserKnownHostsFile ", "UserKnownHostsFile /nowhere"),
        "Connection refused": text.replace("Port ", "Port 1\n#"),
    }
    for message, changed in cases.items():
        config_file = tmp_path / "config"
        config_file.write_text(changed)
        with pytest.raises(MeasureError, match=f"Cannot measure on board: .*{message}") as caught:
            measure([artifacts["small"]], QUICK, Host("board", sys.executable, config_file))
        assert "\n" not in str(caught.value)
    with pytest.raises(MeasureError, match=r"Cannot measure on board: .*No such file"):
        measure([artifacts["small"]], QUICK, Host("board", "/nowhere/python", config))
    assert list(remote.glob("pretrim-*")) == []


# ---------------------------------------------------------------------------------------- models that never end

ENDLESS = """
from onnx import TensorProto, checker, helper
import sys
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
condition = [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("c", 9))]
body = helper.make_graph([helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Sin", ["v"], ["w"])], "body",
    [*condition, helper.make_tensor_value_info("v", 1, [1])],
    [helper.make_tensor_value_info("d", 9, []), helper.make_tensor_value_info("w", 1, [1])])
yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("yes", 9, [], [True]))
graph = helper.make_graph([yes, helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)], "endless", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
checker.check_model(model)
open(sys.argv[1], "wb").write(model.SerializeToString())
"""


@pytest.fixture
def endless_model(tmp_path: Path, artifacts: dict[str, Artifact]) -> Artifact:
    """A model with an endless loop."""
    path = tmp_path / "endless.onnx"
    subprocess.run([sys.executable, "-c", ENDLESS, str(path)], check=True)
    content = path.read_bytes()
    port = Port(shape=(1,), data_type="float32")
    sha256, size = hashlib.sha256(content).hexdigest(), len(content)
    artifact = replace(
        artifacts["small"], path=path, input=port, sha256=sha256, file_bytes=size, plan=None, classes=None
    )
    write(artifact, content)
    return artifact


def test_a_measurement_that_never_ends_is_stopped(endless_model: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "STILL_S", 0.5)
    messages: list[str] = []
    with pytest.raises(MeasureError, match=r"the measurement did not end within 3 s, and was stopped\."):
        measure([endless_model], QUICK, partial(here, patience=Patience(3.0, messages.append)))
    assert messages and re.fullmatch(r"still waiting for the measurement \(\d+ s\)", messages[0])


def test_sigterm_also_ends_the_worker(endless_model: Artifact) -> None:
    command = [sys.executable, "-m", "pretrim", "measure", str(endless_model.path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        workers: list[str] = []
        while not workers:
            assert process.poll() is None
            workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
            time.sleep(0.05)
        process.terminate()
        assert process.wait(timeout=60) == 143
        assert not Path(f"/proc/{workers[0]}").exists()


class ManyInputs(nn.Module):
    """Sums the means of 11 images, each of another size, so that a wrong order does not run."""

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        return torch.stack([image.mean(dim=(2, 3)) for image in images]).sum(dim=0)


def test_inputs_are_given_in_their_order_from_the_eleventh_on(tmp_path: Path) -> None:
    """As text, args_10 sorts before args_2."""
    images = tuple(torch.rand(2, 2, 4, 4 + number) for number in range(11))
    artifact = export(ManyInputs(), tmp_path / "many.tflite", "litert", images=images)
    (measurement,) = measure([artifact], Protocol(runs=2, processes=1, warmup_s=0.0))
    assert measurement.artifact == str(artifact.path)

"""A run folder belongs to one training at a time: a second one is refused, and a stale lock blocks nobody."""

import multiprocessing
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_checkpoint import net, slim_of

from pretrim.errors import CheckpointError
from pretrim.runs import lock as locks
from pretrim.runs.folder import output_folder, prepare_output
from pretrim.runs.load import read
from pretrim.runs.lock import holder, locked
from pretrim.runs.owner import machine
from pretrim.runs.record import LOCK, RECORD, STATE
from pretrim.runs.save import save

RUNNING = (
    r"^A training is running in .*run \(process \d+ on .*\): wait until it ends, stop it, or choose another folder"
)


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}], ids=str)
def test_a_live_training_keeps_its_folder(tmp_path: Path, options: dict[str, bool]) -> None:
    run = tmp_path / "run"
    with output_folder(run):
        (run / STATE).write_bytes(b"mine")
        for attempt in (lambda: prepare_output(run, **options), lambda: output_folder(run, **options).__enter__()):
            with pytest.raises(CheckpointError, match=RUNNING):
                attempt()
        with pytest.raises(CheckpointError, match=RUNNING):
            save(slim_of(net()), run, overwrite=True)
        with pytest.raises(CheckpointError, match=RUNNING):
            read(run)
        assert (run / STATE).read_bytes() == b"mine"
    assert not (run / LOCK).exists() and (run / STATE).exists()
    with pytest.raises(CheckpointError, match="an interrupted training"):
        prepare_output(run)


def test_a_run_that_another_training_finished_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """Both trainings start while there is no folder, and the second is slow to analyse its network."""
    run = prepare_output(tmp_path / "run")
    with output_folder(run):
        (run / RECORD).write_text("theirs")
    with pytest.raises(CheckpointError, match=r".* exists"), output_folder(run):
        pass
    assert (run / RECORD).read_text() == "theirs"
    with output_folder(run, overwrite=True):
        pass
    assert [entry.name for entry in run.iterdir()] == [RECORD]


def test_a_training_that_wrote_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), output_folder(tmp_path / "new" / "run"):
        1 / 0  # noqa: B018
    assert not (tmp_path / "new" / "run").exists()


@pytest.mark.parametrize("owner", [f"{machine()}:999999999:dead", "", "nonsense", "a:b:c"])
def test_a_stale_lock_blocks_nobody(tmp_path: Path, owner: str) -> None:
    (tmp_path / LOCK).write_text(owner)
    if not owner:  # left by a process that was killed while creating it
        assert holder(tmp_path) == "a process that starts at this moment"
        os.utime(tmp_path / LOCK, times=(0, time.time() - locks.GRACE_S - 1))
    with locked(tmp_path, tmp_path) as lock:
        assert lock.is_held() and holder(tmp_path) is not None
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_machine_is_respected_while_it_is_touched(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("elsewhere/1:1:abc")
    with pytest.raises(CheckpointError, match=r"\(process 1 on elsewhere\)"), locked(tmp_path, tmp_path):
        pass
    os.utime(tmp_path / LOCK, times=(0, time.time() - locks.GRACE_S - 1))
    with locked(tmp_path, tmp_path):
        pass


def test_a_training_that_was_suspended_notices_that_it_lost_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "BEAT_S", 60.0)
    with locked(tmp_path, tmp_path) as first:
        os.utime(tmp_path / LOCK, times=(0, time.time() - locks.GRACE_S - 1))
        with locked(tmp_path, tmp_path) as second:
            first.check()  # it has not noticed yet
            assert not first.beat() and second.beat()
            with pytest.raises(CheckpointError, match=r"took .* over, as this one stalled"):
                first.check()
            second.check()
    assert list(tmp_path.iterdir()) == []


def contend(folder: Path, seconds: float) -> None:
    """Take the lock repeatedly, and write and read a file that only its holder may touch."""
    end, process_id = time.monotonic() + seconds, str(os.getpid())
    while time.monotonic() < end:
        try:
            with locked(folder, folder):
                (folder / "holder").write_text(process_id)
                time.sleep(0.001)
                assert (folder / "holder").read_text() == process_id
        except CheckpointError:
            pass


@pytest.mark.filterwarnings("ignore:os.fork")  # JAX warns of it if another test of this process has imported it
def test_only_one_of_many_processes_holds_the_lock(tmp_path: Path) -> None:
    """A killed process may leave a stale lock, which several others then try to take over at once."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=contend, args=(tmp_path, 1.5)) for _ in range(4)]
    for worker in workers:
        worker.start()
    time.sleep(0.5)
    workers[0].kill()  # perhaps while it holds the lock
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers[1:]] == [0, 0, 0]


TRAINING = """
import sys
from pathlib import Path
from pretrim.runs.folder import output_folder
with output_folder(Path(sys.argv[1])):
    Path(sys.argv[1], "training.safetensors").write_bytes(b"mine")
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_kill_9_frees_the_folder_at_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-c", TRAINING, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        with pytest.raises(CheckpointError, match=rf"process {process.pid} on"):
            prepare_output(run, overwrite=True)
        process.kill()
    with pytest.raises(CheckpointError, match="an interrupted training"):
        prepare_output(run)
    with output_folder(run, resume=True):
        assert (run / STATE).read_bytes() == b"mine"


def test_a_full_disk_leaves_no_lock(tmp_path: Path) -> None:
    """The lock file is created but writing to it fails; the next training must not have to wait."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"^Cannot write the folder .*run: File too large\."):
            output_folder(tmp_path / "run").__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "run").exists()
    with output_folder(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists()

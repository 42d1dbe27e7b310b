"""Around a model on a microcontroller: C++ sources, the check against a board, and Ethos-U estimates."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from small import images, small

from pretrim.deploy import Artifact, check, export, vela, write_sources
from pretrim.devices import board
from pretrim.errors import ExportError, PretrimError, UsageError
from pretrim.jobs.export import limits_in_bytes
from pretrim.jobs.options import Search, TargetOptions
from pretrim.jobs.target import find_target
from pretrim.present.artifact import board_rows, check_board


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("micro") / "model.tflite"
    return export(small(), path, "litert", images=images(9), calibration=images(30, seed=2))


def test_the_array_in_the_sources_is_the_model(artifact: Artifact, tmp_path: Path) -> None:
    """If there is a compiler, a C++ program is built that writes the array out again."""
    folder = tmp_path / "sources"
    files = write_sources(artifact, folder, arena_bytes=10_000)
    assert [file.name for file in files] == ["model_data.h", "model_data.cc", "main.cc"]
    values = re.findall(r"\d+", (folder / "model_data.cc").read_text().partition("= {")[2])
    assert bytes(map(int, values)) == artifact.path.read_bytes()
    assert f"kArenaSize = {11_008};" in (folder / "model_data.h").read_text()  # a tenth more, in steps of 16
    main = (folder / "main.cc").read_text()
    assert "MicroMutableOpResolver<6>" in main and "resolver.AddDepthwiseConv2D()" in main
    assert main.startswith("// Made by pretrim. Not compiled there")
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    dump = tmp_path / "dump.cc"
    dump.write_text(
        '#include "model_data.h"\n#include <cstdio>\nint main() { fwrite(kModel, 1, kModelSize, stdout); }\n'
    )
    sources = [folder / "model_data.cc", dump]
    subprocess.run(
        [compiler, "-std=c++17", "-Wall", "-Werror", "-I", folder, *sources, "-o", tmp_path / "dump"], check=True
    )
    assert subprocess.run([tmp_path / "dump"], capture_output=True).stdout == artifact.path.read_bytes()


def test_sources_need_a_tflite_file_and_a_folder(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Expected a \.tflite for C\+\+ sources"):
        write_sources(replace(artifact, runtime="onnx"), tmp_path, 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="Cannot write in "):
        write_sources(artifact, tmp_path / "file", 1)


def test_a_board_with_enough_memory_and_one_without(artifact: Artifact) -> None:
    report = check(artifact, board("nrf52840"))
    assert (report["verified"], report["problems"], report["ethos_u"]) == (True, [], None)
    assert report["flash_bytes"] == artifact.file_bytes + report["runtime_flash_bytes"]
    assert report["largest_difference"] <= 1
    tiny = replace(board("nrf52840"), ram_bytes=4096, flash_bytes=50_000)
    problems = check(artifact, tiny)["problems"]
    assert len(problems) == 2 and "bytes of flash, of 50,000" in problems[0] and "of RAM, of 4,096" in problems[1]
    with pytest.raises(UsageError, match="for the microcontroller nrf52840, but got one for onnx"):
        check(replace(artifact, runtime="onnx"), board("nrf52840"))


def test_a_file_is_compared_with_the_limits_of_its_plan_and_not_with_the_whole_board(artifact: Artifact) -> None:
    """The file would fit the board many times over, but is refused: the rest belongs to the application."""
    board_arena = check(artifact, board("nrf52840"))["arena_bytes"]
    limits = {"artifact_bytes": artifact.file_bytes - 1, "arena_bytes": board_arena}
    report = check(artifact, board("nrf52840"), limits)
    assert report["problems"] == [
        f"its file takes {artifact.file_bytes:,} bytes, more than the limit of {artifact.file_bytes - 1:,}"
    ]
    with pytest.raises(PretrimError, match=r"model.tflite does not fit nrf52840: its file takes"):
        check_board({**artifact.to_json(), "path": str(artifact.path), "board": report})
    rows = dict(board_rows(report))
    assert rows["file against its limit"].startswith("too large") and rows["arena against its limit"].startswith("fits")


def test_limits_of_a_plan_apply_if_it_was_made_for_this_board() -> None:
    """A share refers to the plan's dense network; the smaller of the target's and the plan's limits applies."""
    target = find_target(TargetOptions(device="nrf52840"), {}, Search(), exports=False)
    dense = {"artifact_bytes": 40_000, "arena_bytes": 20_000}
    plan = {"device": {"name": "nrf52840", "dense": dense}, "limits": {"arena_bytes": "0.5x", "macs": "0.5x"}}
    board_limits = board("nrf52840").limits()
    assert limits_in_bytes(target, plan) == {**board_limits, "arena_bytes": 10_000}
    assert limits_in_bytes(target, {**plan, "device": {"name": "rp2040", "dense": dense}}) == board_limits
    assert limits_in_bytes(target, None) == board_limits


def test_vela(artifact: Artifact, tmp_path: Path) -> None:
    small_estimate = vela.estimate(artifact.path, "ethos-u55-32", 5e8)
    large_estimate = vela.estimate(artifact.path, "ethos-u55-256", 5e8)
    assert large_estimate.cycles < small_estimate.cycles  # eight times the multipliers
    assert small_estimate.seconds == pytest.approx(small_estimate.cycles / 5e8)
    assert small_estimate.cpu_operators == 0 and 0 < small_estimate.sram_bytes < 100_000
    assert vela.estimate(artifact.path, "ethos-u55-32", 5e8) == small_estimate
    assert check(artifact, board("grove-vision-ai-v2"))["ethos_u"]["configuration"] == "ethos-u55-64"
    with pytest.raises(UsageError, match="Expected a configuration such as ethos-u55-128, but got '--help'"):
        vela.estimate(artifact.path, "--help", 1.0)
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"none")
    with pytest.raises(ExportError, match="vela could not compile"):
        vela.estimate(broken, "ethos-u55-32", 5e8)

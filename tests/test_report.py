"""The page in a real browser, with hostile names; figures; the commands."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import pretrim
from pretrim.cli import main
from pretrim.cli.recommend import show
from pretrim.cli.study_table import show_trials
from pretrim.errors import UsageError
from pretrim.jobs.study import Advice, limits_of
from pretrim.latency import PROVIDERS, LatencyKey, Table, save_table, wanted_axes
from pretrim.latency.cost import key_of as latency_key
from pretrim.latency.table import Correction, Curve, cache_folder
from pretrim.measure.worker import cpu_name
from pretrim.models import BUILTIN
from pretrim.report import write_figures, write_page
from pretrim.report.figures import _draw
from pretrim.report.page import LARGEST_BYTES, page
from pretrim.study.recommend import BY_NAME, candidates, recommend
from pretrim.study.rows import Trial
from pretrim.study.settings import TrialSpec

EVIL = "</script><img src=x onerror=\"document.title='owned'\"><!-- '\"&"
CHROMIUM = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


def trial(
    number: int, mode: str, keep: float, accuracy: float, *, seed: int = 0, latency: float | None = None
) -> Trial:
    macs = int(40_000_000 * keep)
    costs = {
        "params": int(270_000 * keep**1.5),
        "macs": macs,
        "weight_bytes": int(1_080_000 * keep**1.5),
        "activation_bytes": int(800_000 * keep),
        "peak_activation_bytes": int(200_000 * keep),
        "artifact_bytes": int(330_000 * keep),
        "arena_bytes": int(82_000 * keep),
    }
    dense = {name: int(value / keep) for name, value in costs.items()}
    return Trial(
        key=f"{number:016x}",
        number=number,
        spec=TrialSpec(mode, keep if mode != "dense" else 1.0, "macs", seed),
        state="done",
        record={
            "costs": costs,
            "dense": dense,
            "widths": [int(16 * keep) or 1, int(32 * keep) or 1],
            "validation_accuracy": accuracy,
            "test_accuracy": accuracy - 0.01,
            "epochs": [[2.0, accuracy / 2, accuracy / 2], [1.0, accuracy, accuracy]],
            "seconds": 12.0,
        },
        measured=None if latency is None else {"latency_s": latency},
    )


TRIALS = [
    trial(0, "dense", 1.0, 0.90, latency=0.004),
    trial(1, "params", 0.5, 0.88, latency=0.003),
    trial(2, "macs", 0.5, 0.87, latency=0.0025),
    trial(3, "uniform", 0.5, 0.85, latency=0.0028),
    trial(4, "params", 0.25, 0.80, latency=0.002),
    trial(5, "macs", 0.25, 0.82, latency=0.0015),
    trial(6, "uniform", 0.25, 0.79, latency=0.0021),
    trial(7, "macs", 0.25, 0.81, seed=1, latency=0.0016),
    Trial(key="f" * 16, number=8, spec=TrialSpec("macs", 0.1, "macs"), state="failed", error=EVIL),
]
NETWORK = {
    "model": EVIL,
    "input_shape": [3, 32, 32],
    "classes": [EVIL, "=cmd|' /C calc'!A0"],
    "data": "digits",
    "groups": [EVIL, "stage"],
    "channels": [16, 32],
    "layers": [f"{EVIL}{n}" for n in range(3)],
    "shares": {"params": [0.1, 0.2, 0.7], "macs": [0.5, 0.3, 0.2], "memory": [0.6, 0.3, 0.1]},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api")
    executable = next((path for path in CHROMIUM if Path(path).exists()), None)
    if executable is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with sync.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield started
        started.close()


class Opened:
    """The page, and everything that a browser complains of."""

    def __init__(self, browser: Any, file: Path, **settings: Any) -> None:
        self.context = browser.new_context(offline=True, accept_downloads=True, **settings)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.problems.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("#tradeoff .plotly")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    write_page(path, EVIL, TRIALS, NETWORK)
    return path


def test_the_page_opens_offline_without_errors_and_asks_for_nothing(browser: Any, file: Path) -> None:
    opened = Opened(browser, file)
    assert opened.problems == []
    assert opened.requests == [file.as_uri()]
    assert file.stat().st_size <= LARGEST_BYTES
    assert opened.page.locator("#table tbody tr").count() == 8
    opened.context.close()


def test_hostile_names_stay_texts(browser: Any, file: Path) -> None:
    opened = Opened(browser, file)
    assert opened.page.title() == f"{EVIL}: trade-off"
    assert opened.page.locator("h1").inner_text().startswith(EVIL)
    assert EVIL in opened.page.locator("#failed li").inner_text()
    assert EVIL in opened.page.locator("#about").inner_text()
    assert opened.page.locator("img").count() == 0
    opened.page.locator("#resource").select_option("params")
    assert opened.problems == [] and opened.requests == [file.as_uri()]
    opened.context.close()


def test_a_limit_changes_what_is_recommended(browser: Any, file: Path) -> None:
    opened = Opened(browser, file)
    answer = opened.page.locator("#answer")
    assert "dense, seed 0: 90.0 % validation" in answer.inner_text()
    slider = opened.page.locator("#limit-macs")
    slider.focus()
    slider.press("ArrowLeft")  # from no limit to the largest value: all fit
    assert "8 of 8 networks fit" in answer.inner_text()
    slider.press("ArrowLeft")
    said = answer.inner_text()
    assert "params at 0.5 of macs, seed 0: 88.0 % validation" in said and "7 of 8 networks fit" in said
    assert "Test accuracy 87.0 %" in said
    assert "+2.0 points for +20.0 M MACs: dense, seed 0" in said
    assert opened.page.locator("#table tbody tr.out").count() == 1
    opened.page.locator("#limit-latency").fill("0")
    said = answer.inner_text()
    assert "macs at 0.25 of macs, seed 0: 82.0 %" in said and "for +500 µs" not in said
    opened.context.close()


def test_the_table_sorts_and_chooses_by_keyboard(browser: Any, file: Path) -> None:
    opened = Opened(browser, file)
    first = opened.page.locator("#table tbody tr").first
    assert first.inner_text().startswith("dense")
    button = opened.page.get_by_role("button", name="MACs")
    button.focus()
    button.press("Enter")
    assert "at 0.25 of macs" in first.inner_text()
    assert opened.page.locator('th[aria-sort="ascending"]').inner_text() == "MACs ↑"
    opened.page.keyboard.press("Enter")
    assert first.inner_text().startswith("dense")
    last = opened.page.locator("#table tbody tr").last
    last.focus()
    last.press("Enter")
    key = re.search(r"trials/(\w+)", opened.page.locator("#chosen").inner_text())
    assert key is not None and int(key[1], 16) in (4, 5, 6, 7)
    opened.context.close()


def test_the_csv_has_every_row_and_no_formula(browser: Any, tmp_path: Path) -> None:
    odd = [*TRIALS[:2], Trial(**{**vars(TRIALS[2]), "key": "=1+1"})]
    file = tmp_path / "report.html"
    write_page(file, "study", odd, NETWORK)
    opened = Opened(browser, file)
    with opened.page.expect_download() as waiting:
        opened.page.locator("#csv").click()
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text())))
    assert sorted(row["key"] for row in rows) == ["'=1+1", TRIALS[0].key, TRIALS[1].key]
    assert {int(row["macs"]) for row in rows} == {40_000_000, 20_000_000}
    assert opened.problems == []
    opened.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_both_schemes(browser: Any, file: Path, scheme: str) -> None:
    opened = Opened(browser, file, color_scheme=scheme, viewport={"width": 375, "height": 740})
    width = opened.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 375, "nothing sticks out sideways"
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")
    assert opened.problems == []
    opened.context.close()


def test_no_button_sends_a_chart_away(browser: Any, file: Path) -> None:
    """Plotly 7 has one that uploads to its own cloud, unless it is told not to."""
    opened = Opened(browser, file)
    buttons = opened.page.eval_on_selector_all(".modebar-btn", "all => all.map((one) => one.dataset.title)")
    assert "Zoom" in buttons and not [title for title in buttons if "Share" in title or "loud" in title]
    opened.context.close()


def test_the_legend_keeps_each_modes_colour_and_place(browser: Any, file: Path) -> None:
    """Whatever is chosen, or out of the limits, and where the legend takes three rows."""
    opened = Opened(browser, file, viewport={"width": 390, "height": 740})
    opened.page.locator("#limit-macs").fill("0")  # params at 0.5 of macs is out, as is the dense network
    texts = "#tradeoff .legend .traces"
    fills = "all => all.map((one) => [one.textContent, one.querySelector('.legendpoints path')?.style.fill])"
    legend = dict(opened.page.eval_on_selector_all(texts, fills))
    assert legend["PA (params)"] == "rgb(0, 114, 178)" and legend["dense"] == "rgb(127, 127, 127)"
    assert len(legend) == 5
    box, plot = (opened.page.locator(f"#tradeoff {part}").bounding_box() for part in (".legend", ".nsewdrag"))
    assert box and plot and box["y"] + box["height"] <= plot["y"], "it does not lie on the points"
    opened.context.close()


@pytest.mark.parametrize(("resource", "title", "scale"), [("flash", "Flash (weights), KiB", 1024), ("macs", "MACs", 1)])
def test_an_axis_is_in_the_units_of_the_texts(
    browser: Any, file: Path, resource: str, title: str, scale: float
) -> None:
    opened = Opened(browser, file)
    opened.page.locator("#resource").select_option(resource)
    assert opened.page.locator("#tradeoff .xtitle").text_content() == title
    drawn = opened.page.evaluate(
        "document.getElementById('tradeoff').data.filter((t) => t.customdata).map((t) => [t.customdata, t.x])"
    )
    cost = {"flash": "weight_bytes", "macs": "macs"}[resource]
    expected = {one.key: one.record["costs"][cost] / scale for one in TRIALS if one.record is not None}
    assert {key: x for keys, xs in drawn for key, x in zip(keys, xs, strict=True)} == pytest.approx(expected)
    opened.context.close()


def test_a_page_without_trials_or_network(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_page(file, "empty", [], None)
    opened = Opened(browser, file)
    assert "No trial is done yet." in opened.page.locator("#answer").inner_text()
    assert opened.problems == []
    opened.context.close()


def test_ten_thousand_trials_stay_small() -> None:
    many = [
        trial(n, ("params", "macs", "uniform")[n % 3], 0.1 + 0.8 * (n % 997) / 997, (n % 911) / 911)
        for n in range(10_000)
    ]
    assert len(page("many", many, NETWORK)) <= LARGEST_BYTES


def test_figures(tmp_path: Path) -> None:
    written = write_figures(tmp_path / "figures", TRIALS)
    names = {path.name for path in written}
    assert {"accuracy-macs.png", "accuracy-macs.svg", "accuracy-latency.svg"} <= names
    assert all(path.stat().st_size > 5000 for path in written)


@pytest.mark.parametrize("largest", [1.3, 4.0, 30.0])
def test_an_axis_of_a_figure_has_ticks_enough(largest: float) -> None:
    from matplotlib.figure import Figure

    shown = candidates([trial(0, "macs", 0.9 / largest, 0.5), trial(1, "macs", 0.9, 0.6)])
    axes = Figure().add_subplot()
    _draw(axes, shown, BY_NAME["macs"], {one.key: "macs" for one in shown})
    low, high = axes.get_xlim()
    assert 3 <= sum(low <= tick <= high for tick in axes.get_xticks()) <= 8


# ---------------------------------------------------------------------------------------- the commands


@pytest.mark.parametrize("width", [80, 140])
def test_a_table_names_its_rows_and_keeps_its_columns(width: int) -> None:
    """On a terminal of 80 columns; and where the next best has no latency."""
    found = recommend(candidates([TRIALS[0], trial(9, "macs", 0.5, 0.89)]), {"ram": 1e9})
    console = Console(width=width, record=True, file=io.StringIO())
    show(console, Advice(Path("study"), {"ram": 1e9}, found))
    show_trials(console, TRIALS)
    text = console.export_text()
    rows = [line.split() for line in text.splitlines() if line.split()[:1] in (["best"], ["next"])]
    assert [row[:2] for row in rows] == [["best", "dense"], ["next", "best"]]
    assert "macs at 0.5 of macs" in " ".join(rows[1]) and rows[1][-2:] == ["89.0", "%"]
    assert width < 110 or rows[1][-3] == "-"
    assert sum(line.strip().startswith("params at ") for line in text.splitlines()) == 2


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_a_share_of_the_latency_is_of_the_dense_networks_measured_one() -> None:
    assert limits_of({"latency": "0.5x", "macs": "0.5x"}, TRIALS, None, None) == {"latency": 0.002, "macs": 2e7}
    with pytest.raises(UsageError, match=r"--latency 0.5x is a share of what is not known: give an amount"):
        limits_of({"latency": "0.5x"}, TRIALS[1:], None, None)


def test_from_a_sweep_to_a_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    study, report = tmp_path / "study", tmp_path / "report.html"
    data = ("--data", "digits", "--input", "1x8x8", "--limit", "300", "--epochs", "1")
    arguments = (
        "resnet20",
        *data,
        "--modes",
        "params,uniform",
        "--keep",
        "0.5",
        "--runtime",
        "onnx",
        "-o",
        study,
    )
    code, out, said = call(capsys, "sweep", *arguments)
    assert code == 0, said
    assert "3 trials" in out and "params at 0.5 of params" in out and " ms " in out
    assert "[3/3]" in said
    code, out, said = call(capsys, "sweep", *arguments, "--json")
    assert code == 0 and "3 trials are there already" in said
    trials = json.loads(out)
    assert [one["state"] for one in trials] == ["done"] * 3
    assert all(one["measured"]["proof"]["failed"] == [] for one in trials)

    code, out, said = call(capsys, "recommend", study, "--params", "0.6x", "--latency", "1s", "--json")
    assert code == 0, said
    assert json.loads(out)["best"]["takes"]["params"] <= json.loads(out)["limits"]["params"]
    code, out, said = call(capsys, "recommend", study, "--params", "0.6x")
    assert code == 0 and "2 of 3 networks fit" in out and "test accuracy of the best" in out
    code, out, said = call(capsys, "recommend", study, "--device", "stm32h743")
    assert code == 0 and "3 of 3 networks fit" in out
    code, _, said = call(capsys, "recommend", study, "--params", "10")
    assert code == 1
    assert re.fullmatch(r"error: None of 3 networks is within the limits: relax Parameters to .*\n", said)
    code, _, said = call(capsys, "report", study, "-o", report, "--figures", tmp_path / "figures", "--watch")
    assert code == 0 and "3 trials" in said and report.stat().st_size <= LARGEST_BYTES
    assert (tmp_path / "figures" / "accuracy-macs.png").exists()
    run = study / "trials" / trials[0]["key"]
    code, out, _ = call(capsys, "evaluate", run, "--data", "digits")
    assert code == 0


def test_a_sweep_for_a_runtime_plans_by_its_own_latency(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `pretrim plan` does. The one table that is there is of ONNX Runtime, and none of LiteRT is made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = pretrim.analyze(BUILTIN["resnet20"](in_channels=1), torch.zeros(1, 1, 8, 8))
    curves = {
        kind.key: Curve(axes, 1e-9 * np.prod(np.meshgrid(*axes, indexing="ij"), axis=0))
        for kind, axes in wanted_axes(network, "onnx").items()
    }
    place = LatencyKey(cpu_name(), "onnx", "float32", PROVIDERS["onnx"], 1)
    save_table(Table(place, {}, 0.0, curves, {latency_key(network): Correction()}))
    subject = ("resnet20", "--input", "1x8x8", "--runtime", "onnx")
    code, out, said = call(capsys, "plan", *subject, "--mode", "latency", "--latency", "0.5x", "--json")
    assert code == 0, said
    planned = [group["kept"] for group in json.loads(out)["groups"]]
    data = ("--data", "digits", "--limit", "300", "--epochs", "1", "--no-dense", "-o", tmp_path / "study")
    code, out, said = call(capsys, "sweep", *subject, *data, "--modes", "latency", "--keep", "0.5", "--json")
    assert code == 0, said
    (trial,) = json.loads(out)
    assert (trial["state"], trial["asked"]["runtime"]) == ("done", "onnx")
    assert trial["record"]["widths"] == planned
    assert [file.stem for file in cache_folder().iterdir()] == [place.slug]


def test_a_sweep_of_which_every_trial_failed_has_failed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = (
        "resnet20",
        "--data",
        "digits",
        "--input",
        "1x8x8",
        "--limit",
        "300",
        "--epochs",
        "1",
        "-o",
        tmp_path / "s",
    )
    given = ("sweep", *given, "--modes", "macs", "--keep", "0.001", "--no-dense", "--json")
    for _ in range(2):
        code, out, said = call(capsys, *given)
        assert code == 1 and [one["state"] for one in json.loads(out)] == ["failed"]
        assert said.splitlines()[-1] == ("error: All 1 trials failed: fix what their errors name, and add --retry.")
    code, _, said = call(capsys, *given, "--keep", "0.5,0.001")
    assert code == 0, said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--modes", "flops"), 2, "error: Expected modes out of balanced, "),
        (("--modes", ","), 2, "error: Expected names separated by commas, but got none."),
        (("--keep", "half"), 2, "error: Expected --budget-fraction with fractions such as 0.7,0.5, but got 'half'."),
        (("--keep", "1.5"), 2, "error: Expected budget fractions between 0 and 1, but got 1.5."),
        (("--workers", "0"), 2, "error: Expected --workers to be at least 1, but got 0."),
        (("--threads", "0"), 2, "error: Expected threads to be from 1 to 1024, but got 0."),
        (("--dtype", "int4"), 2, 'error: Invalid value "int4" for --dtype. Choose from: "float32", "float16", "int8"'),
        (("--train-on", "tpu"), 2, "error: Expected a device of this machine (auto, cpu, cuda), but got 'tpu': "),
        (
            ("--input", "1x8"),
            2,
            "error: Expected --input CxHxW for images, but got 1x8: signals and volumes come from ",
        ),
        (("--limit-of", "colour"), 2, "error: Expected a limit on one of params, "),
        (("--storage", "nonsense"), 1, "error: Expected a database as SQLAlchemy names it, such as postgresql+psycopg"),
    ],
)
def test_wrong_use_of_sweep(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    given = ("sweep", "resnet20", "--data", "digits", "--input", "1x8x8", "-o", tmp_path / "study", *arguments)
    got, _, error = call(capsys, *given)
    assert got == code and error.splitlines()[-1].startswith(said), error
    assert not (tmp_path / "study" / "study.json").exists()


def test_studies_that_are_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, said = call(capsys, "recommend", tmp_path / "none")
    assert code == 1 and said.startswith("error: Expected a study in ") and "make one with `pretrim sweep`" in said
    code, _, said = call(capsys, "report", tmp_path / "none", "-o", tmp_path / "report.txt")
    assert code == 2 and said.startswith("error: Expected a report to end in .html, but got ")

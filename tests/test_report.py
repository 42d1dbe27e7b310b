"""The page in a real browser, with hostile names; figures; the commands."""

import csv
import io
import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from small import CLASSES, SHAPE, small
from torch.utils.data import TensorDataset

import pretrim
from pretrim.cli import main
from pretrim.errors import UsageError
from pretrim.jobs.run import Run
from pretrim.jobs.study import Advice, limits_of, open_study
from pretrim.latency import PROVIDERS, LatencyKey, Table, save_table, wanted_axes
from pretrim.latency.cost import key_of as latency_key
from pretrim.latency.table import Correction, Curve, cache_folder
from pretrim.measure.worker import cpu_name
from pretrim.models import BUILTIN
from pretrim.present.advice import show_advice
from pretrim.present.study import show_trials
from pretrim.report import Shown, contents, write_figures, write_page
from pretrim.report.figures import _draw
from pretrim.report.page import LARGEST_BYTES, page
from pretrim.study.command import own_command, shared_command
from pretrim.study.recommend import BY_NAME, candidates, recommend
from pretrim.study.rows import Trial
from pretrim.study.settings import StudyConfig, TrialSpec

EVIL = "</script><img src=x onerror=\"document.title='owned'\"><!-- '\"&<a href='https://a.example'>x</a>"
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
    "shares": {"params": [0.1, 0.2, 0.7], "macs": [0.5, 0.3, 0.2], "memory": [0.6, 0.3, 0.1], EVIL: [0.4, 0.3, 0.3]},
}
CONFIG = StudyConfig("resnet20", "cifar10:data", max_images=1000)


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
    """The page, in a state as its address has it, and everything that a browser complains of."""

    def __init__(self, browser: Any, file: Path, state: str = "", **settings: Any) -> None:
        self.context = browser.new_context(offline=True, accept_downloads=True, **settings)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.problems.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri() + (f"#{state}" if state else ""))
        self.page.wait_for_selector("body[data-ready]")

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())

    @property
    def marked(self) -> set[str]:
        """The key of the chosen network, as each part of the page has it."""
        of_plots = """[...document.getElementById('parallel').data.filter((one) => one.line?.width === 5)
            .map((one) => one.customdata[0]), ...((all) => {
            const ring = all.find((one) => one.name === 'chosen');
            const at = (one) => one.customdata.filter((_, n) => one.x[n] === ring.x[0] && one.y[n] === ring.y[0]);
            return all.filter((one) => one.customdata).flatMap(at);
        })(document.getElementById('tradeoff').data)]"""
        row = self.page.locator("#table tr.chosen").get_attribute("data-key")
        run = re.search(r"trials/(\S+)", self.text("#chosen"))
        assert run is not None
        return {*self.page.evaluate(of_plots), row, run[1]}


def written(path: Path, name: str, trials: list[Trial], network: Any = NETWORK) -> Path:
    write_page(path, f"{name}: trade-off", contents(Shown(name, trials, network)))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "report.html", EVIL, TRIALS)


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
    assert opened.page.locator("svg a").count() == 0, "Plotly makes links of names that are not escaped"
    opened.page.locator("#resource").select_option("params")
    assert opened.problems == [] and opened.requests == [file.as_uri()]
    opened.context.close()


def test_a_limit_changes_what_is_recommended(browser: Any, file: Path) -> None:
    opened = Opened(browser, file)
    answer = opened.page.locator("#answer")
    assert answer.inner_text().startswith("params at 0.5 of macs, seed 0: 88.0 % validation"), "never the dense network"
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


def test_what_is_recommended_is_what_python_recommends(browser: Any, file: Path) -> None:
    """Under any limits: the best of the slim networks. Without: the smallest within a point of the dense one."""
    slim = candidates([one for one in TRIALS if one.spec.mode != "dense"])
    opened = Opened(browser, file)
    generator = np.random.default_rng(0)
    for _ in range(8):
        one = slim[int(generator.integers(len(slim)))]
        names = generator.choice(["params", "macs", "ram", "arena", "latency"], size=2, replace=False)
        limits = {str(name): one.costs[str(name)] * float(generator.uniform(0.9, 1.2)) for name in names}
        opened.page.evaluate(
            "state => { location.hash = state }", "&".join(f"max-{n}={v!r}" for n, v in limits.items())
        )
        opened.page.wait_for_function(
            "() => location.hash.includes('sort=')"
        )  # the page has read it, and wrote its own
        found = recommend(slim, limits)
        said = opened.text("#answer")
        if found.best is None:
            assert said.startswith("Nothing fits.")
        else:
            assert said.startswith(f"{found.best.name}, seed {found.best.seed}: {100 * found.best.validation:.1f} %")
            assert opened.marked == {found.best.key}
    opened.context.close()


@pytest.mark.parametrize(
    ("accuracies", "chosen", "why"),
    [
        ((0.9, 0.896, 0.895, 0.80), 2, "fewest MACs within 1 point of the dense network"),
        ((0.9, 0.87, 0.88, 0.80), 2, "no slim network is within 1 point of the dense network: the most accurate"),
        ((None, 0.90, 0.895, 0.80), 2, "fewest MACs within 1 point of the most accurate one"),
    ],
)
def test_without_limits_the_smallest_network_that_loses_nothing(
    browser: Any, tmp_path: Path, accuracies: tuple[float | None, ...], chosen: int, why: str
) -> None:
    keeps = (1.0, 0.5, 0.4, 0.3)
    modes = ("dense", "params", "macs", "uniform")
    trials = [
        trial(number, mode, keep, accuracy)
        for number, (mode, keep, accuracy) in enumerate(zip(modes, keeps, accuracies, strict=True))
        if accuracy is not None
    ]
    opened = Opened(browser, written(tmp_path / "report.html", "study", trials))
    assert why in opened.text("#answer") and opened.marked == {f"{chosen:016x}"}
    opened.context.close()


def test_one_selection_by_mouse_and_keyboard_and_the_address_keeps_all(browser: Any, file: Path) -> None:
    opened = Opened(browser, file, viewport={"width": 1400, "height": 900})
    page = opened.page
    assert opened.marked == {TRIALS[1].key}
    macs = page.locator("#before-after tbody tr", has_text="MACs")
    assert macs.locator("td").all_inner_texts() == ["40.0 M", "20.0 M", "50.0 %"]
    # by mouse: a point, a line, a row; by keyboard: a row
    for key, pick in {
        TRIALS[4].key: lambda: page.locator("#table tr", has_text="params at 0.25").click(),
        TRIALS[3].key: lambda: page.locator("#table tr", has_text="uniform at 0.5").press("Enter"),
        TRIALS[2].key: lambda: click(page, "tradeoff", TRIALS[2].key),
        TRIALS[5].key: lambda: click(page, "parallel", TRIALS[5].key),
    }.items():
        pick()
        assert opened.marked == {key} and f"net={key}" in page.evaluate("location.hash")
        assert named(key) in opened.text("#card-title")
    page.locator("#again").press("Enter")
    assert opened.marked == {TRIALS[1].key} and page.locator("#again").is_hidden()
    # every control
    page.locator("#board").select_option("nrf52840")
    page.locator("#typed-macs").fill("0.4x")
    page.keyboard.press("Tab")
    assert opened.marked == {TRIALS[5].key} and page.locator("#typed-macs").input_value() == "16.0 M"
    page.locator("#resource").select_option("latency")
    page.locator("#means").press("Space")
    page.locator("#logarithmic").click()
    page.get_by_role("button", name="Parameters").click()
    page.locator("#table tr", has_text="uniform at 0.25").click()
    before = state_of(opened)
    assert before["board"] == "nrf52840" and before["limits"]["arena"] == "192 KiB" and before["sort"] == "Parameters ↑"
    assert "nRF52840" in opened.text("#on-board") and "fits on it as well" in opened.text("#on-board")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert state_of(opened) == before
    page.locator("#reset").press("Enter")
    assert set(state_of(opened)["limits"].values()) == {""} and page.locator("#on-board").is_hidden()
    assert opened.problems == [] and set(opened.requests) == {page.evaluate("location.href.split('#')[0]")}
    opened.context.close()


def named(key: str) -> str:
    return next(one.spec.name for one in TRIALS if one.key == key)


def click(page: Any, plot: str, key: str) -> None:
    """On what a plot draws of a network, where nothing else of the plot lies on it."""
    place = page.evaluate(
        """([id, key]) => {
        const plot = document.getElementById(id), { xaxis, yaxis, _size } = plot._fullLayout;
        plot.scrollIntoView({ block: "center" });
        const trace = plot.data.find((one) => (one.customdata ?? []).includes(key));
        const n = trace.customdata.lastIndexOf(key); // of a line: at the accuracy
        const box = plot.getBoundingClientRect();
        return [box.left + _size.l + xaxis.d2p(trace.x[n]), box.top + _size.t + yaxis.d2p(trace.y[n])];
    }""",
        [plot, key],
    )
    page.mouse.move(*place)
    page.wait_for_timeout(100)
    page.mouse.click(*place)
    page.wait_for_timeout(400)  # a click may be the first half of a double click


def state_of(opened: Opened) -> dict[str, Any]:
    """All that a user has set, read from the page itself."""
    page = opened.page
    typed = "all => Object.fromEntries(all.map((one) => [one.id.slice(6), one.value]))"
    return {
        "limits": page.eval_on_selector_all("#limits input[type=text]", typed),
        "sliders": page.eval_on_selector_all("#limits input[type=range]", "all => all.map((one) => one.value)"),
        "board": page.locator("#board").input_value(),
        "axis": page.locator("#resource").input_value(),
        "means": page.locator("#means").is_checked(),
        "logarithmic": page.locator("#logarithmic").is_checked(),
        "sort": page.locator("th[aria-sort$=ending]").inner_text(),
        "chosen": opened.page.locator("#table tr.chosen").get_attribute("data-key"),
    }


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("20M", "20.0 M"),
        ("≤ 20 M", "20.0 M"),
        ("20,000,000", "20.0 M"),
        ("50%", "20.0 M"),
        ("", ""),
        ("half", "Write an amount such as 20M, or a share such as 0.5x."),
        ("-3M", "Write an amount such as 20M, or a share such as 0.5x."),
        ("20 KiB", "Write the unit as in 20M."),
    ],
)
def test_amounts_that_are_typed(shared: Opened, typed: str, shown: str) -> None:
    page = shared.page
    page.locator("#typed-macs").fill(typed or "1M")
    page.locator("#typed-macs").press("Enter")
    if not typed:
        page.locator("#typed-macs").fill("")
        page.locator("#typed-macs").press("Enter")
    wrong = page.locator("#wrong-macs").text_content()
    assert (wrong or page.locator("#typed-macs").input_value()) == shown and bool(wrong) == shown.startswith("Write")
    page.locator("#reset").click()


@pytest.fixture(scope="module")
def shared(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """One page for tests that leave it as they found it."""
    opened = Opened(browser, written(tmp_path_factory.mktemp("shared") / "report.html", EVIL, TRIALS))
    yield opened
    assert opened.problems == []
    opened.context.close()


def test_every_column_sorts_both_ways_and_the_unknown_come_last(shared: Opened) -> None:
    page = shared.page
    for number, button in enumerate(page.locator("#table thead button").all()):
        for _ in range(2):
            button.click()
            cells = page.locator(f"#table tbody tr td:nth-child({number + 1})").all_inner_texts()
            direction = page.locator("th[aria-sort$=ending]").get_attribute("aria-sort")
            values = page.evaluate(f"sorted().map(columns[{number}].value)")
            assert values == sorted(values, reverse=direction == "descending"), cells
            assert len(cells) == 8
    page.get_by_role("button", name="validation").click()


def test_a_limit_is_drawn_where_it_is(shared: Opened) -> None:
    """On the axis of the plot, and on the axis of the parallel ones, which have their values."""
    page = shared.page
    page.locator("#typed-macs").fill("20M")
    page.locator("#typed-macs").press("Enter")
    page.locator("#resource").select_option("macs")
    shapes = page.evaluate("document.getElementById('tradeoff').layout.shapes")
    assert [shape["x0"] for shape in shapes] == [20e6, 20e6]
    assert "limit 20.0 M" in page.evaluate("document.getElementById('tradeoff').layout.annotations.map((a) => a.text)")
    bars = page.evaluate("document.getElementById('parallel').data.find((one) => one.name === 'limits')")
    assert bars["x"] == [1] and bars["y"] == pytest.approx([np.log(2) / np.log(4)])
    values = page.evaluate(
        "document.getElementById('parallel').layout.annotations.filter((a) => a.x === 1).map((a) => a.text)"
    )
    assert values == ["10.0 M", "40.0 M", "20.0 M"]
    page.locator("#reset").click()


def test_hovering_says_the_quantity_of_the_axis(shared: Opened) -> None:
    page = shared.page
    for resource, said in {"latency": "Latency 3 ms", "ram": "RAM (activations) 97.7 KiB"}.items():
        page.locator("#resource").select_option(resource)
        texts = page.evaluate("document.getElementById('tradeoff').data.flatMap((one) => one.text ?? [])")
        assert f"params at 0.5 of macs, seed 0<br>{said}<br>validation 88.0 %" in texts
    page.locator("#means").check()
    texts = page.evaluate("document.getElementById('tradeoff').data.flatMap((one) => one.text ?? [])")
    assert any(text.startswith("macs at 0.25 of macs, n = 2<br>RAM (activations)") for text in texts)
    page.locator("#means").uncheck()


def test_nothing_is_cut_and_the_toolbar_lies_on_nothing(browser: Any, file: Path) -> None:
    for width, height in ((1400, 900), (390, 844)):
        opened = Opened(browser, file, viewport={"width": width, "height": height})
        page = opened.page
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cut = """all => all.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.textContent)"""
        assert page.eval_on_selector_all("#before-after td, #before-after th, label, pre, #answer *", cut) == []
        outside = """() => [...document.querySelectorAll('.plot:not([hidden])')].flatMap((plot) => {
            const box = plot.getBoundingClientRect();
            return [...plot.querySelectorAll('text')].filter((text) => {
                const own = text.getBoundingClientRect();
                return own.width && (own.left < box.left - 1 || own.right > box.right + 1);
            }).map((text) => text.textContent);
        })"""
        assert page.evaluate(outside) == []
        page.locator("#tradeoff").hover()
        bar = page.locator("#tradeoff .modebar").first
        if width > 640:
            tools, legend, plot = (
                page.locator(f"#tradeoff {part}").first.bounding_box() for part in (".modebar", ".legend", ".nsewdrag")
            )
            assert tools["x"] >= legend["x"] + legend["width"] and tools["x"] >= plot["x"] + plot["width"] - 1
        else:
            assert bar.count() == 0 or not bar.is_visible()
        assert page.locator("#answer strong").bounding_box()["y"] < height, "the recommendation is what is seen first"
        opened.context.close()


def test_on_paper_it_is_light_and_as_wide_as_the_paper(browser: Any, file: Path, tmp_path: Path) -> None:
    opened = Opened(browser, file, color_scheme="dark", viewport={"width": 1400, "height": 900})
    page = opened.page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    widths = page.eval_on_selector_all(".plot:not([hidden]) .main-svg", "all => all.map((one) => one.clientWidth)")
    assert widths and max(widths) <= 700
    assert page.locator("#limits input[type=range]").first.is_hidden() and page.locator("#copy").is_hidden()
    assert page.evaluate(
        "document.querySelector('.scroll').scrollHeight <= document.querySelector('.scroll').clientHeight"
    )
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert page.evaluate("document.getElementById('tradeoff').clientWidth") > 700
    assert page.pdf(format="A4").startswith(b"%PDF") and opened.problems == []
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
    file = written(tmp_path / "report.html", "study", odd)
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
    """One line, and the reasons of those that failed: no empty plots."""
    for trials in ([], [TRIALS[-1], replace(TRIALS[-1], key="e" * 16, state="waiting")]):
        opened = Opened(browser, written(tmp_path / "report.html", "empty", trials, None))
        assert "No trial is done yet." in opened.text("#answer")
        assert opened.page.locator(".plot:visible, select:visible, table:visible").count() == 0
        assert opened.page.locator("#failed li").count() == sum(one.state == "failed" for one in trials)
        assert opened.problems == []
        opened.context.close()


def test_a_page_of_the_dense_network_alone_recommends_nothing(browser: Any, tmp_path: Path) -> None:
    opened = Opened(browser, written(tmp_path / "report.html", "begun", TRIALS[:1]))
    assert opened.text("#answer").startswith("Of the networks that fit, only the dense one is done.")
    assert opened.page.locator("#card").is_hidden() and opened.problems == []
    opened.context.close()


def test_ten_thousand_trials_stay_small() -> None:
    evaluation = {"interval_95": [0.123456789, 0.987654321], "images": 10_000, "per_class": [0.5] * 10}
    evaluation |= {"images_per_class": [1000] * 10, "accuracy": 0.512345678}
    many = []
    for n in range(10_000):
        one = trial(
            n, ("params", "macs", "uniform")[n % 3], 0.1 + 0.8 * (n % 997) / 997, (n % 911) / 911, latency=n * 1e-6
        )
        assert one.record is not None
        record = {**one.record, "test": evaluation, "epochs": [[1.23456, 0.12345, 0.12345]] * 30, "widths": [16] * 30}
        many.append(replace(one, record=record))
    assert len(page("many", contents(Shown("many", many, NETWORK, None, CONFIG)))) <= LARGEST_BYTES


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


@pytest.mark.parametrize(("resource", "scale"), [("latency", 1e3), ("flash", 1 / 1024), ("arena", 1 / 1024)])
def test_ticks_of_a_figure_are_in_the_unit_of_its_label(resource: str, scale: float) -> None:
    """No "200m" under "ms": what is written at a tick is its place on the axis."""
    from matplotlib.figure import Figure

    for largest in (1.0, 0.001, 40.0):
        shown = candidates(
            [trial(n, "macs", keep, 0.5, latency=0.001 * largest * keep) for n, keep in enumerate((0.9, 0.3))]
        )
        axes = Figure().add_subplot()
        _draw(axes, shown, BY_NAME[resource], {one.key: "macs" for one in shown})
        assert axes.get_xlabel().endswith({"latency": ", ms"}.get(resource, ", KiB"))
        ticks = axes.get_xticks()
        written_there = axes.xaxis.get_major_formatter().format_ticks(ticks)
        assert [float(text.replace(",", "")) for text in written_there] == pytest.approx(list(ticks))
        low, high = axes.get_xlim()
        assert low <= scale * shown[0].costs[resource] <= high


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with its dense network."""
    torch.manual_seed(0)
    parts = [TensorDataset(torch.randn(count, *SHAPE), torch.arange(count) % CLASSES) for count in (40, 24)]
    options: Any = {"macs": "0.5x", "dense": True, "epochs": 2, "batch_size": 20, "threads": 1, "train_on": "cpu"}
    return pretrim.compress(small(), tuple(parts), output=tmp_path_factory.mktemp("runs") / "run", **options)


def test_a_run_has_a_page_with_the_same_card(
    browser: Any, run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, said = call(capsys, "report", run.path, "-o", tmp_path / "run.html")
    assert code == 0 and out.strip() == str(tmp_path / "run.html"), said
    opened = Opened(browser, tmp_path / "run.html")
    page = opened.page
    cells = {
        row.locator("th").inner_text(): row.locator("td").all_inner_texts()
        for row in page.locator("#before-after tbody tr").all()
    }
    assert run.comparison is not None and run.dense_accuracy is not None and run.accuracy is not None
    dense, slim, change = cells["Test accuracy"]
    assert dense.startswith(f"{100 * run.dense_accuracy:.1f} %") and slim.startswith(f"{100 * run.accuracy:.1f} %")
    low, high = run.results["test"]["interval_95"]
    assert f"95 %: {100 * low:.1f} to {100 * high:.1f} %" in slim
    assert change == f"{100 * run.comparison.difference:+.1f} points"
    assert f"McNemar p = {run.comparison.p_value:.2g}" in opened.text("#told-apart").replace("1.0:", "1:")
    share = run.plan.slim["params"] / run.plan.dense["params"]
    assert cells["Parameters"][2].strip() == f"{100 * share:.1f} %"
    counts = page.evaluate("document.getElementById('confusion').data[0].text.flat().map(Number)")
    assert sum(counts) == 24
    assert page.locator("#limits:visible, #table:visible, #tradeoff:visible").count() == 0
    assert opened.problems == []
    opened.context.close()


def test_a_folder_that_is_neither_is_said(capsys: pytest.CaptureFixture[str], run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, said = call(capsys, "report", tmp_path / "empty", "-o", tmp_path / "x.html")
    assert code == 1 and said.startswith("error: No study in ") and "and no run (it has no run.json)" in said
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    code, _, said = call(capsys, "report", broken, "-o", tmp_path / "x.html")
    assert code == 1 and "The file is truncated or edited" in said and not (tmp_path / "x.html").exists()


# ---------------------------------------------------------------------------------------- the commands


@pytest.mark.parametrize("width", [80, 140])
def test_a_table_names_its_rows_and_keeps_its_columns(width: int) -> None:
    """On a terminal of 80 columns; and where the next best has no latency."""
    found = recommend(candidates([TRIALS[0], trial(9, "macs", 0.5, 0.89)]), {"ram": 1e9})
    console = Console(width=width, record=True, file=io.StringIO())
    show_advice(console, Advice(Path("study"), {"ram": 1e9}, found))
    show_trials(console, TRIALS)
    text = console.export_text()
    rows = [line.split() for line in text.splitlines() if line.split()[:1] in (["best"], ["next"])]
    assert [row[:2] for row in rows] == [["best", "dense"], ["next", "best"]]
    assert "macs at 0.5 of macs" in " ".join(rows[1]) and rows[1][-2:] == ["89.0", "%"]
    assert width < 110 or rows[1][-3] == "-"
    assert sum(line.strip().startswith("params at ") for line in text.splitlines()) == 2


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_every_column_that_a_terminal_has_no_room_for_is_named(width: int) -> None:
    """What a wide terminal shows is on a narrow one, or in the line below the table."""
    found = recommend(candidates(TRIALS), {"ram": 1e9})

    def shown(width: int, show: Callable[[Console], None]) -> str:
        console = Console(width=width, record=True, file=io.StringIO(), force_terminal=True, color_system=None)
        show(console)
        return console.export_text()

    for show in (
        lambda console: show_advice(console, Advice(Path("study"), {"ram": 1e9}, found)),
        lambda console: show_trials(console, TRIALS),
    ):
        titles = re.split(r"\s{2,}", shown(400, show).splitlines()[2].strip())
        assert len(titles) >= 7
        assert [title for title in titles if title not in shown(width, show)] == []


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_a_share_of_the_latency_is_of_the_dense_networks_measured_one() -> None:
    assert limits_of({"latency": "0.5x", "macs": "0.5x"}, TRIALS, None, None) == {"latency": 0.002, "macs": 2e7}
    with pytest.raises(UsageError, match=r"--latency 0.5x is a share of an unknown amount: give an amount"):
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
    assert json.loads(out)["best"]["costs"]["params"] <= json.loads(out)["limits"]["params"]
    code, out, said = call(capsys, "recommend", study, "--params", "0.6x")
    assert code == 0 and re.search(r"2 of 3 networks fit \(.* at most ", out) and "test accuracy of the best" in out
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
    # The command that the page has to copy makes the same network again, to the bit.
    config = open_study(study).store.config()
    (again,) = [one for one in trials if one["asked"]["mode"] == "params"]
    words = shlex.split(f"{shared_command(config)} {own_command(TrialSpec.from_json(again['asked']))}")
    assert words[:3] == ["pretrim", "compress", "resnet20"] and words[-2:] == ["-o", "run"]
    code, _, said = call(capsys, *words[1:-1], tmp_path / "again")
    assert code == 0, said
    weights = [path / "weights.safetensors" for path in (tmp_path / "again", study / "trials" / again["key"])]
    assert weights[0].read_bytes() == weights[1].read_bytes()


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
        assert said.splitlines()[-1] == "error: Every trial failed: fix what the errors name, and add --retry."
    _, out, _ = call(capsys, *given[:-1])
    assert "validation" not in out and "failed: macs at 0.001 of macs, seed 0: " in out  # no table without rows
    code, _, said = call(capsys, *given, "--keep", "0.5,0.001")
    assert code == 0, said


def test_a_sweep_of_which_only_the_dense_network_was_trained_has_failed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = ("resnet20", "--data", "digits", "--input", "1x8x8", "--max-images", "100", "--epochs", "1")
    asked = ("--macs", "10", "--modes", "balanced,uniform", "-o", tmp_path / "s", "--json")
    code, out, said = call(capsys, "sweep", *given, *asked)
    assert code == 1 and [one["state"] for one in json.loads(out)] == ["done", "failed", "failed"]
    assert said.splitlines()[-1] == (
        "error: Every trial but the dense network's failed: fix what the errors name, and add --retry."
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--modes", "flops"), 2, "error: Expected modes among balanced, "),
        (("--modes", ","), 2, "error: Expected names separated by commas, but got none."),
        (("--keep", "half"), 2, "error: Expected --budget-fraction with fractions such as 0.7,0.5, but got 'half'."),
        (("--keep", "1.5"), 2, "error: Expected budget fractions between 0 and 1, but got 1.5."),
        (("--workers", "0"), 2, "error: Expected --workers to be from 1 to 1024, but got 0."),
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
    assert code == 1 and said.startswith("error: No study in ") and "make one with `pretrim sweep`" in said
    code, _, said = call(capsys, "report", tmp_path / "none", "-o", tmp_path / "report.txt")
    assert code == 2 and said.startswith("error: Expected a report to end in .html, but got ")

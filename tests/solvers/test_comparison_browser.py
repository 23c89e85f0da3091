"""Page of a comparison in a real browser: charts, switches, downloads, at both widths."""

import csv
import io
import json

import numpy as np
import pytest
from browser import CHROMIUM, Page
from comparison_tables import drawn
from test_comparison_report import HOSTILE

from solvers.comparison.measures import (
    costs_of,
    expected_running_time,
    performance_profile,
    results,
    time_to_target,
)
from solvers.comparison.report import write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]
READY = "document.body?.dataset.ready"
CHARTS = [
    *("ecdf", "anytime", "profile", "time-to-target", "time-to-solution", "primal-integral"),
    *("proof", "bound", "feasible", "repair"),
]
#: Pixels of a chart in a colour, which lies in the shadow trees of Bokeh's canvas.
PIXELS = """(key, colour) => {
  const wanted = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const canvases = [];
  const walk = (node) => {
    if (node instanceof HTMLCanvasElement) canvases.push(node);
    [...node.children, ...(node.shadowRoot?.children ?? [])].forEach(walk);
  };
  walk(document.getElementById("plot-" + key));
  let count = 0;
  for (const canvas of canvases) {
    if (!canvas.width || !canvas.height) continue;
    const copy = new OffscreenCanvas(canvas.width, canvas.height);
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < data.length; i += 4)
      if (data[i + 3] > 200 && wanted.every((w, c) => Math.abs(data[i + c] - w) < 12)) count++;
  }
  return count;
}"""
ANNEAL, NEAL, CPSAT = "#0072B2", "#CC79A7", "#D55E00"


@pytest.fixture(scope="module")
def frame():
    return drawn(problems=12, incumbents=15)


@pytest.fixture(scope="module")
def report(frame, tmp_path_factory):
    return write_report(frame, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def page(report):
    browser = Page()
    try:
        browser.open(report, READY)
        yield browser
    finally:
        browser.close()
    assert browser.messages == []
    assert {url.split(":")[0] for url in browser.requests} <= {"file", "data", "blob"}


def settle(page):
    """Wait until what was changed is drawn."""
    page.evaluate("new Promise((r) => requestAnimationFrame(() => setTimeout(r, 300)))")


def pixels(page, key, colour):
    return page.evaluate(f"({PIXELS})({json.dumps(key)}, {json.dumps(colour)})")


def shown_profile(page):
    return page.evaluate(
        """report.figures.profile.renderers
          .filter((r) => r.visible && r.tags.includes("line"))
          .map((r) => [r.name, [...r.data_source.data.tau], [...r.data_source.data.share]])"""
    )


def expected_profile(frame, target, solvers):
    times = time_to_target(results(frame), [target])
    costs = costs_of(expected_running_time(times), "ert", target)
    return performance_profile(costs, solvers)


def assert_profile(page, frame, target, solvers):
    shown = shown_profile(page)
    assert [name for name, _, _ in shown] == solvers
    expected = expected_profile(frame, target, solvers)
    for name, tau, share in shown:
        mine = expected[expected["solver"] == name]
        # The page holds the last value until the end of the axis.
        assert tau[:-1] == pytest.approx(mine["tau"].tolist())
        assert share[:-1] == pytest.approx(mine["share"].tolist())
        assert share[-1] == share[-2]


def toggle(page, name):
    page.evaluate(
        f"""[...document.querySelectorAll(".solver")]
          .find((l) => l.textContent.trim() === {json.dumps(name)}).click()"""
    )
    settle(page)


def test_every_chart_is_drawn(page):
    settle(page)
    for key in CHARTS:
        colour = NEAL if key in ("feasible", "repair") else CPSAT
        assert pixels(page, key, colour) > 20, key
        box = page.evaluate(
            f"(({{width, height}}) => [width, height])"
            f"(document.getElementById('plot-{key}').getBoundingClientRect())"
        )
        assert min(box) > 300, key


def test_a_solver_is_switched_off_everywhere_and_the_profile_drawn_anew(page, frame):
    settle(page)
    everyone = sorted(frame["solver"].unique())
    assert_profile(page, frame, 1e-4, everyone)
    before = shown_profile(page)
    assert pixels(page, "ecdf", ANNEAL) > 20

    toggle(page, "anneal")
    rest = [name for name in everyone if name != "anneal"]
    assert_profile(page, frame, 1e-4, rest)
    # Others look better without the fastest.
    assert shown_profile(page) != [curve for curve in before if curve[0] != "anneal"]
    for key in ("ecdf", "anytime", "profile", "time-to-target", "primal-integral"):
        assert pixels(page, key, ANNEAL) == 0, key
        assert pixels(page, key, CPSAT) > 20, key
    rows = "[...document.querySelectorAll('#summary tbody tr')].filter((r) => !r.hidden).length"
    assert page.evaluate(rows) == len(rest)

    page.evaluate(
        """(() => { const s = document.getElementById("target");
          s.value = "1e-2"; s.dispatchEvent(new Event("change")); })()"""
    )
    settle(page)
    assert_profile(page, frame, 1e-2, rest)
    for name in rest:
        toggle(page, name)
    assert shown_profile(page) == []
    page.evaluate("document.getElementById('all').click()")
    settle(page)
    assert_profile(page, frame, 1e-2, everyone)
    assert page.evaluate(rows) == len(everyone)


def test_the_target_chosen_is_the_one_drawn(page):
    shown = """report.figures['time-to-target'].renderers.filter((r) => r.visible)
      .map((r) => r.tags.find((t) => t.startsWith('target:')))"""
    assert set(page.evaluate(shown)) == {"target:1e-4"}
    page.evaluate(
        """(() => { const s = document.getElementById("target");
          s.value = "1e-6"; s.dispatchEvent(new Event("change")); })()"""
    )
    assert set(page.evaluate(shown)) == {"target:1e-6"}
    words = page.evaluate("[...document.querySelectorAll('.target')].map((e) => e.textContent)")
    assert set(words) == {"gap ≤ 1e-6"}


def test_data_of_every_chart_is_downloaded(page, frame, tmp_path):
    page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    for key in CHARTS:
        page.evaluate(f"document.querySelector('.csv[data-chart={key}]').click()")
        for _ in range(100):
            if (tmp_path / f"{key}.csv").exists():
                break
            settle(page)
        rows = list(csv.DictReader((tmp_path / f"{key}.csv").open(encoding="utf-8")))
        assert rows, key
        assert not [name for name in rows[0] if name.startswith("_")]
        assert {row["solver"] for row in rows} <= set(frame["solver"])
    ecdf = list(csv.DictReader((tmp_path / "ecdf.csv").open(encoding="utf-8")))
    assert {row["solver"] for row in ecdf} == set(frame["solver"])
    shares = [float(row["share"]) for row in ecdf if row["solver"] == "anneal"]
    assert shares == sorted(shares)
    assert shares[-1] > 0.5


def test_pages_of_problems(page, frame, tmp_path):
    problems = results(frame).problems["problem"].tolist()
    page.evaluate("document.querySelector('#problems a').click()")
    page.wait("report.figures.problem")
    settle(page)
    visible = "[...document.querySelectorAll('.problem')].filter((s) => s.offsetHeight).length"
    assert page.evaluate(visible) == 1
    assert page.evaluate("document.getElementById('overview').offsetHeight") == 0
    assert page.evaluate("document.querySelector('.problem.current h2').textContent") == problems[0]
    assert pixels(page, "problem", ANNEAL) > 20

    page.evaluate("document.querySelector('.problem.current [rel=next]').click()")
    page.wait("location.hash === '#problem-1'")
    settle(page)
    rows = list(csv.DictReader(io.StringIO(page.evaluate("report.csvOf('problem')"))))
    found = results(frame)
    mine = found.runs.loc[found.steps["run"], "problem"].to_numpy() == problems[1]
    wanted = found.steps.loc[mine, "gap"].to_numpy()
    assert {row["problem"] for row in rows} == {problems[1]}
    assert np.sort([float(row["gap"]) for row in rows]) == pytest.approx(np.sort(wanted), rel=1e-3)

    toggle(page, "anneal")
    assert pixels(page, "problem", ANNEAL) == 0
    page.evaluate("location.hash = '#overview'")
    page.wait("document.getElementById('overview').offsetHeight > 0")
    assert page.evaluate(visible) == 0


@pytest.mark.parametrize("width", [390, 768, 1400])
def test_nothing_is_wider_than_the_page(page, width):
    page.resize(width, 844, phone=width < 800)
    settle(page)
    for hash_ in ("#overview", "#problem-3"):
        page.evaluate(f"location.hash = '{hash_}'")
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        widest = page.evaluate(
            "Math.max(...[...document.querySelectorAll('.plot')].map((p) => p.scrollWidth))"
        )
        assert 200 < widest <= width


def test_a_finger_on_a_chart_scrolls_the_page(page):
    page.resize(390, 844, phone=True)
    settle(page)
    page.evaluate("document.getElementById('plot-ecdf').scrollIntoView({block: 'center'})")
    before = page.evaluate("scrollY")
    assert page.evaluate("document.elementFromPoint(200, 500).closest('.plot') !== null")
    page.swipe(200, 500, up=300)
    page.wait(f"scrollY > {before} + 100")


def test_dark(page):
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = "report.figures.ecdf.below[0].major_label_text_color"
    before = page.evaluate(ink)
    page.dark()
    settle(page)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert page.evaluate(ink) != before


def test_hostile_names_stay_text(tmp_path):
    frame = drawn(problems=3, seeds=2, incumbents=6)
    for column in ("problem", "solver", "family", "start_kind", "machine", "error"):
        frame[column] = HOSTILE + frame[column].astype(str)
    write_report(frame, tmp_path / "report.html")
    page = Page()
    try:
        page.open(tmp_path / "report.html", READY)
        settle(page)
        labels = page.evaluate("[...document.querySelectorAll('.solver')].map((l) => l.innerText)")
        assert [label.strip() for label in labels] == sorted(frame["solver"].unique())
        # A tooltip over a point shows names as well.
        place = page.evaluate(
            """(() => {
              const figure = report.figures["primal-integral"];
              document.getElementById("plot-primal-integral").scrollIntoView({block: "center"});
              const view = Bokeh.index.find_one(figure);
              const points = figure.renderers.find((r) => r.tags.includes("csv")).data_source.data;
              const box = view.el.getBoundingClientRect();
              const inner = view.frame.bbox;
              return [box.x + view.frame.x_scale.compute(points._x[0]),
                      box.y + view.frame.y_scale.compute(points._y[0])];
            })()"""
        )
        page.send("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
        settle(page)
        text = page.evaluate(
            """(() => {
              const found = [];
              const walk = (node) => {
                if (node.classList?.contains("bk-tooltip-row-value")) found.push(node.innerText);
                [...node.children, ...(node.shadowRoot?.children ?? [])].forEach(walk);
              };
              walk(document.documentElement);
              return found.join("\\n");
            })()"""
        )
        assert "onerror" in text
        page.evaluate("location.hash = '#problem-0'")
        page.wait("report.figures.problem")
        text = page.evaluate("report.csvOf('problem')")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert {row["solver"] for row in rows} <= set(frame["solver"])
        assert page.evaluate("window.hacked === undefined")
        assert page.evaluate("document.querySelectorAll('img').length") == 0
        assert page.messages == []
        assert {url.split(":")[0] for url in page.requests} <= {"file", "data"}
    finally:
        page.close()

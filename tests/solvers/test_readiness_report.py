"""The page of an assessment: charts, tables, sources, and names that are not markup."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re

import numpy as np
import pytest
from browser import CHROMIUM, Page

from problems import CardinalityQUBO
from solvers.errors import TableError
from solvers.readiness import Case, Options, assess_all, load_targets
from solvers.readiness.report import write_report
from solvers.readiness.report.charts import LOGICAL, Scene, draw

pytest.importorskip("qiskit")
HOSTILE = "</script><img src=x onerror=alert(1)>"
TARGETS = load_targets("all-to-all,heavy-hex,zephyr,superconducting")
CHARTS = ["gates", "depth", "success", "chain", "physical-qubits", "quality"]
READY = "document.body?.dataset.ready"


def dense(n):
    Q = np.random.default_rng(n).normal(size=(n, n))
    return CardinalityQUBO(Q + Q.T, n // 2)


@pytest.fixture(scope="module")
def assessed():
    options = Options(targets=tuple(TARGETS), p=(1, 2), classical_seconds=0.05)
    cases = [Case(HOSTILE, dense(6)), Case("ten", dense(10)), Case("forty", dense(40))]
    return list(assess_all(cases, options))


@pytest.fixture(scope="module")
def report(assessed, tmp_path_factory):
    return write_report(assessed, TARGETS, tmp_path_factory.mktemp("report") / "readiness.html")


def test_charts_have_a_series_for_each_target(assessed):
    charts = {chart.key: chart for chart in draw(Scene(assessed, TARGETS))}
    assert list(charts) == CHARTS
    names = {
        key: {renderer.name for renderer in chart.figure.renderers} for key, chart in charts.items()
    }
    assert names["gates"] == names["depth"] == {"all-to-all", "heavy-hex", LOGICAL}
    assert names["success"] == {"all-to-all", "heavy-hex"}
    assert names["chain"] == {"zephyr"}
    assert names["physical-qubits"] == {"zephyr", "superconducting"}
    assert names["quality"] == {"ramp", "optimised"}


def test_figures_of_the_points_are_those_of_the_rows(assessed):
    chart = next(chart for chart in draw(Scene(assessed, TARGETS)) if chart.key == "gates")
    points = next(
        renderer.data_source.data
        for renderer in chart.figure.renderers
        if renderer.name == "heavy-hex" and "csv" in renderer.tags
    )
    expected = {
        assessment.name: row.two_qubit_gates
        for assessment in assessed
        for row in assessment.devices
        if row.target == "heavy-hex" and row.p == 1
    }
    assert dict(zip(points["problem"], points["value"], strict=True)) == expected


def test_charts_without_data_say_why(assessed):
    targets = load_targets("superconducting")
    bare = [dataclasses.replace(row, devices=[], annealers=[], quality=[]) for row in assessed]
    charts = {chart.key: chart for chart in draw(Scene(bare, targets))}
    assert charts["success"].figure is None
    assert charts["chain"].definition.startswith("Not drawn")
    assert charts["quality"].figure is None
    assert charts["gates"].figure is not None


def test_the_page_holds_everything_and_asks_for_nothing(report):
    text = report.read_text()
    assert HOSTILE not in text
    assert "&lt;/script&gt;" in text
    body = re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    assert not re.findall(r"""(?:src|href)=["']?https?:""", body)
    for target in TARGETS:
        for source in target.sources:
            assert source.source.split()[0] in body
            assert source.date.isoformat() in body
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    assert set(data["tables"]) == {"verdicts", "problems", "quality-table", "annealers", "tolerant"}


def test_nothing_to_report(tmp_path):
    with pytest.raises(TableError, match="no assessments"):
        write_report([], TARGETS, tmp_path / "page.html")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize(("width", "phone"), [(1400, False), (390, True)])
def test_the_page_in_a_browser(report, assessed, width, phone):
    page = Page(width, 900, phone)
    try:
        page.open(report, READY)
        for key in CHARTS:
            size = f"document.getElementById('plot-{key}').getBoundingClientRect()"
            assert page.evaluate(f"Math.min({size}.width, {size}.height)") > 280, key
            content = list(csv.DictReader(io.StringIO(page.evaluate(f"report.csvOf('{key}')"))))
            assert content, key
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        rows = list(csv.DictReader(io.StringIO(page.evaluate("report.csvOf('verdicts')"))))
        assert len(rows) == len(assessed) * len(TARGETS)
        assert rows[0]["problem"] == HOSTILE
        shown = "report.figures.gates.renderers.filter((r) => r.visible).map((r) => r.name)"
        assert "heavy-hex" in page.evaluate(shown)
        page.evaluate(
            """[...document.querySelectorAll(".solver")]
              .find((l) => l.textContent.trim() === "heavy-hex").click()"""
        )
        assert "heavy-hex" not in page.evaluate(shown)
        assert "heavy-hex" not in page.evaluate("report.csvOf('gates')")
        page.evaluate("document.getElementById('all').click()")
        assert "heavy-hex" in page.evaluate(shown)
    finally:
        page.close()
    assert page.messages == []
    assert {url.split(":")[0] for url in page.requests} <= {"file", "data", "blob"}

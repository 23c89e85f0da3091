"""Page of a comparison: content, size, and escaping of names."""

import json
import re
import subprocess
import sys
import time
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from comparison_tables import DRAWN, drawn, run, table

from problems import CardinalityQUBO
from solvers import solve
from solvers.comparison.measures import results
from solvers.comparison.report import write_report
from solvers.comparison.report.figures import thin
from solvers.comparison.report.style import styles
from solvers.errors import TableError

HOSTILE = '</script><img src=x onerror="window.hacked=1">&amp;\u2028"\'${x}{{ 7*7 }}'


class Reader(HTMLParser):
    """Collects elements, the text of cells, and what scripts hold."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.cells, self.data = [], [], {}
        self._cell = self._script = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("td", "h2", "h1"):
            self.cells.append("")
        self._cell = self._cell or tag in ("td", "h2", "h1")
        self._script = tag == "script" and ("id", "data") in attrs

    def handle_endtag(self, tag):
        if tag in ("td", "h2", "h1"):
            self._cell = False

    def handle_data(self, text):
        if self._script:
            self.data = json.loads(text)
            self._script = False
        elif self._cell:
            self.cells[-1] += text


def page_of(frame, tmp_path):
    return Reader(write_report(frame, tmp_path / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return page_of(drawn(problems=12, seeds=2, incumbents=8), tmp_path_factory.mktemp("page"))


def test_page_holds_charts_tables_and_data(page):
    ids = {attrs.get("id") for _, attrs in page.elements}
    charts = set(page.data["figures"])
    assert charts == {
        *("ecdf", "anytime", "profile", "time-to-target", "time-to-solution", "primal-integral"),
        *("proof", "bound", "feasible", "repair", "problem"),
    }
    assert {f"plot-{key}" for key in charts} <= ids
    buttons = {a["data-chart"] for _, a in page.elements if "data-chart" in a}
    assert buttons == charts
    assert {f"problem-{i}" for i in range(12)} <= ids
    assert page.data["solvers"] == sorted(DRAWN)
    links = {a["href"] for tag, a in page.elements if tag == "a"}
    assert {link.removeprefix("#") for link in links} <= ids


def test_costs_of_the_page_are_expected_running_times(tmp_path):
    rows = [
        *run("p", "a", 0, [(0.25, 0.0)], best_known=0.0),
        *run("p", "a", 1, [(0.5, 0.5)], best_known=0.0),
        *run("p", "b", 0, [(0.5, 0.5)], best_known=0.0),
    ]
    data = page_of(table(rows), tmp_path).data
    assert data["costs"] == {t: [[1.25, None]] for t in ("1e-2", "1e-4", "1e-6")}
    assert data["curves"] == [[[0, 0, [0.25], [0.0]], [0, 1, [0.5], [0.5]], [1, 0, [0.5], [0.5]]]]


def test_runs_that_failed_are_listed(page):
    assert "UnsupportedError: at most 2048 variables, the problem has 4096" in page.cells
    assert "BackendError: <neal> failed: out of memory & more" in page.cells
    assert "deit-1-4096-early (seed 0, 1)" in page.cells


def test_false_claims_and_late_answers_are_told(tmp_path):
    lie = run("p", "liar", 0, [(0.1, 0.5)], known="optimal", bound=0.5, best_known=0.0)
    late = run("p", "late", 0, [], end=(3.0, 0.25), best_known=0.0)
    write_report(table(lie, late), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<li>liar on p, seed 0</li>" in text
    assert "1 run returned more than 10% after the time limit" in text


def test_hostile_names_stay_text(tmp_path):
    frame = drawn(problems=3, seeds=1, incumbents=4)
    for column in ("problem", "solver", "family", "start_kind", "machine", "error"):
        frame[column] = HOSTILE + frame[column].astype(str)
    frame["versions"] = json.dumps({HOSTILE: HOSTILE})
    frame["options"] = json.dumps({HOSTILE: HOSTILE})
    page = page_of(frame, tmp_path)
    assert not [attrs for tag, attrs in page.elements if tag == "img" or "onerror" in attrs]
    assert sum(tag == "script" for tag, _ in page.elements) == 3
    assert page.data["solvers"] == sorted(HOSTILE + name for name in DRAWN)
    assert any(cell.startswith(HOSTILE) for cell in page.cells)


def test_page_asks_no_host(page):
    assert not [a for _, a in page.elements if "src" in a]
    assert not [
        a for tag, a in page.elements if tag == "link" and not a["href"].startswith("data:")
    ]
    policy = [a["content"] for _, a in page.elements if a.get("http-equiv")]
    assert len(policy) == 1
    assert "default-src 'none'" in policy[0]
    assert "http" not in policy[0]


@pytest.mark.parametrize(
    "frame",
    [
        table(run("p", "a", 0, [], end=(0.1, np.nan), status="failed", error="x")),
        table(run("p", "a", 0, [(0.0, 1.0)], n=1)),
        table(run("p", "a", 0, [(0.5, 1.0)], start=0.0, best_known=0.0)),
        table(run("p", "a", 0, [(2e-6, 0.0)], end=(1e-5, 0.0), limit=1e-3)),
        table(*(run("p", f"s{i}", 0, [(0.1, 0.5)]) for i in range(9))),
    ],
    ids=[
        "nothing solved",
        "one variable",
        "worse than a best start",
        "microseconds",
        "nine solvers",
    ],
)
def test_small_tables_are_drawn(frame, tmp_path):
    page = page_of(frame, tmp_path)
    assert "ecdf" in page.data["figures"]
    assert len(page.data["solvers"]) == frame["solver"].nunique()


def test_a_real_table_is_drawn(tmp_path):
    rows, best = [], {}
    for seed in range(2):
        Q = np.random.default_rng(seed).normal(size=(14, 14))
        problem = CardinalityQUBO(Q + Q.T, 7)
        start = problem.energy(np.arange(14) < 7)
        for name in ("anneal", "exact", "tabu"):
            steps = []
            note = (lambda t, e, steps=steps: steps.append((t, e))) if name != "tabu" else None
            began = time.perf_counter()
            found = solve(problem, name, seed=seed, time_limit=0.2, callback=note)
            end = (time.perf_counter() - began, found.energy)
            more = {"known": "optimal" if found.is_optimal else "", "bound": found.bound}
            rows += run(f"p{seed}", name, 0, steps, end=end, limit=0.2, n=14, start=start, **more)
            if name == "exact":
                best[f"p{seed}"] = found.energy
    frame = table(rows)
    found = results(frame).problems
    # These problems are small: the exact solver proves what the others reach.
    assert dict(zip(found["problem"], found["best"], strict=True)) == pytest.approx(best)
    assert found["proved"].all()
    page = page_of(frame, tmp_path)
    assert page.cells.count("yes") == 2


@pytest.mark.slow
def test_a_campaign_of_the_size_wanted_is_small_and_quick(tmp_path):
    frame = drawn(problems=60, seeds=3, incumbents=300)
    assert len(frame) > 200_000
    began = time.perf_counter()
    path = write_report(frame, tmp_path / "report.html")
    assert time.perf_counter() - began < 20
    assert path.stat().st_size < 6e6


def test_styles_differ():
    looks = [(s.colour, s.dash, s.marker) for s in styles([str(i) for i in range(168)])]
    assert len(set(looks)) == 168
    few = styles([str(i) for i in range(6)])
    assert len({s.colour for s in few}) == len({s.dash for s in few}) == 6


def test_thinned_curves_keep_ends_and_order():
    seconds = np.sort(np.random.default_rng(0).exponential(size=1000))
    keep = thin(seconds, 50)
    assert len(keep) <= 50
    assert (keep[0], keep[-1]) == (0, 999)
    assert keep == sorted(set(keep))
    assert thin(seconds[:50], 50) == list(range(50))
    assert thin([0.0, 0.0, 0.0], 2) == [0, 2]


def test_a_damaged_table_is_refused(tmp_path):
    with pytest.raises(TableError, match="lacks the columns energy"):
        write_report(drawn(problems=1).drop(columns="energy"), tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_missing_packages_are_named():
    code = """
import sys
sys.modules["bokeh"] = sys.modules["bokeh.models"] = None
import solvers.comparison
try:
    import solvers.comparison.report
except ImportError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.search(r"needs bokeh.*: pip install 'icbs-pruning\[compare\]'", out.stdout), (
        out.stdout
    )


def test_solvers_alone_load_no_plotting():
    code = "import solvers, sys; print({'bokeh', 'pandas'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_report_is_the_same_each_time(tmp_path):
    frame = drawn(problems=2, seeds=1, incumbents=3)
    shuffled = pd.DataFrame(frame.sample(frac=1.0, random_state=0))
    first, second = page_of(frame, tmp_path), page_of(shuffled, tmp_path)
    assert first.cells == second.cells
    assert first.data["costs"] == second.data["costs"]
    assert first.data["curves"] == second.data["curves"]

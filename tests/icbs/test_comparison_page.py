"""The page of a comparison of solvers: following its journal, its measures, its charts."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from icbs.cli import app
from icbs.dashboard.comparison_board import ComparisonBoard
from icbs.dashboard.comparison_reader import ComparisonReader
from icbs.dashboard.standing import SHARE, Standing
from icbs.dashboard.watched import WatchedComparison, watch
from problems.planted import planted
from solvers.comparison import Campaign, CampaignConfig
from solvers.comparison.journal import RUNS
from solvers.comparison.measures import gaps_at, results, summary_rows, time_to_target
from solvers.comparison.pace import Pace
from tests.icbs.pages import interrupted_with_page
from tests.icbs.test_dashboard import READY, TEXT, needs_browser
from tests.solvers.browser import Page
from tests.solvers.comparison_solvers import dense, grouped

pytest.importorskip("bokeh")

PROBLEMS = {"dense": dense(), "groups": grouped(), "planted": planted(40, 20, 8, seed=1).problem}
SOLVERS = ("anneal", "exact", "diagonal")


def plan(folder, **settings):
    config = {"problems": PROBLEMS, "solvers": list(SOLVERS), "seeds": 2, "time_limit": 0.1}
    return Campaign.plan(CampaignConfig.of(**config | settings), folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison") / "<mine>"
    campaign = plan(folder)
    campaign.carry_out()
    return campaign


@pytest.fixture
def copied(finished, tmp_path):
    """A comparison without answers, and the lines of its journal."""
    folder = shutil.copytree(finished.folder, tmp_path / "copy")
    lines = (folder / RUNS).read_bytes().splitlines(keepends=True)
    (folder / RUNS).unlink()
    return folder, lines


def test_a_reader_takes_each_run_once_and_none_before_its_line_is_whole(finished, copied):
    folder, lines = copied
    reader, journal, whole = ComparisonReader(folder), b"", b"".join(lines)
    assert (len(reader.statuses), reader.finished) == (0, False)
    assert reader.remaining == pytest.approx(1.8 / finished.jobs)
    for end in range(0, len(whole), 700):
        (folder / RUNS).write_bytes(journal := whole[:end])
        reader.refresh()
        assert len(reader.statuses) == journal.count(b"\n")
        assert reader.problem == ""
    (folder / RUNS).write_bytes(whole)
    version = reader.version
    assert reader.refresh() == version + 1 == reader.refresh()
    assert reader.finished
    assert reader.state == "finished"
    keys = ["run", "row", "seconds"]
    mine, theirs = (
        t.sort_values(keys, ignore_index=True) for t in (reader.table(), finished.table())
    )
    assert mine.equals(theirs)


def test_a_journal_that_is_cut_is_read_again(copied):
    folder, lines = copied
    (folder / RUNS).write_bytes(b"".join(lines[:7]))
    reader = ComparisonReader(folder)
    (folder / RUNS).write_bytes(b"".join(lines[8:10]))
    reader.refresh()
    assert len(reader.statuses) == 2
    damaged = lines[10].replace(b'"energy"', b'"enemy!"')
    (folder / RUNS).write_bytes(b"".join([*lines[8:10], damaged]))
    reader.refresh()
    assert "is damaged" in reader.problem
    (folder / RUNS).write_bytes(b"".join(lines[8:]))
    reader.refresh()
    assert (len(reader.statuses), reader.problem) == (10, "")


def test_the_table_and_the_charts_are_those_of_the_measures(finished):
    standing = Standing(ComparisonReader(finished.folder))
    standing.update()
    heads, *rows = summary_rows(finished.table())
    assert standing.headings == [head for head in heads if head != "failures"]
    left_out, runs = heads.index("failures"), heads.index("runs")
    for row in rows:
        row[runs] += " of 6"
        del row[left_out]
    assert standing.cells() == rows
    found = results(finished.table())
    ecdf, anytime = standing.charts
    times = time_to_target(found, np.logspace(-1, -6, 26).round(9))
    for renderer in ecdf.figure.renderers:
        if "line" in renderer.tags:
            mine = times[times["solver"] == renderer.name]["seconds"]
            share = float(np.isfinite(mine).mean())
            assert renderer.data_source.data["share"][-1] == pytest.approx(share)
    lines = [r for r in anytime.figure.renderers if "line" in r.tags]
    for renderer in lines:
        runs = (found.runs["solver"] == renderer.name).to_numpy()
        data = renderer.data_source.data
        wanted = np.median(gaps_at(found, data["seconds"])[runs], axis=0)
        assert data["median"] == pytest.approx(wanted)
    assert {renderer.name for renderer in lines} == set(SOLVERS)


def test_a_board_follows_a_comparison(finished, copied):
    folder, lines = copied
    watched = watch([folder])
    assert isinstance(watched, WatchedComparison)
    board, standing = ComparisonBoard(watched.standing), watched.standing
    assert "0 of 18" in board._progress.text
    assert "time left" in board._progress.text
    assert len(board.root.children) == 2
    for count in range(1, len(lines) + 1):
        (folder / RUNS).write_bytes(b"".join(lines[:count]))
        standing._due = 0.0
        board.update()
        assert f"{count} of 18" in board._progress.text
        assert standing.runs == count
    assert len(board.root.children) == 3
    assert "Measures of all runs" in board._table.text
    fresh = ComparisonBoard(Standing(ComparisonReader(finished.folder)))
    assert board._table.text == fresh._table.text
    for mine, other in zip(board._charts, fresh._charts, strict=True):
        assert [(a.start, a.end) for a in (mine._figure.x_range, mine._figure.y_range)] == [
            (a.start, a.end) for a in (other._figure.x_range, other._figure.y_range)
        ]
        for drawn, wanted in zip(mine._figure.renderers, other._figure.renderers, strict=True):
            assert drawn.name == wanted.name
            data, expected = drawn.data_source.data, wanted.data_source.data
            assert list(data) == list(expected)
            assert all(np.array_equal(data[column], expected[column]) for column in data)
        shown, wanted = (
            [(item.label["value"], item.visible) for item in chart._figure.legend[0].items]
            for chart in (mine, other)
        )
        assert shown == wanted
        assert mine._figure.height == other._figure.height


def test_axes_that_are_zoomed_stay(copied):
    folder, lines = copied
    (folder / RUNS).write_bytes(b"".join(lines[:8]))
    standing = Standing(ComparisonReader(folder))
    board = ComparisonBoard(standing)
    axis = board._charts[0]._figure.x_range
    axis.update(start=0.001, end=0.002)
    (folder / RUNS).write_bytes(b"".join(lines))
    board.update()
    assert (axis.start, axis.end) == (0.001, 0.002)


def test_measuring_waits_while_solvers_run(copied, monkeypatch):
    folder, lines = copied
    (folder / RUNS).write_bytes(b"".join(lines[:8]))
    reader = ComparisonReader(folder)
    standing = Standing(reader)
    began = time.process_time()
    standing.update()
    cost = time.process_time() - began
    (folder / RUNS).write_bytes(b"".join(lines[:9]))
    reader.refresh()
    standing.update()
    assert standing.runs == 8
    assert 0 < standing.wait <= 1.5 * cost / SHARE
    (folder / RUNS).write_bytes(b"".join(lines))
    reader.refresh()
    standing.update()
    assert standing.runs == len(lines) == 18  # the solvers have ended
    assert standing.wait == 0


def test_the_time_left_is_that_of_the_solvers_so_far():
    pace = Pace(["a"] * 4 + ["b"] * 2, 10.0, 2)
    assert pace.remaining == 30
    for seconds in (1.0, 3.0):
        pace.add("a", seconds)
    pace.add("b", float("nan"))
    assert pace.remaining == (2 * 2.0 + 1 * 10.0) / 2


def test_folders_that_cannot_be_shown_are_refused_by_name(finished, tmp_path):
    def said(*words):
        result = CliRunner(env={"COLUMNS": "300"}).invoke(app, [str(word) for word in words])
        assert result.exit_code == 2
        return " ".join(result.stderr.split())

    assert "watch it alone" in said("watch", finished.folder, tmp_path)
    assert "has no run" in said("watch", tmp_path)
    older = shutil.copytree(finished.folder, tmp_path / "older")
    (older / "planned.json").unlink()
    assert "'icbs compare' of this folder, repeated, writes it" in said("watch", older)
    (older / "planned.json").write_text('{"jobs": 0}')
    assert "planned.json is damaged" in said("watch", older)
    assert "report.html" in said("report", finished.folder, "--html")


def test_a_deleted_folder_is_reported(copied):
    folder, lines = copied
    (folder / RUNS).write_bytes(b"".join(lines))
    watched = watch([folder])
    board = ComparisonBoard(watched.standing)
    table = board._table.text
    assert watched.deleted == []
    shutil.rmtree(folder)
    board.update()
    assert watched.deleted == [folder]
    assert "was deleted while it was watched" in board._progress.text
    assert board._table.text == table


@pytest.mark.skipif(sys.platform == "win32", reason="sends Ctrl-C")
def test_the_command_and_its_page_end_together(tmp_path):
    for name, problem in PROBLEMS.items():
        problem.save(tmp_path / f"{name}.npz")
    page, said = interrupted_with_page(
        *("compare", "--problems", str(tmp_path / "*.npz"), "--solvers", "anneal"),
        *("--seeds", "1000", "--time-limit", "0.2", "--out", str(tmp_path / "<mine>")),
    )
    assert "Comparison of solvers &lt;mine&gt;" in page
    assert "the page ends with the comparison; 'icbs watch" in said
    assert "interrupted; the same command" in said
    assert "signal" not in said


@needs_browser
def test_a_served_page_follows_a_comparison(copied):
    folder, lines = copied
    (folder / RUNS).write_bytes(b"".join(lines[:9]))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "icbs", "watch", str(folder)),
            *("--port", "0", "--interval", "0.2"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    killer = threading.Timer(120, process.kill)
    killer.start()
    line = process.stdout.readline().strip()
    page = Page(1300, 900)
    shares = (
        "Bokeh.documents[0].roots()[0].children[2].children[0].children[1].renderers"
        ".filter((r) => r.tags.includes('line') && r.name === 'anneal')"
        ".map((r) => [...r.data_source.data.share].at(-1))"
    )
    try:
        page.send("Page.navigate", url=line[line.index("http") :].split()[0])
        page.wait(f"typeof Bokeh !== 'undefined' && {READY}", 60)
        page.wait(f"({TEXT}).includes('9 of 18')")
        assert "time left" in page.evaluate(TEXT)
        (folder / RUNS).write_bytes(b"".join(lines))
        page.wait(f"({TEXT}).includes('finished')")
        shown = page.evaluate(TEXT)
        for word in (
            "18 of 18",
            "anneal",
            "6 of 6",
            "at best known",
            "median gap",
            "not supported",
        ):
            assert word in shown
        assert "time left" not in shown
        assert page.evaluate(shares) == [1]
        for width, phone in ((1300, False), (390, True)):
            page.resize(width, 900, phone)
            page.wait(f"document.documentElement.scrollWidth <= {width}")
        shutil.rmtree(folder)
        page.wait(
            "[...document.querySelectorAll('*')].some(function walk(e) {"
            " return e.className === 'alert' || (e.shadowRoot &&"
            " [...e.shadowRoot.querySelectorAll('*')].some(walk)) })"
        )
        assert "was deleted" in process.stdout.readline()
        assert page.messages == []
    finally:
        page.close()
        killer.cancel()
        process.terminate()
        process.wait(20)

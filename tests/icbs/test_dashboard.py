"""The dashboard: reading of what is new, charts, the server and its pages in a browser."""

from __future__ import annotations

import dataclasses
import math
import shutil
import socket
import subprocess
import sys
import threading

import pytest
from typer.testing import CliRunner

from icbs import ConfigError, Pruner, RunFolderError, prune_in_steps, search
from icbs.cli import app
from icbs.dashboard import serve, server, write_page
from icbs.dashboard.board import Board
from icbs.dashboard.curves import kept_chart, loss_chart, metric_chart
from icbs.dashboard.figures import wrapped
from icbs.dashboard.layer_map import LayerMap
from icbs.dashboard.reader import RunReader
from icbs.dashboard.summary import facts
from icbs.dashboard.tail import Tail
from icbs.dashboard.watched import WatchedRuns
from icbs.report.decisions import decisions
from icbs.report.evaluations import Evaluator
from icbs.report.layers import layer_figures
from icbs.run.history import BlockRecord, HistoryFile, read_history
from icbs.run.progress_file import ProgressRecord
from icbs.run.table_file import TableFile
from tests.icbs.conftest import make_toy
from tests.icbs.pages import interrupted_with_page
from tests.solvers.browser import CHROMIUM, Page

pytest.importorskip("bokeh")

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
BLANK = {field.name: 0 for field in dataclasses.fields(BlockRecord)} | {
    "failure": "",
    "accepted": True,
    "moved": 2,
}
SETTINGS = {"density": 0.3, "passes": 6, "block_size": 16, "checkpoint_every": 2}


def prune(folder, **settings):
    toy = make_toy()
    pruner = Pruner(**SETTINGS | settings)
    return pruner.prune(toy.model, toy.batches, toy.loss, run=folder, progress=False)


def row(step, layer="0", **given):
    return BlockRecord(**BLANK | {"step": step, "layer": layer} | given)


def test_a_tail_returns_each_row_once_and_none_before_it_is_complete(tmp_path):
    path = tmp_path / "history.csv"
    rows = [row(i, failure="two\nlines" if i % 3 == 0 else "", seconds=0.1 * i) for i in range(9)]
    HistoryFile(path).append(rows)
    text, tail, found = path.read_bytes(), Tail(HistoryFile(path)), []
    for end in range(0, len(text) + 1, 7):
        path.write_bytes(text[:end])
        new, replaced = tail.read()
        assert not replaced
        found += new
    path.write_bytes(text)
    assert found + tail.read()[0] == rows
    assert tail.read() == ([], False)


@pytest.mark.parametrize("kept", [1, 4])
def test_a_tail_reads_all_again_after_a_resumption(tmp_path, kept):
    path = tmp_path / "history.csv"
    HistoryFile(path).append([row(i, seconds=0.5 * i) for i in range(6)])
    tail = Tail(HistoryFile(path))
    assert len(tail.read()[0]) == 6
    again = [row(i, seconds=0.5 * i if i < kept else 0.7 * i) for i in range(8)]
    HistoryFile(path).append(again)
    assert tail.read() == (again, True)


@pytest.mark.parametrize("unit", ["block", "pass"])
def test_a_reader_that_follows_a_run_ends_with_the_figures_of_the_history(tmp_path, unit):
    folder, toy, readers = tmp_path / "run", make_toy(), []

    def look(progress):
        if not readers:
            readers.append(RunReader(folder))
        readers[0].refresh()

    pruner = Pruner(**SETTINGS | {"acceptance": unit, "passes": 12})
    result = pruner.prune(
        toy.model, toy.batches, toy.loss, run=folder, callback=look, progress=False
    )
    [reader] = readers
    reader.refresh()
    reader.refresh()
    assert reader.state == "finished"
    assert reader.decisions == decisions(result.history, by_pass=unit == "pass")
    whole = {f.name: f for f in layer_figures(result.history, {}, by_pass=unit == "pass")}
    assert set(reader.layers) == set(whole)
    for name, sums in reader.layers.items():
        figures = whole[name]
        assert (sums.blocks, sums.accepted, sums.moved) == (
            figures.blocks,
            figures.accepted,
            figures.moved,
        )
        assert sums.predicted == pytest.approx(figures.predicted)
        if unit == "block":
            assert sums.actual == pytest.approx(figures.actual)
    actual = math.fsum(d.actual for d in reader.decisions if d.accepted)
    assert math.fsum(s.actual for s in reader.layers.values()) == pytest.approx(actual)
    assert [r.step for r in reader.progress] == list(range(13))
    assert reader.losses[-1][1] == pytest.approx(result.loss, rel=1e-4)
    assert reader.initial_loss == result.initial_loss
    assert math.fsum(reader.costs.values()) == pytest.approx(result.seconds, rel=0.01)
    for name, mask in result.masks.items():
        assert reader.density(name) == pytest.approx(float(mask.float().mean()))


def test_progress_of_a_resumed_run_has_each_pass_once(tmp_path):
    folder, toy = tmp_path / "run", make_toy()
    pruner = Pruner(**SETTINGS)

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pruner.prune(toy.model, toy.batches, toy.loss, run=folder, callback=stop, progress=False)
    reader, again = RunReader(folder), make_toy()
    Pruner.resume(folder, again.model, again.batches, again.loss, progress=False)
    reader.refresh()
    assert [r.step for r in reader.progress] == list(range(7))
    rows = TableFile(folder / "progress.csv", ProgressRecord, "table", "").read()
    assert repr(rows) == repr(reader.progress)  # the first time left is NaN
    assert rows[-1].blocks == len(read_history(folder / "history.csv"))


def test_maps_have_a_place_for_each_layer(tmp_path):
    prune(tmp_path / "run")
    reader = RunReader(tmp_path / "run")
    assert LayerMap(reader).bars
    kinds = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    for names in (
        [f"model.layers.{i}.{kind}" for i in range(30) for kind in kinds],
        [f"blocks.{i}.{j}.conv" for i in range(7) for j in range(i + 1)],
        [f"layer_{i}" for i in range(300)],
    ):
        reader.sizes, reader.layers = dict.fromkeys(names, 4), {}
        layers = LayerMap(reader)
        places = layers._grid.places
        assert set(places) == set(names)
        assert len(set(places.values())) == len(names)
        assert not layers.bars
        assert len(layers._grid.rows) <= 40
        assert sorted(layers._source.data["name"]) == sorted(names)


@pytest.mark.parametrize(
    "name",
    ["a", "layers.*.attention_key_projection", "x" * 70, "a..b", "encoder/block_1-b.w", "_", "."],
)
def test_long_names_are_wrapped_and_whole(name):
    lines = wrapped(name, 24).split("\n")
    assert "".join(lines) == name
    assert all(0 < len(line) <= 24 for line in lines)


def test_labels_of_maps_are_full_names(tmp_path):
    prune(tmp_path / "run")
    reader = RunReader(tmp_path / "run")
    kinds = [f"attention_{part}_projection_of_the_layer" for part in ("key", "query")]
    for count in (3, 30):
        names = [f"layers.{i}.{kind}" for i in range(count) for kind in kinds]
        reader.sizes, reader.layers = dict.fromkeys(names, 4), {}
        layers = LayerMap(reader)
        labels = layers.figures[0].yaxis[0].major_label_overrides.values()
        expected = names if layers.bars else kinds
        assert [label.replace("\n", "") for label in labels] == expected
        lines = max(label.count("\n") + 1 for label in labels)
        assert lines == 2 or lines == 3
        assert layers.figures[0].height >= 14 * lines * len(labels)


def legend(figure):
    return {item.label["value"]: item for entry in figure.legend for item in entry.items}


def test_several_runs_have_an_entry_each_and_charts_of_the_same_height(tmp_path):
    toy = make_toy()
    evaluator = Evaluator(lambda model: {"accuracy": 0.5}, 1, tmp_path / "r0")
    Pruner(**SETTINGS).prune(
        toy.model, toy.batches, toy.loss, run=tmp_path / "r0", progress=False, callback=evaluator
    )
    names = [f"r{i}" for i in range(5)]
    for name in names[1:]:
        prune(tmp_path / name, passes=1)
    readers = [RunReader(tmp_path / name) for name in names]
    alone = loss_chart(readers[:1], names[:1])
    alone.update()
    assert list(legend(alone.figure)) == ["r0", "start (magnitude)"]
    chart = loss_chart(readers, names)
    chart.update()
    entries = legend(chart.figure)
    assert list(entries) == names
    assert all(item.visible for item in entries.values())
    [below] = chart.figure.legend
    rows = -(-len(names) // below.ncols)
    assert chart.figure.height - alone.figure.height == 20 * (rows - 1)
    accuracy = metric_chart(readers, names, "accuracy")
    accuracy.update()
    shown = [name for name, item in legend(accuracy.figure).items() if item.visible]
    assert shown == ["r0"]


def test_shares_of_recent_and_of_all_passes_look_different(tmp_path):
    prune(tmp_path / "a")
    chart = kept_chart([RunReader(tmp_path / "a")], ["a"])
    chart.update()
    looks = []
    for item in legend(chart.figure).values():
        kinds = sorted(type(renderer.glyph).__name__ for renderer in item.renderers)
        [line] = [r.glyph for r in item.renderers if type(r.glyph).__name__ == "Line"]
        looks.append((kinds, line.line_color, str(line.line_dash)))
    assert len(looks) == 2
    assert all(one != other for one, other in zip(*looks, strict=True))


def test_a_deleted_folder_is_reported_and_the_figures_stay(tmp_path):
    prune(tmp_path / "run")
    reader = RunReader(tmp_path / "run")
    before = facts(reader)
    shutil.rmtree(tmp_path / "run")
    version = reader.version
    assert reader.refresh() > version
    assert "deleted" in facts(reader)["state"]
    assert facts(reader) | {"state": ""} == before | {"state": ""}


def test_bad_input_is_refused_before_the_server_starts(tmp_path):
    with pytest.raises(RunFolderError, match="has no run"):
        serve([tmp_path])
    said = CliRunner().invoke(app, ["watch", str(tmp_path)])
    assert said.exit_code == 2
    prune(tmp_path / "run", passes=1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} is in use.*--port 0"):
            serve([tmp_path / "run"], port=port)


def test_a_free_port_that_was_taken_meanwhile_is_passed_over(tmp_path, monkeypatch):
    prune(tmp_path / "run", passes=1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free = server._free_port()
        offered = iter([taken.getsockname()[1], free])
        monkeypatch.setattr(server, "_free_port", lambda: next(offered))
        started = server.start_server(WatchedRuns([tmp_path / "run"]), 0, 1.0)
    assert started.port == free
    started.stop()


def test_a_page_is_self_contained_and_escapes_names(tmp_path):
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    prune(folder)
    text = write_page([folder], tmp_path / "page.html").read_text()
    assert "<img src=x" not in text
    assert "Content-Security-Policy" in text


@pytest.mark.filterwarnings("ignore::icbs.BlockSizeWarning")
def test_a_page_of_a_search_shows_each_run_as_it_starts(tmp_path):
    toy, folder, boards, started = make_toy(), tmp_path / "s", [], []

    def look(progress):
        name = f"density-{progress.density:g}"
        if name not in started:
            started.append(name)
        if not boards:
            boards.append(Board(WatchedRuns([folder]), live=True))
        boards[0].update()
        assert boards[0].runs.heading == f"iCBS run{'s' * (len(started) > 1)} s"
        assert [reader.path.name for reader in boards[0].runs.readers] == started

    result = search(
        *(toy.model, toy.batches[:-1], toy.loss),
        heldout=[toy.batches[-1]],
        max_accuracy_loss=0.03,
        low=0.2,
        tolerance=0.3,
        run=folder,
        callback=look,
        passes=2,
        block_size=64,
    )
    assert len(started) > 2
    shown = {r.path.name: facts(r) for r in boards[0].runs.readers if r.refresh()}
    for point in result.curve.points:
        words = f"{result.curve.spell(point)}, {point.verdict}"
        assert shown[f"density-{point.density:g}"]["target: accuracy loss ≤ 3.00%"] == words
    text = write_page([folder], tmp_path / "page.html").read_text()
    assert all(name in text for name in started)


@pytest.mark.filterwarnings("ignore::icbs.BlockSizeWarning")
def test_a_page_that_is_opened_before_the_first_run_shows_it_when_it_starts(tmp_path):
    def start(passes):
        toy = make_toy()
        steps = {"steps": [0.5, 0.3], "density": 0.3, "block_size": 64}
        return prune_in_steps(toy.model, toy.batches, toy.loss, run=folder, passes=passes, **steps)

    folder = tmp_path / "steps"
    start(3)
    (folder / "summary-of-steps.json").unlink()
    for run in folder.glob("step-*"):
        shutil.rmtree(run)
    board = Board(WatchedRuns([folder]), live=True)
    assert "No run has started yet" in board.root.children[0].text
    with pytest.raises(RunFolderError, match="no run has started yet"):
        write_page([folder], tmp_path / "page.html")
    start(3)
    board.update()
    assert [reader.path.name for reader in board.runs.readers] == ["step-1", "step-2"]
    assert len(board.root.children) > 2


@pytest.mark.filterwarnings("ignore::icbs.BlockSizeWarning")
def test_a_page_of_pruning_in_steps_has_its_runs_in_order(tmp_path):
    toy = make_toy()
    prune_in_steps(
        *(toy.model, toy.batches, toy.loss),
        steps=3,
        density=0.3,
        passes=3,
        block_size=64,
        run=tmp_path / "steps",
    )
    runs = WatchedRuns([tmp_path / "steps"])
    assert [reader.path.name for reader in runs.readers] == ["step-1", "step-2", "step-3"]


@pytest.mark.skipif(sys.platform == "win32", reason="sends Ctrl-C")
@pytest.mark.parametrize(
    ("command", "passes"),
    [
        (("prune", "--density", "0.25", "--passes"), "1000000"),
        pytest.param(
            *(("prune", "--density", "0.25", "--steps", "2", "--passes"), "1000000"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(
                ("search", "--max-accuracy-loss", "0.3", "--low", "0.2", "--set"),
                "passes=1000000",
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_command_and_its_page_end_together(tmp_path, command, passes):
    run = tmp_path / "<mine>"
    command = (*command, passes, "--task", "tiny", "--run", str(run))
    page, said = interrupted_with_page(*command)
    assert "iCBS run &lt;mine&gt;" in page
    assert f"the page ends with the run; 'icbs watch {run}' shows it again" in said
    assert "interrupted; " in said


def test_a_page_ends_with_its_parent_even_if_that_was_killed(tmp_path):
    prune(tmp_path / "run", passes=1)
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    command = [*(sys.executable, "-m", "icbs", "watch", str(tmp_path / "run"), "--port", "0")]
    page = subprocess.Popen(
        [*command, "--interval", "0.2", "--parent", str(parent.pid)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert "watching" in page.stdout.readline()
        assert page.poll() is None
        parent.kill()
        parent.wait()
        assert page.wait(300) == 0
    finally:
        page.kill()


@pytest.fixture
def served(tmp_path):
    """Two runs, and the address of their page."""
    runs = [tmp_path / "first", tmp_path / "second"]
    for run, density in zip(runs, (0.3, 0.5), strict=True):
        prune(run, density=density)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "icbs", "watch", *map(str, runs)),
            *("--port", "0", "--interval", "0.2"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    killer = threading.Timer(600, process.kill)
    killer.start()
    line = process.stdout.readline().strip()
    yield runs, line[line.index("http") :].split()[0], process
    killer.cancel()
    process.terminate()
    process.wait(20)


READY = "Bokeh.documents.length && Bokeh.documents[0].is_idle"
TEXT = (
    "[...document.querySelectorAll('*')].flatMap(function walk(e) {"
    " return e.shadowRoot ? [...e.shadowRoot.querySelectorAll('*')].flatMap(walk)"
    " : e.tagName === 'TABLE' || e.className === 'alert' ? [e.innerText] : [] }).join('\\n')"
)


@needs_browser
def test_a_served_page_follows_its_runs(served):
    runs, url, process = served
    page = Page(1300, 900)
    try:
        page.send("Page.navigate", url=url)
        page.wait(f"typeof Bokeh !== 'undefined' && {READY}")
        page.wait(f"({TEXT}).includes('finished')")
        shown = page.evaluate(TEXT)
        for word in ("first", "second", "6 of 6", "held-out loss", "density 0.5", "memory"):
            assert word in shown
        for width, phone in ((1300, False), (390, True)):
            page.resize(width, 900, phone)
            page.wait(f"document.documentElement.scrollWidth <= {width}")
        assert all(request.startswith((url, "data:", "ws")) for request in page.requests)
        shutil.rmtree(runs[1])
        page.wait(f"({TEXT}).includes('was deleted while it was watched')")
        assert "was deleted" in process.stdout.readline()
        assert process.poll() is None
        assert page.messages == []
    finally:
        page.close()


@needs_browser
def test_a_page_in_a_file_makes_no_requests(tmp_path):
    prune(tmp_path / "run")
    path = write_page([tmp_path / "run"], tmp_path / "page.html")
    page = Page(390, 900, phone=True)
    try:
        page.open(path, f"typeof Bokeh !== 'undefined' && {READY}")
        assert "finished" in page.evaluate(TEXT)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert {r for r in page.requests if not r.startswith(("data:", "blob:"))} == {path.as_uri()}
        assert page.messages == []
    finally:
        page.close()

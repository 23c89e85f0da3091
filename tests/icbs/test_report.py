"""Reports of a run: panels, tables, the page."""

from __future__ import annotations

import dataclasses
import math
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icbs import Pruner
from icbs.cli import app
from icbs.dashboard.reader import RunReader
from icbs.dashboard.summary import facts as dashboard_facts
from icbs.formatting import significant, spell
from icbs.report.decisions import decisions, held_out_loss
from icbs.report.evaluations import Evaluation
from icbs.report.figure import MAX_COLOURS, Curve, draw, run_figure
from icbs.report.layers import by_depth, by_kind, layer_figures, natural
from icbs.report.overview import Overview, resume_command
from icbs.report.tables import common_prefix, facts
from icbs.run.history import BlockRecord, read_history
from icbs.run.progress_file import ProgressFile
from tests.icbs.conftest import make_toy

BLANK = {field.name: 0 for field in dataclasses.fields(BlockRecord)} | {
    "failure": "",
    "bound": None,
    "attempt": None,
}


def row(**given) -> BlockRecord:
    return BlockRecord(**BLANK | {"moved": 3, "accepted": True} | given)


@pytest.mark.parametrize("unit", ["block", "pass"])
def test_the_held_out_loss_of_a_run_follows_from_its_decisions(toy, unit):
    pruner = Pruner(density=0.3, passes=12, block_size=32, acceptance=unit, seed=1)
    result = pruner.prune(toy.model, toy.batches, toy.loss)
    decided = decisions(result.history, by_pass=unit == "pass")
    points = held_out_loss(result.initial_loss, decided)
    assert points[0][1] == result.initial_loss
    assert points[-1][1] == pytest.approx(result.loss, rel=1e-5)
    assert any(len(j.layers) > 1 for j in decided) is (unit == "pass")


def test_each_attempt_of_a_pass_is_one_decision():
    rows = [
        row(step=0, layer="a", predicted=-1.0, actual=0.5, accepted=False),
        row(step=0, layer="b", predicted=-2.0, actual=0.5, accepted=False),
        row(step=0, layer="a", predicted=-0.5, actual=-0.4),
        row(step=0, layer="b", predicted=-0.25, actual=-0.4, moved=0, accepted=False),
        row(step=1, layer="a", predicted=-0.125, actual=-0.1),
        row(step=1, layer="b", predicted=-0.125, actual=-0.1),
    ]
    whole = decisions(rows, by_pass=True)
    assert [(j.predicted, j.actual, j.accepted) for j in whole] == [
        (-3.0, 0.5, False),
        (-0.5, -0.4, True),
        (-0.25, -0.1, True),
    ]
    assert held_out_loss(2.0, whole)[-1][1] == pytest.approx(1.5)
    assert len(decisions(rows, by_pass=False)) == 5


def test_attempts_are_told_apart_where_a_layer_has_several_blocks():
    rows = [
        row(step=0, attempt=attempt, layer=layer, predicted=-1.0, actual=actual)
        for attempt, actual in enumerate((0.5, -0.4))
        for layer in "aab"
    ]
    whole = decisions(rows, by_pass=True)
    assert [(j.layers, j.predicted, j.actual) for j in whole] == [
        (("a", "a", "b"), -3.0, 0.5),
        (("a", "a", "b"), -3.0, -0.4),
    ]


@pytest.mark.parametrize("unit", ["block", "pass"])
def test_a_report_says_what_each_part_cost(toy, tmp_path, unit):
    settings = {"acceptance": unit, "block_size": 8, "blocks_per_layer": 2, "passes": 2}
    pruner = Pruner(solver="qaoa", solver_options={"optimizer": "ramp"}, density=0.3, **settings)
    result = pruner.prune(toy.model, toy.batches, toy.loss, run=tmp_path / "run")
    run = Overview.of(tmp_path / "run")
    assert run.costs == result.costs == result.summary()["costs"]
    assert set(run.costs) == {"curvature", "building", "solver", "acceptance"}
    assert all(seconds > 0 for seconds in run.costs.values())
    assert run.start_seconds + sum(run.costs.values()) <= run.seconds
    time, solver = (line for line in facts(run) if line.startswith(("time: ", "solver: ")))
    for part in ("start", "curvature", "building", "solver", "acceptance", "the rest"):
        assert f"{part} " in time
    assert sum(int(share) for share in re.findall(r"\((\d+)%\)", time)) == pytest.approx(100, abs=4)
    assert f", {len(result.history)} evaluations in all, " in solver  # one for each ramp
    parts = {"curvature": 2.0, "building": 1.0, "solver": 4.0, "acceptance": 2.0}
    known = dataclasses.replace(run, costs=parts, start_seconds=1.0, seconds=20.0)
    time, solver = (line for line in facts(known) if line.startswith(("time: ", "solver: ")))
    assert "solver 4.0 s (20%)" in time
    assert "the rest 10.0 s (50%)" in time
    each = f"{4e3 / len(result.history):.3g} ms"
    assert (
        solver == f"solver: {each} a block, {len(result.history)} evaluations in all, {each} each"
    )


def test_costs_add_up_over_resumptions(toy, tmp_path):
    pruner = Pruner(density=0.3, block_size=16, passes=4, checkpoint_every=1)
    stop = {"callback": lambda progress: progress.step == 2}
    first = pruner.prune(toy.model, toy.batches, toy.loss, run=tmp_path / "run", **stop)
    done = Pruner.resume(tmp_path / "run", make_toy().model, toy.batches, toy.loss)
    assert done.passes == 4
    assert all(done.costs[part] > seconds for part, seconds in first.costs.items())
    assert done.start_seconds == first.start_seconds


@pytest.mark.parametrize(
    ("figures", "labels"),
    [
        ({}, []),
        ({"accuracy": 0.5, "loss": 1.0}, ["test accuracy (%)", "test loss"]),
        ({"loss": 3.0, "loss_standard_error": 0.1, "perplexity": 20.0},
         ["test loss", "test perplexity"]),
        ({"f1": 0.5}, ["test f1"]),
    ],
)  # fmt: skip
def test_there_is_a_panel_for_each_figure_and_none_else(figures, labels):
    evaluations = [Evaluation(i, float(i), figures) for i in range(3)] if figures else []
    rows = [row(step=i, layer="0", predicted=-0.1, actual=-0.1, seconds=i) for i in range(3)]
    drawn = run_figure([Curve("iCBS", evaluations, rows, 2.0)], {"dense": figures})
    shown = [axes.get_ylabel() for axes in drawn.axes if axes.axison]
    assert shown == [*labels, "held-out training loss", "actual change (held out)"]


@pytest.mark.parametrize("layers", [1, MAX_COLOURS, 210])
@pytest.mark.parametrize("by_pass", [False, True])
def test_a_figure_has_room_for_its_axes_with_any_number_of_layers(tmp_path, layers, by_pass):
    rows = [
        row(layer=f"$l_{i}", predicted=-0.1, actual=-0.01 * (i + 1), step=i % 3)
        for i in range(layers)
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied")
        draw([Curve("a$b", [], rows, 1.0, by_pass)], {"$": {"loss": 3.0}}, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_no_axis_is_labelled_with_powers_of_ten():
    evaluations = [Evaluation(i, float(i), {"perplexity": 20.0 * 10**i}) for i in range(3)]
    rows = [row(layer="0", predicted=-(10.0**-i), actual=-(10.0**-i)) for i in range(5)]
    drawn = run_figure([Curve("iCBS", evaluations, rows, 3.0)], {})
    drawn.draw_without_rendering()
    texts = [
        text.get_text()
        for axes in drawn.axes
        for axis in (axes.xaxis, axes.yaxis)
        for text in axis.get_ticklabels()
    ]
    assert any(texts)
    assert not [text for text in texts if "^" in text or "e" in text]


def test_numbers_are_spelled_as_people_read_them():
    assert [significant(v) for v in (4.79, 0.0456, 253.59, 12345.6, 0.0)] == [
        "4.790", "0.04560", "253.6", "12346", "0",
    ]  # fmt: skip
    figures = {"accuracy": 0.8587, "loss": 3.404, "loss_standard_error": 0.0121}
    assert spell("accuracy", figures) == "85.87%"
    assert spell("loss", figures) == "3.404 ± 0.012"
    errors = {"accuracy_standard_error": 0.0034, "x": 235.2, "x_standard_error": 12.3}
    assert spell("accuracy", figures | errors) == "85.87% ± 0.34%"
    assert spell("x", errors) == "235 ± 12"
    assert spell("x", errors | {"x_standard_error": 0.0}) == "235.2"
    assert spell("f1", figures) == ""


def test_layers_are_grouped_by_kind_and_by_depth():
    names = [f"model.layers.{i}.{part}" for i in range(12) for part in ("mlp.up", "attn.q")]
    rows = [row(layer=name, predicted=-0.5, actual=-0.25) for name in names]
    layers = layer_figures(rows, dict.fromkeys(names, (10, 5)), by_pass=False)
    assert [layer.name for layer in layers] == sorted(names, key=natural)
    kinds = by_kind(layers)
    assert {kind.name for kind in kinds} == {"model.layers.*.mlp.up", "model.layers.*.attn.q"}
    assert [(k.layers, k.size, k.kept, k.density) for k in kinds] == [(12, 120, 60, 0.5)] * 2
    assert [k.actual for k in kinds] == [pytest.approx(-3.0)] * 2
    depths = by_depth(layers, most=5)
    assert [d.name for d in depths] == ["blocks 0 to 2", "blocks 3 to 5", "blocks 6 to 8",
                                        "blocks 9 to 11"]  # fmt: skip
    assert sum(d.blocks for d in depths) == len(rows)
    assert math.isnan(layer_figures(rows, {}, by_pass=True)[0].actual)
    assert common_prefix(names) == "model.layers."
    assert common_prefix(["encoder.a", "encode.b"]) == ""


@pytest.fixture
def folder(toy, tmp_path):
    pruner = Pruner(density=0.3, passes=4, block_size=32)
    pruner.prune(toy.model, toy.batches, toy.loss, run=tmp_path / "run")
    return tmp_path / "run"


def test_a_report_is_complete_and_writes_the_files_it_names(folder):
    said = CliRunner().invoke(app, ["report", str(folder), "--html"])
    assert said.exit_code == 0
    for words in (
        "4 passes in",
        "finished",
        "held-out training loss",
        "weights kept in 3 layers",
    ):
        assert words in said.output
    assert len(said.output.splitlines()) <= 25
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "report.html").exists()


LARGE = [f"model.layers.{i}.{part}" for i in range(30) for part in ("mlp.down_proj", "attn.q")]


@pytest.mark.parametrize("unit", ["block", "pass"])
def test_a_report_of_many_layers_is_short_and_has_full_names(folder, monkeypatch, unit):
    rows = [
        row(step=0, layer=name, predicted=-0.5 - 0.01 * i, actual=-0.25 - 0.01 * i)
        for i, name in enumerate(LARGE)
    ]
    found = Overview.of(folder)
    many = dataclasses.replace(
        found,
        history=rows,
        sizes=dict.fromkeys(LARGE, (100, 50)),
        settings=dict(found.settings) | {"acceptance": unit},
    )
    monkeypatch.setattr(Overview, "of", lambda path: many)
    said = CliRunner().invoke(app, ["report", str(folder)]).output
    lines = said.splitlines()
    assert len(lines) <= 25
    for name in ("model.layers.*.mlp.down_proj", "model.layers.*.attn.q"):
        [line] = [line for line in lines if line.lstrip().startswith(name)]
        assert line.split()[1] == "30"
    assert f"best layers: {LARGE[-1]}" in said
    assert f"worst layers: {LARGE[0]}" in said
    actual = -0.25 if unit == "pass" else sum(r.actual for r in rows)  # of the whole pass
    predicted = sum(r.predicted for r in rows)
    assert f"{predicted:+.4f} predicted, {actual:+.4f} actual" in said
    full = CliRunner().invoke(app, ["report", str(folder), "--layers"]).output
    assert all(any(line.split()[:1] == [name] for line in full.splitlines()) for name in LARGE)


def test_an_unfinished_run_names_the_command_to_resume(folder):
    found = dataclasses.replace(Overview.of(folder), finished=False, passes=2)
    said = " ".join(facts(found))
    assert "2 of 4 passes" in said
    assert f"icbs.Pruner.resume({str(folder)!r}" in said


def test_a_killed_run_has_the_figures_of_its_last_pass(tmp_path):
    folder = tmp_path / "run"
    script = (
        "import os, pathlib, sys\n"
        "from icbs import Pruner\n"
        "from icbs.report.evaluations import Evaluator\n"
        "from tests.icbs.conftest import make_toy\n"
        "from icbs.run import progress_file\n"
        "progress_file.ProgressFile.wait = lambda self, seconds: None\n"
        "toy = make_toy()\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "look = Evaluator(lambda model: {'accuracy': 0.5}, 1, folder)\n"
        "def die(now):\n"
        "    look(now)\n"
        "    if now.step == 3:\n"
        "        os.kill(os.getpid(), 9)\n"
        "Pruner(density=0.3, passes=4, block_size=32, checkpoint_every=100).prune(\n"
        "    toy.model, toy.batches, toy.loss, run=folder, callback=die, progress=False)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=False)
    run, rows = Overview.of(folder), read_history(folder / "history.csv")
    progress = ProgressFile(folder).read()
    assert (run.finished, run.running, run.passes, run.checkpoint) == (False, False, 3, 0)
    assert run.seconds == progress[-1].seconds
    assert progress[-1].step == 3
    assert run.loss == min(row.loss for row in progress)
    assert run.initial_loss == progress[0].loss
    assert run.history == rows
    said = " ".join(facts(run))
    assert "3 of 4 passes" in said
    assert "interrupted; checkpoint at pass 0; resume repeats 3 passes" in said
    assert list(run.stages)[-1] == "after pass 3"
    reader = RunReader(folder)
    assert reader.state == "interrupted; checkpoint at pass 0; resume repeats 3 passes"
    toy = make_toy()
    Pruner.resume(folder, toy.model, toy.batches, toy.loss, progress=False)
    assert Overview.of(folder).finished


def test_the_start_of_a_run_with_given_masks_is_named(tmp_path):
    toy = make_toy()
    pruner = Pruner(density=0.3, passes=1, block_size=32, initial="wanda")
    masks = pruner.prune(toy.model, toy.batches, toy.loss, run=tmp_path / "a").masks
    toy = make_toy()
    pruner = Pruner(density=0.3, passes=1, block_size=32)
    pruner.prune(toy.model, toy.batches, toy.loss, run=tmp_path / "b", masks=masks)
    for name, words in (("a", "wanda"), ("b", "given masks")):
        assert f"start {words}, seed" in facts(Overview.of(tmp_path / name))[0]
        assert f"start {words}, seed" in dashboard_facts(RunReader(tmp_path / name))["settings"]


@pytest.mark.parametrize(
    ("task", "solver", "said"),
    [
        ("garment", "anneal", "'icbs resume runs/a'"),
        ("mine:load", "anneal", "'icbs resume runs/a --task mine:load'"),
        ("mine:load", "own:Fast", "'icbs resume runs/a --task mine:load --solver own:Fast'"),
    ],
)
def test_the_command_that_resumes_names_own_code_again(task, solver, said):
    assert resume_command(Path("runs/a"), task, solver) == said

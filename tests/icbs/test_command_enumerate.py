"""``icbs prune --enumerate``: small models compared with their true optimum."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from icbs import load_masks, true_optimum
from icbs.enumeration.comparison import FILE, Comparison
from icbs.report.overview import Overview
from icbs.zoo import load_task
from tests.icbs.test_cli import icbs

#: 2 of 12 weights in each of two layers: 4,356 masks.
TINY = ["--task", "tiny", "--density", "0.17", "--block-size", "all", "--passes", "6"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Train the model once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ICBS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("COLUMNS", "100")
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = icbs("prune", *TINY, "--solver", "exact", "--enumerate", "--run", folder)
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_the_table_has_start_model_run_and_optimum(run):
    folder, output = run
    found = Comparison.from_json((folder / FILE).read_text())
    task = load_task("tiny")
    optimum = true_optimum(task.model, task.batches, task.loss, density=0.17)
    names = [stage.name for stage in found.stages]
    assert names == [
        "dense", "start (magnitude)", "quadratic optimum", "iCBS, 6 passes", "true optimum",
    ]  # fmt: skip
    by_name = dict(zip(names, found.stages, strict=True))
    best, ours = by_name["true optimum"], by_name["iCBS, 6 passes"]
    assert found.num_masks == math.comb(12, 2) ** 2
    assert best.loss == pytest.approx(optimum.loss, abs=1e-12)
    assert (best.rank, best.share) == (1, 1.0)
    assert ours.loss == pytest.approx(optimum.loss_of(load_masks(folder / "masks.safetensors")))
    start = by_name["start (magnitude)"]
    assert start.share == 0
    assert ours.share == pytest.approx((start.loss - ours.loss) / (start.loss - best.loss))
    assert by_name["dense"].share is None
    assert by_name["dense"].figures == pytest.approx(task.evaluate(task.model))
    assert found.proved
    assert found.solver_share == pytest.approx(1.0)
    assert found.predicted < 0
    text = " ".join(output.split())
    assert "all 4,356 masks evaluated" in text
    assert "optimal for the quadratic model: every block solved to proven optimality" in text
    for name in names:
        assert name in text


def test_the_report_shows_it_again(run):
    folder, output = run
    shown = icbs("report", folder, "--html")
    assert shown.exit_code == 0, shown.output
    table = [line for line in output.splitlines() if line.startswith((" masks", " true", " iCBS"))]
    assert len(table) == 3
    assert all(line in shown.output for line in table)
    page = (folder / "report.html").read_text()
    assert "Comparison with the true optimum" in page
    assert "optimal for the quadratic model: every block" in page
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["optimal"] is True
    assert summary["proved"] == summary["blocks"] == 6


def test_a_resumed_run_is_compared_as_well(run, tmp_path):
    folder = tmp_path / "cut"
    begun = icbs("prune", *TINY, "--solver", "exact", "--run", folder, "--passes", "3",
                 "--enumerate")  # fmt: skip
    assert begun.exit_code == 0, begun.output
    (folder / FILE).unlink()
    resumed = icbs("resume", folder, "--passes", "6")
    assert resumed.exit_code == 0, resumed.output
    theirs = Comparison.from_json((folder / FILE).read_text())
    assert theirs == Comparison.from_json((run[0] / FILE).read_text())


def test_one_cardinality_and_a_heuristic(tmp_path):
    folder = tmp_path / "run"
    done = icbs(
        "prune", *TINY, "--solver", "diagonal", "--set", "allocation=global", "--set",
        "enumerate_masks=true", "--run", folder,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = Overview.of(folder).optimum
    assert found.num_masks == math.comb(24, 4)
    assert found.stages[3].name == "quadratic, diagonal"
    assert found.solver_share < 1
    assert found.proved
    assert "DensityWarning" in done.output  # once, of the run
    assert done.output.count("the shared budget leaves") == 1


@pytest.mark.parametrize("solver", ["cpsat", "scip", "exhaustive"])
def test_other_exact_solvers_prove_it_too(tmp_path, solver):
    if solver == "scip":
        pytest.importorskip("pyscipopt")
    done = icbs("prune", *TINY, "--passes", "3", "--solver", solver, "--run", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "optimal for the quadratic model: every block" in " ".join(done.output.split())
    assert Overview.of(tmp_path / "run").optimum is None


def test_too_many_masks_are_refused_before_any_work(tmp_path):
    task = ["--task", "tests.icbs.test_cli:load", "--density", "0.3", "--enumerate"]
    done = icbs("prune", *task, "--run", tmp_path / "run")
    assert done.exit_code == 2
    assert "624 weights have about 10^" in " ".join(done.output.split())
    assert not (tmp_path / "run" / "history.csv").exists()


def test_a_damaged_comparison_is_named(run, tmp_path):
    folder = run[0]
    whole = (folder / FILE).read_text()
    try:
        for spoilt in (whole[:-20], whole.replace('"num_masks": 4356', '"num_masks": -1'), "[]"):
            (folder / FILE).write_text(spoilt)
            shown = icbs("report", folder)
            assert shown.exit_code == 2
            assert "optimum.json is damaged" in " ".join(shown.output.split())
    finally:
        (folder / FILE).write_text(whole)


def test_batches_that_can_be_read_once_are_kept(tmp_path):
    task = ["--task", "tests.icbs.test_command_enumerate:load_stream", *TINY[2:]]
    done = icbs("prune", *task, "--enumerate", "--run", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "true optimum" in done.output


def load_stream():
    """The task with a generator of batches."""
    task = load_task("tiny")
    ((inputs, targets),) = task.batches
    torch.manual_seed(0)
    task.batches = ((inputs[i : i + 100], targets[i : i + 100]) for i in range(0, 500, 100))
    return task

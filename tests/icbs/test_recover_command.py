"""``icbs recover`` and ``icbs prune --recover`` as a user calls them."""

from __future__ import annotations

import csv
import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from icbs import load_masks, recover
from icbs.cli.recovery import pruned_copy
from icbs.recovery.result import OTHER_SAMPLES
from tests.icbs.conftest import make_toy
from tests.icbs.test_cli import icbs, prune

TASK = ("--task", "tests.icbs.test_cli:load")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    assert prune(run).exit_code == 0
    return run


def test_recover_leaves_a_better_model_with_the_same_masks(finished, tmp_path):
    out = tmp_path / "recovery"
    result = icbs("recover", finished, *TASK, "--method", "least-squares", "--out", out)
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert all(stage in words for stage in ("dense", "pruned", "recovered"))
    assert "held-out loss" in words
    assert "calibration loss" in words
    assert "187 weights kept (density 0.2997)" in words
    assert OTHER_SAMPLES in words
    summary = json.loads((out / "summary.json").read_text())
    assert summary["loss"] < summary["initial_loss"]
    model, masks = load_file(out / "model.safetensors"), load_masks(finished / "masks.safetensors")
    for name, mask in masks.items():
        assert torch.equal(load_masks(out / "masks.safetensors")[name], mask)
        assert not model[f"{name}.weight"][~mask].any()
    with (out / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["0", "2", "4"]
    assert all(float(row["calibration_loss"]) > 0 for row in rows)
    # The same as from Python.
    toy = make_toy()
    pruned = pruned_copy(toy.model, finished)
    same = recover(pruned, masks, toy.batches, toy.loss, dense=toy.model, method="least-squares")
    assert same.loss == summary["loss"]
    assert torch.equal(pruned[0].weight, model["0.weight"])
    with (out / "evaluations.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[1] < losses[0]
    again = icbs("recover", finished, *TASK, "--method", "least-squares", "--out", out)
    assert "has a finished recovery; these are its results" in " ".join(again.output.split())
    repeated = json.loads((out / "summary.json").read_text())
    assert repeated | {"seconds": 0} == summary | {"seconds": 0}


def test_a_report_of_a_recovery_s_folder_names_that_of_the_run(finished, tmp_path):
    out = tmp_path / "recovery"
    method = ("--method", "least-squares")
    assert icbs("recover", finished, *TASK, *method, "--out", out).exit_code == 0
    result = icbs("report", out)
    assert result.exit_code != 0
    assert "is the folder of a recovery, not of a run" in " ".join(result.output.split())


def test_settings_of_the_method_and_of_the_recovery(finished, tmp_path):
    out = tmp_path / "recovery"
    result = icbs(
        *("recover", finished, *TASK, "--method", "least-squares", "--out", out),
        *("--set", "ridge=0.5", "--set", "heldout_share=0.5"),
    )
    assert result.exit_code == 0, result.output
    text = (out / "config.yaml").read_text()
    assert "ridge: 0.5" in text
    assert "heldout_share: 0.5" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "least-square"), "did you mean 'least-squares'"),
        (("--method", "least-squares", "--set", "rigde=1"), "did you mean 'ridge'"),
        (("--method", "statistics"), "has none with running statistics"),
        (("--set", "heldout_share=1.5"), "heldout_share = 1.5"),
        (("--task", "tests.icbs.test_cli:other"), "was started with the task"),
    ],
)
def test_wrong_arguments_are_one_line(finished, tmp_path, arguments, words):
    out = tmp_path / "recovery"
    task = () if "--task" in arguments else TASK
    result = icbs("recover", finished, *task, *arguments, "--out", out)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not out.exists()


def test_an_unfinished_run_is_refused(finished, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "manifest.json", "checkpoint.safetensors", "history.csv"):
        (run / name).write_bytes((finished / name).read_bytes())
    result = icbs("recover", run, *TASK)
    assert result.exit_code == 2
    assert "finish the run with 'icbs resume'" in " ".join(result.output.split())


def test_prune_recovers_at_the_end_and_resume_does_so_too(tmp_path):
    run = tmp_path / "run"
    result = prune(run, "--recover", "least-squares", "--set", "recovery.heldout_share=0.3")
    assert result.exit_code == 0, result.output
    assert "recovered" in result.output
    first = json.loads((run / "recovery" / "summary.json").read_text())
    assert first["loss"] < first["initial_loss"]
    assert "heldout_share: 0.3" in (run / "recovery" / "config.yaml").read_text()
    # The pruned model stays in the run folder.
    dense, masks = make_toy().model, load_masks(run / "masks.safetensors")
    pruned = load_file(run / "model.safetensors")
    assert torch.equal(pruned["0.weight"], dense[0].weight * masks["0"])
    result = icbs("resume", run, *TASK, "--passes", "9")
    assert result.exit_code == 0, result.output
    second = json.loads((run / "recovery" / "summary.json").read_text())
    assert second["loss"] < second["initial_loss"]
    masks = load_masks(run / "masks.safetensors")
    assert all(
        torch.equal(mask, masks[name])
        for name, mask in load_masks(run / "recovery" / "masks.safetensors").items()
    )
    result = icbs("report", run)
    assert "recovered" in result.output
    result = icbs("compress", run, "--recovered")
    assert result.exit_code == 0, result.output
    assert (run / "recovery" / "compressed.safetensors").exists()


def test_a_wrong_method_is_refused_before_pruning(tmp_path):
    run = tmp_path / "run"
    result = prune(run, "--recover", "nothing")
    assert result.exit_code == 2
    assert "unknown recovery method" in " ".join(result.output.split())
    assert not run.exists()


def test_help_lists_the_methods_and_their_settings():
    text = " ".join(icbs("recover", "--help").output.split())
    for word in ("least-squares", "statistics", "ridge", "heldout_share"):
        assert word in text


def test_masks_of_a_file_are_recovered(finished, tmp_path):
    out = tmp_path / "recovery"
    file = finished / "masks.safetensors"
    result = icbs("recover", file, *TASK, "--method", "least-squares", "--out", out)
    assert result.exit_code == 0, result.output
    assert OTHER_SAMPLES not in " ".join(result.output.split())  # there is no run
    toy = make_toy()
    same = recover(toy.model, load_masks(file), toy.batches, toy.loss, method="least-squares")
    assert json.loads((out / "summary.json").read_text())["loss"] == same.loss
    assert torch.equal(load_file(out / "model.safetensors")["0.weight"], toy.model[0].weight)
    with (out / "evaluations.csv").open() as file:
        before, after = (float(row["loss"]) for row in csv.DictReader(file))
    assert before > after  # of the pruned model, and not of the dense one


def test_an_interrupted_recovery_of_a_file_names_its_folder(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recovery = importlib.import_module("icbs.cli.recovery")

    def interrupted(*args, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(recovery, "recover", interrupted)
    command = ("recover", finished / "masks.safetensors", *TASK)
    result = icbs(*command)
    assert result.exit_code == 130
    words = " ".join(result.output.split())
    assert re.search(r"the same command, with --out runs/\S+, continues the recovery", words)
    assert "interrupted; the same command continues" in " ".join(
        icbs(*command, "--out", tmp_path / "out").output.split()
    )


def test_a_file_of_masks_needs_its_task(finished):
    result = icbs("recover", finished / "masks.safetensors")
    assert result.exit_code == 2
    assert "add --task NAME" in result.output


@pytest.mark.parametrize("more", [(), ("--steps", "0.6,0.3")])
def test_pruning_by_another_method_is_recovered(more, tmp_path):
    run = tmp_path / "run"
    pruned = icbs(
        "prune", *TASK, "--method", "wanda", "--density", 0.3, *more, "--run", run,
        "--recover", "least-squares",
    )  # fmt: skip
    assert pruned.exit_code == 0, pruned.output
    words = " ".join(pruned.output.split())
    assert words.count("held-out loss") == (2 if more else 1)  # figures of each step's recovery
    assert "density 0.2997" in words  # the share that is kept
    result = icbs("recover", run, *TASK, "--method", "distill", "--set", "epochs=1")
    assert result.exit_code == 0, result.output
    summary = json.loads((run / "recovery" / "summary.json").read_text())
    assert summary["loss"] <= summary["initial_loss"]
    assert summary["dense_loss"] < summary["initial_loss"]
    masks = load_masks(run / "masks.safetensors")
    for name, mask in load_masks(run / "recovery" / "masks.safetensors").items():
        assert torch.equal(mask, masks[name])
    other = icbs("recover", run, "--task", "tiny")
    assert other.exit_code == 2
    assert "was started with the task" in " ".join(other.output.split())


def test_an_unfinished_pruning_in_steps_is_not_recovered(tmp_path):
    run = tmp_path / "run"
    assert icbs(
        "prune", *TASK, "--method", "magnitude", "--density", 0.3, "--run", run
    ).exit_code == 0  # fmt: skip
    (run / "summary-of-steps.json").unlink()
    result = icbs("recover", run, *TASK)
    assert result.exit_code == 2
    assert "is not finished" in " ".join(result.output.split())

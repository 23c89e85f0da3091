"""The console command as a user calls it."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import icbs as icbs_package
from icbs import load_masks
from icbs.cli import app
from icbs.cli.console import plain_warnings
from icbs.cli.solve import FORMATS as command_formats  # noqa: N811
from icbs.cli.user_code import absolute_paths
from icbs.zoo import Task
from problems.formats import FORMATS
from tests.icbs.conftest import make_toy
from tests.icbs.language import make_texts, save

FLAGS = ["--set", "block_size=32", "--set", "gradient_samples=200", "--set", "checkpoint_every=2"]


def load() -> Task:
    """A user's task, named as ``tests.icbs.test_cli:load``."""
    import torch

    toy = make_toy()
    x, y = toy.samples

    @torch.no_grad()
    def evaluate(model):
        outputs = model(x)
        right = (outputs.argmax(dim=1) == y).float().mean()
        return {"accuracy": float(right), "loss": float(toy.loss(outputs, y))}

    return Task("toy", toy.model, toy.batches, toy.loss, evaluate)


def icbs(*arguments: str):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def prune(run: Path, *more: str):
    task = ["--task", "tests.icbs.test_cli:load", "--density", "0.3", "--passes", "6"]
    return icbs("prune", *task, "--run", run, *FLAGS, *more)


def test_prune_leaves_a_whole_run_folder(tmp_path):
    run = tmp_path / "run"
    result = prune(run)
    assert result.exit_code == 0, result.output
    assert "187 of 624 weights kept in 3 layers (density 0.2997)" in result.output
    assert all(stage in result.output for stage in ("dense", "start", "pruned"))
    names = {f.name for f in run.iterdir()}
    assert names == {
        ".icbs.lock", "checkpoint.safetensors", "config.yaml", "evaluations.csv", "figure.png",
        "history.csv",
        "manifest.json", "masks.safetensors", "model.safetensors", "progress.csv", "summary.json",
    }  # fmt: skip
    with (run / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    summary = json.loads((run / "summary.json").read_text())
    assert len(rows) == summary["blocks"]
    kept = [row for row in rows if row["accepted"] == "True"]
    assert summary["accepted"] == pytest.approx(len(kept) / len(rows))
    total = sum(float(row["actual"]) for row in kept)
    assert summary["loss"] - summary["initial_loss"] == pytest.approx(total, abs=1e-4)
    masks = load_masks(run / "masks.safetensors")
    assert sum(int(m.sum()) for m in masks.values()) / sum(
        m.numel() for m in masks.values()
    ) == pytest.approx(summary["density"])
    assert (run / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_resume_continues_and_report_reads(tmp_path):
    run = tmp_path / "run"
    prune(run)
    result = icbs("resume", run, "--passes", "9", "--task", "tests.icbs.test_cli:load")
    assert result.exit_code == 0, result.output
    assert json.loads((run / "summary.json").read_text())["passes"] == 9
    (run / "figure.png").unlink()
    result = icbs("report", run, "--layers")
    assert result.exit_code == 0, result.output
    assert "9 passes in" in result.output
    assert "accepted blocks of all" in " ".join(result.output.split())
    assert (run / "figure.png").exists()


def test_configuration_file_with_flags_on_top(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("pruner:\n  density: 0.5\n  passes: 1\n  block_size: 16\n")
    run = tmp_path / "run"
    task = ["--task", "tests.icbs.test_cli:load"]
    result = icbs("prune", "--config", config, *task, "--density", "0.4", "--run", run)
    assert result.exit_code == 0, result.output
    recorded = (run / "config.yaml").read_text()
    assert "density: 0.4" in recorded
    assert "block_size: 16" in recorded


def test_demo_compares_all_starts(tmp_path):
    out = tmp_path / "demo"
    result = icbs(
        "demo", "--task", "tests.icbs.test_cli:load", "--density", "0.3", "--passes", "4",
        "--out", out, *FLAGS,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    entries = json.loads((out / "results.json").read_text())["entries"]
    names = [entry["name"] for entry in entries]
    assert names == [
        "dense", "random", "magnitude", "gradient", "wanda",
        "iCBS from magnitude", "iCBS from wanda",
    ]  # fmt: skip
    by_name = {entry["name"]: entry for entry in entries}
    for start in ("magnitude", "wanda"):
        assert by_name[f"iCBS from {start}"]["loss"] < by_name[start]["loss"]
        assert (out / start / "masks.safetensors").exists()
    assert (out / "figure.png").exists()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--density", "1.5"], "pruner.density = 1.5"),
        (["--solver", "nope"], "unknown solver 'nope'"),
        (["--set", "tabu"], "'tabu' is not an assignment; write name=value"),
        (["--set", "speed=3"], "unknown setting 'pruner.speed'"),
        (["--set", "densty=0.3"], "did you mean 'density'"),
        (["--set", "include=[nothing]"], "'nothing' matches no module"),
        (["--config", "absent.yaml"], "absent.yaml can't be read"),
    ],
)
def test_errors_are_one_clear_line(tmp_path, arguments, match):
    run = tmp_path / "run"
    result = prune(run, *arguments)
    assert result.exit_code == 2
    assert match in result.output
    assert "Traceback" not in result.output
    assert not run.exists()


def test_resume_of_nothing(tmp_path):
    result = icbs("resume", tmp_path)
    assert result.exit_code == 2
    assert "has no run" in result.output


def test_an_existing_folder_is_not_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    result = prune(tmp_path)
    assert result.exit_code == 2
    assert "exists already" in result.output
    assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"]


def test_brackets_in_a_warning_are_not_markup():
    console = Console(file=io.StringIO(), width=100)
    with plain_warnings(console):
        warnings.warn("no kernel in [/usr/lib] for [batch, 3]", UserWarning, stacklevel=1)
        logging.getLogger("icbs").info("layer [/a] of [b]")
    written = console.file.getvalue()
    assert "no kernel in [/usr/lib] for [batch, 3]" in written
    assert "layer [/a] of [b]" in written


def test_help_does_not_load_torch():
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from icbs.cli import app\n"
        "for words in (['--help'], ['prune', '--help'], ['solve', '-h'], ['--version']):\n"
        "    assert CliRunner().invoke(app, words).exit_code == 0, words\n"
        "print(sorted({'torch', 'numba', 'scipy', 'dimod', 'matplotlib'} & set(sys.modules)))\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr


def test_importing_the_packages_loads_no_torch():
    script = "import sys, icbs, problems, solvers; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout.strip() == "False", found.stderr


def test_prune_without_a_folder_makes_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = ["--task", "tests.icbs.test_cli:load", "--density", "0.3", "--passes", "2"]
    assert icbs("prune", *task, *FLAGS).exit_code == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "summary.json").exists()


def test_prune_without_a_model_names_the_options_and_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = icbs("prune")
    assert result.exit_code == 2
    assert all(word in result.output for word in ("--model", "--task", "--config"))
    assert not list(tmp_path.iterdir())


def test_the_formats_in_the_help_are_complete():
    assert set(command_formats) == set(FORMATS)


OWN_TASK = """
def load(fail=False):
    if fail:
        raise RuntimeError("my own mistake")
    import torch
    from icbs.zoo import Task
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    model = torch.nn.Sequential(torch.nn.Linear(5, 2))
    loss = torch.nn.CrossEntropyLoss()
    return Task("own", model, [(x, y)], loss, lambda m: {"f1_score": 0.5})
"""


def test_a_task_of_the_current_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / "ownjob.py").write_text(OWN_TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    done = icbs("prune", "--task", "ownjob:load", "--passes", "1", "--density", "0.5")
    assert done.exit_code == 0, done.output
    assert "test f1 score" in done.output


def test_errors_of_a_users_task_are_its_own(tmp_path):
    """In a process of its own, which ends in the traceback."""
    (tmp_path / "ownjob.py").write_text(OWN_TASK.replace("fail=False", "fail=True"))
    command = [sys.executable, "-m", "icbs", "prune", "--task", "ownjob:load", "--run", "run"]
    env = os.environ | {"PYTHONPATH": str(Path.cwd()), "COLUMNS": "200"}
    failed = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert failed.returncode == 1
    assert "ownjob.py" in failed.stderr
    assert "my own mistake" in failed.stderr
    assert "site-packages" not in failed.stderr
    assert str(Path(icbs_package.__file__).parent) not in failed.stderr


def test_paths_of_a_run_are_absolute_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("a")
    (tmp_path / "wikipedia").mkdir()
    assert absolute_paths("mine.txt") == str(tmp_path / "mine.txt")
    assert absolute_paths("mine.txt+wikipedia") == f"{tmp_path / 'mine.txt'}+wikipedia"
    assert [absolute_paths(v) for v in ("wikipedia", "smollm2-135m", "org/name", 3, None)] == [
        "wikipedia", "smollm2-135m", "org/name", 3, None,
    ]  # fmt: skip


def test_a_language_model_run_resumes_from_another_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("\n\n".join(make_texts(200)))
    words = ["--model", "model", "--text", "texts.txt", "--length", 24, "--samples", 20]
    done = icbs("prune", *words, "--passes", 1, "--density", 0.5, "--run", "run")
    assert done.exit_code == 0, done.output
    assert "±" in done.output
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = icbs("resume", "../run", "--passes", 2)
    assert again.exit_code == 0, again.output

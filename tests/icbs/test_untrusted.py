"""Untrusted files can't run functions or send control sequences to the terminal."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from icbs import ConfigError, zoo
from icbs.cli import app
from icbs.export.digests import digest, json_digest
from icbs.report.evaluations import read_evaluations, write_evaluations
from icbs.report.screen import Screen, visible
from icbs.run.history import HistoryFile, read_history
from icbs.run.run_folder import RunFolder
from icbs.zoo import check_declared, declared, load_task
from tests.icbs.test_cli import FLAGS

OWN = "tests.icbs.test_cli:load"


def icbs(*arguments: object):
    runner = CliRunner(env={"COLUMNS": "200"})
    return runner.invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    done = icbs("prune", "--task", OWN, "--density", 0.3, "--passes", 2, "--run", folder, *FLAGS)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run, to be modified."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def no_calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Calls of ``os.system``, of which there must be none."""
    calls: list[object] = []
    monkeypatch.setattr(os, "system", lambda *a, **k: calls.append((a, k)))
    return calls


def rename_task(run: Path, name: str, **options: object) -> None:
    """Change the task in a manifest, with a matching digest."""
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["about"] |= {"task": name, "task_options": options}
    del manifest["digest"]
    manifest["digest"] = json_digest(manifest)
    (run / "manifest.json").write_text(json.dumps(manifest))


def test_a_configuration_can_not_run_a_function(tmp_path, no_calls):
    config = tmp_path / "theirs.yaml"
    config.write_text("task: os:system\ntask_options: {command: echo}\n")
    result = icbs("prune", "--config", config, "--run", tmp_path / "run")
    assert result.exit_code == 2
    assert f"{config} names the function 'os:system' as its task" in result.output
    assert "--task os:system" in result.output
    assert no_calls == []
    assert not (tmp_path / "run").exists()


def test_a_run_folder_can_not_run_a_function(run, no_calls):
    rename_task(run, "os:system", command="echo")
    for more in ([], ["--task", "garment"]):
        result = icbs("resume", run, *more)
        assert result.exit_code == 2
        assert "os:system" in result.output
    assert no_calls == []


def test_a_function_named_on_the_command_line_is_run(run, tmp_path):
    assert icbs("resume", run, "--passes", 3).exit_code == 2
    result = icbs("resume", run, "--passes", 3, "--task", OWN)
    assert result.exit_code == 0, result.output
    config = tmp_path / "mine.yaml"
    config.write_text(f"task: {OWN}\npruner: {{density: 0.3, passes: 1, block_size: 32}}\n")
    assert icbs("prune", "--config", config, "--run", tmp_path / "a").exit_code == 2
    result = icbs("prune", "--config", config, "--task", OWN, "--run", tmp_path / "a")
    assert result.exit_code == 0, result.output


def test_declared_tasks_of_other_distributions_are_accepted(monkeypatch):
    entries = [
        importlib.metadata.EntryPoint("toy", OWN, "icbs.tasks"),
        importlib.metadata.EntryPoint("garment", "os:system", "icbs.tasks"),
    ]
    monkeypatch.setattr(zoo, "entry_points", lambda group: entries)
    assert declared()["toy"] == OWN
    assert declared()["garment"] == "icbs.zoo.garment:load"
    check_declared("toy", "a file")
    assert load_task("toy").name == "toy"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"epochs": "many"}, "option epochs = 'many' of task 'garment'"),
        ({"epochs": -1}, "option epochs = -1"),
        ({"seed": 1 << 70}, "option seed"),
        ({"report": 3}, "option report = 3"),
    ],
)
def test_options_of_a_declared_task_have_types(options, match):
    with pytest.raises(ConfigError, match=match):
        load_task("garment", **options)


MARKUP = "[/a]"
ESCAPE = "\x1b]0;mine\x07\x1b[31mred\u202e"


@pytest.mark.parametrize("name", [MARKUP, "[link=x]a[/link]", ESCAPE, ":smile:", "$\\frac$", "_a"])
def test_layer_names_are_shown_as_they_are(run, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # no name is folded
    path = run / "history.csv"
    rows = read_history(path)
    path.unlink()
    (run / "checkpoint.safetensors").unlink()  # it counts on the rows as they were
    HistoryFile(path).append([type(row)(**vars(row) | {"layer": name}) for row in rows])
    evaluations = read_evaluations(run / "evaluations.csv")
    for row in evaluations:
        row.figures[name] = 0.5
    write_evaluations(evaluations, run / "evaluations.csv")
    result = icbs("report", run)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert result.output.count(visible(name)) >= 2
    assert (run / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", [MARKUP, ESCAPE])
def test_errors_print_escaped_text_of_files(tmp_path, run, name):
    config = tmp_path / "theirs.yaml"
    config.write_text(yaml.safe_dump({"pruner": {name: 1, "initial": name}, "task": name}))
    results = [icbs("prune", "--config", config, "--run", tmp_path / "a")]
    rename_task(run, name)
    results.append(icbs("resume", run))
    (run / "history.csv").write_text(f"step,samples\n{name},1\n")
    results.append(icbs("report", run))
    for result in results:
        assert result.exit_code == 2
        assert "\x1b" not in result.output
        assert "\u202e" not in result.output
    assert all(repr(MARKUP) in result.output for result in results[:2] if name == MARKUP)


def test_all_output_is_escaped():
    for terminal in (False, True):
        console = Screen(file=io.StringIO(), width=200, force_terminal=terminal, highlight=False)
        console.print(MARKUP + ESCAPE, {"a": ESCAPE})
        written = console.file.getvalue()
        assert MARKUP + "\\x1b]0;mine\\x1b[31mred\\u202e" in written  # rich drops a bell itself
        assert visible(ESCAPE) in written
        assert "\x1b]0" not in written
        assert "\x07" not in written
    assert visible("tab\tand\nline, é, 日本, 🙂") == "tab\tand\nline, é, 日本, 🙂"
    assert visible("\x1b[0m\x9b\ud800\r") == "\\x1b[0m\\x9b\\ud800\\r"
    plain = Console(file=io.StringIO())
    plain.print("[bold]b[/bold]")
    assert plain.file.getvalue() == "b\n"  # what Screen leaves out


LAYERS = """
import torch
from torch import nn
from icbs.zoo import Task
from tests.icbs.conftest import make_toy


def load():
    toy = make_toy()
    toy.model._modules = {%r + name: m for name, m in toy.model._modules.items()}
    evaluate = lambda model: {"loss": 1.0, %r: 2.0}
    return Task("toy", toy.model, toy.batches, toy.loss, evaluate)
"""


@pytest.mark.parametrize("name", [MARKUP, "\x1b[31m\u202e"])
def test_a_model_with_hostile_names_is_pruned_resumed_and_reported(tmp_path, name, monkeypatch):
    (tmp_path / f"hostile{len(name)}.py").write_text(LAYERS % (name, name))
    monkeypatch.syspath_prepend(tmp_path)
    run, task = tmp_path / "run", ["--task", f"hostile{len(name)}:load"]
    flags = ["--density", "0.3", "--passes", "2", "--run", str(run), *FLAGS]
    unknown = yaml.safe_dump({name: 0.5}, default_flow_style=True).strip()
    for code, arguments in (
        (0, ["prune", *task, *flags]),
        (0, ["resume", run, "--passes", "3", *task]),
        (0, ["report", run]),
        (0, ["compress", run]),
        (2, ["prune", *task, *flags[:4], "--set", f"densities={unknown}"]),
    ):
        result = icbs(*arguments)
        assert result.exit_code == code, result.output
        assert "\x1b" not in result.output
        assert "\u202e" not in result.output
    assert repr(name) in result.output  # the pattern that matches no module
    with (run / "history.csv").open(newline="") as file:
        assert {row["layer"] for row in csv.DictReader(file)} == {name + n for n in ("0", "2", "4")}
    if name == MARKUP:
        return
    # On a real terminal's settings, colours are rich's own and nothing else is an order.
    command = [sys.executable, "-c", "from icbs.cli import main; main()", "report", str(run)]
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert visible(name) + "0" in done.stdout
    assert name not in done.stdout


def test_a_changed_configuration_is_still_refused(run):
    text = (run / "config.yaml").read_text().replace("passes: 2", "passes: 3")
    (run / "config.yaml").write_text(text)
    assert "its digest is not that in the manifest" in icbs("report", run).output
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["settings"] = digest([text.encode()])
    del manifest["digest"]
    manifest["digest"] = json_digest(manifest)
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert RunFolder(run).config().passes == 3

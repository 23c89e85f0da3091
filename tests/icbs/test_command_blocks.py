"""Block problems on the command line: saved, listed, solved, and after a real kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from icbs import load_masks
from problems import CardinalityQUBO, Instance, load_instances
from solvers.comparison import table as tables
from tests.icbs.test_cli import icbs, prune
from tests.icbs.test_saved_blocks import facts, files

TASK = "tests.icbs.test_cli:load"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "run"
    result = prune(folder, "--save-blocks", "2")
    assert result.exit_code == 0, result.output
    assert f"block problems saved ({total(folder)}), see icbs blocks {folder}" in said(result)
    return folder


def total(folder: Path) -> str:
    from icbs.formatting import byte_size

    return byte_size(sum(path.stat().st_size for path in (folder / "blocks").glob("*.npz")))


def said(result) -> str:
    return " ".join(result.output.split())


def listed(run: Path, *more: str) -> list[dict]:
    result = icbs("blocks", run, "--json", *more)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


# -- blocks ---------------------------------------------------------------------------------


def test_blocks_are_listed_with_what_became_of_them(run):
    result = icbs("blocks", run)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    found = list(load_instances(run / "blocks"))
    shown = [line for line in lines if line and line[0].startswith("block-")]
    assert len(shown) == len(found) > 3
    for line, block in zip(shown, found, strict=True):
        about = block.about
        accepted = "yes" if about["accepted"] else "no" if about["moved"] else "no move"
        n, k = str(block.problem.n), str(block.problem.k)
        energy = f"{about['energy']:.3g}"
        assert " ".join(line[:-2]) == " ".join(
            [block.name, about["layer"], str(about["step"]), n, k, energy, accepted]
        )
    assert f"{len(found)} blocks, {total(run)} in {run}/blocks; curvature monte-carlo" in said(
        result
    )


def test_the_list_in_json_is_that_of_the_files(run):
    rows = listed(run)
    assert [row["file"] for row in rows] == sorted(files(run))
    for row in rows:
        block = Instance.load(run / "blocks" / row["file"])
        assert row["size"] == (run / "blocks" / row["file"]).stat().st_size
        assert {name: row[name] for name in block.about} == block.about
    assert listed(run / "blocks") == rows  # the folder itself, wherever it was moved


@pytest.mark.parametrize("words", [("--pass", "2-4"), ("--pass", "3"), ("--layer", "4")])
def test_filters(run, words):
    passes = {"2-4": range(2, 5), "3": range(3, 4)}.get(words[1], range(100))
    wanted = [
        row
        for row in listed(run)
        if row["step"] in passes and (words[0] != "--layer" or row["layer"] == words[1])
    ]
    assert listed(run, *words) == wanted
    assert 0 < len(wanted) < len(listed(run))
    assert f"of {len(listed(run))}" in icbs("blocks", run, *words).output


def test_filters_know_patterns_and_may_leave_nothing(run):
    assert [row["layer"] for row in listed(run, "--layer", "[02]")] == [
        row["layer"] for row in listed(run) if row["layer"] in ("0", "2")
    ]
    assert listed(run, "--layer", "fc*") == []
    assert "0 blocks of" in icbs("blocks", run, "--pass", "77").output


def test_blocks_of_the_whole_model_and_of_n_to_m(tmp_path):
    whole = ("--set", "block_size=all", "--set", "curvature=exact", "--passes", "2")
    assert prune(tmp_path / "a", *whole, "--save-blocks", "1").exit_code == 0
    (first, second) = listed(tmp_path / "a")
    assert sorted(first["layer"].split(" + ")) == ["0", "2", "4"]
    assert (first["n"], first["groups"], second["step"]) == (624, 3, 1)
    for layer in ("0", "2", "4"):
        assert len(listed(tmp_path / "a", "--layer", layer)) == 2
    words = ("--task", TASK, "--set", "constraint=2:4", "--passes", "2", "--run", tmp_path / "b")
    assert icbs("prune", *words, "--save-blocks", "sample:2").exit_code == 0
    assert [row["constraint"] for row in listed(tmp_path / "b")] == ["2:4", "2:4"]
    assert all(row["groups"] == row["n"] / 4 for row in listed(tmp_path / "b"))


def test_what_all_names_begin_with_is_said_once(tmp_path):
    for number, name in enumerate(("model.layers.0.fc", "model.layers.10.fc")):
        block = Instance(CardinalityQUBO(np.eye(3), 1), about={"layer": name, "step": 0})
        block.save(tmp_path / f"block-{number:06d}.npz")
    text = icbs("blocks", tmp_path).output
    assert "layers of model.layers" in text
    assert text.count("model.") == 1
    assert " 10.fc " in text


def test_other_problem_files_are_listed_too(tmp_path):
    CardinalityQUBO(np.eye(3), 1).save(tmp_path / "theirs.npz")
    about = {"layer": "\x1b[2Jfc[red]", "step": "late", "energy": None, "size": -1, "n": [1]}
    Instance(CardinalityQUBO(np.eye(3), 1), about=about).save(tmp_path / "odd.npz")
    result = icbs("blocks", tmp_path)
    assert result.exit_code == 0, result.output
    assert "theirs" in result.output
    assert "\x1b" not in result.output
    assert r"\x1b[2Jfc[red]" in result.output
    assert listed(tmp_path)[0]["size"] > 0
    assert listed(tmp_path, "--pass", "0-9") == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pass", "x"], "--pass is 'x'; give one, such as 3, or a range, 0-9"),
        (["--pass", "-3"], "--pass is '-3'"),
    ],
)
def test_mistakes_are_one_line(run, words, message):
    result = icbs("blocks", run, *words)
    assert result.exit_code == 2
    assert message in said(result)


def test_what_has_no_blocks_is_told(tmp_path):
    assert prune(tmp_path / "run").exit_code == 0
    result = icbs("blocks", tmp_path / "run")
    assert result.exit_code == 2
    assert "has no saved blocks yet; start a run with icbs prune --save-blocks N" in said(result)
    for nothing in (tmp_path, tmp_path / "absent"):
        result = icbs("blocks", nothing)
        assert result.exit_code == 2
        assert "has no run and no problem file" in said(result)


# -- solve ----------------------------------------------------------------------------------


def solved(file: Path, *more: str) -> dict:
    result = icbs("solve", file, "--seed", "3", "--json", *more)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_solve_begins_at_the_start_of_the_file(run, tmp_path):
    row = next(row for row in listed(run) if row["moved"])
    file = run / "blocks" / row["file"]
    block = Instance.load(file)
    found = solved(file, "--solver", "anneal")
    assert found["info"]["warm_start"] is True
    assert found["start_energy"] == block.problem.energy(block.start)
    assert found["energy"] <= 0
    assert "start energy" in icbs("solve", file).output
    cold = solved(file, "--ignore-start")
    assert (cold["info"]["warm_start"], cold["start_energy"]) == (False, None)
    np.save(tmp_path / "x.npy", block.answer)
    given = solved(file, "--initial-state", tmp_path / "x.npy")
    assert given["start_energy"] == row["energy"]


NO_START = """
from typing import ClassVar

from solvers import Capabilities
from solvers.random_sampling import RandomSampling


class NoStart(RandomSampling):
    capabilities: ClassVar[Capabilities] = Capabilities(groups=True, initial_state=False)
"""


def test_a_solver_that_takes_no_start_does_without(tmp_path, monkeypatch):
    (tmp_path / "solver_without_start.py").write_text(NO_START)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    problem = CardinalityQUBO(np.diag([1.0, -2.0, 3.0]), 1)
    Instance(problem, start=[1, 0, 0]).save(tmp_path / "a.npz")
    found = solved(tmp_path / "a.npz", "--solver", "solver_without_start:NoStart")
    assert (found["start_energy"], found["energy"]) == (None, -2)
    assert solved(tmp_path / "a.npz", "--solver", "exact")["start_energy"] == 1


def test_a_start_of_another_problem_is_refused(tmp_path):
    from problems import npz

    problem = CardinalityQUBO(np.eye(3), 1)
    npz.write(tmp_path / "a.npz", npz.fields_of(problem) | {"start": np.uint8([1, 1, 0])})
    result = icbs("solve", tmp_path / "a.npz")
    assert result.exit_code == 2
    assert "violates the cardinality" in said(result)
    assert solved(tmp_path / "a.npz", "--ignore-start")["energy"] == 1


# -- compare --------------------------------------------------------------------------------


def test_compare_knows_starts_and_best_energies(run, tmp_path):
    out = tmp_path / "out"
    words = ("--problems", run / "blocks", "--solvers", "anneal", "--seeds", "1", "--no-report")
    result = icbs("compare", *words, "--time-limit", "0.05", "--jobs", "1", "--out", out)
    assert result.exit_code == 0, result.output
    frame = tables.read(out).drop_duplicates("problem").set_index("problem")
    blocks = {block.name: block for block in load_instances(run / "blocks")}
    assert set(frame.index) == set(blocks)
    for name, block in blocks.items():
        row = frame.loc[name]
        assert row.start_kind == "status quo"
        assert row.start_energy == block.problem.energy(block.start)
        assert row.best_known == block.best_energy == min(block.about["energy"], row.start_energy)


def test_instances_in_memory_are_compared_from_their_starts(run, tmp_path):
    from solvers import compare

    found = compare(
        list(load_instances(run / "blocks"))[:2], ["anneal"], seeds=1, time_limit=0.05, jobs=1
    )
    assert set(found.problem) == {"block-000000", "block-000002"}
    assert set(found.start_kind) == {"status quo"}


# -- prune ----------------------------------------------------------------------------------


def test_the_flag_is_the_setting_and_goes_with_others(tmp_path):
    limit = ("--set", "save_blocks_limit=60kB")
    result = prune(tmp_path / "run", "--save-blocks", "sample:4", *limit)
    assert result.exit_code == 0
    recorded = (tmp_path / "run" / "config.yaml").read_text()
    assert "save_blocks: sample:4" in recorded
    assert "save_blocks_limit: 60000" in recorded
    assert "no further blocks are saved" in said(result)
    config = tmp_path / "a.yaml"
    config.write_text("pruner:\n  save_blocks: 3\n")
    assert prune(tmp_path / "file", "--config", config).exit_code == 0
    assert {row["number"] % 3 for row in listed(tmp_path / "file")} == {0}
    assert prune(tmp_path / "over", "--config", config, "--save-blocks", "1").exit_code == 0
    assert {row["number"] % 3 for row in listed(tmp_path / "over")} == {0, 1, 2}


def test_a_mistake_costs_nothing(tmp_path):
    result = prune(tmp_path / "run", "--save-blocks", "ten")
    assert result.exit_code == 2
    assert "pruner.save_blocks = 'ten': should be N (every N-th block), such as 10" in said(result)
    assert not (tmp_path / "run").exists()


def test_the_demo_saves_blocks_of_its_runs(tmp_path):
    out = tmp_path / "demo"
    words = ("--set", "save_blocks=2", "--set", "block_size=32", "--out", out)
    result = icbs("demo", "--task", TASK, "--density", "0.3", "--passes", "2", *words)
    assert result.exit_code == 0, result.output
    for start in ("magnitude", "wanda"):
        assert listed(out / start)


# -- killed ---------------------------------------------------------------------------------


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "icbs", *map(str, words)]


@pytest.mark.slow
def test_a_command_that_is_killed_and_resumed_leaves_the_same_files(tmp_path):
    flags = [
        *("--task", TASK, "--density", 0.3, "--passes", 30, "--save-blocks", 2),
        *("--set", "block_size=32", "--set", "gradient_samples=200", "--set", "checkpoint_every=7"),
    ]
    whole, run = tmp_path / "whole", tmp_path / "run"
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    given = {"cwd": root, "env": environment, "stdout": subprocess.DEVNULL}
    subprocess.run(command("prune", *flags, "--run", whole), check=True, **given)
    late = sorted(files(whole))[-6:]
    process = subprocess.Popen(command("prune", *flags, "--run", run), **given)
    began = time.monotonic()
    # In the midst of things: beyond the first checkpoints, before the last.
    while process.poll() is None and time.monotonic() - began < 120:
        if len(list((run / "blocks").glob("*.npz"))) > 10:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 10 < len(files(run)) < len(files(whole))
    assert not set(late) & set(files(run))
    subprocess.run(command("resume", run, "--task", TASK), check=True, **given)
    assert files(run) == files(whole)
    assert facts(run) == facts(whole)
    masks, expected = (load_masks(each / "masks.safetensors") for each in (run, whole))
    assert all(mask.equal(expected[name]) for name, mask in masks.items())

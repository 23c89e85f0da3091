"""``icbs compare``: settings, what is printed, what is written, and how it goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from icbs.cli import app
from problems import BudgetQUBO, CardinalityQUBO
from problems.formats import read
from solvers.comparison import table as tables
from tests.solvers.comparison_solvers import dense, first_state, grouped
from tests.solvers.test_campaign import ends

ROOT = Path(__file__).parents[2]


def run(*words):
    # Wide, so that rich breaks no line that a test looks for.
    return CliRunner(env={"COLUMNS": "400", "NO_COLOR": "1"}).invoke(app, [str(w) for w in words])


def succeed(*words):
    result = run(*words)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout


def fail(*words):
    """Run a command that must fail with one clear line and exit code 2."""
    result = run(*words)
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    return result.stderr


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with two problems, one of them with a start."""
    monkeypatch.chdir(tmp_path)
    dense().save(tmp_path / "dense.npz")
    np.save(tmp_path / "dense.x0.npy", first_state(dense()))
    grouped().save(tmp_path / "groups.npz")
    return tmp_path


COMMON = ("--seeds", "2", "--time-limit", "0.5", "--out", "out")


def test_one_command_compares(here):
    words = ("--problems", "*.npz", "--solvers", "anneal,exact,diagonal", *COMMON)
    text = succeed("compare", *words)
    assert "12 runs: 2 problems, 3 solvers, 2 seeds" in " ".join(text.split())
    assert "no status quo" in text
    assert "no best value known" in text
    assert "diagonal does not take dense, groups" in " ".join(text.split())
    assert re.search(r"│ exact +│ +100% │ +0 │ .*│ +4 │", text)
    for name in ("table.parquet", "table.csv", "report.html"):
        assert (here / "out" / name).stat().st_size > 1000
        assert f"out/{name}" in text
    frame = tables.read(here / "out")
    assert len(ends(frame)) == 12
    assert tables.read(here / "out/table.csv").equals(frame)
    # The same command runs nothing again.
    journal = (here / "out/runs.jsonl").read_bytes()
    again = succeed("compare", *words, "--no-report")
    assert (here / "out/runs.jsonl").read_bytes() == journal
    assert re.search(r"│ exact +│ +100% │", again)
    assert tables.read(here / "out").equals(frame)


def test_a_file_of_settings_has_options_for_solvers(here, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/campaign.yaml").write_text(
        "problems:\n"
        "- ../groups.npz\n"
        "- {path: ../dense.npz, name: first, best: -3.5, family: dense, start: ../dense.x0.npy}\n"
        "solvers:\n  qaoa: {p: 1, shots: 50}\n  deep: {solver: qaoa, p: 2, shots: 50}\n"
        "  neal: {num_sweeps: 20, num_reads: 3}\n"
        "seeds: [5, 7]\ntime_limit: 0.2\nrestart: false\n"
    )
    words = ("--config", "sub/campaign.yaml", "--out", "out", "--no-report", "--time-limit", "0.3")
    succeed("compare", *words)
    frame = tables.read(here / "out")
    assert set(frame["problem"]) == {"groups", "first"}
    assert set(frame["solver"]) == {"qaoa", "deep", "neal"}
    assert set(frame["seed"]) == {5, 7}
    assert set(frame["time_limit"]) == {0.3}
    options = ends(frame).groupby("solver")["options"].first()
    assert '"p": 1' in options["qaoa"]
    assert '"p": 2' in options["deep"]
    assert '"num_reads": 3' in options["neal"]
    assert set(frame[frame["problem"] == "first"]["best_known"]) == {-3.5}
    assert (ends(frame)["status"] == "solved").all()
    # Labels of the file can be chosen from.
    succeed("compare", *words[:2], "--out", "less", "--solvers", "deep,exact", "--no-report")
    frame = tables.read(here / "less")
    assert set(frame["solver"]) == {"deep", "exact"}
    assert '"p": 2' in ends(frame, "deep")["options"].iloc[0]


def test_a_solver_of_ones_own_is_named_again(here):
    (here / "mine.py").write_text(
        "from tests.solvers.comparison_solvers import Odd\nclass Mine(Odd):\n    name = 'mine'\n"
    )
    (here / "campaign.yaml").write_text(
        "problems: dense.npz\nsolvers: {own: {solver: 'mine:Mine'}}"
    )
    words = ("compare", "--config", "campaign.yaml", *COMMON, "--no-report")
    assert "name it again yourself: --solvers mine:Mine" in fail(*words)
    assert not (here / "out").exists()
    succeed(*words, "--solvers", "mine:Mine")
    assert set(tables.read(here / "out")["solver"]) == {"own"}


def test_a_budget_is_exported_and_refused_by_name(here):
    BudgetQUBO(np.eye(4), [1, 2, 3, 4], 5).save(here / "budget.npz")
    assert "budget=5" in succeed("export", "budget.npz", "budget.lp")
    found = read("budget.lp")
    assert isinstance(found, BudgetQUBO)
    assert (found.costs.tolist(), found.budget) == ([1, 2, 3, 4], 5)
    for name in ("budget.npz", "budget.lp"):
        said = fail("compare", "--problems", name, "--solvers", "exact", *COMMON)
        assert "problem 'budget' has a budget; comparisons take cardinalities" in said


def test_submissions_and_imports(here):
    E = dense().energy(first_state(dense()))
    (here / "theirs.csv").write_text(
        f"problem,solver,seed,seconds,energy\ndense,theirs,0,0.01,{E}\n"
    )
    words = ("--problems", "dense.npz", "--solvers", "exact", *COMMON, "--import", "theirs.csv")
    text = succeed("compare", *words, "--qoblib", "submissions")
    assert "theirs" in text
    assert (here / "submissions/exact/dense/dense_summary.csv").exists()
    assert set(tables.read(here / "out")["solver"]) == {"exact", "theirs"}
    assert "theirs" in (here / "out/report.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--solvers", "aneal"), "did you mean 'anneal'"),
        (("--problems", "dens.npz"), "there is no problem file dens.npz"),
        (("--problems", "library:smal"), "did you mean 'small'"),
        (("--seeds", "0"), "0 seeds"),
        (("--time-limit", "0.001"), "use 0.01 or more"),
        (("--cores", "5000"), "does not fit"),
        (("--jobs", "5000"), "has room for"),
        (("--config", "bad.yaml"), "unknown setting 'seed' (did you mean 'seeds'?)"),
        (("--config", "worse.yaml"), "must be a mapping"),
        (("--import", "bad.yaml"), "no column"),
        (("--out", "dense.npz"), "is a file"),
        (("--out", "."), "not a campaign"),
        (("--dask", "tcp://127.0.0.1:1"), "no Dask scheduler answers"),
    ],
)
def test_bad_input_is_told_in_one_line(here, words, said, monkeypatch):
    monkeypatch.setattr("icbs.cli.dask_client.TIMEOUT", 0.3)
    (here / "bad.yaml").write_text("seed: 3\n")
    (here / "worse.yaml").write_text("- seeds\n")
    given = {"--problems": "dense.npz", "--solvers": "exact", "--out": "out", "--seeds": "1"}
    given |= dict([words])
    text = fail("compare", *[part for pair in given.items() for part in pair])
    assert said in text
    assert not (here / "out/runs.jsonl").exists() or "--dask" in words


@pytest.mark.parametrize(
    ("words", "said"),
    [((), "no problems"), (("--problems", "dense.npz"), "no solvers")],
)
def test_what_to_compare_must_be_named(here, words, said):
    assert said in fail("compare", *words)


def test_a_process_that_is_interrupted_says_how_to_go_on(here):
    for number in range(8):
        CardinalityQUBO(dense(seed=number).Q, 3).save(here / f"p{number}.npz")
    words = [
        *("compare", "--problems", "p*.npz", "--solvers", "anneal", "--seeds", "3"),
        *("--time-limit", "0.2", "--out", "out", "--no-report"),
    ]
    path = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *sys.path)))}
    # A process that is started in the background of a script would ignore Ctrl-C.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL) if os.name == "posix" else None
    running = subprocess.Popen(
        [sys.executable, "-m", "icbs", *words],
        cwd=here, env=os.environ | path, stdout=subprocess.PIPE, text=True, preexec_fn=heed,
    )  # fmt: skip
    journal = here / "out/runs.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and running.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= 3:
            running.send_signal(signal.SIGINT)
            break
        time.sleep(0.01)
    text = " ".join(running.communicate(timeout=60)[0].split())
    assert running.returncode == 130, text
    assert "the same command with --out out continues after" in text
    assert "24 of 24 runs" in succeed(*words)
    assert len(ends(tables.read(here / "out"))) == 24

"""``icbs readiness``: problems from everywhere, what is printed and written, and refusals."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from icbs.cli import app
from problems import CardinalityQUBO, Instance

pytest.importorskip("qiskit")
FAST = ("--p", "1", "--classical-seconds", "0.05")


def run(*words):
    # Wide, so that rich breaks no line that a test looks for.
    return CliRunner(env={"COLUMNS": "300", "NO_COLOR": "1"}).invoke(app, [str(w) for w in words])


def succeed(*words):
    result = run("readiness", *words)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout


def fail(*words):
    """Run a command that must fail with one clear line and exit code 2."""
    result = run("readiness", *words)
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    return result.stderr


def dense(n, k, seed=0):
    Q = np.random.default_rng(seed).normal(size=(n, n))
    return CardinalityQUBO(Q + Q.T, k)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dense(7, 3).save("mine.npz")
    return tmp_path


def test_files_and_library_on_named_targets(here):
    text = succeed(
        *("mine.npz", "library:garment-0-12-late", "--targets", "all-to-all,grid", "--out", "out"),
        *FAST,
    )
    assert "mine: n = 7, k = 3, 100% coupled" in text
    assert "garment-0-12-late: n = 12, k = 6" in text
    assert "CPU " in text
    with (here / "out" / "readiness.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["problem"], row["target"]) for row in table] == [
        ("mine", "all-to-all"),
        ("mine", "grid"),
        ("garment-0-12-late", "all-to-all"),
        ("garment-0-12-late", "grid"),
    ]
    content = json.loads((here / "out" / "readiness.json").read_text())
    assert content["assessments"][1]["problem"][0]["n"] == 12


def test_one_problem_has_its_reasons(here):
    text = succeed("mine.npz", "--targets", "heavy-hex", *FAST)
    assert "heavy-hex: n = " in text
    assert "gates on two qubits (counted on a line) leave" in text
    assert not (here / "runs").exists()


def test_blocks_of_a_run(here):
    blocks = here / "run" / "blocks"
    blocks.mkdir(parents=True)
    for number in range(2):
        Instance(dense(5, 2, number)).save(blocks / f"block-{number:06d}.npz")
    (blocks / "blocks.csv").write_text("file,number\n")
    text = succeed("run", "--targets", "all-to-all", *FAST)
    assert "block-000000: n = 5" in text
    assert "block-000001: n = 5" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("mine.npz", "--targets", "heavyhex"), "unknown target 'heavyhex' (did you mean"),
        (("mine.npz", "--targets", "none.yaml"), "there is no target file none.yaml"),
        (("mine.npz", "--p", "one"), "--p is 'one'; pass numbers of layers"),
        (("mine.npz", "--p", "0"), "p is 0; it must be 1 or more"),
        (("mine.npz", "--start", "warm"), "start is 'warm'"),
        (("mine.npz", "--min-success", "2"), "min_success is 2.0"),
        (("nothing.npz",), "there is no problem file nothing.npz"),
        (("library:garment-9",), "the library has no problem or set 'garment-9'"),
        (("library:garment-9",), "'python -m problems.library table' lists all"),
        ((".", "--targets", ","), "no targets; name some of"),
    ],
)
def test_bad_input_is_named_before_work_starts(here, words, message):
    assert message in " ".join(fail(*words).split())


def test_missing_packages_are_refused_where_they_are_named(here, monkeypatch):
    from solvers.readiness import options

    monkeypatch.setattr(options, "_installed", lambda name: name != "qdk")
    message = fail("mine.npz", "--targets", "superconducting", *FAST)
    assert "need qdk: pip install 'icbs-pruning[quantum]'" in message


def test_a_target_of_ones_own(here):
    from importlib.resources import files

    text = files("solvers.readiness").joinpath("targets/grid.yaml").read_text()
    (here / "better.yaml").write_text(
        text.replace("name: grid", "name: better").replace("2.98e-3", "1.0e-5")
    )
    found = succeed("mine.npz", "--targets", "better.yaml", *FAST)
    assert "better " in found
    (here / "worse.yaml").write_text(text.replace("2.98e-3", "2.98"))
    assert "two_qubit_error is 2.98" in fail("mine.npz", "--targets", "worse.yaml", *FAST)

"""Output of the commands solve and export: names, short states and free problems."""

from __future__ import annotations

import json

import numpy as np
import pytest

from problems import CardinalityQUBO
from problems.formats import FORMATS
from tests.icbs.test_command_solve import echo, fail, succeed  # noqa: F401

# -- states and names --------------------------------------------------------------------

LP = """Minimize
 obj: 5 cost - 2 gain + [ 2 cost * gain ] / 2 + 3 the[red]
Subject To
 c: cost + gain + the[red] = 2
Binary
 cost gain the[red]
End
"""


@pytest.fixture
def named(tmp_path):
    (tmp_path / "named.lp").write_text(LP)
    return tmp_path / "named.lp"


def row(text, name):
    """Return a row of the table."""
    found = [line.strip(" │").split("│") for line in text.splitlines()]
    return next((cells[1].strip() for cells in found if cells[0].strip() == name), None)


def test_names_are_printed_and_written(named, tmp_path):
    words = ("solve", named, "--solver", "exhaustive")
    text = succeed(*words)
    assert row(text, "x = 1") == "gain, the[red]"  # 1; cost, gain 4; cost, the[red] 8
    assert row(text, "x") is None
    values = {"cost": 0, "gain": 1, "the[red]": 1}
    said = json.loads(succeed(*words, "--json", "--output", tmp_path / "x.json"))
    assert (said["x"], said["values"]) == ([0, 1, 1], values)
    assert json.loads((tmp_path / "x.json").read_text())["values"] == values
    succeed(*words, "--output", tmp_path / "x.txt")
    assert (tmp_path / "x.txt").read_text() == "cost 0\ngain 1\nthe[red] 1\n"
    succeed(*words, "--output", tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as saved:
        assert json.loads(str(saved["labels"])) == list(values)
    for start in ("x.json", "x.npz"):
        again = succeed(*words[:2], "--solver", "anneal", "--initial-state", tmp_path / start)
        assert row(again, "x = 1") == "gain, the[red]"


@pytest.mark.parametrize(
    ("n", "k", "labels", "shown"),
    [
        (10, 5, None, {"x": "1111100000"}),
        (40, 20, None, {"x": "1" * 20 + "0" * 20}),
        (40, 2, None, {"x = 1": "0, 1"}),
        (41, 3, None, {"x = 1": "0, 1, 2"}),
        (41, 41, None, {}),
        (3, 0, ["a", "b", "c"], {"x = 1": "none"}),
        (30, 30, [f"name {i}" for i in range(30)], {"x": "1" * 30}),
        (50, 50, [f"name {i}" for i in range(50)], {}),
    ],
)
def test_a_short_state_is_printed(tmp_path, n, k, labels, shown):
    Q = np.diag(np.arange(n, dtype=float))  # the first k are the least
    CardinalityQUBO(Q, k, labels=labels).save(tmp_path / "block.npz")
    text = succeed("solve", tmp_path / "block.npz", "--solver", "exact")
    found = {name: row(text, name) for name in ("x", "x = 1")}
    assert {name: value for name, value in found.items() if value is not None} == shown


def test_names_that_look_alike_are_distinguished(tmp_path):
    labels = [1, "1", ("a", 2), "two\nlines"]
    CardinalityQUBO(np.diag([-1.0, 0, 0, 0]), 1, labels=labels).save(tmp_path / "odd.npz")
    words = ("solve", tmp_path / "odd.npz", "--solver", "exhaustive", "--json")
    said = json.loads(succeed(*words, "--output", tmp_path / "x.txt"))
    assert list(said["values"].items()) == [
        ("1", 1), ('"1"', 0), ('["a", 2]', 0), (r'"two\nlines"', 0),
    ]  # fmt: skip
    assert len((tmp_path / "x.txt").read_text().splitlines()) == 4


@pytest.mark.usefixtures("echo")
def test_no_solution_has_no_values(named, tmp_path):
    said = json.loads(succeed("solve", named, "--json", "--output", tmp_path / "x.txt"))
    assert said["x"] is said["values"] is None
    assert (tmp_path / "x.txt").read_text() == ""


# -- without a cardinality ---------------------------------------------------------------

QUBO = "p qubo 0 4 3 2\n0 0 -1\n2 2 1\n3 3 5\n0 1 -3\n2 3 -4\n"


@pytest.fixture
def qubo(tmp_path):
    (tmp_path / "free.qubo").write_text(QUBO)
    return tmp_path / "free.qubo"


def test_a_qubo_without_a_cardinality(qubo, tmp_path):
    words = ("solve", qubo, "--free", "--solver", "exact")
    said = json.loads(succeed(*words, "--json", "--output", tmp_path / "x.npz"))
    assert (said["x"], said["energy"], said["status"]) == ([1, 1, 0, 0], -4.0, "optimal")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as saved:
        assert saved["samples"].shape[1] == len(saved["x"]) == 4
    text = succeed(*words)
    assert "n = 4, any k" in text
    assert row(text, "x") == "1100"
    (tmp_path / "start.json").write_text("[0, 0, 1, 1]")
    said = json.loads(
        succeed("solve", qubo, "--free", "--initial-state", tmp_path / "start.json", "--json")
    )
    assert said["energy"] == -4.0
    (tmp_path / "start.json").write_text("[0, 0, 1]")
    message = fail("solve", qubo, "--free", "--initial-state", tmp_path / "start.json")
    assert "state has shape (3,); this problem takes (4,)" in message
    assert "or free=True (--free) for a QUBO without one" in fail("solve", qubo)


@pytest.mark.usefixtures("echo")
def test_no_solution_of_a_free_problem(qubo):
    said = json.loads(succeed("solve", qubo, "--free", "--json"))
    assert (said["x"], said["samples"]) == (None, 0)


@pytest.mark.parametrize("target", [name for name, each in FORMATS.items() if name != "npz"])
def test_export_without_a_cardinality(qubo, tmp_path, target):
    output = tmp_path / f"free{FORMATS[target].endings[0]}"
    if output == qubo:
        output = tmp_path / "again.qubo"
    assert "QUBO of 4 variables without a cardinality written" in succeed(
        "export", qubo, output, "--free"
    )
    said = json.loads(succeed("solve", output, "--free", "--solver", "exact", "--json"))
    assert (said["x"], said["energy"]) == ([1, 1, 0, 0], -4.0)


def test_export_refuses_what_a_format_does_not_support(qubo, tmp_path):
    message = fail("export", qubo, tmp_path / "free.npz", "--free")
    assert "npz files need a cardinality, and a free problem has none; use ubqp" in message
    assert not (tmp_path / "free.npz").exists()


def test_export_names_what_a_bqm_does_not_contain(named, tmp_path):
    said = succeed("export", named, tmp_path / "named.bqm")
    assert "the format bqm has no cardinality; pass --k 2 when reading the file" in said
    text = succeed("solve", tmp_path / "named.bqm", "--k", 2, "--solver", "exhaustive")
    assert row(text, "x = 1") == "gain, the[red]"

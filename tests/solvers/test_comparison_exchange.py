"""Export of QOBLIB submissions, and import of external runs."""

from __future__ import annotations

import csv
import json
import math
import re

import numpy as np
import pytest

from solvers.comparison import Campaign, CampaignConfig
from solvers.comparison import table as tables
from solvers.comparison.cases import Source
from solvers.comparison.imported import read_imported
from solvers.comparison.qoblib import export
from solvers.errors import TableError
from tests.solvers.comparison_solvers import Odd, dense, first_state, grouped
from tests.solvers.test_campaign import ends, feasible_states


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """A finished one, on problems whose optimum is known."""
    folder = tmp_path_factory.mktemp("campaign")
    config = CampaignConfig.of(
        problems={
            "dense 1": {"problem": dense(), "start": first_state(dense())},
            "groups": grouped(),
        },
        solvers={"exact": {}, "neal": {}, "broken": {"solver": Odd("error")}, "diagonal": {}},
        seeds=3,
        time_limit=0.05,
    )
    campaign = Campaign.plan(config, folder)
    campaign.carry_out()
    return campaign


# -- QOBLIB -----------------------------------------------------------------------------------

#: The header that the library's checker compares with, in its order.
HEADER = (
    "Problem,Submitter,Affiliation,Date,Reference,Best Objective Value,Optimality Bound,"
    "Modeling Approach,# Decision Variables,# Binary Variables,# Integer Variables,"
    "# Continuous Variables,# Non-Zero Coefficients,Coefficients Type,Coefficients Range,"
    "Workflow,Algorithm Type,Paradigm,# Runs,# Feasible Runs,# Successful Runs,"
    "Success Threshold,Hardware Specifications,Total Runtime,Time to Solution,CPU Runtime,"
    "GPU Runtime,QPU Runtime,Other HW Runtime,Remarks"
)


def violations(root):
    """Check a submission by the rules of the library's guide and checker."""
    found = []
    summaries = list(root.rglob("*_summary.csv"))
    if not summaries:
        found.append("no instance")
    for summary in summaries:
        name, place = summary.parent.name, summary.parent
        if summary.name != f"{name}_summary.csv":
            found.append(f"{summary.name} in {name}")
        text = summary.read_text()
        if text.splitlines()[0] != HEADER:
            found.append("header")
        (row,) = csv.DictReader(text.splitlines())
        found += check_row(row, name)
        if len(list(place.glob(f"{name}_solution.*"))) != 1:
            found.append("one solution file")
        series = json.loads((place / f"{name}_objective_time_series.json").read_text())
        found += check_series(series)
        if len(series) != int(row["# Feasible Runs"]):
            found.append("runs of the series")
    return found


def check_row(row, name):
    found = []
    if row["Problem"] != name:
        found.append("Problem is not the folder")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", row["Date"]):
        found.append("Date")
    if row["Algorithm Type"] not in ("Deterministic", "Stochastic"):
        found.append("Algorithm Type")
    if row["Paradigm"] not in ("Classical", "Quantum Simulator", "Quantum Hardware"):
        found.append("Paradigm")
    for column, value in row.items():
        if value == "N/A":
            continue
        if column.startswith("# ") and not value.isdigit():
            found.append(column)
        numeric = ("Best Objective Value", "Optimality Bound", "Success Threshold")
        if column in numeric or column.endswith(("Runtime", "Time to Solution")):
            float(value)
    runs = [int(row[f"# {kind}Runs"]) for kind in ("Successful ", "Feasible ", "")]
    if runs != sorted(runs):
        found.append("more successful than feasible runs")
    return found


def check_series(series):
    found = []
    for run in series:
        if not run:
            found.append("an empty run")
        times = [entry["Time"] for entry in run]
        incumbents = [entry["Incumbent"] for entry in run]
        if times != sorted(times) or incumbents != sorted(incumbents, reverse=True):
            found.append("a series that rises")
    return found


def test_submissions_keep_the_rules(campaign, tmp_path):
    table = campaign.table()
    export(campaign, table, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "exact", "neal"]
    for solver in ("exact", "neal", "broken"):
        assert violations(tmp_path / solver) == []
    summary = tmp_path / "exact/dense_1/dense_1_summary.csv"
    (row,) = csv.DictReader(summary.read_text().splitlines())
    lowest = dense().energy(feasible_states(dense())).min()
    assert float(row["Best Objective Value"]) == pytest.approx(lowest)
    assert row["Optimality Bound"] == row["Best Objective Value"]  # claims a proof
    assert row["Algorithm Type"] == "Deterministic"
    assert row["# Decision Variables"] == row["# Binary Variables"] == "8"
    assert int(row["# Non-Zero Coefficients"]) == 8 * 9 // 2 + 8
    (other,) = csv.DictReader(
        (tmp_path / "neal/groups/groups_summary.csv").read_text().splitlines()
    )
    assert other["Optimality Bound"] == "N/A"
    assert "penalty" in other["Modeling Approach"]


def test_solutions_of_submissions_are_those_of_the_energy(campaign, tmp_path):
    export(campaign, campaign.table(), tmp_path)
    for name, problem in (("dense_1", dense()), ("groups", grouped())):
        for solver in ("exact", "neal"):
            place = tmp_path / solver / name
            x = [int(line) for line in (place / f"{name}_solution.txt").read_text().split()]
            (row,) = csv.DictReader((place / f"{name}_summary.csv").read_text().splitlines())
            assert problem.is_feasible(x)
            assert problem.energy(x) == pytest.approx(float(row["Best Objective Value"]))


def test_a_series_begins_at_the_start_and_ends_with_the_run(campaign, tmp_path):
    export(campaign, campaign.table(), tmp_path)
    place = tmp_path / "exact/dense_1/dense_1_objective_time_series.json"
    for run in json.loads(place.read_text()):
        assert run[0] == {"Time": 0.0, "Incumbent": dense().energy(first_state(dense()))}
        assert run[-1]["Incumbent"] == run[-2]["Incumbent"]


# -- external runs ----------------------------------------------------------------------------


def write(tmp_path, text, name="theirs.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def merged(campaign, path):
    frame = campaign.table(read_imported(path, campaign))
    return tables.checked(frame)


def test_a_table_of_ones_own_is_set_beside_ours(campaign, tmp_path):
    E = dense().energy(first_state(dense()))
    text = (
        "problem, solver,seed,seconds,energy,bound\n"
        f"dense 1,mine,0,0.001,{E + 1},\n"
        f"dense 1,mine,0,0.002,{E},-99\n"
        f"dense 1,mine,0,0.003,{E + 2},\n"  # no improvement
        f"dense 1,mine,1,0.002,{E},\n"
    )
    frame = merged(campaign, write(tmp_path, text))
    mine = ends(frame, "mine").set_index("seed")
    assert mine.loc[0, "energy"] == pytest.approx(E)
    assert mine.loc[0, "bound"] == -99
    assert mine.loc[0, "known"] == "bounded"
    assert mine.loc[0, "status"] == "solved"
    assert mine.loc[0, "machine"] == "imported from theirs.csv"
    assert mine.loc[0, "n"] == 8
    assert len(frame[(frame["solver"] == "mine") & (frame["row"] == "incumbent")]) == 3


def test_an_energy_that_nobody_can_recompute_is_no_record(campaign, tmp_path):
    lowest = dense().energy(feasible_states(dense())).min()
    text = (
        "problem,solver,seed,seconds,energy\n"
        f"dense 1,mine,0,0.001,{lowest + 1}\n"
        f"dense 1,mine,0,0.002,{lowest - 1}\n"
        f"dense 1,mine,1,0.002,{lowest - 1e-13}\n"
    )
    frame = merged(campaign, write(tmp_path, text))
    mine = ends(frame, "mine").set_index("seed")
    assert frame["energy"].min() >= lowest - 1e-9
    assert mine.loc[0, "energy"] == pytest.approx(lowest + 1)
    assert "claims" in mine.loc[0, "error"]
    assert mine.loc[1, "energy"] == pytest.approx(lowest)
    assert mine.loc[1, "error"] == ""


def test_energies_of_states_are_recomputed(campaign, tmp_path):
    states = feasible_states(dense())
    x = states[np.argmin(dense().energy(states))]
    word = "".join(map(str, x))
    text = f"problem,solver,seed,seconds,energy,x\ndense 1,mine,0,0.001,-999,{word}\n"
    frame = merged(campaign, write(tmp_path, text))
    assert ends(frame, "mine")["energy"].item() == pytest.approx(dense().energy(x))


def test_a_bound_that_is_too_high_is_refuted(campaign, tmp_path):
    text = "problem,solver,seed,seconds,energy,bound\ndense 1,mine,0,0.001,5,5\n"
    end = ends(merged(campaign, write(tmp_path, text)), "mine").iloc[0]
    assert math.isnan(end["bound"])
    assert end["known"] == ""
    assert "refuted" in end["error"]


def test_what_mqlib_prints_is_read(campaign, tmp_path):
    E = dense().energy(first_state(dense()))
    worse = dense().offset - (E + 1)
    best = dense().offset - E
    text = (
        f'10,BURER2002,"runs/dense 1.mqlib",{best},10.00002,[{worse}:0.0004;{best}:0.0008]\n'
        "\nSolution:\n1 0 1 0 0 0 0 0\n"
        f'10,BURER2002,"runs/dense 1.mqlib",{worse},10.1,[{worse}:0.0004]\n'
    )
    frame = merged(campaign, write(tmp_path, text, "out.txt"))
    found = ends(frame, "BURER2002").set_index("seed")
    assert found["energy"].to_dict() == pytest.approx({0: E, 1: E + 1})
    assert found.loc[0, "seconds"] == pytest.approx(10.00002)
    assert len(frame[frame["solver"] == "BURER2002"]) == 5


def test_result_tables_of_mqlib_are_read(campaign, tmp_path):
    E = grouped().energy(first_state(grouped()))
    text = (
        "timestamp,graphname,heuristic,seed,limit,objective,runtime\n"
        f"2015-01-01,groups.zip,PALUBECKIS2006,7,10,{-E - 1},0.1\n"
        f"2015-01-01,groups.zip,PALUBECKIS2006,7,10,{-E},0.2\n"
    )
    end = ends(merged(campaign, write(tmp_path, text)), "PALUBECKIS2006").iloc[0]
    assert end["energy"] == pytest.approx(E)
    assert (end["seed"], end["seconds"]) == (7, 0.2)


def test_a_problem_is_read_once_for_all_states(campaign, tmp_path, monkeypatch):
    read, load = [], Source.load
    monkeypatch.setattr(Source, "load", lambda source: read.append(source) or load(source))
    state = "".join(map(str, first_state(dense())))
    rows = [f"dense 1,mine,{i},{i + j},0,{state}\n" for i in range(3) for j in range(2)]
    text = "problem,solver,seed,seconds,energy,x\n" + "".join(rows)
    found = read_imported(write(tmp_path, text), campaign)
    assert {row["energy"] for row in found} == {dense().energy(first_state(dense()))}
    assert read == [campaign.cases["dense 1"].source]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("problem,solver\n", "no column 'seed'"),
        ("problem,solver,seed,seconds,energy\nnothing,a,0,0,1\n", "is not in the campaign"),
        ("problem,solver,seed,seconds,energy\ngroup,a,0,0,1\n", "did you mean 'groups'"),
        ("problem,solver,seed,seconds,energy\ngroups,a,x,0,1\n", "line 2 .*must be an integer"),
        ("problem,solver,seed,seconds,energy\ngroups,a,0,-1,1\n", "0 or more"),
        ("problem,solver,seed,seconds,energy\ngroups,a,0,0,low\n", "must be a number"),
        ("problem,solver,seed,seconds,energy\ngroups,exact,0,0,1\n", "rename it"),
        ("problem,solver,seed,seconds,energy,x\ngroups,a,0,0,1,11\n", "not a state"),
        ("problem,solver,seed,seconds,energy,x\ngroups,a,0,0,1,11111111\n", "violates the card"),
        ("problem,solver,seed,seconds,energy,x\ngroups,a,0,0,1,1ab00000\n", "not a state"),
        ('1,H,"groups",1,1,[1:1]\nnonsense\n', "line 2 .* not in MQLib"),
    ],
)
def test_bad_tables_are_refused_by_line(campaign, tmp_path, text, said):
    with pytest.raises(TableError, match=said):
        read_imported(write(tmp_path, text), campaign)

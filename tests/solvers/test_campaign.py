"""Campaigns: every run is a row, also of failing solvers; none is lost or repeated."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO, InvalidProblemError
from problems.mean_energy import mean_energy
from problems.packing import pack, unpack
from problems.planted import planted
from solvers import MissingBackendError, OptionError, UnknownSolverError, compare, solve
from solvers.comparison import Campaign, CampaignConfig
from solvers.comparison import table as tables
from solvers.comparison.cases import distinct_names, examine
from solvers.comparison.config import ProblemSpec
from solvers.comparison.journal import RUNS
from solvers.errors import CampaignError, TableError
from tests.solvers.comparison_solvers import (
    Account,
    Claiming,
    Odd,
    Small,
    dense,
    first_state,
    grouped,
)

ROOT = Path(__file__).parents[2]


def feasible_states(problem):
    states = np.array(list(itertools.product((0, 1), repeat=problem.n)), np.uint8)
    return states[problem.is_feasible(states)]


def ends(frame, solver=None):
    found = frame[frame["row"] == "end"]
    return found if solver is None else found[found["solver"] == solver]


# -- what is right ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """Three tiny problems, one without a start, by four solvers."""
    tiny = dense(9, 4, seed=1)
    problems = {
        "dense": {"problem": dense(), "start": first_state(dense()), "best": 5.0},
        "groups": {"problem": grouped(), "family": "grouped"},
        "tiny": tiny,
    }
    return compare(problems, ["anneal", "exact", "neal", "exhaustive"], seeds=2, time_limit=0.1)


def test_the_table_has_a_row_for_each_incumbent_and_each_end(small):
    tables.checked(small)
    assert list(small.columns) == list(tables.COLUMNS)
    found = ends(small)
    assert len(found) == 3 * 4 * 2
    assert found["run"].is_unique
    assert (found["status"] == "solved").all()
    assert set(found["seed"]) == {0, 1}
    assert (found["machine"] != "").all()
    assert "icbs-pruning" in found["versions"].iloc[0]


def test_energies_are_those_of_brute_force(small):
    for name, problem in {"dense": dense(), "groups": grouped(), "tiny": dense(9, 4, 1)}.items():
        lowest = problem.energy(feasible_states(problem)).min()
        found = ends(small)[ends(small)["problem"] == name]
        exact = found[found["solver"].isin(["exact", "exhaustive"])]
        assert np.allclose(exact["energy"], lowest)
        assert (exact["known"] == "optimal").all()
        assert (exact["bound"] <= lowest + 1e-9).all()
        assert (found["energy"] >= lowest - 1e-9).all()
        rows = small[small["problem"] == name]
        assert (rows["energy"] >= lowest - 1e-9).all()
        assert set(rows["n"]) == {problem.n}
        assert set(rows["groups"]) == {problem.num_groups}


def test_facts_of_problems_are_in_the_table(small):
    rows = small.set_index("problem")
    assert set(rows.loc["dense", "start_kind"]) == {"status quo"}
    assert set(rows.loc["dense", "start_energy"]) == {dense().energy(first_state(dense()))}
    assert set(rows.loc["dense", "best_known"]) == {5.0}
    assert set(rows.loc["tiny", "start_kind"]) == {"random mean"}
    assert rows.loc["tiny", "best_known"].isna().all()
    assert set(rows.loc["groups", "family"]) == {"grouped"}


def test_samplers_say_how_many_samples_were_feasible(small):
    neal, anneal = ends(small, "neal"), ends(small, "anneal")
    assert neal["feasible_share"].between(0, 1).all()
    assert (neal["penalty"] > 0).all()
    raw = neal["raw_energy"]
    assert (raw.isna() | (raw >= neal["energy"] - 1e-9)).all()
    assert (anneal["feasible_share"] == 1).all()
    assert anneal["penalty"].isna().all()


def test_a_solver_that_comes_back_early_is_started_again(tmp_path):
    starts = {}
    for restart in (False, True):
        place = tmp_path / str(restart)
        odd = {"odd": Odd("answer", str(place))}
        compare({"p": dense()}, odd, seeds=1, time_limit=0.3, restart=restart)
        starts[restart] = len(lines_of(place))
    assert starts[False] == 1
    assert starts[True] > 1
    problem = {"p": planted(30, 15, 8, seed=3).problem}
    once = compare(problem, {"neal": {"num_sweeps": 20}}, seeds=1, time_limit=0.3, restart=False)
    often = compare(problem, {"neal": {"num_sweeps": 20}}, seeds=1, time_limit=0.3)
    assert ends(often)["energy"].item() <= ends(once)["energy"].item() + 1e-9


@pytest.mark.parametrize("problem", [dense(6, 2), grouped(), dense(5, 5), dense(5, 0)])
def test_the_mean_energy_is_that_of_all_feasible_states(problem):
    mean = problem.energy(feasible_states(problem)).mean()
    assert mean_energy(problem) == pytest.approx(mean)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_states_are_packed_without_loss(bits):
    assert unpack(pack(bits), len(bits)).tolist() == [int(bit) for bit in bits]


# -- misbehaving solvers ----------------------------------------------------------------------


def test_a_solver_that_fails_is_a_row_and_the_others_go_on():
    solvers = {deed: Odd(deed) for deed in ("answer", "error", "abort", "leave", "nothing")}
    # None of them takes that long, unless the machine is busy.
    frame = compare({"p": dense()}, solvers, seeds=2, time_limit=2, restart=False)
    found = ends(frame).groupby("solver")["status"].agg(set).to_dict()
    assert found == {
        "answer": {"solved"},
        "error": {"failed"},
        "abort": {"failed"},
        "leave": {"failed"},
        "nothing": {"solved"},  # it reported a state on the way
    }
    errors = ends(frame).groupby("solver")["error"].first()
    assert "no licence" in errors["error"]
    assert "SIGKILL" in errors["abort"] or sys.platform == "win32"
    assert "exit code 3" in errors["leave"]
    # Its states from before the crash are kept.
    kept = ends(frame, "abort")["energy"]
    assert np.allclose(kept, dense().energy(first_state(dense())))


def test_a_solver_that_says_nothing_at_all():
    frame = compare(
        {"p": {"problem": dense(), "start": first_state(dense())}},
        {"nothing": Nothing()},
        seeds=1,
        time_limit=0.05,
    )
    end = ends(frame).iloc[0]
    assert end["status"] == "nothing"
    assert np.isnan(end["energy"])
    assert not end["feasible"]


class Nothing(Small):
    """Sent by value where its module can't be imported."""

    def run(self, problem, request):
        return self.nothing(problem, request, None)


@pytest.mark.parametrize("deed", ["sleep", "spin", "spawn"])
def test_a_solver_that_hangs_is_killed_with_all_that_it_started(deed, tmp_path):
    began = time.monotonic()
    odd = Odd(deed, str(tmp_path / "runs"))
    frame = compare({"p": dense()}, {"odd": odd, "anneal": {}}, seeds=1, time_limit=0.1, grace=0.3)
    assert time.monotonic() - began < 60
    end = ends(frame, "odd").iloc[0]
    assert end["status"] == "timeout"
    assert "killed" in end["error"]
    assert end["energy"] == pytest.approx(dense().energy(first_state(dense())))
    assert end["seconds"] < 60  # not the hour that it would take
    assert ends(frame, "anneal")["status"].item() == "solved"
    if deed == "spawn":
        child = int((tmp_path / "runs.pid").read_text())
        deadline = time.monotonic() + 5
        while psutil.pid_exists(child) and time.monotonic() < deadline:
            if psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
                break
            time.sleep(0.05)
        else:
            assert not psutil.pid_exists(child)


def test_a_solver_that_lies_gains_nothing():
    frame = compare({"p": dense()}, {"odd": Odd("lie"), "exact": {}}, seeds=1, time_limit=0.1)
    lowest = dense().energy(feasible_states(dense())).min()
    assert (frame["energy"].dropna() >= lowest - 1e-9).all()
    rows = frame[frame["solver"] == "odd"]
    assert (rows["seconds"] >= 0).all()
    end = ends(frame, "odd").iloc[0]
    assert end["known"] != "optimal"
    assert np.isnan(end["bound"])


def test_a_proof_is_refuted_by_a_better_state_of_another_solver():
    frame = compare({"p": dense(seed=4)}, {"claiming": Claiming(), "exact": {}}, seeds=1)
    claim, exact = ends(frame, "claiming").iloc[0], ends(frame, "exact").iloc[0]
    assert claim["energy"] > exact["energy"]
    assert claim["known"] == ""
    assert np.isnan(claim["bound"])
    assert "refuted" in claim["error"]
    assert exact["known"] == "optimal"


def test_unsupported_problems_and_solvers_are_rows_with_the_reason(tmp_path):
    place = tmp_path / "runs"
    solvers = {
        "small": Small(place=str(place)),
        "account": Account(place=str(place)),
        "diagonal": {},
        "exhaustive": {},
    }
    frame = compare({"p": planted(40, 20, 8).problem}, solvers, seeds=2, time_limit=0.1)
    found = ends(frame)
    assert (found["status"] == "unsupported").all()
    errors = found.groupby("solver")["error"].first()
    assert "at most n = 8" in errors["small"]
    assert "set up an account" in errors["account"]
    assert errors["diagonal"].endswith("does not support time_limit")
    assert "at most n = 32" in errors["exhaustive"]
    assert not place.exists()


def test_a_solver_that_takes_neither_seed_nor_start_gets_none():
    problem = {"p": {"problem": dense(), "start": first_state(dense())}}
    frame = compare(problem, {"small": Small()}, seeds=2, time_limit=0.05)
    assert (ends(frame)["status"] == "solved").all()


# -- invalid input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"solvers": ["aneal"]}, UnknownSolverError, "did you mean 'anneal'"),
        ({"solvers": {"exact": {"gapp": 1}}}, OptionError, "did you mean 'gap'"),
        ({"solvers": ["anneal", "anneal"]}, CampaignError, "labelled 'anneal'"),
        ({"solvers": []}, CampaignError, "solvers"),
        ({"solvers": {"exact": {"num_reads": 2}}}, CampaignError, "num_reads"),
        ({"solvers": {"x": Odd("answer", lambda: None)}}, None, ""),
        ({"seeds": 0}, CampaignError, "0 seeds"),
        ({"seeds": [1, 1]}, CampaignError, "duplicate"),
        ({"seeds": [-1]}, CampaignError, "seeds"),
        ({"time_limit": 0.001}, CampaignError, "use 0.01 or more"),
        ({"time_limit": float("inf")}, CampaignError, "time_limit"),
        ({"jobs": 10_000}, CampaignError, "has room for"),
        ({"cores": 10_000}, CampaignError, "does not fit"),
        ({"job": 2}, CampaignError, "did you mean 'jobs'"),
        ({"problems": {}}, CampaignError, "problems"),
        ({"problems": {"p": 3}}, CampaignError, "is a int"),
        ({"problems": "nowhere.npz"}, CampaignError, "no problem file nowhere.npz"),
        ({"problems": "nowhere/*.npz"}, CampaignError, "contains no problem files"),
        ({"problems": [("p", dense()), ("p", grouped())]}, CampaignError, "two problems are named"),
        ({"problems": {"p": {"problem": dense(), "start": [1] * 8}}}, CampaignError, "8 ones"),
        ({"problems": {"p": {"problem": dense(), "start": [2, 0]}}}, CampaignError, "start of"),
        ({"problems": {"p": {"problem": dense(), "strat": 1}}}, CampaignError, "strat"),
    ],
)
def test_bad_input_is_refused(changes, error, said):
    asked = {"problems": {"p": dense()}, "solvers": ["diagonal"], "seeds": 1, "time_limit": 0.05}
    if error is None:
        compare(**(asked | changes))
        return
    with pytest.raises(error, match=said):
        compare(**(asked | changes))


def test_energies_that_leave_float64_are_refused():
    with pytest.raises(InvalidProblemError, match="overflow float64"):
        compare({"p": CardinalityQUBO(np.full((4, 4), 1e308), 2)}, "anneal", seeds=1)


def test_without_pandas_the_extra_is_named():
    code = "import sys; sys.modules['pandas'] = None; import solvers; solvers.compare([], 'anneal')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert MissingBackendError.__name__ in done.stderr
    assert "pip install 'icbs-pruning[compare]'" in done.stderr


# -- resumed campaigns ------------------------------------------------------------------------


def lines_of(path):
    return path.read_text().splitlines() if path.exists() else []


def script(folder, place):
    return f"""
from tests.solvers.comparison_solvers import Odd, dense, grouped
from solvers import compare
if __name__ == "__main__":
    compare({{"a": dense(), "b": grouped(), "c": dense(10, 4)}},
            {{"odd": Odd("answer", {str(place)!r}), "exact": {{}}, "sleep": Odd("sleep"),
              "diagonal": {{}}}},
            seeds=3, time_limit=0.05, grace=0.1, restart=False, out={str(folder)!r})
"""


def test_a_campaign_that_is_killed_goes_on_where_it_stopped(tmp_path):
    folder, place = tmp_path / "out", tmp_path / "runs"
    command = [sys.executable, "-c", script(folder, place)]
    path = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *sys.path)))}
    rng = np.random.default_rng(0)
    kills = 0
    for _ in range(20):
        running = subprocess.Popen(command, cwd=ROOT, env=os.environ | path)
        before = len(lines_of(folder / RUNS))
        deadline = time.monotonic() + 60
        while running.poll() is None and time.monotonic() < deadline:
            if kills < 2 and len(lines_of(folder / RUNS)) >= before + 4:
                time.sleep(rng.uniform(0, 0.1))
                running.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        if running.wait() == 0:
            break
        with (folder / RUNS).open("ab") as file:
            file.write(b'{"run": "cut in the mid')  # as after a kill during a write
    assert kills == 2
    frame = tables.read(folder)
    found = ends(frame)
    assert len(found) == 3 * 4 * 3
    assert found["run"].is_unique
    assert len(lines_of(folder / RUNS)) == len(found)
    # Each run of the solver was done once; one at most for each kill and place was lost.
    assert 9 <= len(lines_of(place)) <= 9 + kills * (os.cpu_count() or 1)
    assert (found[found["solver"] == "sleep"]["status"] == "timeout").all()


def test_a_finished_campaign_runs_nothing_again(tmp_path):
    place, told = tmp_path / "runs", []
    asked = {
        "problems": {"p": dense()},
        "solvers": {"odd": Odd("answer", str(place))},
        "seeds": 2,
        "time_limit": 0.05,
        "restart": False,
        "out": tmp_path / "out",
    }
    first = compare(**asked, progress=told.append)
    assert [progress.done for progress in told] == [1, 2]
    assert told[-1].remaining == 0
    again = compare(**asked, progress=told.append)
    assert len(told) == 2
    assert len(lines_of(place)) == 2
    assert first.equals(again)


def test_the_folder_of_another_campaign_is_refused_by_name(tmp_path):
    asked = {"problems": {"p": dense()}, "seeds": 1, "time_limit": 0.05, "out": tmp_path / "out"}
    compare(solvers=["exact"], **asked)
    for changes, said in (
        ({"solvers": ["exact", "anneal"]}, "it has no solver 'anneal'"),
        ({"solvers": ["anneal"]}, "it has no solver 'anneal'"),
        ({"solvers": {"exact": {"gap": 0.5}}}, "solver 'exact' was"),
        ({"seeds": 2}, r"seeds was \[0\], and is \[0, 1\]"),
        ({"time_limit": 0.06}, "time_limit was 0.05, and is 0.06"),
        ({"problems": {"p": grouped()}}, "problem 'p' was"),
    ):
        with pytest.raises(CampaignError, match=f"contains another campaign: .*{said}"):
            compare(**({"solvers": ["exact"]} | asked | changes))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(CampaignError, match=r"'thesis.tex' but not a campaign"):
        compare({"p": dense()}, "exact", seeds=1, out=tmp_path)
    with pytest.raises(CampaignError, match="is a file"):
        compare({"p": dense()}, "exact", seeds=1, out=tmp_path / "thesis.tex")


def test_a_damaged_folder_is_refused_by_line(tmp_path):
    asked = {"problems": {"p": dense()}, "solvers": "exact", "seeds": 3, "time_limit": 0.05}
    compare(**asked, out=tmp_path / "out")
    journal = tmp_path / "out" / RUNS
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(lines[0] + lines[1].replace('"energy":', '"energy":1', 1) + lines[2])
    with pytest.raises(CampaignError, match="line 2 of .* is damaged"):
        compare(**asked, out=tmp_path / "out")
    journal.write_text(lines[0] + lines[2])
    assert len(ends(compare(**asked, out=tmp_path / "out"))) == 3
    manifest = tmp_path / "out" / "campaign.json"
    manifest.write_text(manifest.read_text().replace('"seeds"', '"seed"'))
    with pytest.raises(CampaignError, match="is damaged"):
        compare(**asked, out=tmp_path / "out")


def test_a_problem_file_that_changes_midway_is_a_failure(tmp_path):
    file = tmp_path / "p.npz"
    dense(seed=7).save(file)
    config = CampaignConfig.of(problems=str(file), solvers="exact", seeds=1, time_limit=0.05)
    campaign = Campaign.plan(config, tmp_path / "out")
    dense(seed=9).save(file)
    campaign.carry_out()
    end = ends(campaign.table()).iloc[0]
    assert end["status"] == "failed"
    assert "has changed since" in end["error"]


def test_interrupted_campaigns_leave_no_process_behind(tmp_path):
    asked = {"problems": {"p": dense()}, "solvers": {"odd": Odd("answer")}, "restart": False}

    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(**asked, seeds=40, time_limit=0.05, out=tmp_path / "out", progress=interrupt)
    assert len(lines_of(tmp_path / "out" / RUNS)) == 1
    assert len(ends(compare(**asked, seeds=40, time_limit=0.05, out=tmp_path / "out"))) == 40


# -- ways to name problems and solvers --------------------------------------------------------


def test_problems_are_named_in_many_ways(tmp_path):
    dense().save(tmp_path / "a.npz")
    np.save(tmp_path / "a.x0.npy", first_state(dense()))
    grouped().save(tmp_path / "b.npz")
    asked = {"solvers": "exact", "seeds": 1, "time_limit": 0.05}
    by_pattern = compare(str(tmp_path / "*.npz"), **asked)
    by_folder = compare(tmp_path, **asked)
    by_list = compare([tmp_path / "a.npz", {"path": str(tmp_path / "b.npz"), "name": "c"}], **asked)
    alone = compare(dense(), **asked)
    assert set(by_pattern["problem"]) == set(by_folder["problem"]) == {"a", "b"}
    assert set(by_list["problem"]) == {"a", "c"}
    assert set(alone["problem"]) == {"problem-1"}
    kinds = ends(by_pattern).set_index("problem")["start_kind"]
    assert kinds.to_dict() == {"a": "status quo", "b": "random mean"}


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (np.zeros(dense().n, np.uint8), f"0 ones in group 0; its cardinality is {dense().k}"),
        (first_state(dense())[:-1], "state has shape"),
        (first_state(dense())[None], "pass one state"),
        ("nothing.npy", "nothing.npy"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(start, said, tmp_path):
    problem = {"name": "mine", "problem": dense(), "start": start}
    config = CampaignConfig.of(problems=problem, solvers="exact")
    with pytest.raises(CampaignError, match=f"start of problem 'mine' can't be used: .*{said}"):
        Campaign.plan(config, tmp_path)


def test_a_file_without_a_cardinality_is_told_one(tmp_path):
    from problems.formats import write

    write(CardinalityQUBO(dense().Q, 3), tmp_path / "q.qubo", free=False)
    text = "\n".join(
        line for line in (tmp_path / "q.qubo").read_text().splitlines() if "icbs" not in line
    )
    (tmp_path / "q.qubo").write_text(text + "\n")
    asked = {"solvers": "exact", "seeds": 1, "time_limit": 0.05}
    told = compare([{"path": str(tmp_path / "q.qubo"), "k": 3}], **asked)
    assert set(told["k"]) == {3}
    free = compare([{"path": str(tmp_path / "q.qubo"), "free": True}], **asked)
    assert set(free["n"]) == {16}


def test_solvers_are_named_in_many_ways():
    import dimod

    named = CampaignConfig.of(
        problems="library:small",
        solvers=["anneal", ("neal", {"num_sweeps": 7}), {"deep": {"solver": "qaoa", "p": 9}}],
    )
    assert [spec.label for spec in named.solvers] == ["anneal", "neal (num_sweeps=7)", "deep"]
    assert named.solvers[2].options == {"p": 9}
    assert [s.label for s in CampaignConfig.of(problems="x", solvers="a, b").solvers] == ["a", "b"]
    frame = compare(
        {"p": dense()},
        [
            "tests.solvers.comparison_solvers:Odd",
            dimod.ExactSolver(),
            {"mine": Odd("answer")},
        ],
        seeds=1,
        time_limit=0.05,
    )
    assert set(ends(frame)["solver"]) == {
        "tests.solvers.comparison_solvers:Odd",
        "ExactSolver",
        "mine",
    }
    assert "time_limit" in ends(frame, "ExactSolver")["error"].item()


def test_solvers_of_a_script_are_sent_by_value(tmp_path):
    file = tmp_path / "script.py"
    file.write_text(
        "from tests.solvers.comparison_solvers import Small, dense\n"
        "from solvers import compare\n"
        "class Mine(Small):\n    name = 'mine'\n"
        "if __name__ == '__main__':\n"
        "    frame = compare({'p': dense()}, [Mine()], seeds=1, time_limit=0.05)\n"
        "    end = frame[frame['row'] == 'end'].iloc[0]\n"
        "    print(end['status'], end['solver'])\n"
    )
    path = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *sys.path)))}
    done = subprocess.run(
        [sys.executable, file], capture_output=True, text=True, env=os.environ | path
    )
    assert done.stdout.split() == ["solved", "mine"], done.stderr


def test_runs_are_bound_to_their_cores():
    class Threads(Small):
        def run(self, problem, request):
            said = f"{os.environ['OMP_NUM_THREADS']} {len(os.sched_getaffinity(0))}"
            raise RuntimeError(said)

    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system binds no process to a CPU")
    frame = compare({"p": dense()}, {"threads": Threads()}, seeds=1, time_limit=0.05)
    assert "1 1" in ends(frame)["error"].item()


@pytest.mark.slow
def test_dask_carries_runs_out():
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=1, threads_per_worker=2, dashboard_address=None) as client:
        frame = compare(
            {"p": dense()},
            {"exact": {}, "abort": Odd("abort")},
            seeds=2,
            time_limit=0.05,
            executor=client.get_executor(),
        )
    found = ends(frame).groupby("solver")["status"].agg(set).to_dict()
    assert found == {"exact": {"solved"}, "abort": {"failed"}}


# -- the table --------------------------------------------------------------------------------


def test_a_table_is_the_same_from_parquet_and_csv(small, tmp_path):
    parquet, text = tables.write(small, tmp_path)
    assert tables.read(parquet).equals(small)
    assert tables.read(text).equals(small)
    assert tables.read(tmp_path).equals(small)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda t: t.drop(columns="energy"), "no column 'energy'"),
        (lambda t: t.assign(energy="low"), "another type"),
        (lambda t: t.assign(row="middle"), "neither an incumbent nor an end"),
        (lambda t: t[t["row"] == "incumbent"], "has 0 ends"),
        (lambda t: t.assign(status="fine"), "unknown status"),
        (lambda t: t.assign(seconds=-1.0), "has no valid time"),
        (lambda t: t.assign(seed=range(len(t))), "differ in 'seed'"),
        (lambda t: t.iloc[::-1], "is earlier than|is not an improvement"),
        (lambda t: t.assign(energy=np.nan), "without an energy"),
    ],
)
def test_a_damaged_table_is_refused(small, damage, said):
    with pytest.raises(TableError, match=said):
        tables.checked(damage(small))


def test_a_file_that_is_not_a_table_is_refused(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "table.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(TableError, match="no column"):
        tables.read(tmp_path / "table.csv")
    with pytest.raises(TableError, match="can't be read"):
        tables.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="icbs compare"):
        tables.read(tmp_path / "nothing.csv")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_incumbents_that_solvers_report_are_their_own_states(seed):
    """The energies of incumbents are recomputed from their states."""
    problem = planted(24, 12, 6, seed=seed).problem
    from solvers.base import Request
    from solvers.registry import create

    for name in ("anneal", "exact", "exhaustive"):
        seen = []

        def look(seconds, energy, x, seen=seen):
            seen.append((energy, problem.energy(x)))

        request = Request(
            seed=0, time_limit=0.05, callback=lambda seconds, energy: None, observer=look
        )
        create(name).run(problem, request)
        claimed, true = np.array(seen).T
        assert np.allclose(claimed, true, rtol=1e-4, atol=1e-4)


def test_the_answer_of_solve_is_as_before():
    answer = solve(dense(), "exact", callback=lambda seconds, energy: None)
    assert answer.info["returned"] == 1
    assert json.dumps(answer.info["options"])


def test_files_of_the_same_name_are_named_by_their_folders(tmp_path):
    paths = []
    for run in ("first", "second"):
        for name in ("a", run):
            path = tmp_path / run / "blocks" / f"{name}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            dense().save(path)
            paths.append(str(path))
    assert distinct_names(paths) == {paths[0]: "first-a", paths[2]: "second-a"}
    specs = [ProblemSpec(path=str(tmp_path / run / "blocks")) for run in ("first", "second")]
    names = [case.name for case, _ in examine(specs, tmp_path / "spare")]
    assert names == ["first-a", "first", "second-a", "second"]

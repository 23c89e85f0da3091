"""Assessments: all parts, verdicts, tables, and input that is refused before work starts."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import time

import numpy as np
import pytest

from problems import CardinalityQUBO
from problems.presolve import presolve
from solvers.errors import OptionError
from solvers.readiness import Case, Options, assess, assess_all, load_targets
from solvers.readiness.classical import Classical, measured
from solvers.readiness.device import DeviceCircuit, counted
from solvers.readiness.problem import Couplings, log2_binomial, problem_figures
from solvers.readiness.table import PARTS, as_csv, as_json, rows, summary, terminal, write
from solvers.readiness.verdict import _block, bits_needed, gate_verdict, power

pytest.importorskip("qiskit")


def dense(n, k=None, seed=0):
    Q = np.random.default_rng(seed).normal(size=(n, n))
    return CardinalityQUBO(Q + Q.T, n // 2 if k is None else k)


def options(targets="all-to-all,grid", **changes):
    settings = {"p": (1, 2), "classical_seconds": 0.05} | changes
    return Options(targets=tuple(load_targets(targets)), **settings)


# -- part 1 ---------------------------------------------------------------------------------------


def test_figures_of_a_problem():
    A = np.array([[1.0, 2.0, 0.0, 0.0], [0.0, 0.1, 4.0, 0.0]])
    problem = CardinalityQUBO.from_factors(A, np.ones(4), 2)
    found = problem_figures(problem)
    assert (found.n, found.k, found.groups, found.rank) == (4, 2, 1, 2)
    assert found.couplings == 2  # 2.0 and 0.4
    assert found.density == pytest.approx(2 / 6)
    assert found.range_cut_1 == pytest.approx(5.0)
    assert found.bits == pytest.approx(np.log2(5) + 1)
    assert found.log2_states == pytest.approx(np.log2(6))
    assert found.n_presolved == presolve(problem).problem.n
    assert found.negative_share == 0


def test_small_couplings_are_dropped_before_the_range():
    Q = np.diag([1.0, 2.0, 3.0, 4.0])
    for (i, j), value in {(0, 1): 1.0, (0, 2): -0.5, (0, 3): 0.005, (1, 2): 1e-6}.items():
        Q[i, j] = Q[j, i] = value
    found = problem_figures(CardinalityQUBO(Q, 2))
    assert found.range_cut_1 == pytest.approx(2.0)
    assert found.range_cut_01 == pytest.approx(200.0)
    assert (found.dropped_cut_1, found.dropped_cut_01) == (0.5, 0.25)
    assert found.negative_share == 0.25


@pytest.mark.parametrize("k", [0, 3, 6])
def test_no_couplings_and_any_cardinality(k):
    found = problem_figures(CardinalityQUBO(np.diag(np.arange(6.0)), k))
    assert (found.couplings, found.density, found.range_cut_1, found.bits) == (0, 0, 1, 1)
    assert found.penalised_range is None
    assert found.log2_states == pytest.approx(log2_binomial(6, k))


# -- the whole ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def assessed():
    cases = [Case("small", dense(8)), Case("large", dense(40), best=-1e3)]
    return list(assess_all(cases, options("all-to-all,grid,pegasus,superconducting")))


def test_all_parts_are_given(assessed):
    small, large = assessed
    assert [row.target for row in small.verdicts] == [
        "all-to-all",
        "grid",
        "pegasus",
        "superconducting",
    ]
    assert len(small.devices) == 4  # two targets, two p
    assert {row.encoding for row in small.logical} == {"cardinality", "penalty"}
    assert all(row.ratio is not None for row in small.quality)
    assert all("feasible states" in row.skipped for row in large.quality)
    assert {row.method for row in large.devices} == {"counted", "counted on a line"}


def test_verdicts_say_what_stops_the_next_size(assessed):
    small, large = assessed
    by_target = {row.target: row for row in small.verdicts}
    grid = by_target["grid"]
    assert grid.fits
    assert 8 <= grid.largest_n < 40
    assert grid.limit == "success"
    assert re.search(r"gates on two qubits \(counted( on a line)?\) leave", grid.reason)
    assert by_target["superconducting"].largest_n is None
    assert by_target["superconducting"].limit == "none"
    assert not next(row for row in large.verdicts if row.target == "grid").fits
    assert grid.classical_source.startswith("anneal")


def test_a_threshold_moves_the_largest_n():
    found = {
        least: assess(dense(6), options("grid", min_success=least, p=(1,))).verdicts[0].largest_n
        for least in (1e-6, 1e-2, 0.5)
    }
    assert found[1e-6] > found[1e-2] > found[0.5]


@pytest.mark.parametrize(
    ("error", "n", "fits", "limit"),
    [
        (1e-5, 8, True, ""),
        (0.1, 8, False, "success"),
        (1e-5, 35, None, ""),
        (1e-5, 41, False, "qubits"),
    ],
)
def test_the_largest_n_on_explicit_couplings_is_not_known(error, n, fits, limit):
    grid = load_targets("grid")[0]
    changes = {"topology": "explicit", "rows": None, "columns": None, "qubits": 40}
    changes |= {"couplings": tuple((i, i + 1) for i in range(39)), "two_qubit_error": error}
    target = grid.model_copy(update=changes)
    found = assess(dense(n), Options(targets=(target,), p=(1,), classical_seconds=0)).verdicts[0]
    assert (found.fits, found.limit, found.largest_n) == (fits, limit, None)
    assert found.reason or "only counted on known lattices" in found.skipped


def test_groups_keep_their_size_in_the_family():
    groups = np.repeat(np.arange(6), 4)
    problem = CardinalityQUBO(dense(24).Q, [2] * 6, groups=groups)
    one = assess(dense(24), options("heavy-hex", p=(1,))).verdicts[0]
    many = assess(problem, options("heavy-hex", p=(1,))).verdicts[0]
    assert many.largest_n > one.largest_n  # Dicke states of four qubits take few gates


def test_bits_that_couplings_need_grow_with_the_penalty():
    need = bits_needed(dense(40))
    assert [size for size, _ in need] == [4, 6, 8, 12, 16, 24, 32, 40]
    assert need[-1][1] > need[0][1]


@pytest.mark.slow
def test_twenty_problems_of_the_library_take_two_minutes_of_a_cpu():
    from problems import library

    begin = time.process_time()
    names = library.names(max_n=128)[:20]
    assert len(names) == 20
    cases = []
    for name in names:
        entry = library.load(name)
        cases.append(Case(name, entry.problem, entry.start, entry.best_energy))
    found = list(assess_all(cases))
    assert time.process_time() - begin < 120
    assert all(len(row.verdicts) == 7 for row in found)


# -- tables ---------------------------------------------------------------------------------------


def test_json_and_csv_hold_every_row(assessed, tmp_path):
    targets = load_targets("all-to-all,grid,pegasus,superconducting")
    content = json.loads(as_json(assessed, targets))
    assert [row["name"] for row in content["assessments"]] == ["small", "large"]
    assert content["targets"][1]["sources"][0]["date"]
    assert content["versions"]["qiskit"]
    for part in PARTS:
        expected = rows(assessed, part)
        assert len(list(csv.DictReader(io.StringIO(as_csv(expected))))) == len(expected)
    written = write(assessed, targets, tmp_path / "out")
    assert {path.name for path in written} >= {"readiness.json", "readiness.csv", "devices.csv"}
    table = list(csv.DictReader((tmp_path / "out" / "readiness.csv").open()))
    assert len(table) == 8
    assert table[0]["target"] == "all-to-all"


def test_numbers_of_json_are_finite(assessed):
    changed = dataclasses.replace(
        assessed[0], problem=dataclasses.replace(assessed[0].problem, bits=float("inf"))
    )
    assert json.loads(as_json([changed], []))["assessments"][0]["problem"][0]["bits"] is None


def test_the_table_fits_a_terminal(assessed):
    from rich.console import Console

    console = Console(width=80, file=io.StringIO())
    console.print(terminal(assessed[1]))
    text = console.file.getvalue()
    assert "superconducting" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_problem_fits_if_and_only_if_its_size_does():
    judged = [
        assess(dense(n), options("grid", min_success=least, p=(1,), classical_seconds=0)).verdicts[
            0
        ]
        for n in (10, 16)
        for least in (0.02, 0.05, 0.2, 0.4)
    ]
    assert {found.fits for found in judged} == {True, False}
    for found in judged:
        assert found.fits == (found.n <= found.largest_n)


def test_the_circuit_of_the_problem_decides_at_its_own_size():
    [target] = load_targets("grid")
    problem, empty = dense(12), DeviceCircuit("grid", 1, "dicke", "ring", 12)
    couplings = Couplings.of(problem)
    counted_ = counted(empty, target, couplings, problem.group_members)
    worse = dataclasses.replace(counted_, log10_success=-9.0)
    likely = gate_verdict(problem, target, counted_, couplings, 1e-5)
    assert likely.fits
    assert likely.largest_n >= 12
    assert "(counted" in likely.reason
    found = gate_verdict(problem, target, worse, couplings, 1e-5)
    assert (found.fits, found.largest_n, found.limit) == (False, 11, "success")


def test_table_and_charts_name_their_embeddings(assessed):
    from rich.console import Console

    from solvers.readiness.report.charts import Scene, chain_chart, qubits_chart

    console = Console(width=120, file=io.StringIO())
    console.print(terminal(assessed[0]))
    text = " ".join(console.file.getvalue().split())
    assert "up to n: by counted gates, not compiled ones" in text
    for row in summary(assessed):
        if row["kind"] == "annealer":
            used = [e for a in assessed if a.name == row["problem"] for e in a.annealers]
            used = [e for e in used if e.found and e.faulty and e.target == row["target"]]
            least = min(used, key=lambda e: e.physical_qubits)
            assert (row["embedding"], row["qubits"]) == (least.method, least.physical_qubits)
    named = [row["embedding"] for row in summary(assessed[:1]) if row["embedding"]]
    assert f"fewer qubits: pegasus {named[0]}" in text
    scene = Scene(assessed, load_targets("all-to-all,grid,pegasus,superconducting"))
    for chart in (chain_chart(scene), qubits_chart(scene)):
        assert re.search("clique embeddings", chart.definition, re.IGNORECASE)
        assert "by minorminer" in chart.definition


def test_summary_has_a_row_per_target(assessed):
    found = summary(assessed)
    assert len(found) == 8
    assert found[0]["two_qubit_gates"] > 0
    assert found[3]["qubits"] > 1000


@pytest.mark.parametrize(("log10", "text"), [(-0.3, "0.5"), (-7.5, "3e-8"), (-400.0, "1e-400")])
def test_probabilities_are_spelled(log10, text):
    assert power(log10) == text


# -- classical times ------------------------------------------------------------------------------


def test_a_short_run_of_the_classical_solver():
    problem = dense(20)
    found = measured(problem, start_energy=0.0, seconds=0.1)
    assert found.steps[-1][1] == 0.0
    gaps = [gap for _, gap in found.steps]
    assert gaps == sorted(gaps, reverse=True)
    assert found.seconds_to(1.0) <= found.seconds_to(0.0)
    assert Classical("x", 0.0, -1.0, ((0.1, 0.5),)).seconds_to(0.4) is None


def test_times_from_a_comparison(tmp_path):
    from solvers.comparison import compare

    problem = dense(12)
    compare({"mine": problem}, "anneal", seeds=1, time_limit=0.1, out=tmp_path)
    chosen = options("all-to-all", comparison=tmp_path, classical_seconds=0.0)
    found = assess(problem, chosen, name="mine").verdicts[0]
    assert found.classical_source == str(tmp_path)
    assert 0 < found.classical_seconds < 10
    other = assess(problem, chosen, name="other").verdicts[0]
    assert other.classical_seconds is None


def test_a_comparison_is_read_before_any_work(tmp_path):
    started = []
    chosen = options("all-to-all", comparison=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"table\.parquet"):
        next(assess_all([Case("mine", dense(6))], chosen, started.append))
    assert started == []


def test_a_comparison_that_grew_is_read_again(tmp_path):
    from solvers.comparison import compare

    chosen = options("all-to-all", comparison=tmp_path, classical_seconds=0.0)
    compare({"first": dense(6)}, "anneal", seeds=1, time_limit=0.1, out=tmp_path)
    assert assess(dense(6), chosen, name="first").verdicts[0].classical_seconds is not None
    compare({"second": dense(6)}, "anneal", seeds=1, time_limit=0.1, out=tmp_path / "other")
    (tmp_path / "other" / "table.parquet").replace(tmp_path / "table.parquet")
    assert assess(dense(6), chosen, name="second").verdicts[0].classical_seconds is not None


# -- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p": ()}, "p is"),
        ({"p": (2, 1)}, "rising order"),
        ({"p": (0,)}, "p is 0"),
        ({"start": "warm"}, "start is 'warm'"),
        ({"mixer": "x"}, "mixer is 'x'"),
        ({"min_success": 1.0}, "min_success is 1.0"),
        ({"classical_seconds": -1}, "classical_seconds is -1"),
        ({"shots": 0}, "shots is 0"),
    ],
)
def test_options_are_checked(changes, message):
    with pytest.raises(OptionError, match=message):
        options(**changes)


def test_missing_packages_are_named_with_their_command(monkeypatch):

    from solvers.readiness import options as module

    monkeypatch.setattr(module, "_installed", lambda name: name not in ("qdk", "minorminer"))
    found = options("gate,annealer,fault-tolerant").missing_packages()
    assert found == [
        "annealer targets need minorminer: pip install 'icbs-pruning[dwave]'",
        "fault-tolerant targets need qdk: pip install 'icbs-pruning[quantum]'",
    ]
    assert options("gate").missing_packages() == []


@pytest.mark.parametrize("k", [0, 6])
def test_decided_problems_have_a_row_with_the_reason(k):
    found = assess(dense(6, k), options("all-to-all,pegasus,superconducting"))
    assert found.devices[0].two_qubit_gates > 0
    assert all("decided" in row.skipped for row in (*found.annealers, *found.fault_tolerant))
    assert found.verdicts[0].fits
    assert "decided" in found.verdicts[1].skipped


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(3), 8)])
def test_smaller_blocks_keep_the_share_of_ones(groups):
    Q = dense(24).Q
    k = 6 if groups is None else [2, 2, 2]
    block = _block(CardinalityQUBO(Q, k, groups=groups), 12)
    assert block.n == 12
    assert block.cardinalities.tolist() == ([3] if groups is None else [1, 1, 1])
    kept = range(12) if groups is None else [*range(4), *range(8, 12), *range(16, 20)]
    np.testing.assert_array_equal(block.Q, Q[np.ix_(kept, kept)])


def test_classical_seconds_are_those_to_the_best_gap_of_the_circuits():
    problem = dense(8)
    found = assess(problem, options("all-to-all", shots=4))
    start = found.quality[0].random_mean
    gaps = [(row.best - row.optimum) / (start - row.optimum) for row in found.quality]
    assert max(gaps) > min(gaps)
    assert found.verdicts[0].gap == pytest.approx(min(gaps))

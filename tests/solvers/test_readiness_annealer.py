"""Embeddings in annealers against published cliques, Ocean's own checks, and brute force."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO, InvalidProblemError
from problems.penalty import penalised, penalty_for
from solvers.errors import OptionError, TargetError
from solvers.readiness import annealer, load_target, programming
from solvers.readiness.annealer import Embedding, access_seconds, embedding, embeddings
from solvers.readiness.processor import Processor, clique_limit, processor_of

pytest.importorskip("dwave.graphs")
embed = pytest.importorskip("dwave.embedding")

PEGASUS, ZEPHYR = load_target("pegasus"), load_target("zephyr")
SMALL = PEGASUS.model_copy(update={"m": 4, "faulty_qubits": 0.03, "faulty_couplers": 0.02})
SMALL_ZEPHYR = ZEPHYR.model_copy(update={"m": 2})


def dense(n: int, seed: int = 0, k: int | None = None) -> CardinalityQUBO:
    rng = np.random.default_rng(seed)
    Q = rng.normal(size=(n, n))
    return CardinalityQUBO(Q + Q.T, k=n // 2 if k is None else k)


def blocks(count: int) -> CardinalityQUBO:
    """Groups of two without couplings between them; the optimum takes the second of each."""
    Q = np.kron(np.eye(count), np.array([[1.0, 0.5], [0.5, -1.0]]))
    return CardinalityQUBO(Q, k=[1] * count, groups=np.repeat(np.arange(count), 2))


# -- graphs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "m", "qubits", "couplers", "clique"),
    [
        (PEGASUS, 16, 5640, 40484, 180),  # Advantage (D-Wave report 14-1026A-C)
        (ZEPHYR, 12, 4800, 45864, 184),  # Advantage2
        (ZEPHYR, 15, 7440, 71736, 232),  # D-Wave report 14-1056A-A
    ],
)
def test_published_sizes_and_cliques(target, m, qubits, couplers, clique):
    target = target.model_copy(update={"m": m})
    whole = Processor(target, faulty=False, seed=0)
    assert len(whole.graph) == qubits
    assert whole.graph.number_of_edges() == couplers
    assert whole.cliques.largest == clique == clique_limit(target)


@pytest.mark.parametrize(
    ("target", "changes"),
    [(PEGASUS, {"m": m}) for m in (3, 4, 6)]
    + [(ZEPHYR, {"m": m, "t": t}) for m, t in ((2, 4), (3, 4), (5, 4), (3, 2), (3, 1))],
)
def test_busclique_reaches_the_formula(target, changes):
    target = target.model_copy(update=changes)
    assert Processor(target, faulty=False, seed=0).cliques.largest == clique_limit(target)


def test_the_formula_is_an_upper_limit_of_the_smallest_graph():
    target = PEGASUS.model_copy(update={"m": 2})
    assert Processor(target, faulty=False, seed=0).cliques.largest <= clique_limit(target)


@pytest.mark.parametrize("n", [2, 8, 12, 24, 32, 48, 64, 96, 120, 150, 184])
def test_chains_of_cliques_have_the_known_lengths(n):
    longest = {
        target.topology: max(
            map(len, processor_of(target, faulty=False).embed_clique(n)[0].values()), default=0
        )
        for target in (PEGASUS, ZEPHYR)
    }
    assert longest["zephyr"] <= math.ceil((n + 8) / 16) + 1
    if n <= 180:
        assert n / 12 <= longest["pegasus"] <= math.ceil(n / 12) + 2


@pytest.mark.parametrize("target", [PEGASUS, ZEPHYR])
def test_the_stated_share_of_qubits_and_couplers_is_missing(target):
    whole, faulty = processor_of(target, faulty=False).graph, processor_of(target).graph
    assert len(whole) - len(faulty) == round(target.faulty_qubits * len(whole))
    between = whole.subgraph(faulty.nodes).number_of_edges()
    assert between - faulty.number_of_edges() == round(target.faulty_couplers * between)
    assert set(faulty.edges) <= {*whole.edges, *(edge[::-1] for edge in whole.edges)}
    assert processor_of(target).cliques.largest <= clique_limit(target)
    assert set(Processor(target, True, 0).graph) == set(faulty)
    assert set(Processor(target, True, 1).graph) != set(faulty)


def test_targets_have_the_working_qubits_that_are_published():
    assert len(processor_of(PEGASUS).graph) == 5612
    assert len(processor_of(ZEPHYR).graph) == 4589


# -- embeddings -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["clique", "minorminer"])
@pytest.mark.parametrize("faulty", [False, True])
@pytest.mark.parametrize("target", [SMALL, SMALL_ZEPHYR])
def test_chains_are_what_the_row_says_and_ocean_verifies_them(target, faulty, method):
    n = 10
    row = embedding(dense(n), target, method=method, faulty=faulty)
    processor = processor_of(target, faulty)
    coupled = np.ones((n, n), dtype=bool)
    chains, _ = (
        processor.embed_clique(n)
        if method == "clique"
        else processor.embed_general(coupled, 5.0, 0)
    )
    assert embed.verify_embedding(chains, itertools.combinations(range(n), 2), processor.graph)
    lengths = [len(chain) for chain in chains.values()]
    assert row.found
    assert (row.reason, row.skipped) == ("", "")
    assert (row.physical_qubits, row.chain_max) == (sum(lengths), max(lengths))
    assert row.chain_mean == pytest.approx(np.mean(lengths))
    assert row.couplings == n * (n - 1) // 2
    assert (row.qubits, row.couplers) == (
        len(processor.graph),
        processor.graph.number_of_edges(),
    )
    json.dumps(dataclasses.asdict(row), allow_nan=False)


def test_sparse_groups_need_no_chains():
    row = embedding(blocks(8), SMALL_ZEPHYR, method="minorminer")
    assert (row.physical_qubits, row.chain_max, row.couplings) == (16, 1, 8)
    assert row.feasible_share == 1.0
    assert embedding(blocks(8), SMALL_ZEPHYR, method="clique", faulty=False).chain_max > 1


def test_rows_of_one_problem():
    rows = embeddings(dense(6), SMALL, anneals=7)
    assert [(row.method, row.graph) for row in rows] == [
        ("clique", "pegasus P4"),
        ("clique", "pegasus P4, faulty"),
        ("minorminer", "pegasus P4, faulty"),
    ]
    assert {row.anneals for row in rows} == {7}
    assert rows == embeddings(dense(6), SMALL, anneals=7)  # also the times: nothing is done twice


def test_equal_seeds_give_equal_samples():
    first, again = (embedding(dense(9), SMALL, seed=3) for _ in range(2))
    assert first == again


# -- time -------------------------------------------------------------------------------------


def test_access_time_is_that_of_d_waves_own_estimate():
    solver = pytest.importorskip("dwave.cloud.solver")
    mocks = pytest.importorskip("dwave.cloud.testing.mocks")
    timing = mocks.qpu_problem_timing_data()
    data = mocks.structured_solver_data("mock", qubits=[0, 1], couplers=[[0, 1]])
    data["properties"]["problem_timing_data"] = timing
    processor = solver.StructuredSolver(client=None, data=data)
    programming = timing["typical_programming_time"] + timing["default_programming_thermalization"]
    target = PEGASUS.model_copy(
        update={
            "anneal_time": timing["default_annealing_time"] * 1e-6,
            "readout_time": 10 ** timing["readout_time_model_parameters"][-1] * 1e-6,
            "delay_time": timing["qpu_delay_time_per_sample"] * 1e-6,
            "programming_time": programming * 1e-6,
        }
    )
    for anneals in (1, 100, 1000):
        expected = processor.estimate_qpu_access_time(5627, anneals) * 1e-6
        assert access_seconds(target, anneals) == pytest.approx(expected, rel=1e-9)


# -- precision --------------------------------------------------------------------------------


def programmed(problem, target):
    form = penalised(problem, penalty_for(problem, "exchange"))
    processor = processor_of(target, True)
    chains, _ = processor.embed_clique(problem.n)
    return form, chains, programming.program(form, chains, processor.graph, target)


@pytest.mark.parametrize("seed", range(5))
def test_unbroken_chains_have_the_penalised_energy_and_coefficients_fill_the_ranges(seed):
    problem = dense(7, seed, k=2)
    form, chains, found = programmed(problem, SMALL)
    for x in itertools.product([0, 1], repeat=7):
        spins = {q: 2 * x[i] - 1 for i, chain in chains.items() for q in chain}
        assert found.embedded.energy(spins) == pytest.approx(form.energy(x))
    h = found.scale * np.array(list(found.embedded.linear.values()))
    J = found.scale * np.array(list(found.embedded.quadratic.values()))
    room = [
        SMALL.h_range[1] - h.max(),
        h.min() - SMALL.h_range[0],
        SMALL.j_range[1] - J.max(),
        J.min() - SMALL.j_range[0],
    ]
    assert min(room) == pytest.approx(0, abs=1e-9)


def test_dynamic_range_and_resolved_share_by_hand():
    Q = np.array([[0, 8, 2], [8, 0, 0.01], [2, 0.01, 0]])  # 0.01 is below 1 % of 8
    problem = CardinalityQUBO(Q, k=1)
    form = penalised(problem, penalty_for(problem, 10.0))  # couplings 18, 12, 10.01
    assert programming.dynamic_range(problem, form) == pytest.approx(18 / 2)
    target = SMALL.model_copy(update={"bits": 3, "j_range": (-2.0, 1.0)})
    assert programming.resolution(target) == 0.25
    # J = Q/2 = 4, 1 and 0.005, of which those of at least 0.125 after scaling count.
    for scale, share in ((0.03, 0), (0.1, 1 / 3), (0.2, 2 / 3), (30, 1)):
        assert programming.resolved_share(problem, scale, target) == pytest.approx(share)
    row = embedding(problem, target, penalty=10.0)
    assert row.bits_needed == pytest.approx(math.log2(9) + 1)
    assert (row.penalty, row.penalty_strength, row.bits) == ("fixed", 10.0, 3)


@pytest.mark.parametrize("seed", range(4))
def test_samples_of_a_precise_target_include_the_optimum(seed):
    problem = dense(6, seed)
    target = SMALL.model_copy(update={"bits": 40})
    form, chains, found = programmed(problem, target)
    broken, states = programming.mock_samples(found, chains, target, reads=50, seed=seed)
    lowest = min(form.energy(x) for x in itertools.product([0, 1], repeat=6))
    assert form.energy(states).min() == pytest.approx(lowest)
    assert broken < 0.05


def test_coarse_targets_lose_couplings():
    problem = dense(12, 1)
    fine, coarse = (embedding(problem, SMALL.model_copy(update={"bits": b})) for b in (16, 2))
    assert fine.resolved_share > 0.99
    assert coarse.resolved_share < fine.resolved_share
    assert fine.scale == coarse.scale


@given(exponent=st.integers(-20, 20), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_units_of_the_energy_change_nothing_else(exponent, seed):
    problem = dense(6, seed)
    scaled = CardinalityQUBO(problem.Q * 2.0**exponent, k=problem.k)
    a, b = (embedding(p, SMALL, mock_max_n=0) for p in (problem, scaled))
    factor = 2.0**exponent
    for name in ("penalty_strength", "chain_strength"):
        assert getattr(b, name) == pytest.approx(getattr(a, name) * factor, rel=1e-9)
    assert b.scale == pytest.approx(a.scale / factor, rel=1e-9)
    for name in ("dynamic_range", "bits_needed", "resolved_share", "physical_qubits"):
        assert getattr(b, name) == pytest.approx(getattr(a, name), rel=1e-9)


# -- bad input --------------------------------------------------------------------------------


def test_a_problem_beyond_the_target_says_so_without_a_graph(monkeypatch):
    monkeypatch.setattr(annealer, "processor_of", None)
    A = np.random.default_rng(0).normal(size=(4, 4096))
    problem = CardinalityQUBO.from_factors(A, np.zeros(4096), k=100)
    clique, faulty, general = embeddings(problem, PEGASUS)
    assert not any(row.found for row in (clique, faulty, general))
    assert clique.largest_clique == 180
    assert "n is 4096" in clique.reason
    assert "180 variables" in faulty.reason
    assert "general_max_n" in general.reason
    assert clique.skipped == ""


def test_faults_make_the_largest_clique_smaller():
    faulty = processor_of(SMALL, True).cliques.largest
    n = clique_limit(SMALL)
    assert faulty < n
    assert embedding(dense(n), SMALL, faulty=False).found
    row = embedding(dense(n), SMALL)
    assert not row.found
    assert f"{faulty} variables" in row.reason
    assert row.qubits
    assert embedding(dense(faulty), SMALL).found
    assert annealer.largest_embedded(SMALL) == faulty


def test_a_timeout_is_named():
    row = embedding(dense(20), SMALL_ZEPHYR, method="minorminer", timeout=1e-3)
    assert not row.found
    assert "0.001 s" in row.reason
    assert row.couplings == 190
    assert row.penalty_strength is None


@pytest.mark.parametrize("k", [0, 6])
def test_decided_problems_are_skipped(k):
    for row in embeddings(dense(6, k=k), SMALL):
        assert "decided by its cardinality" in row.skipped
        assert not row.found
        assert row.qubits is None


@pytest.mark.parametrize("diagonal", [0.0, 1.0])
def test_problems_without_couplings(diagonal):
    problem = CardinalityQUBO(diagonal * np.diag(np.arange(6.0)), k=3)
    row = embedding(problem, SMALL)
    assert row.found
    assert row.couplings == 15  # of the penalty
    assert row.dynamic_range is None
    assert row.bits_needed is None
    assert row.resolved_share is None
    json.dumps(dataclasses.asdict(row), allow_nan=False)


def test_nothing_is_scaled_where_all_coefficients_are_zero():
    row = embedding(CardinalityQUBO(np.zeros((2, 2)), k=1), SMALL)
    assert row.found
    assert row.scale is None
    assert row.chain_break_share is None


def test_groups_of_which_some_are_decided():
    groups = np.repeat(np.arange(3), 3)
    Q = np.random.default_rng(0).normal(size=(9, 9))
    row = embedding(CardinalityQUBO(Q + Q.T, k=[0, 3, 1], groups=groups), SMALL)
    assert row.found
    assert row.n == 9


def test_a_group_may_be_empty():
    Q = np.eye(4) + 1
    problem = CardinalityQUBO(Q, k=[2, 0], groups=np.zeros(4, dtype=int))
    assert embedding(problem, SMALL).found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "guess"}, "method is 'guess'"),
        ({"anneals": 0}, "anneals is 0"),
        ({"mock_reads": 0}, "mock_reads is 0"),
        ({"timeout": 0.0}, "timeout is 0"),
        ({"timeout": float("nan")}, "timeout is nan"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        embedding(dense(4), SMALL, **options)


def test_bad_penalties_are_refused():
    with pytest.raises(InvalidProblemError, match="unknown penalty policy"):
        embedding(dense(4), SMALL, penalty="guess")


@pytest.mark.parametrize("share", [-0.1, 0.5, 1.5, float("nan")])
@pytest.mark.parametrize("name", ["faulty_qubits", "faulty_couplers"])
def test_shares_out_of_range_are_refused(name, share, tmp_path):
    import yaml

    content = SMALL.model_dump(mode="json") | {name: share}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(TargetError, match=name):
        load_target(tmp_path / "mine.yaml")


def test_wide_zephyr_graphs_are_skipped():
    row = embedding(dense(4), ZEPHYR.model_copy(update={"m": 2, "t": 6}))
    assert "t is 6" in row.skipped


@pytest.mark.parametrize("package", ["dwave.graphs", "minorminer", "dwave.embedding"])
def test_a_missing_package_is_named(package, monkeypatch):
    processor_of.cache_clear()
    if package == "minorminer":
        monkeypatch.setitem(sys.modules, "minorminer.busclique", None)
    monkeypatch.setitem(sys.modules, package, None)
    row = embedding(dense(4), SMALL)
    assert "pip install 'icbs-pruning[dwave]'" in row.skipped
    assert not row.found
    expected = Embedding("pegasus", "pegasus P4, faulty", "clique", 4, bits=5, skipped=row.skipped)
    assert row == expected
